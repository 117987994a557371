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
        {"{\"model_type\":\"xyz\"}", "model_type: 'xyz' is not supported (supported: llama, mistral, "},
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
        {"{\"rope_scaling\":{\"type\":\"mrope\",\"factor\":2}}", "rope_type: 'mrope' is not supported"},
        {"{\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}}", "long_factor"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"low_freq_factor\":1}}", "low_freq_factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"dynamic\"}}", "factor"},
        {"{\"layer_types\":[\"full_attention\",\"full_attention\"]}", "layer_types"},
        {"{\"model_type\":\"mistral\",\"attention_bias\":true}", "attention_bias: true is not supported"},
        {"{\"model_type\":\"qwen2\",\"head_dim\":16,\"mlp_bias\":true}", "mlp_bias: true is not supported"},
        {"{\"model_type\":\"qwen2\",\"layer_types\":[\"full_attention\"]}", "expected an array of 2 strings"},
        {"{\"model_type\":\"qwen2\",\"layer_types\":[\"full_attention\",\"chunked_attention\"]}",
         "\"chunked_attention\" is not supported"},
        {"{\"model_type\":\"qwen2\",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}",
         "sliding_window: layer 1 has a window"},
        {"{\"model_type\":\"gemma2\",\"sliding_window\":null}", "sliding_window: layer 0 has a window"},
        {"{\"model_type\":\"gemma2\",\"hidden_activation\":\"gelu\"}",
         "hidden_activation: 'gelu' is not supported"},
        {"{\"model_type\":\"gemma3_text\",\"attn_logit_softcapping\":50}", "attn_logit_softcapping"},
        {"{\"model_type\":\"gemma3_text\",\"use_bidirectional_attention\":true}",
         "use_bidirectional_attention"},
        {"{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"rope_theta\":10000}}",
         "rope_theta: 10000 is not expected"},
        {"{\"model_type\":\"gemma3_text\",\"rope_theta\":10000,\"rope_parameters\":{\"full_attention\":{}}}",
         "rope_parameters and rope_theta contradict"},
        {"{\"model_type\":\"phi3\",\"rope_scaling\":{\"type\":\"longrope\",\"long_factor\":[1],\"short_"
         "factor\":[1]}}",
         "long_factor: expected 8 numbers, found 1"},
        {"{\"model_type\":\"phi3\",\"partial_rotary_factor\":0.2}", "0.2 of head_dim 16 is no even number"},
        {"{\"model_type\":\"phi3\",\"resid_pdrop\":0.1}", "resid_pdrop: 0.1 is not supported"},
        {"{\"model_type\":\"phi\",\"qk_layernorm\":true}", "qk_layernorm: true is not supported"},
        {"{\"model_type\":\"phi\",\"rms_norm_eps\":1e-6}", "rms_norm_eps: 1e-6 is a field that"},
        {"{\"layer_norm_eps\":1e-6}", "layer_norm_eps: 1e-6 is a field that"},
        {"{\"model_type\":\"phi\",\"resid_pdrop\":1}", "resid_pdrop"},
        {"{\"model_type\":\"gemma3n\"}", "model_type: 'gemma3n' is not supported"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"type\":\"linear\",\"factor\":2}}",
         "contradict each other"},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\"}}", "factor"},
        {"{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"low_freq_factor\":1}}",
         "low_freq_factor"},
        {"{\"rope_scaling\":{\"factor\":2}}", "factor"},
        {"{\"rope_theta\":1,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}}",
         "rope_theta: 1 is too small for yarn"},
        {"{\"model_type\":\"phi3\",\"max_position_embeddings\":131072,\"partial_rotary_factor\":0.25,"
         "\"original_max_position_embeddings\":1,\"rope_scaling\":{\"type\":\"longrope\","
         "\"short_factor\":[1.25,2],\"long_factor\":[8,64]}}",
         "original_max_position_embeddings: 1 gives no attention_factor"},
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

/* What the makers' own config.json say, and what Transformers makes of it. */
static void families_are_read_as_released(void **state) {
    struct mf_architecture a;
    (void)state;
    read_config(
        "{\"model_type\":\"mistral\",\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":32}", &a);
    assert_true(a.window == 32 && a.windowed[0] && a.windowed[1] && !a.attention_bias);
    read_config("{\"model_type\":\"mistral\"}", &a);
    assert_true(a.window == 4096 && a.windowed[1]);
    read_config("{\"model_type\":\"mistral\",\"sliding_window\":null}", &a);
    assert_true(a.window == 0 && !a.windowed[0] && !a.windowed[1]);
    read_config("{\"model_type\":\"qwen2\",\"max_window_layers\":1,\"sliding_window\":32768,"
                "\"use_sliding_window\":false,\"rope_theta\":1000000.0,\"use_mrope\":false}",
                &a);
    assert_true(a.attention_bias && !a.output_bias && !a.windowed[1] && a.rope.theta == 1e6);
    read_config("{\"model_type\":\"qwen2\",\"max_window_layers\":1,\"sliding_window\":32,"
                "\"use_sliding_window\":true}",
                &a);
    assert_true(a.window == 32 && !a.windowed[0] && a.windowed[1]);
    read_config("{\"model_type\":\"qwen3\",\"attention_bias\":false,\"max_window_layers\":36,"
                "\"sliding_window\":null}",
                &a);
    assert_true(a.head_dim == 128 && a.query_key_norm && !a.attention_bias && !a.tied_embeddings);
    read_config("{\"model_type\":\"gemma\",\"hidden_act\":\"gelu\",\"hidden_activation\":null}", &a);
    assert_true(a.head_dim == 256 && a.tied_embeddings && a.scaled_embeddings && a.final_soft_cap == 0);
    assert_true(a.activation == MF_ACTIVATION_GELU_TANH && a.norm == MF_NORM_UNIT_OFFSET);
    read_config("{\"model_type\":\"gemma2\",\"hidden_act\":\"gelu_pytorch_tanh\",\"hidden_activation\":"
                "\"gelu_pytorch_tanh\",\"query_pre_attn_scalar\":64,\"cache_implementation\":\"hybrid\"}",
                &a);
    assert_true(a.output_norms && a.attention_scale == 0.125f);
    assert_true(a.attention_soft_cap == 50 && a.final_soft_cap == 30);
    assert_true(a.window == 4096 && a.windowed[0] && !a.windowed[1]);
    read_config("{\"model_type\":\"gemma2\",\"attn_logit_softcapping\":null,\"final_logit_softcapping\":20}",
                &a);
    assert_true(a.attention_soft_cap == 0 && a.final_soft_cap == 20 && a.attention_scale == 0.0625f);
}

static void phi3_rotates_a_part(void **state) {
    struct mf_architecture a;
    float frequency[8] = {0};
    (void)state;
    read_config("{\"model_type\":\"phi3\",\"auto_map\":{\"AutoConfig\":\"configuration_phi3.Phi3Config\"},"
                "\"embd_pdrop\":0.0,\"resid_pdrop\":0.0,\"original_max_position_embeddings\":4096,"
                "\"rope_scaling\":null,\"sliding_window\":2047,\"attention_bias\":false}",
                &a);
    assert_true(a.fused_projections && a.norm_epsilon == 1e-5f && a.rope.columns == 16);
    assert_true(a.window == 2047 && a.windowed[0] && a.windowed[1]);
    read_config("{\"model_type\":\"phi3\",\"partial_rotary_factor\":0.75,\"sliding_window\":null}", &a);
    assert_true(a.rope.columns == 12 && !a.windowed[0] && a.max_positions == 4096);
    mf_rope_frequencies(&a.rope, 0, frequency);
    assert_true(fabsf(frequency[3] / 0.01f - 1) < 3e-7f && frequency[6] == 0);
}

/* As microsoft/phi-2 is released. */
static void phi_has_biases_and_one_norm_a_layer(void **state) {
    struct mf_architecture a;
    (void)state;
    read_config(
        "{\"model_type\":\"phi\",\"architectures\":[\"PhiForCausalLM\"],\"attention_dropout\":0.0,"
        "\"bos_token_id\":9,\"embd_pdrop\":0.0,\"eos_token_id\":9,\"hidden_act\":\"gelu_new\","
        "\"hidden_size\":320,\"layer_norm_eps\":1e-05,\"max_position_embeddings\":2048,"
        "\"num_key_value_heads\":4,\"partial_rotary_factor\":0.4,\"qk_layernorm\":false,"
        "\"resid_pdrop\":0.1,\"rope_scaling\":null,\"rope_theta\":10000.0,\"tie_word_embeddings\":false,"
        "\"torch_dtype\":\"float16\"}",
        &a);
    assert_true(a.layer_norm && a.parallel_layer && !a.gated && a.names == MF_NAMES_PHI);
    assert_true(a.attention_bias && a.output_bias && a.mlp_bias && a.head_bias);
    assert_true(a.rope.columns == 32 && a.norm_epsilon == 1e-5f && a.layer_dropout == 0.1f);
    assert_int_equal(a.activation, MF_ACTIVATION_GELU_TANH);
    read_config("{\"model_type\":\"phi\"}", &a);
    assert_true(a.rope.columns == 8 && a.layer_dropout == 0);
}

/* Gemma 3: five layers with a window, then one without; each kind with its own rotary positions. */
static void gemma3_has_two_ropes(void **state) {
    static const char *const same[] = {
        "{\"model_type\":\"gemma3_text\",\"num_hidden_layers\":7,\"sliding_window\":512,"
        "\"sliding_window_pattern\":6,\"rope_theta\":1000000.0,\"rope_local_base_freq\":10000.0,"
        "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},\"attn_logit_softcapping\":null}",
        "{\"model_type\":\"gemma3_text\",\"num_hidden_layers\":7,\"sliding_window\":512,\"rope_parameters\":{"
        "\"full_attention\":{\"factor\":8,\"rope_type\":\"linear\"},\"sliding_attention\":{\"rope_type\":"
        "\"default\",\"rope_theta\":10000}},\"layer_types\":[\"sliding_attention\",\"sliding_attention\","
        "\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"full_attention\","
        "\"sliding_attention\"]}",
    };
    struct mf_architecture a[2];
    (void)state;
    for (int i = 0; i < 2; i++)
        read_config(same[i], &a[i]);
    assert_memory_equal(&a[0], &a[1], sizeof a[0]);
    for (int layer = 0; layer < 7; layer++)
        assert_int_equal(a[0].windowed[layer], layer != 5);
    assert_true(a[0].rope.kind == MF_ROPE_LINEAR && a[0].rope.theta == 1e6 && a[0].rope.factor == 8);
    assert_true(a[0].window_has_rope && a[0].window_rope.kind == MF_ROPE_DEFAULT);
    assert_true(a[0].window_rope.theta == 10000 && a[0].window == 512 && a[0].query_key_norm);
}

/* The 4B's config.json as it was released, with what `more` changes in it. */
static json_t *with_images(const char *more) {
    json_t *config = json_loads(
        "{\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"boi_token_index\":255999,"
        "\"eoi_token_index\":256000,\"eos_token_id\":[1,106],\"image_token_index\":262144,"
        "\"initializer_range\":0.02,\"mm_tokens_per_image\":256,\"model_type\":\"gemma3\",\"text_config\":{"
        "\"hidden_size\":2560,\"intermediate_size\":10240,\"model_type\":\"gemma3_text\","
        "\"num_hidden_layers\":34,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
        "\"sliding_window\":1024},\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.50.0.dev0\","
        "\"vision_config\":{\"hidden_size\":1152,\"image_size\":896,\"intermediate_size\":4304,"
        "\"model_type\":\"siglip_vision_model\",\"num_attention_heads\":16,\"num_hidden_layers\":27,"
        "\"patch_size\":14,\"vision_use_head\":false}}",
        0, NULL);
    json_t *changes = json_loads(more, 0, NULL);
    assert_non_null(config);
    assert_non_null(changes);
    json_object_update(config, changes);
    json_decref(changes);
    return config;
}

/* Sizes that it leaves out are Transformers' defaults; end tokens are those of the whole. */
static void gemma3_with_images_is_its_text_part(void **state) {
    static const struct {
        const char *more, *part;
    } refused[] = {
        {"{\"text_config\":null}", "config.json: text_config: "},
        {"{\"text_config\":{\"model_type\":\"llama\"}}", "text_config: model_type: 'llama' is not supported"},
        {"{\"text_config\":{\"hidden_size\":-1}}", "config.json: text_config: hidden_size: -1"},
        {"{\"text_config\":{\"attention_dropout\":0.5}}", "text_config: attention_dropout: 0.5"},
        {"{\"tie_word_embeddings\":true,\"text_config\":{\"tie_word_embeddings\":false}}", "contradict"},
        {"{\"audio_config\":{}}", "config.json: audio_config: {} is a field that this version does not know"},
        {"{\"architectures\":[\"Gemma3ForSequenceClassification\"]}", "architectures"},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\"}}", "quantization_config"},
    };
    struct mf_architecture a;
    struct mf_error error;
    (void)state;
    json_t *config = with_images("{}");
    if (mf_architecture_from_json(config, "config.json", &a, &error))
        fail_msg("%s", error.message);
    json_decref(config);
    assert_string_equal(a.model_type, "gemma3");
    assert_true(a.vocabulary == 262208 && a.hidden == 2560 && a.intermediate == 10240 && a.layers == 34);
    assert_true(a.heads == 8 && a.key_value_heads == 4 && a.head_dim == 256 && a.max_positions == 131072);
    assert_true(a.tied_embeddings && a.window == 1024 && a.windowed[4] && !a.windowed[5]);
    assert_true(a.rope.kind == MF_ROPE_LINEAR && a.rope.factor == 8 && a.window_rope.theta == 10000);
    assert_true(a.eos_count == 2 && a.eos[0] == 1 && a.eos[1] == 106 && a.names == MF_NAMES_LANGUAGE_MODEL);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        config = with_images(refused[i].more);
        assert_int_equal(mf_architecture_from_json(config, "config.json", &a, &error), MF_ERROR_MODEL_CONFIG);
        if (!strstr(error.message, refused[i].part))
            fail_msg("'%s' is not in: %s", refused[i].part, error.message);
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

/* Every kind of rotary positions, partial ones too, in both spellings, on both sides of the positions that a
 * model was made for (tests/golden/make_ropes.py). */
static void frequencies_are_those_of_transformers(void **state) {
    json_t *cases = json_load_file("tests/golden/ropes.json", 0, NULL);
    size_t index, length, pair;
    json_t *row, *value, *wanted;
    (void)state;
    assert_true(json_array_size(cases) > 0);
    json_array_foreach(cases, index, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        static const char *const spellings[] = {"old", "new"};
        for (int spelling = 0; spelling < 2; spelling++) {
            struct mf_architecture a;
            struct mf_error error;
            const json_t *config = json_object_get(row, spellings[spelling]);
            if (mf_architecture_from_json(config, "config.json", &a, &error))
                fail_msg("%s, %s spelling: %s", name, spellings[spelling], error.message);
            const bool local = json_is_true(json_object_get(row, "local"));
            const struct mf_rope *rope = local ? &a.window_rope : &a.rope;
            assert_true(fabs(rope->attention_factor - json_number_value(json_object_get(row, "factor"))) <
                        1e-9);
            json_array_foreach(json_object_get(row, "lengths"), length, value) {
                float frequency[MF_ROPE_LONG_PAIRS];
                const json_t *all = json_array_get(json_object_get(row, "frequencies"), length);
                assert_int_equal(rope->columns, 2 * json_array_size(all));
                mf_rope_frequencies(rope, (int32_t)json_integer_value(value), frequency);
                json_array_foreach((json_t *)all, pair, wanted) {
                    if (!(fabs((double)frequency[pair] / json_number_value(wanted) - 1) < 1e-6))
                        fail_msg("%s, rows of %d: frequency %zu is %.9g, Transformers has %.9g", name,
                                 (int)json_integer_value(value), pair, (double)frequency[pair],
                                 json_number_value(wanted));
                }
            }
        }
    }
    json_decref(cases);
}

/* How far a row may reach. */
static void positions_end_where_scaling_does(void **state) {
    struct mf_architecture a;
    (void)state;
    read_config("{\"model_type\":\"phi3\",\"max_position_embeddings\":131072,\"partial_rotary_factor\":0.25,"
                "\"original_max_position_embeddings\":4096,\"rope_scaling\":{\"type\":\"su\","
                "\"short_factor\":[1.25,2],\"long_factor\":[8,64]}}",
                &a);
    assert_true(a.max_positions == 131072 && a.rope.original_positions == 4096);
    read_config("{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.5}}", &a);
    assert_true(a.max_positions == 5120 && a.rope.original_positions == 2048);
    read_config("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", &a);
    assert_int_equal(a.max_positions, 2048);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_llama),
        cmocka_unit_test(both_spellings_mean_the_same),
        cmocka_unit_test(fields_are_read),
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test_setup_teardown(reads_a_folder, scratch_make, scratch_remove),
        cmocka_unit_test(families_are_read_as_released),
        cmocka_unit_test(gemma3_has_two_ropes),
        cmocka_unit_test(gemma3_with_images_is_its_text_part),
        cmocka_unit_test(phi3_rotates_a_part),
        cmocka_unit_test(phi_has_biases_and_one_norm_a_layer),
        cmocka_unit_test(frequencies_are_those_of_transformers),
        cmocka_unit_test(positions_end_where_scaling_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
