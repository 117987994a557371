/* config.json: both spellings, what is refused and by which name, rotary frequencies. */
#include "providers/models/architecture.h"
#include "tests/providers/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

/* The least that a configuration needs; `more` is added or replaces. */
static json_t *config_with(const char *more) {
    json_t *config = json_loads("{\"model_type\":\"llama\",\"vocab_size\":100,\"hidden_size\":64,"
                                "\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":4}",
                                0, NULL);
    json_t *changes = json_loads(more, 0, NULL);
    if (!changes)
        fail_msg("the test's own JSON: %s", more);
    json_object_update(config, changes);
    json_decref(changes);
    return config;
}

static void read_config(const char *more, struct mf_architecture *out) {
    struct mf_error error;
    json_t *config = config_with(more);
    if (mf_architecture_from_json(config, "config.json", out, &error))
        fail_msg("%s: %s", more, error.message);
    json_decref(config);
}

static void defaults_are_those_of_llama(void **state) {
    struct mf_architecture a;
    (void)state;
    read_config("{}", &a);
    assert_string_equal(a.model_type, "llama");
    assert_int_equal(a.key_value_heads, 4);
    assert_int_equal(a.head_dim, 16);
    assert_int_equal(a.max_positions, 2048);
    assert_true(a.norm_epsilon == 1e-6f && a.rope.theta == 10000 && a.initializer_range == 0.02);
    assert_false(a.tied_embeddings || a.attention_bias || a.mlp_bias);
    assert_int_equal(a.rope.kind, MF_ROPE_DEFAULT);
    assert_int_equal(a.bos, -1);
    assert_int_equal(a.eos_count, 0);
}

static void both_spellings_mean_the_same(void **state) {
    static const char *const same[][2] = {
        {"{\"rope_theta\":500000,\"rope_scaling\":null,\"torch_dtype\":\"bfloat16\"}",
         "{\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"default\"},\"dtype\":\"bfloat16\"}"},
        {"{\"rope_theta\":10000.0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}}",
         "{\"rope_parameters\":{\"rope_theta\":10000,\"rope_type\":\"linear\",\"factor\":2}}"},
        {"{\"rope_theta\":500000.0,\"rope_scaling\":{\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_"
         "factor\":4.0,"
         "\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"}}",
         "{\"rope_parameters\":{\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
         "\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\",\"rope_theta\":500000.0}}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct mf_architecture old, new;
        read_config(same[i][0], &old);
        read_config(same[i][1], &new);
        assert_memory_equal(&old, &new, sizeof old);
        assert_int_equal(old.rope.kind, i);
    }
}

static void fields_are_read(void **state) {
    struct mf_architecture a;
    (void)state;
    read_config(
        "{\"num_key_value_heads\":2,\"head_dim\":32,\"max_position_embeddings\":77,\"rms_norm_eps\":1e-5,"
        "\"tie_word_embeddings\":true,\"attention_bias\":true,\"mlp_bias\":true,\"bos_token_id\":0,"
        "\"eos_token_id\":[7,99,7],\"initializer_range\":0.04,\"hidden_act\":\"silu\","
        "\"architectures\":[\"LlamaForCausalLM\"],\"pretraining_tp\":1,\"use_cache\":false,"
        "\"attention_dropout\":0.0,\"is_llama_config\":true,\"rope_interleaved\":false,\"future_field\":"
        "null}",
        &a);
    assert_true(a.key_value_heads == 2 && a.head_dim == 32 && a.max_positions == 77);
    assert_true(a.norm_epsilon == 1e-5f && a.initializer_range == 0.04);
    assert_true(a.tied_embeddings && a.attention_bias && a.mlp_bias);
    assert_true(a.bos == 0 && a.eos_count == 2 && a.eos[0] == 7 && a.eos[1] == 99);
}

static void refuses_by_name(void **state) {
    static const struct {
        const char *more, *part;
    } cases[] = {
        {"{\"model_type\":\"xyz\"}", "model_type: 'xyz' is not supported (supported: llama)"},
        {"{\"model_type\":null}", "model_type"},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"]}", "architectures: expected"},
        {"{\"vocab_size\":0}", "vocab_size"},
        {"{\"vocab_size\":null}", "vocab_size"},
        {"{\"hidden_size\":\"64\"}", "hidden_size"},
        {"{\"hidden_size\":-64}", "hidden_size"},
        {"{\"hidden_size\":66}", "hidden_size (66) is no multiple of num_attention_heads (4)"},
        {"{\"num_key_value_heads\":3}", "num_attention_heads (4) is no multiple of num_key_value_heads (3)"},
        {"{\"head_dim\":15}", "head_dim (15) is odd"},
        {"{\"num_hidden_layers\":100000}", "num_hidden_layers"},
        {"{\"hidden_act\":\"gelu\"}", "hidden_act: 'gelu' is not supported"},
        {"{\"attention_dropout\":0.1}", "attention_dropout: 0.1 is not supported"},
        {"{\"sliding_window\":4096}", "sliding_window: 4096 is a field that this version does not know"},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\"}}",
         "quantization_config: quantised checkpoints"},
        {"{\"partial_rotary_factor\":0.5}", "partial_rotary_factor"},
        {"{\"pruned_heads\":{\"1\":[0]}}", "pruned_heads"},
        {"{\"dtype\":\"float32\",\"torch_dtype\":\"bfloat16\"}",
         "dtype 'float32' and torch_dtype 'bfloat16'"},
        {"{\"eos_token_id\":100}", "eos_token_id: 100"},
        {"{\"eos_token_id\":[1,\"2\"]}", "eos_token_id: \"2\""},
        {"{\"bos_token_id\":100}", "bos_token_id"},
        {"{\"rms_norm_eps\":0}", "rms_norm_eps"},
        {"{\"rope_theta\":0.5}", "rope_theta"},
        {"{\"rope_theta\":10000,\"rope_parameters\":{\"rope_theta\":20000}}",
         "rope_theta (10000) contradicts"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}}", "yarn"},
        {"{\"rope_scaling\":{\"rope_type\":\"dynamic\"}}", "rope_type: 'dynamic' is not supported"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"type\":\"linear\",\"factor\":2}}",
         "contradict each other"},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\"}}", "factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"low_freq_factor\":1}}",
         "low_freq_factor"},
        {"{\"rope_scaling\":{\"factor\":2}}", "factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_"
         "factor\":4,"
         "\"original_max_position_embeddings\":8192}}",
         "high_freq_factor is not above low_freq_factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2},"
         "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4}}",
         "rope_parameters and rope_scaling contradict"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mf_architecture a;
        struct mf_error error;
        json_t *config = config_with(cases[i].more);
        enum mf_status status = mf_architecture_from_json(config, "config.json", &a, &error);
        if (status != MF_ERROR_MODEL_CONFIG || error.status != status)
            fail_msg("%s: status %s", cases[i].more, mf_status_code(status));
        if (!strstr(error.message, cases[i].part) || strncmp(error.message, "config.json: ", 13) != 0)
            fail_msg("'%s' is not in: %s", cases[i].part, error.message);
        json_decref(config);
    }
}

static void expect_read(enum mf_status wanted, const char *part) {
    struct mf_architecture a;
    struct mf_error error;
    enum mf_status status = mf_architecture_read(scratch_folder(), &a, &error);
    if (status != wanted || !strstr(error.message, part))
        fail_msg("expected %s '%s', got %s %s", mf_status_code(wanted), part, mf_status_code(status),
                 error.message);
}

static void reads_a_folder(void **state) {
    struct mf_architecture a;
    struct mf_error error;
    (void)state;
    assert_int_equal(mf_architecture_read("/nonexistent", &a, &error), MF_ERROR_MODEL_NOT_FOUND);
    expect_read(MF_ERROR_MODEL_INCOMPLETE, "config.json is missing");
    scratch_puts("config.json", "{");
    expect_read(MF_ERROR_MODEL_CONFIG, "config.json");
    scratch_puts("config.json", "[]");
    expect_read(MF_ERROR_MODEL_CONFIG, "not a JSON object");
    scratch_copy("tests/golden/models/tied-gqa/config.json", "config.json");
    scratch_puts("generation_config.json", "{\"eos_token_id\":[2,5],\"temperature\":0.6}");
    assert_int_equal(mf_architecture_read(scratch_folder(), &a, &error), MF_OK);
    assert_true(a.eos_count == 2 && a.eos[0] == 2 && a.eos[1] == 5 && a.tied_embeddings);
    scratch_puts("generation_config.json", "{\"eos_token_id\":-5}");
    expect_read(MF_ERROR_MODEL_CONFIG, "generation_config.json: eos_token_id");
}

/* Values of Transformers 5.24: LlamaRotaryEmbedding(config).inv_freq for head_dim 16. */
static void frequencies_are_those_of_transformers(void **state) {
    static const float llama3[8] = {1.0f,
                                    0.193922758f,
                                    0.0144050596f,
                                    0.00182316627f,
                                    0.000353553391f,
                                    6.85620471e-05f,
                                    1.32957393e-05f,
                                    2.57834631e-06f};
    struct mf_architecture a;
    float frequency[8];
    (void)state;
    read_config("{\"rope_parameters\":{\"factor\":4.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                "\"original_max_position_embeddings\":256,\"rope_type\":\"llama3\",\"rope_theta\":500000.0}}",
                &a);
    mf_rope_frequencies(&a, frequency);
    for (int i = 0; i < 8; i++)
        if (fabsf(frequency[i] / llama3[i] - 1) > 3e-7f)
            fail_msg("llama3 frequency %d: %.9g, Transformers has %.9g", i, (double)frequency[i],
                     (double)llama3[i]);
    read_config("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", &a);
    mf_rope_frequencies(&a, frequency);
    assert_true(frequency[0] == 0.5f && fabsf(frequency[4] / 0.005f - 1) < 3e-7f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_llama),
        cmocka_unit_test(both_spellings_mean_the_same),
        cmocka_unit_test(fields_are_read),
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test_setup_teardown(reads_a_folder, scratch_make, scratch_remove),
        cmocka_unit_test(frequencies_are_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
