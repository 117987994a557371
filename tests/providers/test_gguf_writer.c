/* Writing GGUF: quantised bytes as the Python package's, files that the reader gives back, and what is
 * refused. */
#include "providers/weights/gguf_writer.h"
#include "tests/providers/scratch.h"

#include "common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

static void must(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK)
        fail_msg("%s", error->message);
}

/* Python's values narrow to Python's bytes; and q8_0 of (37 i mod 101 - 50) / 7, the second block a 16th of
 * it, is what gguf.quants.quantize of the Python package 0.19 makes. */
static void quantises_as_python(void **state) {
    static const enum mf_gguf_type types[] = {MF_GGUF_F32, MF_GGUF_F16, MF_GGUF_BF16};
    struct mf_gguf *file;
    struct mf_error error;
    (void)state;
    must(mf_gguf_open("tests/golden/weights_types.gguf", &file, &error), &error);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const struct mf_gguf_tensor *tensor = mf_gguf_find(file, mf_gguf_type_name(types[i]));
        const size_t count = (size_t)tensor->elements;
        float *value = malloc(count * sizeof *value);
        uint8_t *block = malloc(tensor->bytes);
        assert_true(mf_gguf_read(tensor, 0, tensor->elements, value));
        assert_int_equal(mf_gguf_bytes(types[i], count), tensor->bytes);
        assert_true(mf_gguf_quantize(types[i], value, count, block));
        assert_memory_equal(block, tensor->data, tensor->bytes);
        free(block);
        free(value);
    }
    static const uint8_t golden[68] = {
        0x33, 0x2B, 0x81, 0xDF, 0x3D, 0x9A, 0xF8, 0x56, 0xB4, 0x12, 0x70, 0xCD, 0x2B, 0x89, 0xE7, 0x45, 0xA2,
        0x00, 0x5E, 0xBB, 0x19, 0x77, 0xD5, 0x33, 0x90, 0xEE, 0x4C, 0xAA, 0x08, 0x66, 0xC3, 0x21, 0x7F, 0xDC,
        0x0E, 0x1B, 0x3C, 0x96, 0xF6, 0x56, 0xB0, 0x10, 0x6F, 0xCA, 0x29, 0x84, 0xE3, 0x43, 0x9E, 0xFD, 0x5D,
        0xB7, 0x17, 0x77, 0xD1, 0x31, 0x8B, 0xEB, 0x4B, 0xA5, 0x05, 0x65, 0xBF, 0x1F, 0x7F, 0xD9, 0x39, 0x93};
    float value[64];
    uint8_t block[68];
    for (int i = 0; i < 64; i++)
        value[i] = (float)(i * 37 % 101 - 50) / 7 * (i < 32 ? 1 : 0.0625f);
    assert_true(mf_gguf_quantize(MF_GGUF_Q8_0, value, 64, block));
    assert_memory_equal(block, golden, sizeof golden);
    assert_int_equal(mf_gguf_bytes(MF_GGUF_Q4_0, 32), 0);
    mf_gguf_close(file);
}

static void q8_0_rounds_halves_away_from_zero(void **state) {
    static const float value[32] = {127, 0.5f, -0.5f, 1.5f, 2.5f, -2.5f, 0.49f};
    static const int8_t wanted[7] = {127, 1, -1, 2, 3, -3, 0};
    static const float zero[32];
    uint8_t block[34];
    (void)state;
    assert_true(mf_gguf_quantize(MF_GGUF_Q8_0, value, 32, block));
    assert_int_equal(block[0] | block[1] << 8, 0x3C00); /* 1 in f16 */
    assert_memory_equal(block + 2, wanted, sizeof wanted);
    assert_true(mf_gguf_quantize(MF_GGUF_Q8_0, zero, 32, block));
    for (int i = 0; i < 34; i++)
        assert_int_equal(block[i], 0);
}

/* Distinct values that no type rounds. */
static float value_at(size_t i) {
    return (float)((int)(i % 255) - 127);
}

static void write_values(struct mf_gguf_writer *writer, size_t count, size_t piece) {
    float value[512];
    struct mf_error error;
    for (size_t i = 0; i < count; i += piece) {
        for (size_t j = 0; j < piece; j++)
            value[j] = value_at(i + j);
        must(mf_gguf_write(writer, value, piece, &error), &error);
    }
}

static void check_metadata(const struct mf_gguf *file) {
    struct mf_gguf_text text, texts[2];
    int64_t number, numbers[3];
    double real;
    bool truth;
    assert_true(mf_gguf_integer(file, "an.integer", &number) && number == 4000000000);
    assert_true(mf_gguf_number(file, "a.number", &real) && real == 0.25);
    assert_true(mf_gguf_boolean(file, "a.boolean", &truth) && truth);
    assert_true(mf_gguf_string(file, "a.string", &text));
    assert_int_equal(text.length, strlen("Grüße"));
    assert_memory_equal(text.data, "Grüße", text.length);
    assert_true(mf_gguf_strings(file, "strings", texts, 2));
    assert_int_equal(texts[0].length, 0);
    assert_memory_equal(texts[1].data, "two", 3);
    assert_true(mf_gguf_integers(file, "integers", numbers, 3));
    assert_true(numbers[0] == -1 && numbers[1] == 0 && numbers[2] == 7);
}

static void gives_back_what_was_written(void **state) {
    static const char *const strings[] = {"", "two"};
    static const int32_t integers[] = {-1, 0, 7};
    static const struct {
        const char *name;
        enum mf_gguf_type type;
        int32_t rank;
        int64_t dim[3];
        size_t piece;
    } tensors[] = {{"odd", MF_GGUF_F16, 1, {7}, 7},
                   {"blocks", MF_GGUF_Q8_0, 2, {3, 64}, 32},
                   {"exact", MF_GGUF_F32, 3, {2, 3, 5}, 6},
                   {"brain", MF_GGUF_BF16, 2, {2, 3}, 1}};
    struct mf_gguf_writer *writer;
    struct mf_gguf *file;
    struct mf_error error;
    (void)state;
    must(mf_gguf_create(scratch_path("x.gguf"), &writer, &error), &error);
    mf_gguf_put_integer(writer, "an.integer", 4000000000);
    mf_gguf_put_number(writer, "a.number", 0.25f);
    mf_gguf_put_boolean(writer, "a.boolean", true);
    mf_gguf_put_string(writer, "a.string", "Grüße");
    mf_gguf_put_strings(writer, "strings", strings, 2);
    mf_gguf_put_integers(writer, "integers", integers, 3);
    for (size_t i = 0; i < 4; i++)
        must(mf_gguf_declare(writer, tensors[i].name, tensors[i].type, tensors[i].rank, tensors[i].dim,
                             &error),
             &error);
    must(mf_gguf_begin(writer, &error), &error);
    static const size_t counts[] = {7, 192, 30, 6};
    for (size_t i = 0; i < 4; i++)
        write_values(writer, counts[i], tensors[i].piece);
    assert_false(mf_path_exists(scratch_path("x.gguf"))); /* not before it is complete */
    must(mf_gguf_finish(writer, &error), &error);
    must(mf_gguf_open(scratch_path("x.gguf"), &file, &error), &error);
    check_metadata(file);
    assert_int_equal(mf_gguf_count(file), 4);
    for (size_t i = 0; i < 4; i++) {
        const struct mf_gguf_tensor *tensor = mf_gguf_find(file, tensors[i].name);
        float value[192];
        assert_int_equal(tensor->type, tensors[i].type);
        assert_int_equal(tensor->rank, tensors[i].rank);
        assert_memory_equal(tensor->dim, tensors[i].dim, (size_t)tensor->rank * sizeof *tensor->dim);
        assert_int_equal(tensor->elements, counts[i]);
        assert_true(mf_gguf_read(tensor, 0, tensor->elements, value));
        for (size_t j = 0; j < counts[i] && tensors[i].type != MF_GGUF_Q8_0; j++)
            assert_true(value[j] == value_at(j));
        uint8_t block[204];
        for (size_t j = 0; j < counts[i]; j++)
            value[j] = value_at(j);
        assert_true(mf_gguf_quantize(tensors[i].type, value, counts[i], block));
        assert_memory_equal(tensor->data, block, tensor->bytes);
    }
    mf_gguf_close(file);
}

/* A writer of one tensor of 64 values that has begun. */
static struct mf_gguf_writer *begin(enum mf_gguf_type type) {
    static const int64_t dim[] = {64};
    struct mf_gguf_writer *writer;
    struct mf_error error;
    must(mf_gguf_create(scratch_path("y.gguf"), &writer, &error), &error);
    must(mf_gguf_declare(writer, "weight", type, 1, dim, &error), &error);
    must(mf_gguf_begin(writer, &error), &error);
    return writer;
}

static void expect_bad_value(enum mf_gguf_type type, float bad) {
    struct mf_gguf_writer *writer = begin(type);
    struct mf_error error;
    float value[64] = {0};
    value[63] = bad;
    assert_int_equal(mf_gguf_write(writer, value, 64, &error), MF_ERROR_BAD_WEIGHTS);
    assert_non_null(strstr(error.message, "tensor weight"));
    assert_non_null(strstr(error.message, mf_gguf_type_name(type)));
    mf_gguf_abandon(writer);
}

static void refuses_what_a_type_cannot_hold(void **state) {
    static const int64_t odd[] = {2, 33};
    struct mf_gguf_writer *writer;
    struct mf_error error;
    (void)state;
    expect_bad_value(MF_GGUF_F32, (float)(1e300 * 10));
    expect_bad_value(MF_GGUF_F16, 65520);
    expect_bad_value(MF_GGUF_BF16, 3.4e38f);
    expect_bad_value(MF_GGUF_Q8_0, -1e7f);
    expect_bad_value(MF_GGUF_Q8_0, (float)(1e300 * 10));
    must(mf_gguf_create(scratch_path("y.gguf"), &writer, &error), &error);
    assert_int_equal(mf_gguf_declare(writer, "w", MF_GGUF_Q8_0, 2, odd, &error), MF_ERROR_INTERNAL);
    assert_int_equal(mf_gguf_declare(writer, "w", MF_GGUF_Q4_K, 2, odd, &error), MF_ERROR_INTERNAL);
    mf_gguf_abandon(writer);
    assert_false(mf_path_exists(scratch_path("y.gguf")));
}

static void keeps_the_old_file_until_the_new_one_is_whole(void **state) {
    struct mf_error error;
    float value[96] = {0};
    (void)state;
    scratch_puts("y.gguf", "old");
    struct mf_gguf_writer *writer = begin(MF_GGUF_Q8_0);
    assert_int_equal(mf_gguf_write(writer, value, 96, &error), MF_ERROR_INTERNAL);
    assert_int_equal(mf_gguf_write(writer, value, 31, &error), MF_ERROR_INTERNAL);
    must(mf_gguf_write(writer, value, 32, &error), &error);
    assert_int_equal(mf_gguf_finish(writer, &error), MF_ERROR_INTERNAL); /* half of it is missing */
    char *data;
    must(mf_file_read(scratch_path("y.gguf"), 100, &data, NULL, &error), &error);
    assert_string_equal(data, "old");
    free(data);
    mf_gguf_abandon(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantises_as_python),
        cmocka_unit_test(q8_0_rounds_halves_away_from_zero),
        cmocka_unit_test_setup_teardown(gives_back_what_was_written, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(refuses_what_a_type_cannot_hold, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(keeps_the_old_file_until_the_new_one_is_whole, scratch_make,
                                        scratch_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
