#include <math.h>
#include <string.h>

#include "fixture.h"
#include "kernels/random.h"

static uint32_t bits(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return word;
}

static float from_bits(uint32_t word) {
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static void test_bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    assert_int_equal(mf_f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(mf_f32_to_bf16(from_bits(0x3f808000)), 0x3f80); /* a tie goes to even */
    assert_int_equal(mf_f32_to_bf16(from_bits(0x3f818000)), 0x3f82);
    assert_int_equal(mf_f32_to_bf16(from_bits(0x3f808001)), 0x3f81);
    assert_int_equal(mf_f32_to_bf16(from_bits(0x7f7fffff)), 0x7f80); /* overflows to infinity */
    assert_int_equal(mf_f32_to_bf16(-INFINITY), 0xff80);
    assert_true(isnan(mf_bf16_to_f32(mf_f32_to_bf16(from_bits(0x7f800001))))); /* a NaN stays one */
    for (uint32_t word = 0; word < 0x10000; word++)
        if (!isnan(mf_bf16_to_f32((uint16_t)word)))
            assert_int_equal(mf_f32_to_bf16(mf_bf16_to_f32((uint16_t)word)), word);
}

static void test_f16_round_trip_and_rounding(void **state) {
    (void)state;
    for (uint32_t word = 0; word < 0x10000; word++)
        if (!isnan(mf_f16_to_f32((uint16_t)word)))
            assert_int_equal(mf_f32_to_f16(mf_f16_to_f32((uint16_t)word)), word);
    assert_int_equal(bits(mf_f16_to_f32(0x3c00)), bits(1.0f));
    assert_int_equal(bits(mf_f16_to_f32(0x0001)), bits(0x1p-24f));
    assert_int_equal(bits(mf_f16_to_f32(0x7bff)), bits(65504.0f));
    assert_int_equal(mf_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(mf_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(mf_f32_to_f16(0x1p-25f), 0x0000); /* half of the least: a tie to even */
    assert_int_equal(mf_f32_to_f16(0x1.8p-24f), 0x0002);
    assert_int_equal(mf_f32_to_f16(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(mf_f32_to_f16(1.0f + 0x1.8p-10f), 0x3c02);
    assert_true(isnan(mf_f16_to_f32(mf_f32_to_f16(NAN))));
}

static void test_sizes_follow_symbols(void **state) {
    int32_t value[MF_SYMBOLS] = {0};
    struct mf_tensor tensor = {.rank = 3, .dtype = MF_BF16};
    char text[96];
    (void)state;
    value[MF_TOKENS] = 5;
    tensor.dim[0] = mf_dim_symbol(MF_TOKENS, 2);
    tensor.dim[1] = mf_dim_const(3);
    tensor.dim[2] = mf_dim_const(4);
    mf_tensor_set_contiguous(&tensor);
    assert_int_equal(mf_tensor_elements(&tensor, value), 120);
    assert_int_equal(tensor.stride[0], 12);
    assert_int_equal(tensor.stride[1], 4);
    assert_int_equal(tensor.stride[2], 1);
    assert_true(mf_tensor_is_contiguous(&tensor));
    tensor.stride[0] = 24;
    assert_false(mf_tensor_is_contiguous(&tensor));
    assert_string_equal(mf_tensor_describe(&tensor, text, sizeof text), "(2T, 3, 4) bf16");
    assert_string_equal(mf_tensor_describe(&tensor, text, 5), "(2T,"); /* cut, not overrun */
    value[MF_TOKENS] = INT32_MAX;
    tensor.dim[1] = tensor.dim[2] = mf_dim_const(INT32_MAX);
    assert_int_equal(mf_tensor_elements(&tensor, value), -1);
}

/* Known answers of the authors' Random123 library. */
static void test_philox_known_answers(void **state) {
    static const struct {
        uint32_t counter[4];
        uint64_t key;
        uint32_t word[4];
    } known[] = {
        {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         0xffffffffffffffff,
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         0x299f31d0a4093822,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    uint32_t word[4];
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        mf_random_philox(known[i].counter, known[i].key, word);
        assert_memory_equal(word, known[i].word, sizeof word);
    }
}

/* A mask that changes would change every training run: its bits are fixed here. */
static void test_dropout_bits_are_fixed(void **state) {
    uint32_t word[4], other[4];
    (void)state;
    assert_int_equal(mf_dropout_threshold(0.5f), 0x80000000u);
    assert_int_equal(mf_dropout_threshold(0.1f), 429496736u); /* 0.1f is a little above 0.1 */
    assert_int_equal(bits(mf_dropout_scale(0.5f)), bits(2.0f));
    mf_random_words(mf_random_key(42, 1), 7, 3, 5, 0, word);
    for (int part = 0; part < 5; part++) { /* each part of the key changes the words */
        mf_random_words(mf_random_key(42 + (part == 0), 1 + (part == 1)), 7 + (part == 2), 3 + (part == 3),
                        5 + (part == 4), 0, other);
        assert_memory_not_equal(word, other, sizeof word);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_f16_round_trip_and_rounding),
        cmocka_unit_test(test_sizes_follow_symbols),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_dropout_bits_are_fixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
