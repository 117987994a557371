/* Safetensors: what Python writes, what we write, and headers that lie. */
#include "providers/weights/safetensors.h"
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

/* ---- files of others ---- */

static void reads_what_python_writes(void **state) {
    struct mf_safetensors *file;
    struct mf_error error;
    (void)state;
    if (mf_safetensors_open_file("tests/golden/weights_python.safetensors", &file, &error))
        fail_msg("%s", error.message);
    assert_int_equal(mf_safetensors_count(file), 6);
    assert_string_equal(mf_safetensors_metadata(file, "note"), "naïve");
    assert_null(mf_safetensors_metadata(file, "absent"));
    assert_string_equal(mf_safetensors_at(file, 0)->name, "a.f16");
    const struct mf_stored_tensor *f32 = mf_safetensors_find(file, "b.f32");
    const struct mf_stored_tensor *f16 = mf_safetensors_find(file, "a.f16");
    const struct mf_stored_tensor *bf16 = mf_safetensors_find(file, "c.bf16");
    assert_true(f32->floating && f32->dtype == MF_F32 && f32->rank == 2 && f32->dim[0] == 5 &&
                f32->dim[1] == 7);
    assert_true(f16->dtype == MF_F16 && bf16->dtype == MF_BF16);
    for (size_t i = 0; i < 35; i++) { /* torch rounds to nearest even, as our conversions do */
        float value;
        uint16_t half, brain;
        memcpy(&value, (const char *)f32->data + 4 * i, 4);
        memcpy(&half, (const char *)f16->data + 2 * i, 2);
        memcpy(&brain, (const char *)bf16->data + 2 * i, 2);
        assert_int_equal(mf_f32_to_f16(value), half);
        assert_int_equal(mf_f32_to_bf16(value), brain);
    }
    const struct mf_stored_tensor *integers = mf_safetensors_find(file, "d.i64");
    assert_false(integers->floating);
    assert_string_equal(integers->dtype_name, "I64");
    assert_int_equal(mf_safetensors_find(file, "e.scalar")->rank, 0);
    assert_int_equal(mf_safetensors_find(file, "f.empty")->bytes, 0);
    assert_null(mf_safetensors_find(file, "b.f3"));
    mf_safetensors_close(file);
}

/* ---- hostile headers ---- */

/* A file with this header, told to be `length` bytes long, and `data` bytes of zeros. */
static void put_file(const char *name, const char *header, uint64_t length, size_t data) {
    size_t size = 8 + strlen(header) + data;
    uint8_t *bytes = calloc(1, size);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(length >> (8 * i));
    for (size_t i = 0; header[i]; i++)
        bytes[8 + i] = (uint8_t)header[i];
    scratch_put(name, bytes, size);
    free(bytes);
}

static void expect_bad(const char *name, const char *part) {
    struct mf_safetensors *file;
    struct mf_error error;
    enum mf_status status = mf_safetensors_open_file(scratch_path(name), &file, &error);
    if (status != MF_ERROR_BAD_WEIGHTS)
        fail_msg("%s: status %s", part, mf_status_code(status));
    assert_null(file);
    if (!strstr(error.message, part) || !strstr(error.message, name))
        fail_msg("'%s' is not in: %s", part, error.message);
}

#define ONE(entry) "{\"w\":{" entry "}}"
#define GOOD       "\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]"

static void refuses_headers_that_lie(void **state) {
    static const struct {
        const char *header;
        size_t data;
        const char *part;
    } corpus[] = {
        {"{\"w\":", 0, "header:"},
        {"[1]", 0, "not a JSON object"},
        {"{} x", 0, "header:"},
        {"\xff\xfe", 0, "header:"},
        {"{\"w\":1}", 0, "tensor w: its entry is not a JSON object"},
        {ONE("\"shape\":[2,3],\"data_offsets\":[0,24]"), 24, "tensor w: dtype is missing"},
        {ONE("\"dtype\":4,\"shape\":[2,3],\"data_offsets\":[0,24]"), 24, "dtype is missing or not a string"},
        {ONE("\"dtype\":\"F31\",\"shape\":[2,3],\"data_offsets\":[0,24]"), 24, "unknown dtype 'F31'"},
        {ONE("\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,24]"), 24, "dtype F16 and shape need 12"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,24]"), 24, "need 32"},
        {ONE("\"dtype\":\"F32\",\"shape\":\"2,3\",\"data_offsets\":[0,24]"), 24, "shape is not an array"},
        {ONE("\"dtype\":\"F32\",\"shape\":[-2,-3],\"data_offsets\":[0,24]"), 24, "shape[0]"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2.0,3],\"data_offsets\":[0,24]"), 24, "shape[0]"},
        {ONE("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,24]"), 24,
         "overflows"},
        {ONE("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]"), 1, "at most 8 sizes"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,3]"), 24, "data_offsets is not a pair"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0]"), 24, "data_offsets is not a pair"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24.0]"), 24,
         "data_offsets is not a pair"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[24,0]"), 24, "do not lie within"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[-24,0]"), 24, "do not lie within"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[9223372036854775783,9223372036854775807]"),
         24, "do not lie within"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,99999999999999999999]"), 24, "header:"},
        {ONE(GOOD), 23, "do not lie within the 23 bytes"},
        {ONE(GOOD), 25, "1 bytes after the last tensor"},
        {ONE("\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]"), 28,
         "4 bytes between the header and"},
        {"{\"w\":{" GOOD "},\"v\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[20,28]}}", 28,
         "tensor v overlaps w by 4 bytes"},
        {"{\"w\":{" GOOD "},\"v\":{" GOOD "}}", 24, "overlaps"},
        {"{\"w\":{" GOOD "},\"w\":{" GOOD "}}", 24, "header:"},
        {"{\"__metadata__\":{\"a\":1},\"w\":{" GOOD "}}", 24, "__metadata__"},
        {"{\"__metadata__\":[],\"w\":{" GOOD "}}", 24, "__metadata__"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof corpus / sizeof *corpus; i++) {
        put_file("lie.safetensors", corpus[i].header, strlen(corpus[i].header), corpus[i].data);
        expect_bad("lie.safetensors", corpus[i].part);
    }
}

static void refuses_lengths_that_lie(void **state) {
    static const uint64_t lengths[] = {51 + 25, 1000, 100000000, UINT32_MAX, UINT64_MAX, UINT64_MAX - 7};
    const char *header = "{\"w\":{" GOOD "}}";
    struct mf_safetensors *file;
    struct mf_error error;
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        put_file("long.safetensors", header, lengths[i] == 76 ? strlen(header) + 25 : lengths[i], 24);
        expect_bad("long.safetensors", "the header claims");
    }
    put_file("short.safetensors", header, strlen(header) - 1, 24);
    expect_bad("short.safetensors", "header:");
    put_file("none.safetensors", header, 0, 24);
    expect_bad("none.safetensors", "header:");
    scratch_put("tiny.safetensors", "1234567", 7);
    expect_bad("tiny.safetensors", "too few");
    scratch_put("empty.safetensors", "", 0);
    expect_bad("empty.safetensors", "too few");
    put_file("good.safetensors", header, strlen(header), 24);
    assert_int_equal(mf_safetensors_open_file(scratch_path("good.safetensors"), &file, &error), MF_OK);
    mf_safetensors_close(file);
    assert_int_equal(mf_safetensors_open_file(scratch_path("absent"), &file, &error),
                     MF_ERROR_MODEL_INCOMPLETE);
    assert_int_equal(mf_safetensors_open_file(scratch_folder(), &file, &error), MF_ERROR_BAD_WEIGHTS);
}

/* A good file with one byte changed is read or refused, never misread into memory that is not there. */
static void survives_every_changed_byte(void **state) {
    const char *header = "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},\"w\":{"
                         "\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]}}";
    uint8_t bytes[256] = {(uint8_t)strlen(header)};
    size_t size = 8 + strlen(header) + 28, opened = 0;
    struct mf_safetensors *file;
    struct mf_error error;
    (void)state;
    for (size_t i = 0; header[i]; i++)
        bytes[8 + i] = (uint8_t)header[i];
    for (size_t at = 0; at < 8 + strlen(header); at++) {
        uint8_t kept = bytes[at];
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] = (uint8_t)(kept ^ (1 << bit));
            scratch_put("bit.safetensors", bytes, size);
            if (mf_safetensors_open_file(scratch_path("bit.safetensors"), &file, &error))
                continue;
            opened++;
            for (size_t i = 0; i < mf_safetensors_count(file); i++) {
                const struct mf_stored_tensor *tensor = mf_safetensors_at(file, i);
                uint8_t sum = 0;
                for (size_t b = 0; b < tensor->bytes; b++)
                    sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[b]);
                assert_int_equal(sum, 0);
            }
            mf_safetensors_close(file);
        }
        bytes[at] = kept;
    }
    assert_in_range(opened, 1, 100); /* another name, BF16 for F16: few changes leave a valid file */
}

/* ---- writing ---- */

static void write_pair(const char *name, const char *first, const char *second) {
    const struct mf_safetensors_entry entries[] = {
        {.name = first, .dtype = MF_F32, .rank = 2, .dim = {2, 3}},
        {.name = second, .dtype = MF_BF16, .rank = 1, .dim = {5}},
    };
    const float values[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
    const uint16_t halves[5] = {1, 2, 3, 4, 0xff80};
    struct mf_safetensors_writer *writer;
    struct mf_error error;
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    assert_int_equal(mf_safetensors_create(scratch_path(name), entries, 2, metadata, &writer, &error), MF_OK);
    assert_false(mf_path_exists(scratch_path(name)));
    assert_int_equal(mf_safetensors_write(writer, values, 8, &error), MF_OK);
    assert_int_equal(mf_safetensors_write(writer, values + 2, 16, &error), MF_OK);
    assert_int_equal(mf_safetensors_write(writer, halves, sizeof halves, &error), MF_OK);
    assert_int_equal(mf_safetensors_write(writer, halves, 1, &error), MF_ERROR_INTERNAL);
    assert_int_equal(mf_safetensors_finish(writer, &error), MF_OK);
    json_decref(metadata);
}

static void reads_what_it_writes(void **state) {
    struct mf_safetensors *file;
    struct mf_error error;
    (void)state;
    write_pair("model.safetensors", "x", "y");
    assert_int_equal(mf_safetensors_open_folder(scratch_folder(), &file, &error), MF_OK);
    const struct mf_stored_tensor *x = mf_safetensors_find(file, "x"), *y = mf_safetensors_find(file, "y");
    assert_int_equal((uintptr_t)x->data % 64, 0);
    assert_true(((const float *)x->data)[2] == 3.5f && ((const float *)x->data)[5] == 7);
    assert_int_equal(((const uint16_t *)y->data)[4], 0xff80);
    assert_string_equal(mf_safetensors_metadata(file, "format"), "pt");
    mf_safetensors_close(file);
}

static void leaves_nothing_half_written(void **state) {
    const struct mf_safetensors_entry entry = {.name = "x", .dtype = MF_F32, .rank = 1, .dim = {2}};
    const struct mf_safetensors_entry twice[] = {entry, entry};
    const struct mf_safetensors_entry integers = {.name = "x", .dtype = MF_I32, .rank = 1, .dim = {2}};
    struct mf_safetensors_writer *writer;
    struct mf_error error;
    uint64_t size;
    (void)state;
    assert_int_equal(mf_safetensors_create(scratch_path("a"), &entry, 1, NULL, &writer, &error), MF_OK);
    assert_int_equal(mf_safetensors_finish(writer, &error), MF_ERROR_INTERNAL); /* data missing */
    assert_int_equal(mf_safetensors_create(scratch_path("a"), &entry, 1, NULL, &writer, &error), MF_OK);
    mf_safetensors_abandon(writer);
    assert_int_equal(mf_safetensors_create(scratch_path("a"), twice, 2, NULL, &writer, &error),
                     MF_ERROR_INTERNAL);
    assert_int_equal(mf_safetensors_create(scratch_path("a"), &integers, 1, NULL, &writer, &error),
                     MF_ERROR_INTERNAL);
    assert_int_equal(mf_safetensors_create(scratch_path("none/a"), &entry, 1, NULL, &writer, &error),
                     MF_ERROR_IO);
    assert_int_equal(mf_tree_size(scratch_folder(), &size, &error), MF_OK);
    assert_int_equal(size, 0);
}

/* ---- shards ---- */

static void expect_folder(enum mf_status wanted, const char *part) {
    struct mf_safetensors *file;
    struct mf_error error;
    enum mf_status status = mf_safetensors_open_folder(scratch_folder(), &file, &error);
    if (status != wanted || !strstr(error.message, part))
        fail_msg("expected %s with '%s', got %s: %s", mf_status_code(wanted), part, mf_status_code(status),
                 status ? error.message : "");
}

#define INDEX "model.safetensors.index.json"

static void reads_shards(void **state) {
    struct mf_safetensors *file;
    struct mf_error error;
    (void)state;
    expect_folder(MF_ERROR_MODEL_INCOMPLETE, "neither model.safetensors nor");
    write_pair("m-1.safetensors", "a", "c");
    write_pair("m-2.safetensors", "b", "d");
    scratch_puts(
        INDEX,
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-1.safetensors\","
        "\"d\":\"m-2.safetensors\"},\"metadata\":{\"total_size\":68}}");
    assert_int_equal(mf_safetensors_open_folder(scratch_folder(), &file, &error), MF_OK);
    assert_int_equal(mf_safetensors_count(file), 4);
    assert_string_equal(mf_safetensors_at(file, 3)->name, "d");
    assert_non_null(strstr(mf_safetensors_find(file, "c")->file, "m-1.safetensors"));
    mf_safetensors_close(file);

    scratch_puts(INDEX, "{");
    expect_folder(MF_ERROR_BAD_WEIGHTS, INDEX);
    scratch_puts(INDEX, "{\"weight_map\":[]}");
    expect_folder(MF_ERROR_BAD_WEIGHTS, "weight_map is missing");
    scratch_puts(INDEX, "{\"weight_map\":{}}");
    expect_folder(MF_ERROR_BAD_WEIGHTS, "names 0 files");
    scratch_puts(INDEX, "{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}");
    expect_folder(MF_ERROR_BAD_WEIGHTS, "weight_map: a: not the name");
    scratch_puts(INDEX, "{\"weight_map\":{\"a\":7}}");
    expect_folder(MF_ERROR_BAD_WEIGHTS, "weight_map: a: not the name");
    scratch_puts(INDEX, "{\"weight_map\":{\"a\":\"m-1.safetensors\"}}");
    expect_folder(MF_ERROR_BAD_WEIGHTS, "tensor c of");
    scratch_puts(
        INDEX,
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"c\":\"m-1.safetensors\",\"e\":\"m-1.safetensors\"}}");
    expect_folder(MF_ERROR_BAD_WEIGHTS, "tensor e is not in m-1.safetensors");
    scratch_puts(INDEX, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"c\":\"m-3.safetensors\"}}");
    expect_folder(MF_ERROR_MODEL_INCOMPLETE, "m-3.safetensors");
    scratch_puts(
        INDEX,
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\","
        "\"d\":\"m-2.safetensors\"}}");
    expect_folder(MF_ERROR_BAD_WEIGHTS, "the weight_map says m-2.safetensors");
    write_pair("m-4.safetensors", "b", "a");
    scratch_puts(
        INDEX,
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-4.safetensors\",\"c\":\"m-1.safetensors\"}}");
    expect_folder(MF_ERROR_BAD_WEIGHTS, "tensor a is in both");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_python_writes),
        cmocka_unit_test_setup_teardown(refuses_headers_that_lie, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(refuses_lengths_that_lie, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(survives_every_changed_byte, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(reads_what_it_writes, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(leaves_nothing_half_written, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(reads_shards, scratch_make, scratch_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
