/* GGUF: dequantised values bit for bit as the Python package's, metadata, and files that lie. */
#include "providers/weights/gguf.h"
#include "providers/weights/safetensors.h"
#include "tests/providers/scratch.h"

#include "common/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define TYPES "tests/golden/weights_types.gguf"

static void dequantises_as_python(void **state) {
    struct mf_gguf *file = NULL;
    struct mf_safetensors *golden = NULL;
    struct mf_error error;
    (void)state;
    if (mf_gguf_open(TYPES, &file, &error) ||
        mf_safetensors_open_file("tests/golden/weights_types.safetensors", &golden, &error))
        fail_msg("%s", error.message);
    assert_int_equal(mf_gguf_count(file), 11);
    for (size_t i = 0; i < 11; i++) {
        const struct mf_gguf_tensor *tensor = mf_gguf_at(file, i);
        const struct mf_stored_tensor *wanted = mf_safetensors_find(golden, tensor->name);
        assert_string_equal(mf_gguf_type_name(tensor->type), tensor->name);
        assert_int_equal(tensor->rank, wanted->rank);
        for (int32_t d = 0; d < tensor->rank; d++)
            assert_int_equal(tensor->dim[d], wanted->dim[d]);
        float *value = malloc((size_t)tensor->elements * sizeof *value);
        assert_true(mf_gguf_read(tensor, 0, tensor->elements, value));
        if (memcmp(value, wanted->data, wanted->bytes) != 0)
            fail_msg("%s: other values than Python's", tensor->name);
        int64_t half = tensor->elements / 2 / 256 * 256;
        assert_true(mf_gguf_read(tensor, half, tensor->elements - half, value));
        assert_memory_equal(value, (const float *)wanted->data + half,
                            (size_t)(tensor->elements - half) * sizeof *value);
        free(value);
    }
    float rest[64];
    const struct mf_gguf_tensor *tensor = mf_gguf_find(file, "Q4_0");
    assert_false(mf_gguf_read(tensor, 1, 32, rest));
    assert_false(mf_gguf_read(tensor, 0, 31, rest));
    assert_false(mf_gguf_read(tensor, tensor->elements, 32, rest));
    assert_false(mf_gguf_read(tensor, -32, 32, rest));
    assert_null(mf_gguf_find(file, "Q4"));
    mf_safetensors_close(golden);
    mf_gguf_close(file);
}

static void reads_metadata(void **state) {
    struct mf_gguf *file;
    struct mf_error error;
    struct mf_gguf_text text, texts[3];
    int64_t integer = 0, integers[3];
    double number = 0;
    bool flag = false;
    (void)state;
    assert_int_equal(mf_gguf_open(TYPES, &file, &error), MF_OK);
    static const struct {
        const char *key;
        int64_t value;
    } wanted[] = {{"key.u8", 255},         {"key.i8", -128},       {"key.u16", 65535},    {"key.i16", -32768},
                  {"key.u32", UINT32_MAX}, {"key.i32", INT32_MIN}, {"key.i64", INT64_MIN}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        assert_true(mf_gguf_integer(file, wanted[i].key, &integer));
        assert_int_equal(integer, wanted[i].value);
    }
    integer = 5;
    assert_false(mf_gguf_integer(file, "key.u64", &integer)); /* 2^63 does not fit */
    assert_false(mf_gguf_integer(file, "key.f32", &integer));
    assert_false(mf_gguf_integer(file, "key", &integer));
    assert_int_equal(integer, 5);
    assert_true(mf_gguf_number(file, "key.f32", &number) && number == 0.5);
    assert_true(mf_gguf_number(file, "key.f64", &number) && number == 1e-300);
    assert_true(mf_gguf_number(file, "key.u8", &number) && number == 255);
    assert_true(mf_gguf_boolean(file, "key.bool", &flag) && flag);
    assert_false(mf_gguf_boolean(file, "key.u8", &flag));
    assert_true(mf_gguf_string(file, "key.string", &text) && text.length == 6 &&
                !memcmp(text.data, "naïve", 6));
    assert_int_equal(mf_gguf_array_length(file, "key.strings"), 3);
    assert_int_equal(mf_gguf_array_length(file, "key.string"), -1);
    assert_false(mf_gguf_strings(file, "key.strings", texts, 2));
    assert_true(mf_gguf_strings(file, "key.strings", texts, 3));
    assert_true(texts[1].length == 0 && texts[2].length == 2 && !memcmp(texts[2].data, "bc", 2));
    assert_true(mf_gguf_integers(file, "key.integers", integers, 3) && integers[1] == -1);
    assert_false(mf_gguf_integers(file, "key.strings", integers, 3));
    mf_gguf_close(file);
}

/* ---- files that lie ---- */

/* A GGUF in the making. */
static struct {
    uint8_t bytes[4096];
    size_t size;
} draft;

static void number(uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        draft.bytes[draft.size++] = (uint8_t)(value >> (8 * i));
}

static void text(const char *value) {
    number(strlen(value), 8);
    memcpy(draft.bytes + draft.size, value, strlen(value));
    draft.size += strlen(value);
}

static void begin(uint32_t version, uint64_t tensors, uint64_t keys) {
    draft.size = 0;
    memset(draft.bytes, 0, sizeof draft.bytes);
    memcpy(draft.bytes, "GGUF", 4);
    draft.size = 4;
    number(version, 4);
    number(tensors, 8);
    number(keys, 8);
}

static void tensor(const char *name, uint32_t rank, uint64_t size, uint32_t type, uint64_t offset) {
    text(name);
    number(rank, 4);
    for (uint32_t i = 0; i < rank && i < 8; i++)
        number(size, 8);
    number(type, 4);
    number(offset, 8);
}

/* Fills up to the alignment, appends `data` zeros and expects a refusal that says `part` (NULL: none). */
static void expect(size_t data, const char *part) {
    struct mf_gguf *file;
    struct mf_error error;
    scratch_put("x.gguf", draft.bytes, (draft.size + 31) / 32 * 32 + data);
    enum mf_status status = mf_gguf_open(scratch_path("x.gguf"), &file, &error);
    if (!part) {
        assert_int_equal(status, MF_OK);
        mf_gguf_close(file);
    } else if (status != MF_ERROR_BAD_WEIGHTS || !strstr(error.message, part)) {
        fail_msg("expected '%s', got %s: %s", part, mf_status_code(status), status ? error.message : "");
    }
}

static void refuses_counts_that_lie(void **state) {
    struct mf_gguf *file;
    struct mf_error error;
    (void)state;
    assert_int_equal(mf_gguf_open(scratch_path("absent"), &file, &error), MF_ERROR_MODEL_NOT_FOUND);
    scratch_puts("x.gguf", "GGUF");
    assert_int_equal(mf_gguf_open(scratch_path("x.gguf"), &file, &error), MF_ERROR_BAD_WEIGHTS);
    begin(3, 0, 0);
    expect(0, NULL);
    draft.bytes[0] = 'g';
    expect(0, "not a GGUF file");
    begin(1, 0, 0);
    expect(0, "version 1");
    begin(0x03000000, 0, 0); /* big-endian */
    expect(0, "not supported");
    begin(3, 0, UINT64_MAX);
    expect(64, "metadata keys cannot be");
    begin(3, UINT64_MAX / 2, 0);
    expect(64, "tensors cannot be");
    begin(3, 0, 1);
    number(UINT64_MAX, 8); /* the key's length */
    expect(64, "ends inside the metadata");
}

static void key(uint32_t type) {
    begin(3, 0, 1);
    text("k");
    number(type, 4);
}

static void refuses_metadata_that_lies(void **state) {
    (void)state;
    key(13);
    expect(64, "metadata k: unknown or nested type 13");
    key(9);
    number(9, 4);
    number(1, 8);
    expect(64, "nested type 9");
    key(9);
    number(10, 4);
    number(UINT64_MAX / 8, 8);
    expect(64, "metadata k: more than");
    key(9);
    number(10, 4);
    number(1000, 8);
    expect(64, "ends inside the metadata");
    key(9);
    number(8, 4);
    number(2, 8);
    text("a");
    number(1 << 30, 8);
    expect(64, "ends inside the metadata");
    key(8);
    number(UINT64_MAX - 3, 8);
    expect(64, "ends inside the metadata");
    begin(3, 0, 2);
    for (int i = 0; i < 2; i++) {
        text("same");
        number(0, 4);
        number(1, 1);
    }
    expect(0, "metadata same is there twice");
    begin(3, 0, 1);
    text("general.alignment");
    number(4, 4);
    number(24, 4);
    expect(0, "general.alignment is 24");
}

static void refuses_tensors_that_lie(void **state) {
    (void)state;
    begin(3, 1, 0);
    tensor("t", 1, 32, MF_GGUF_Q8_0, 0);
    expect(34, NULL);
    expect(33, "34 bytes at offset 0");
    begin(3, 1, 0);
    tensor("t", 1, 32, MF_GGUF_Q8_0, 8);
    expect(64, "not aligned");
    begin(3, 1, 0);
    tensor("t", 1, 32, MF_GGUF_Q8_0, UINT64_MAX - 31);
    expect(64, "do not lie within");
    begin(3, 1, 0);
    tensor("t", 1, 31, MF_GGUF_Q8_0, 0);
    expect(64, "no multiple of 32");
    begin(3, 1, 0);
    tensor("t", 1, 32, 16, 0);
    expect(64, "ggml type 16 is not supported");
    begin(3, 1, 0);
    tensor("t", 0, 32, MF_GGUF_F32, 0);
    expect(64, "has 0 dimensions");
    begin(3, 1, 0);
    tensor("t", 5, 1, MF_GGUF_F32, 0);
    expect(64, "has 5 dimensions");
    begin(3, 1, 0);
    tensor("t", 2, 0, MF_GGUF_F32, 0);
    expect(64, "dimension 0 is 0");
    begin(3, 1, 0);
    tensor("t", 4, 1u << 31, MF_GGUF_F32, 0);
    expect(64, "dimension");
    begin(3, 1, 0);
    tensor("t", 1, (uint64_t)1 << 62, MF_GGUF_F32, 0);
    expect(64, "too large");
    begin(3, 1, 0);
    tensor("", 1, 32, MF_GGUF_Q8_0, 0);
    expect(64, "a tensor name has 0 bytes");
    begin(3, 2, 0);
    tensor("t", 1, 32, MF_GGUF_F32, 0);
    tensor("u", 1, 32, MF_GGUF_F32, 96);
    expect(224, "overlaps");
    begin(3, 2, 0);
    tensor("t", 1, 8, MF_GGUF_F32, 0);
    tensor("t", 1, 8, MF_GGUF_F32, 32);
    expect(64, "tensor t is there twice");
}

/* Every file cut short at any byte is refused or read whole, and never read beyond its end. */
static void survives_every_cut(void **state) {
    struct mf_gguf *file;
    struct mf_error error;
    char *data;
    size_t size;
    (void)state;
    assert_int_equal(mf_file_read(TYPES, 1 << 20, &data, &size, &error), MF_OK);
    for (size_t cut = 0; cut < size; cut += cut < 1600 ? 1 : 97) {
        scratch_put("cut.gguf", data, cut);
        enum mf_status status = mf_gguf_open(scratch_path("cut.gguf"), &file, &error);
        if (status != MF_ERROR_BAD_WEIGHTS)
            fail_msg("cut at %zu of %zu: %s", cut, size, mf_status_code(status));
    }
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequantises_as_python),
        cmocka_unit_test(reads_metadata),
        cmocka_unit_test_setup_teardown(refuses_counts_that_lie, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(refuses_metadata_that_lies, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(refuses_tensors_that_lie, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(survives_every_cut, scratch_make, scratch_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
