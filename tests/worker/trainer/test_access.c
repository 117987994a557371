/* What a tenant's job may read. Fetching is tested against servers: tests/integration/sources.sh. */
#include "worker/trainer/access.h"

#include "tests/common/unit.h"

#include <sys/stat.h>
#include <unistd.h>

static char folder[SCRATCH_BYTES];
static struct mf_error error;

static void urls_lie_below_roots_or_not(void **state) {
    static const struct {
        const char *root, *url;
        bool covered;
    } cases[] = {
        {"https://data.example", "https://data.example/a.jsonl", true},
        {"https://data.example", "https://DATA.example/a.jsonl", true},
        {"https://data.example/a", "https://data.example/a/b?x=1", true},
        {"https://data.example/a", "https://data.example/ab", false},
        {"https://data.example/a", "https://data.example/a/../b", false},
        {"https://data.example/a", "https://data.example/a/%2E%2e/b", false},
        {"https://data.example/a", "https://data.example/a/..%2fb", false},
        {"https://data.example", "https://data.example.evil/a", false},
        {"https://data.example", "https://data.example@evil/a", false},
        {"https://data.example", "https://data.example:444/a", false},
        {"https://data.example", "http://data.example/a", false},
        {"https://data.example", "https://evil/https://data.example/", false},
        {"s3://bucket/a", "s3://bucket/a/rows.jsonl", true},
        {"s3://bucket/a/", "s3://bucket/a/rows.jsonl", true},
        {"s3://bucket", "s3://bucket/rows.jsonl", true},
        {"s3://bucket/a", "s3://bucket/ab/rows.jsonl", false},
        {"s3://bucket/a", "s3://bucket/a/../b", false},
        {"s3://bucket", "s3://bucket-2/rows.jsonl", false},
        {"hf://", "hf://org/name", true},
        {"hf://org", "hf://org/name@v1", true},
        {"hf://org/name", "hf://org/name@v1", true},
        {"hf://org", "hf://organisation/name", false},
        {"/data", "s3://bucket/x", false},
        {"/", "hf://org/name", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (mf_access_covers(cases[i].root, cases[i].url) != cases[i].covered)
            fail_msg("%s and %s", cases[i].root, cases[i].url);
}

/* "folder/name". */
static const char *at(const char *name) {
    static char path[4][2 * SCRATCH_BYTES];
    static int next;
    char *text = path[next++ % 4];
    snprintf(text, sizeof path[0], "%s/%s", folder, name);
    return text;
}

static void put(const char *name) {
    assert_status(mf_file_write_atomic(at(name), "{}\n", 3, 0644, &error), MF_OK);
}

static int set_up(void **state) {
    (void)state;
    scratch_make(folder);
    mkdir(at("mine"), 0755);
    mkdir(at("mine/model"), 0755);
    mkdir(at("mine2"), 0755);
    put("mine/rows.jsonl");
    put("mine/model/config.json");
    put("mine2/rows.jsonl");
    return symlink("../mine2/rows.jsonl", at("mine/out.jsonl")) ||
           symlink("rows.jsonl", at("mine/in.jsonl")) || symlink("mine", at("alias")) ||
           symlink("/etc", at("mine/etc"));
}

static int tear_down(void **state) {
    (void)state;
    scratch_remove(folder);
    return 0;
}

static enum mf_status open_dataset(const json_t *roots, const char *dataset) {
    const struct mf_access access = {.roots = roots};
    struct mf_opened opened;
    enum mf_status status = mf_access_dataset(&access, dataset, folder, 1000, &opened, &error);
    if (!status) {
        char *text;
        assert_status(mf_file_read(opened.path, 100, &text, NULL, &error), MF_OK);
        assert_string_equal(text, "{}\n");
        free(text);
    }
    mf_access_close(&opened);
    return status;
}

static void datasets_stay_below_the_roots(void **state) {
    (void)state;
    json_t *roots = json_pack("[s, s]", "s3://bucket", at("mine"));
    assert_status(open_dataset(roots, at("mine/rows.jsonl")), MF_OK);
    assert_status(open_dataset(roots, at("mine/in.jsonl")), MF_OK);    /* a link that stays inside */
    assert_status(open_dataset(roots, at("alias/rows.jsonl")), MF_OK); /* another name of the same place */
    assert_status(open_dataset(roots, at("mine/out.jsonl")), MF_ERROR_DATASET_FORBIDDEN);
    assert_contains(error.message, "tenants.roots");
    assert_status(open_dataset(roots, at("mine2/rows.jsonl")), MF_ERROR_DATASET_FORBIDDEN);
    assert_status(open_dataset(roots, at("mine/../mine2/rows.jsonl")), MF_ERROR_DATASET_FORBIDDEN);
    assert_status(open_dataset(roots, at("mine/etc/passwd")), MF_ERROR_DATASET_FORBIDDEN);
    assert_status(open_dataset(roots, at("mine/none.jsonl")), MF_ERROR_DATASET_NOT_FOUND);
    assert_status(open_dataset(roots, at("mine2/none.jsonl")),
                  MF_ERROR_DATASET_FORBIDDEN); /* is it there? not told */
    assert_status(open_dataset(roots, "https://data.example/x"), MF_ERROR_DATASET_FORBIDDEN);
    assert_status(open_dataset(roots, "s3://other/x"), MF_ERROR_DATASET_FORBIDDEN);
    assert_status(open_dataset(roots, "file:///etc/passwd"), MF_ERROR_DATASET_NOT_FOUND);
    assert_status(open_dataset(NULL, at("mine2/rows.jsonl")), MF_OK); /* without a worker */
    json_decref(roots);
}

static enum mf_status open_model(const json_t *roots, const char *model) {
    const struct mf_access access = {.roots = roots};
    char *allowed = NULL;
    enum mf_status status = mf_access_model(&access, model, &allowed, &error);
    assert_true((allowed != NULL) == !status);
    free(allowed);
    return status;
}

static void models_stay_below_the_roots(void **state) {
    (void)state;
    json_t *roots = json_pack("[s, s]", at("mine"), "hf://org");
    assert_status(open_model(roots, at("mine/model")), MF_OK);
    assert_status(open_model(roots, at("mine/none")), MF_OK); /* whoever opens it says that it is not there */
    assert_status(open_model(roots, "hf://org/name"), MF_OK);
    assert_status(open_model(roots, "org/name"), MF_OK);
    assert_status(open_model(roots, "hf://other/name"), MF_ERROR_MODEL_FORBIDDEN);
    assert_status(open_model(roots, at("mine2")), MF_ERROR_MODEL_FORBIDDEN);
    assert_status(open_model(roots, at("mine2/none")), MF_ERROR_MODEL_FORBIDDEN);
    assert_int_equal(symlink("../../mine2/rows.jsonl", at("mine/model/tokenizer.json")), 0);
    assert_status(open_model(roots, at("mine/model")),
                  MF_ERROR_MODEL_FORBIDDEN); /* one of its files leads out */
    assert_contains(error.message, "tokenizer.json");
    json_decref(roots);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_lie_below_roots_or_not),
        cmocka_unit_test_setup_teardown(datasets_stay_below_the_roots, set_up, tear_down),
        cmocka_unit_test_setup_teardown(models_stay_below_the_roots, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
