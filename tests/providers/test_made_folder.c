/* What providers read and write through the host table: weights of either format, folders for a job. */
#include "common/files.h"
#include "providers/host.h"
#include "providers/made_folder.h"
#include "providers/models/model.h"
#include "tests/providers/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define MODEL "tests/golden/models/tied-gqa"

/* Two rows of three: 0 1 2, 3 4 5. */
static int counting(void *state, uint64_t index, int64_t first, int64_t count, float *value,
                    struct mf_error *error) {
    (void)index;
    (void)error;
    for (int64_t i = 0; i < count; i++)
        value[i] = (float)(first + i);
    if (state && *(float *)state != 0)
        value[0] = *(float *)state;
    return MF_PROVIDER_OK;
}

static int silent(void *state, uint64_t index, int64_t first, int64_t count, float *value,
                  struct mf_error *error) {
    (void)state, (void)index, (void)first, (void)count, (void)error;
    value[0] = 0;
    return 5;
}

static const struct mf_folder_weight usual = {
    .size = sizeof usual, .rank = 2, .dtype = MF_NUMBER_BF16, .dim = {2, 3}, .name = "a.weight"};

static struct mf_folder_source source_of(const struct mf_folder_weight *weight) {
    return (struct mf_folder_source){.size = sizeof(struct mf_folder_source),
                                     .weight_stride = sizeof *weight,
                                     .weight = weight,
                                     .weights = 1,
                                     .read = counting};
}

static void a_folder_is_made_read_and_removed(void **state) {
    static const char text[] = "{\"a\": 1}";
    const struct mf_folder_file file = {
        .size = sizeof file, .name = "config.json", .data = text, .bytes = sizeof text - 1};
    struct mf_folder_source source = source_of(&usual);
    struct mf_provider_context context = {.scratch = scratch_folder()};
    const struct mf_host_api *host = mf_host();
    struct mf_weight row = {.size = sizeof row};
    struct mf_weights *weights;
    struct mf_error error;
    const char *path;
    char gone[512], *config;
    float value[6];
    (void)state;
    source.file = &file;
    source.files = 1;
    source.file_stride = sizeof file;
    if (host->make_folder(&context, &source, &path, &error))
        fail_msg("%s", error.message);
    snprintf(gone, sizeof gone, "%s/config.json", path);
    assert_int_equal(mf_file_read(gone, 100, &config, NULL, &error), MF_OK);
    assert_string_equal(config, text);
    host->release(config);
    assert_int_equal(host->open_weights(&context, path, &weights, &error), MF_PROVIDER_OK);
    assert_int_equal(host->weight_count(weights), 1);
    assert_int_equal(host->find_weight(weights, "a.weight"), 0);
    assert_int_equal(host->find_weight(weights, "b.weight"), -1);
    host->weight_at(weights, 0, &row);
    assert_string_equal(row.name, "a.weight");
    assert_string_equal(row.type, "BF16");
    assert_int_equal(row.rank, 2);
    assert_int_equal(row.dim[0] * 10 + row.dim[1], 23);
    assert_int_equal(host->read_weight(weights, 0, 0, 6, value, &error), MF_PROVIDER_OK);
    for (int i = 0; i < 6; i++)
        assert_true(value[i] == (float)i);
    assert_int_equal(host->read_weight(weights, 0, 4, 3, value, &error), (int)MF_ERROR_BAD_WEIGHTS);
    assert_int_equal(host->read_weight(weights, 0, -1, 1, value, &error), (int)MF_ERROR_BAD_WEIGHTS);
    assert_int_equal(host->read_weight(weights, 1, 0, 1, value, &error), (int)MF_ERROR_BAD_WEIGHTS);
    host->weight_at(weights, 1, &row); /* beyond the end: nothing */
    assert_null(row.name);
    /* An older plug-in's struct is filled as far as it reaches. */
    struct mf_weight old = {.size = offsetof(struct mf_weight, name), .name = "untouched"};
    host->weight_at(weights, 0, &old);
    assert_int_equal(old.rank, 2);
    assert_string_equal(old.name, "untouched");
    host->close_weights(weights);
    mf_made_folders_remove(&context);
    assert_false(mf_path_exists(gone));
}

static void refuses(const struct mf_folder_source *source, enum mf_status status, const char *text) {
    struct mf_provider_context context = {.scratch = scratch_folder()};
    struct mf_error error = {0};
    const char *path = NULL;
    uint64_t bytes = 0;
    const enum mf_status got = mf_made_folder_write(&context, source, &path, &error);
    if (got != status || !strstr(error.message, text))
        fail_msg("expected %s '%s', got %s '%s'", mf_status_code(status), text, mf_status_code(got),
                 error.message);
    assert_null(path);
    assert_null(context.made);
    assert_int_equal(mf_tree_size(scratch_folder(), &bytes, &error), MF_OK);
    assert_int_equal(bytes, 0); /* nothing is left of it */
}

static void sources_that_cannot_be_are_refused(void **state) {
    static const char *const names[] = {"../x", "", ".", "..", "a/b"};
    struct mf_folder_source source = source_of(&usual);
    struct mf_folder_weight weight = usual;
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct mf_folder_file file = {.size = sizeof file, .name = names[i], .data = "x", .bytes = 1};
        source.file = &file;
        source.files = 1;
        source.file_stride = sizeof file;
        refuses(&source, MF_ERROR_PROVIDER_UNAVAILABLE, "is not the name of a file with data");
    }
    source = source_of(&usual);
    source.read = NULL;
    refuses(&source, MF_ERROR_PROVIDER_UNAVAILABLE, "has no read()");
    source = source_of(&usual);
    source.weight_stride = 8;
    refuses(&source, MF_ERROR_PROVIDER_UNAVAILABLE, "lists that cannot be");
    weight.rank = 9;
    source = source_of(&weight);
    refuses(&source, MF_ERROR_PROVIDER_UNAVAILABLE, "'a.weight' has no name, shape or dtype that there is");
    weight = usual;
    weight.dim[1] = -3;
    refuses(&source, MF_ERROR_PROVIDER_UNAVAILABLE, "'a.weight' has no name, shape or dtype that there is");
    weight = usual;
    weight.dtype = 99;
    refuses(&source, MF_ERROR_PROVIDER_UNAVAILABLE, "'a.weight' has no name, shape or dtype that there is");
    source = source_of(&usual);
    source.read = silent;
    refuses(&source, MF_ERROR_PROVIDER_UNAVAILABLE, "read() failed for a.weight and did not say why");
    float huge = INFINITY;
    source = source_of(&usual);
    source.state = &huge;
    refuses(&source, MF_ERROR_BAD_WEIGHTS, "a.weight: a value is not finite in bf16");
}

static bool at_once(void *argument) {
    (void)argument;
    return true;
}

static enum mf_status nothing(void *argument, const char *path, struct mf_error *error) {
    (void)argument;
    return mf_error_set(error, MF_ERROR_MODEL_FORBIDDEN, "%s is not for you", path);
}

/* A provider reads and copies only what the job may; what it made itself it may. */
static void the_job_s_limits_are_a_provider_s(void **state) {
    const struct mf_model_reference reference = {.size = sizeof reference, .model_id = MODEL};
    const struct mf_load_options options = {.size = sizeof options, .reference = &reference};
    struct mf_provider_context context = {.scratch = scratch_folder(), .allow = nothing};
    struct mf_folder_source source = source_of(&usual);
    const struct mf_host_api *host = mf_host();
    struct mf_weights *weights = NULL;
    struct mf_tokenizer *tokenizer = NULL;
    struct mf_model *model = NULL;
    struct mf_error error;
    const char *path = NULL;
    (void)state;
    assert_int_equal(host->open_weights(&context, MODEL, &weights, &error), (int)MF_ERROR_MODEL_FORBIDDEN);
    assert_int_equal(host->open_model(&context, &options, &model, &error), (int)MF_ERROR_MODEL_FORBIDDEN);
    assert_int_equal(host->open_tokenizer(&context, &reference, &tokenizer, &error),
                     (int)MF_ERROR_MODEL_FORBIDDEN);
    assert_int_equal(host->make_folder_of_gguf(&context, "/etc/passwd", MF_NUMBER_F32, &path, &error),
                     (int)MF_ERROR_MODEL_FORBIDDEN);
    assert_int_equal(host->make_folder(&context, &source, &path, &error), MF_PROVIDER_OK);
    assert_int_equal(host->open_weights(&context, path, &weights, &error), MF_PROVIDER_OK);
    host->close_weights(weights);
    source.copy_from = MODEL;
    assert_int_equal(host->make_folder(&context, &source, &path, &error), (int)MF_ERROR_MODEL_FORBIDDEN);
    source.copy_from = NULL;
    context.cancelled = at_once;
    assert_int_equal(host->make_folder(&context, &source, &path, &error), (int)MF_ERROR_CANCELLED);
    mf_made_folders_remove(&context);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_make, scratch_remove)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_folder_is_made_read_and_removed),
        TEST(sources_that_cannot_be_are_refused),
        TEST(the_job_s_limits_are_a_provider_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
