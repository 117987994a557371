/* The registry client against answers that a real registry will not give on demand. */
#include "tests/common/unit.h"

#include <pthread.h>
#include <stdatomic.h>

#include "common/json.h"
#include "schemas/registry.h"
#include "tests/common/http_server.h"

static const char schema_text[] =
    "{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"x\",\"type\":\"int\"}]}";

/* A registry whose behaviour a test can change while it runs. */
struct fake {
    atomic_int down;     /* answers 503 */
    atomic_int versions; /* of the subject "jobs-value" */
    atomic_int lists;    /* how often its list was asked for */
    atomic_int nonsense; /* answers 200 with something else */
};

static void put_schema(struct http_exchange *exchange, int id, const char *text) {
    json_t *answer = json_pack("{s:i,s:s,s:s}", "id", id, "subject", "jobs-value", "schema", text);
    char *json = json_dumps(answer, JSON_COMPACT);
    snprintf(exchange->answer, sizeof exchange->answer, "%s", json);
    free(json);
    json_decref(answer);
}

/* The number behind ".../versions/", 0 when the path is another one. */
static int version_in(const char *path) {
    static const char before[] = "/base/subjects/jobs-value/versions/";
    return strncmp(path, before, sizeof before - 1) == 0 ? (int)strtol(path + sizeof before - 1, NULL, 10)
                                                         : 0;
}

static void answer(void *context, struct http_exchange *exchange) {
    struct fake *fake = context;
    const int version = version_in(exchange->path);
    if (fake->down) {
        exchange->status = 503;
    } else if (fake->nonsense) {
        snprintf(exchange->answer, sizeof exchange->answer, "%s",
                 fake->nonsense == 1 ? "<html>hello</html>" : "{\"a\":1}");
    } else if (!strcmp(exchange->path, "/base/subjects/jobs-value/versions")) {
        fake->lists++;
        char *end = exchange->answer + snprintf(exchange->answer, 2, "[");
        for (int i = 1; i <= fake->versions; i++)
            end += snprintf(end, 16, "%s%d", i > 1 ? "," : "", i);
        snprintf(end, 2, "]");
    } else if (version > 0) {
        /* version 2 is not Avro */
        put_schema(exchange, 100 + version, version == 2 ? "{\"type\":\"object\"}" : schema_text);
    } else {
        exchange->status = 404;
        snprintf(exchange->answer, sizeof exchange->answer,
                 "{\"error_code\":40401,\"message\":\"Subject not found.\"}");
    }
}

struct fixture {
    struct fake fake;
    struct http_server *server;
    struct mf_registry *registry;
    struct mf_error error;
};

static struct mf_registry *connect_to(struct fixture *fixture, const char *base,
                                      int64_t refresh_interval_ms) {
    char url[128];
    struct mf_error error;
    snprintf(url, sizeof url, "%s%s", http_server_url(fixture->server), base);
    const struct mf_registry_options options = {
        .url = url, .attempts = 1, .refresh_interval_ms = refresh_interval_ms};
    mf_registry_free(fixture->registry);
    assert_status(mf_registry_new(&options, &fixture->registry, &error), MF_OK);
    return fixture->registry;
}

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture->server = http_server_start(answer, &fixture->fake);
    *state = fixture;
    return fixture->server ? 0 : -1;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    mf_registry_free(fixture->registry);
    http_server_stop(fixture->server);
    free(fixture);
    return 0;
}

static void ids_count_only_under_their_subject(void **state) {
    struct fixture *fixture = *state;
    struct mf_registry *registry = connect_to(fixture, "/base/", -1);
    const struct mf_avro_schema *schema, *again;
    fixture->fake.versions = 1;
    assert_null(mf_registry_cached(registry, "jobs-value", 101));
    assert_int_equal(fixture->fake.lists, 0); /* and did not ask */
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 101, &schema, &fixture->error), MF_OK);
    assert_non_null(schema);
    assert_ptr_equal(mf_registry_cached(registry, "jobs-value", 101), schema);
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 101, &again, &fixture->error), MF_OK);
    assert_ptr_equal(again, schema);
    assert_int_equal(fixture->fake.lists, 1);
    assert_int_equal(mf_registry_writer_schema(registry, "other-value", 101, &schema, &fixture->error),
                     MF_ERROR_UNKNOWN_SCHEMA);
    assert_string_equal(fixture->error.message,
                        "schema id 101 is not registered under the subject other-value");
    assert_null(schema);
    assert_null(mf_registry_cached(registry, "other-value", 101));
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 999, &schema, &fixture->error),
                     MF_ERROR_UNKNOWN_SCHEMA);
}

static void new_versions_are_found_and_old_ones_stay(void **state) {
    struct fixture *fixture = *state;
    struct mf_registry *registry = connect_to(fixture, "/base", -1);
    const struct mf_avro_schema *schema, *first;
    fixture->fake.versions = 1;
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 101, &first, &fixture->error), MF_OK);
    fixture->fake.versions = 40;
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 140, &schema, &fixture->error), MF_OK);
    assert_ptr_equal(mf_registry_cached(registry, "jobs-value", 101), first);
    /* a version that is not Avro says so */
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 102, &schema, &fixture->error),
                     MF_ERROR_UNKNOWN_SCHEMA);
    assert_contains(fixture->error.message, "schema id 102: the writer's schema is not usable");
    assert_null(schema);
}

static void the_list_is_asked_for_at_most_once_in_an_interval(void **state) {
    struct fixture *fixture = *state;
    struct mf_registry *registry = connect_to(fixture, "/base", 3600000);
    const struct mf_avro_schema *schema;
    for (int i = 0; i < 10; i++)
        assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 101, &schema, &fixture->error),
                         MF_ERROR_UNKNOWN_SCHEMA);
    assert_int_equal(fixture->fake.lists, 1);
}

static void an_outage_is_never_taken_for_an_unknown_id(void **state) {
    struct fixture *fixture = *state;
    struct mf_registry *registry = connect_to(fixture, "/base", -1);
    const struct mf_avro_schema *schema;
    char *text;
    uint32_t id;
    fixture->fake.versions = 1;
    fixture->fake.down = 1;
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 101, &schema, &fixture->error),
                     MF_ERROR_REGISTRY);
    assert_contains(fixture->error.message, "schema registry: GET");
    assert_int_equal(mf_registry_schema_text(registry, 101, &text, &fixture->error), MF_ERROR_REGISTRY);
    assert_int_equal(mf_registry_register(registry, "s", schema_text, &id, &fixture->error),
                     MF_ERROR_REGISTRY);
    assert_int_equal(mf_registry_ping(registry, &fixture->error), MF_ERROR_REGISTRY);
    fixture->fake.down = 0;
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 101, &schema, &fixture->error), MF_OK);
    fixture->fake.down = 1; /* what is known stays known */
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 101, &schema, &fixture->error), MF_OK);
    assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 150, &schema, &fixture->error),
                     MF_ERROR_REGISTRY);
}

static void something_else_under_the_url_is_an_outage(void **state) {
    struct fixture *fixture = *state;
    struct mf_registry *registry = connect_to(fixture, "/base", -1);
    const struct mf_avro_schema *schema;
    char *text;
    for (int kind = 1; kind <= 2; kind++) {
        fixture->fake.nonsense = kind;
        assert_int_equal(mf_registry_writer_schema(registry, "jobs-value", 101, &schema, &fixture->error),
                         MF_ERROR_REGISTRY);
        assert_int_equal(mf_registry_schema_text(registry, 1, &text, &fixture->error), MF_ERROR_REGISTRY);
        assert_contains(fixture->error.message, "is the URL the registry's own?");
    }
    fixture->fake.nonsense = 0;
    registry = connect_to(fixture, "/wrong/base", -1);
    assert_int_equal(mf_registry_ping(registry, &fixture->error), MF_ERROR_REGISTRY);
    assert_contains(fixture->error.message, "nothing is at");
}

static void options_are_checked(void **state) {
    struct fixture *fixture = *state;
    const struct mf_registry_options options = {.url = "localhost:8081"};
    struct mf_registry *registry;
    assert_int_equal(mf_registry_new(&options, &registry, &fixture->error), MF_ERROR_CONFIGURATION);
    assert_null(registry);
    char *subject = mf_registry_subject("modelforge.requests");
    assert_string_equal(subject, "modelforge.requests-value");
    free(subject);
}

static void *ask_often(void *context) {
    const struct mf_avro_schema *schema;
    struct mf_error error;
    for (uint32_t i = 0; i < 50; i++)
        if (mf_registry_writer_schema(context, "jobs-value", 101 + i % 30 + (i % 30 == 1), &schema, &error) ||
            !mf_registry_cached(context, "jobs-value", 101))
            abort();
    return NULL;
}

static void threads_may_share_a_registry(void **state) {
    struct fixture *fixture = *state;
    struct mf_registry *registry = connect_to(fixture, "/base", -1);
    pthread_t threads[4];
    fixture->fake.versions = 40;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_often, registry), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
        TEST(ids_count_only_under_their_subject),
        TEST(new_versions_are_found_and_old_ones_stay),
        TEST(the_list_is_asked_for_at_most_once_in_an_interval),
        TEST(an_outage_is_never_taken_for_an_unknown_id),
        TEST(something_else_under_the_url_is_an_outage),
        TEST(options_are_checked),
        TEST(threads_may_share_a_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
