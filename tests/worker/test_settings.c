/* The worker's options: which tenants a topic may name, what is refused by name. */
#include "worker/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct mf_settings settings;
static struct mf_error error;

static enum mf_status load(const char *name, const char *value) {
    const struct mf_config_override overrides[] = {{"database.url", "postgresql:///x"},
                                                   {"registry.url", "http://127.0.0.1:1"},
                                                   {"kafka.bootstrap.servers", "127.0.0.1:1"},
                                                   {"work.dir", "/tmp"},
                                                   {name, value}};
    return mf_settings_load(NULL, overrides, name ? 5 : 4, &settings, &error);
}

static int set_up(void **state) {
    (void)state;
    static const char *const names[] = {"MODELFORGE_CONFIG",          "MODELFORGE_DATABASE_URL",
                                        "MODELFORGE_WORK_DIR",        "MODELFORGE_REGISTRY_URL",
                                        "MODELFORGE_TOPICS_REQUESTS", "MODELFORGE_TENANTS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    mf_settings_free(&settings);
    return 0;
}

static void a_topic_may_name_the_default_tenant_only(void **state) {
    (void)state;
    assert_int_equal(load(NULL, NULL), MF_OK);
    assert_int_equal(settings.topic_count, 2);
    assert_string_equal(settings.topic[0].topic, "modelforge.requests");
    assert_false(settings.topic[0].commands);
    assert_true(settings.topic[1].commands);
    assert_true(mf_topic_rule_allows(&settings.topic[0], "default"));
    assert_false(mf_topic_rule_allows(&settings.topic[0], "other"));
    assert_false(mf_topic_rule_allows(&settings.topic[0], "defaul"));
    assert_false(mf_topic_rule_allows(&settings.topic[0], "efault"));
    assert_false(mf_topic_rule_allows(&settings.topic[0], ""));
    assert_string_equal(settings.storage_url, "file:///tmp/storage");
}

static void assert_roots(const char *tenant, const char *wanted) {
    json_t *roots = mf_settings_roots(&settings, tenant);
    char *text = json_dumps(roots, JSON_COMPACT);
    assert_string_equal(text, wanted);
    free(text);
    json_decref(roots);
}

static void tenants_have_roots(void **state) {
    (void)state;
    assert_int_equal(load(NULL, NULL), MF_OK);
    assert_roots("default", "[\"/\",\"hf://\",\"/tmp/storage/default\"]");
    mf_settings_free(&settings);
    assert_int_equal(load("tenants.roots", "a=/data/a/, s3://b-1/a; b = https://h.example/b ;*=hf://org"),
                     MF_OK);
    assert_roots("a", "[\"/data/a\",\"s3://b-1/a\",\"hf://org\",\"/tmp/storage/a\"]");
    assert_roots("b", "[\"https://h.example/b\",\"hf://org\",\"/tmp/storage/b\"]");
    assert_roots("c", "[\"hf://org\",\"/tmp/storage/c\"]");
    static const char *const wrong[] = {"a=data", "a=/x/../y",    "=/x",        "/x",
                                        "a b=/x", "*=http://h/x", "a=https://", "a=/x,,"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mf_settings_free(&settings);
        if (load("tenants.roots", wrong[i]) != MF_ERROR_CONFIGURATION)
            fail_msg("'%s' was taken", wrong[i]);
    }
}

static void tenants_are_mapped_by_topic(void **state) {
    (void)state;
    assert_int_equal(load("tenants", "modelforge.requests = a, a-b ; modelforge.commands=*"), MF_OK);
    assert_true(mf_topic_rule_allows(&settings.topic[0], "a"));
    assert_true(mf_topic_rule_allows(&settings.topic[0], "a-b"));
    assert_false(mf_topic_rule_allows(&settings.topic[0], "b"));
    assert_false(mf_topic_rule_allows(&settings.topic[0], "default"));
    assert_false(mf_topic_rule_allows(&settings.topic[0], "a,a-b"));
    assert_true(mf_topic_rule_allows(&settings.topic[1], "anyone"));
}

static void refuse(const char *name, const char *value, const char *message) {
    assert_int_equal(load(name, value), MF_ERROR_CONFIGURATION);
    assert_string_equal(error.message, message);
    mf_settings_free(&settings);
}

static void mistakes_are_named(void **state) {
    (void)state;
    refuse("tenants", "nowhere=a", "tenants: topic 'nowhere' is not consumed");
    refuse("tenants", "modelforge.requests=a b",
           "tenants: the tenants of topic 'modelforge.requests' are neither * nor names like a,b");
    refuse("tenants", "modelforge.requests",
           "tenants: the tenants of topic 'modelforge.requests' are neither * nor names like a,b");
    refuse("topics.requests", "a,,b", "topics.requests: a topic has no name");
    /* "^" would subscribe to a pattern */
    refuse("topics.requests", "^model.*",
           "topics.requests: '^model.*' is no topic's name: [A-Za-z0-9._-]{1,249}");
    refuse("topics.commands", "..", "topics.commands: '..' is no topic's name: [A-Za-z0-9._-]{1,249}");
    refuse("topics.requests", "a,modelforge.commands",
           "topics.commands: topic 'modelforge.commands' is given twice");
    refuse("worker.id", "a b", "worker.id: 'a b' is not of the form [A-Za-z0-9._-]{1,64}");
}

static void several_topics_are_consumed(void **state) {
    (void)state;
    assert_int_equal(load("topics.requests", "one, two"), MF_OK);
    assert_int_equal(settings.topic_count, 3);
    assert_string_equal(settings.topic[1].topic, "two");
    assert_true(mf_topic_rule_allows(&settings.topic[1], "default"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_topic_may_name_the_default_tenant_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tenants_are_mapped_by_topic, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tenants_have_roots, set_up, tear_down),
        cmocka_unit_test_setup_teardown(mistakes_are_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(several_topics_are_consumed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
