/* Names of models on a hub. What the hub answers is tested against a server: tests/integration/hub.sh. */
#include "providers/hub.h"

#include "tests/common/unit.h"

static struct mf_error error;

static void assert_parsed(const char *name, const char *revision, const char *id, const char *wanted) {
    struct mf_hub_reference reference;
    assert_status(mf_hub_parse(name, revision, &reference, &error), MF_OK);
    assert_string_equal(reference.id, id);
    assert_string_equal(reference.revision, wanted);
}

static void names_are_read(void **state) {
    (void)state;
    assert_parsed("hf://org/name", NULL, "org/name", "main");
    assert_parsed("hf://gpt2", NULL, "gpt2", "main");
    assert_parsed("org/name", "v1", "org/name", "v1");
    assert_parsed("hf://org/na.me_x-1@refs/pr/7", NULL, "org/na.me_x-1", "refs/pr/7");
    assert_parsed("hf://org/name@v1", "v1", "org/name", "v1");
}

static void files_are_read(void **state) {
    static const char *const wrong[] = {"hf://a/b/c.bin",     "hf://a/b/.gguf",    "hf://a/b//c.gguf",
                                        "hf://a/b/../c.gguf", "hf://a/b/c.gguf@",  "hf://a/b/-c.gguf",
                                        "hf://a/b/c d.gguf",  "hf://a/../b/c.gguf"};
    struct mf_hub_reference reference;
    (void)state;
    assert_status(mf_hub_parse("hf://org/name/Q4/model-Q4_1.gguf@v1", NULL, &reference, &error), MF_OK);
    assert_string_equal(reference.id, "org/name");
    assert_string_equal(reference.file, "Q4/model-Q4_1.gguf");
    assert_string_equal(reference.revision, "v1");
    assert_status(mf_hub_parse("hf://org/name.gguf", NULL, &reference, &error), MF_OK);
    assert_string_equal(reference.id, "org/name.gguf");
    assert_string_equal(reference.file, "");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_status(mf_hub_parse(wrong[i], NULL, &reference, &error), MF_ERROR_INVALID_FIELD);
}

static void other_names_are_refused(void **state) {
    static const char *const names[] = {
        "hf://",          "hf://a/b/c",   "hf://../x",     "hf://a/../b",
        "hf://.hidden/x", "hf://a--b/c",  "hf://a/b@",     "hf://a/b@../../etc",
        "hf://a/b@-x",    "hf://a/b@x y", "hf://a/b@/etc", "hf://a/b%2fc",
        "hf://a/b@x//y",  "hf:///x",      "hf://a/",       "hf://a/b@x@y?"};
    struct mf_hub_reference reference;
    char longer[1000] = "hf://a/";
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!mf_hub_parse(names[i], NULL, &reference, &error))
            fail_msg("%s was taken as %s at %s", names[i], reference.id, reference.revision);
    memset(longer + strlen(longer), 'x', 900);
    assert_status(mf_hub_parse(longer, NULL, &reference, &error), MF_ERROR_INVALID_FIELD);
    assert_status(mf_hub_parse("hf://a/b@v1", "v2", &reference, &error), MF_ERROR_CONFLICTING_FIELDS);
    assert_string_equal(error.message,
                        "revision: 'v2' is not the revision in model_name 'hf://a/b@v1'; give it once");
}

static void folders_are_no_ids(void **state) {
    (void)state;
    assert_true(mf_hub_is_id("hf://org/name"));
    assert_true(mf_hub_is_id("org/name"));
    assert_true(mf_hub_is_id("org/name@v1"));
    assert_false(mf_hub_is_id("tests/golden")); /* there is such a folder */
    assert_false(mf_hub_is_id("/models/llama"));
    assert_false(mf_hub_is_id("./org/name"));
    assert_false(mf_hub_is_id("../org"));
    assert_false(mf_hub_is_id("model"));
    assert_false(mf_hub_is_id("a/b/c"));
    assert_false(mf_hub_is_id("s3://bucket/x"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(other_names_are_refused),
        cmocka_unit_test(folders_are_no_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
