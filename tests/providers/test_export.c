/* Merged models as Hugging Face folders and GGUF files: exact values, names and row order back, refusals by
 * name. */
#include "common/files.h"
#include "common/json.h"
#include "providers/convert.h"
#include "providers/export.h"
#include "providers/gguf_rope.h"
#include "providers/models/architecture.h"
#include "providers/weights/safetensors.h"
#include "tests/providers/scratch.h"

#include <math.h>
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

#define TINY "tests/golden/models/tied-gqa"

enum { RANK = 3, WIDE = 64, NARROW = 32 };

static void must(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK)
        fail_msg("%s", error->message);
}

static const char *at(const char *name, char text[256]) {
    snprintf(text, 256, "%s/%s", scratch_folder(), name);
    return text;
}

static struct mf_safetensors *open_folder(const char *folder) {
    struct mf_safetensors *file;
    struct mf_error error;
    must(mf_safetensors_open_folder(folder, &file, &error), &error);
    return file;
}

static float value_of(const struct mf_stored_tensor *tensor, size_t index) {
    uint16_t bits;
    float value;
    if (tensor->dtype == MF_F32) {
        memcpy(&value, (const char *)tensor->data + 4 * index, 4);
        return value;
    }
    memcpy(&bits, (const char *)tensor->data + 2 * index, 2);
    return tensor->dtype == MF_BF16 ? mf_bf16_to_f32(bits) : mf_f16_to_f32(bits);
}

/* An adapter on the key projection (32, 64) of layer 1, with small whole numbers, so that every order of
 * adding gives the same sum. */
static float a[RANK * WIDE], b[NARROW * RANK];
static struct mf_weight_delta key_delta(void) {
    for (int i = 0; i < RANK * WIDE; i++)
        a[i] = (float)(i * 7 % 11 - 5) / 8;
    for (int i = 0; i < NARROW * RANK; i++)
        b[i] = (float)(i * 5 % 13 - 6) / 16;
    return (struct mf_weight_delta){"model.layers.1.self_attn.k_proj", NARROW, WIDE, RANK, 0.5f, a, b};
}

static float merged_key(const struct mf_stored_tensor *base, size_t index) {
    const size_t row = index / WIDE, column = index % WIDE;
    float sum = 0;
    for (size_t r = 0; r < RANK; r++)
        sum += b[row * RANK + r] * a[r * WIDE + column];
    return value_of(base, index) + 0.5f * sum;
}

static void check_folder(const char *folder, enum mf_dtype dtype) {
    struct mf_safetensors *base = open_folder(TINY), *ours = open_folder(folder);
    assert_int_equal(mf_safetensors_count(ours), mf_safetensors_count(base));
    for (size_t i = 0; i < mf_safetensors_count(base); i++) {
        const struct mf_stored_tensor *from = mf_safetensors_at(base, i), *to = mf_safetensors_at(ours, i);
        const bool merged = !strcmp(from->name, "model.layers.1.self_attn.k_proj.weight");
        assert_string_equal(to->name, from->name);
        assert_int_equal(to->dtype, dtype);
        assert_memory_equal(to->dim, from->dim, sizeof to->dim);
        for (size_t e = 0; e < from->bytes / 2; e++) {
            const float value = merged ? merged_key(from, e) : value_of(from, e);
            const float wanted = dtype == MF_BF16 ? mf_bf16_to_f32(mf_f32_to_bf16(value)) : value;
            if (value_of(to, e) != wanted)
                fail_msg("%s element %zu: %.9g, not %.9g", to->name, e, (double)value_of(to, e),
                         (double)wanted);
        }
    }
    mf_safetensors_close(ours);
    mf_safetensors_close(base);
}

static void check_config(const char *folder, const char *dtype) {
    char path[256];
    json_t *ours, *base;
    struct mf_error error;
    snprintf(path, sizeof path, "%s/config.json", folder);
    must(mf_json_read_file(path, 0, &ours, &error), &error);
    must(mf_json_read_file(TINY "/config.json", 0, &base, &error), &error);
    assert_string_equal(json_string_value(json_object_get(ours, "dtype")), dtype);
    json_object_set_new(base, "dtype", json_string(dtype));
    assert_true(json_equal(ours, base)); /* everything else as it was */
    json_decref(ours);
    json_decref(base);
}

static void merges_in_f32_and_rounds_once(void **state) {
    const struct mf_weight_delta delta = key_delta();
    const struct mf_export_options options = {.folder = TINY, .delta = &delta, .deltas = 1};
    char output[256], path[300];
    struct mf_error error;
    (void)state;
    at("merged", output);
    must(mf_export_huggingface(&options, MF_EXPORT_F32, output, &error), &error);
    check_folder(output, MF_F32);
    check_config(output, "float32");
    must(mf_export_huggingface(&options, MF_EXPORT_16BIT, output, &error), &error); /* replaces the first */
    check_folder(output, MF_BF16);
    check_config(output, "bfloat16");
    snprintf(path, sizeof path, "%s/tokenizer.json", output);
    assert_true(mf_path_exists(path));
    snprintf(path, sizeof path, "%s/generation_config.json", output);
    assert_false(mf_path_exists(path)); /* the base has none */
    assert_false(mf_path_exists(scratch_path("merged.partial")));
    assert_false(mf_path_exists(scratch_path("merged.old")));
}

/* A vision tower is carried as it is, under the names of the file, and so is what reads images. */
static void carries_a_vision_tower(void **state) {
    static const char base_folder[] = "tests/golden/models/gemma3-vision";
    static const char key[] = "language_model.model.layers.1.self_attn.k_proj.weight";
    enum { ROWS = 16, COLUMNS = 32 };
    const float one[COLUMNS] = {[3] = 1}, two[ROWS] = {[5] = 2};
    const struct mf_weight_delta delta = {
        "model.language_model.layers.1.self_attn.k_proj", ROWS, COLUMNS, 1, 0.5f, one, two};
    const struct mf_export_options options = {.folder = base_folder, .delta = &delta, .deltas = 1};
    char output[256];
    struct mf_error error;
    size_t tower = 0;
    (void)state;
    at("carried", output);
    must(mf_export_huggingface(&options, MF_EXPORT_F32, output, &error), &error);
    struct mf_safetensors *base = open_folder(base_folder), *ours = open_folder(output);
    assert_int_equal(mf_safetensors_count(ours), mf_safetensors_count(base));
    for (size_t i = 0; i < mf_safetensors_count(base); i++) {
        const struct mf_stored_tensor *from = mf_safetensors_at(base, i), *to = mf_safetensors_at(ours, i);
        assert_string_equal(to->name, from->name);
        assert_memory_equal(to->dim, from->dim, sizeof to->dim);
        tower += from->rank > 2;
        for (size_t e = 0; e < from->bytes / 2; e++) {
            const float added = !strcmp(from->name, key) && e == 5 * COLUMNS + 3 ? 1.0f : 0.0f;
            if (value_of(to, e) != value_of(from, e) + added)
                fail_msg("%s element %zu: %.9g", to->name, e, (double)value_of(to, e));
        }
    }
    assert_int_equal(tower, 2); /* patches and probe */
    mf_safetensors_close(ours);
    mf_safetensors_close(base);
}

static void copy_model(const char *from, const char *folder) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    struct mf_error error;
    char path[300], to[300];
    must(mf_directory_create(scratch_path(folder), 0755, &error), &error);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", from, files[i]);
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        scratch_copy(path, to);
    }
}

/* f32 weights become bf16, f16 weights stay f16, and generation_config.json comes along. */
static void keeps_a_16_bit_dtype(void **state) {
    const struct mf_export_options wide = {.folder = TINY};
    struct mf_error error;
    char folder[256], output[256], path[300];
    (void)state;
    at("wide", folder);
    must(mf_export_huggingface(&wide, MF_EXPORT_F32, folder, &error), &error);
    scratch_puts("wide/generation_config.json", "{\"eos_token_id\": [2]}");
    const struct mf_export_options narrow = {.folder = folder};
    must(mf_export_huggingface(&narrow, MF_EXPORT_16BIT, at("narrow", output), &error), &error);
    struct mf_safetensors *base = open_folder(TINY), *ours = open_folder(output);
    for (size_t i = 0; i < mf_safetensors_count(base); i++)
        assert_memory_equal(mf_safetensors_at(ours, i)->data, mf_safetensors_at(base, i)->data,
                            mf_safetensors_at(base, i)->bytes);
    mf_safetensors_close(ours);
    mf_safetensors_close(base);
    snprintf(path, sizeof path, "%s/generation_config.json", output);
    assert_true(mf_path_exists(path));
    /* one f16 weight and an f32 one: the f32 one gets f16 */
    static const uint16_t half = 0x3555;
    static const float third = 1.0f / 3;
    const struct mf_safetensors_entry entry[] = {{"model.norm.weight", MF_F16, 1, {1}},
                                                 {"other.weight", MF_F32, 1, {1}}};
    struct mf_safetensors_writer *writer;
    must(mf_safetensors_create(scratch_path("wide/model.safetensors"), entry, 2, NULL, &writer, &error),
         &error);
    must(mf_safetensors_write(writer, &half, sizeof half, &error), &error);
    must(mf_safetensors_write(writer, &third, sizeof third, &error), &error);
    must(mf_safetensors_finish(writer, &error), &error);
    must(mf_export_huggingface(&narrow, MF_EXPORT_16BIT, output, &error), &error);
    ours = open_folder(output);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(mf_safetensors_at(ours, i)->dtype, MF_F16);
        assert_memory_equal(mf_safetensors_at(ours, i)->data, &half, sizeof half);
    }
    mf_safetensors_close(ours);
}

static bool stop(void *argument, double fraction) {
    int *calls = argument;
    assert_true(fraction > 0 && fraction <= 1);
    return ++*calls < 3;
}

static void leaves_nothing_half_written(void **state) {
    struct mf_weight_delta delta = key_delta();
    int calls = 0;
    struct mf_export_options options = {
        .folder = TINY, .delta = &delta, .deltas = 1, .proceed = stop, .argument = &calls};
    char output[256], path[256];
    struct mf_error error;
    (void)state;
    at("out", output);
    at("out.gguf", path);
    assert_int_equal(mf_export_huggingface(&options, MF_EXPORT_16BIT, output, &error), MF_ERROR_CANCELLED);
    calls = 0;
    assert_int_equal(mf_export_gguf(&options, MF_GGUF_Q8_0, path, &error), MF_ERROR_CANCELLED);
    options.proceed = NULL;
    delta.module = "model.layers.9.self_attn.k_proj";
    assert_int_equal(mf_export_huggingface(&options, MF_EXPORT_16BIT, output, &error),
                     MF_ERROR_ADAPTER_MISMATCH);
    assert_non_null(strstr(error.message, delta.module));
    delta.module = "model.layers.1.self_attn.q_proj"; /* (64, 64) */
    assert_int_equal(mf_export_gguf(&options, MF_GGUF_F16, path, &error), MF_ERROR_ADAPTER_MISMATCH);
    assert_non_null(strstr(error.message, "(32, 64)"));
    delta = key_delta();
    delta.scale = 1e6f;
    assert_int_equal(mf_export_gguf(&options, MF_GGUF_F16, path, &error), MF_ERROR_BAD_WEIGHTS);
    assert_non_null(strstr(error.message, "blk.1.attn_k.weight"));
    delta.scale = 1e38f;
    a[0] = 1e3f;
    assert_int_equal(mf_export_huggingface(&options, MF_EXPORT_16BIT, output, &error), MF_ERROR_BAD_WEIGHTS);
    assert_non_null(strstr(error.message, "model.layers.1.self_attn.k_proj.weight"));
    assert_false(mf_path_exists(output));
    assert_false(mf_path_exists(path));
    assert_false(mf_path_exists(scratch_path("out.partial")));
}

/* Through our own reader: the same names, the same rows, f16 of every matrix, norms as they are. */
static void check_back(const char *model, const char *gguf, const char *back) {
    const bool unit_norms = strstr(model, "gemma") != NULL;
    const struct mf_convert_options convert = {gguf, back, MF_F32};
    struct mf_convert_result result;
    struct mf_error error;
    must(mf_convert_gguf(&convert, &result, &error), &error);
    struct mf_safetensors *base = open_folder(model), *ours = open_folder(back);
    assert_int_equal(mf_safetensors_count(ours), mf_safetensors_count(base));
    for (size_t i = 0; i < mf_safetensors_count(base); i++) {
        const struct mf_stored_tensor *from = mf_safetensors_at(base, i), *to = mf_safetensors_at(ours, i);
        const bool merged = !strcmp(from->name, "model.layers.1.self_attn.k_proj.weight") &&
                            from->dim[0] == NARROW && !strcmp(model, TINY);
        assert_string_equal(to->name, from->name);
        for (size_t e = 0; e < from->bytes / 2; e++) {
            const float value = merged ? merged_key(from, e) : value_of(from, e);
            const float wanted = from->rank != 1 ? mf_f16_to_f32(mf_f32_to_f16(value))
                                 : unit_norms    ? value + 1 - 1 /* what is left of it */
                                                 : value;
            assert_true(value_of(to, e) == wanted);
        }
    }
    mf_safetensors_close(ours);
    mf_safetensors_close(base);
}

/* The parts of tokenizer.json that decide about ids. */
static void check_tokenizer_back(const char *model, const char *back) {
    static const char *const parts[] = {"pre_tokenizer", "added_tokens", "model.vocab"};
    char path[300];
    json_t *ours, *base;
    struct mf_error error;
    snprintf(path, sizeof path, "%s/tokenizer.json", model);
    must(mf_json_read_file(path, 0, &base, &error), &error);
    snprintf(path, sizeof path, "%s/tokenizer.json", back);
    must(mf_json_read_file(path, 0, &ours, &error), &error);
    for (size_t i = 0; i < 3; i++) {
        json_t *one = json_object_get(base, parts[i]), *other = json_object_get(ours, parts[i]);
        if (!strncmp(parts[i], "model.", 6)) {
            one = json_object_get(json_object_get(base, "model"), parts[i] + 6);
            other = json_object_get(json_object_get(ours, "model"), parts[i] + 6);
        }
        if (!one || !json_equal(one, other))
            fail_msg("%s: another %s", model, parts[i]);
    }
    assert_int_equal(json_array_size(json_object_get(json_object_get(ours, "model"), "merges")),
                     json_array_size(json_object_get(json_object_get(base, "model"), "merges")));
    json_decref(base);
    json_decref(ours);
}

static void gguf_comes_back(void **state) {
    struct mf_weight_delta delta = key_delta();
    const struct mf_export_options options = {.folder = TINY, .delta = &delta, .deltas = 1};
    char gguf[256], back[256], model[256];
    struct mf_error error;
    (void)state;
    must(mf_export_gguf(&options, MF_GGUF_F16, at("x.gguf", gguf), &error), &error);
    check_back(TINY, gguf, at("back", back));
    check_tokenizer_back(TINY, back);
    /* a head of its own, three query heads a key head, and SmolLM's tokenizer */
    copy_model("tests/golden/models/untied-llama3-rope", "untied");
    json_t *config;
    must(mf_json_read_file(scratch_path("untied/config.json"), 0, &config, &error), &error);
    json_object_set_new(config, "rope_parameters",
                        json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", 10000.0));
    json_object_set_new(config, "vocab_size", json_integer(300));
    char *text = json_dumps(config, 0);
    scratch_puts("untied/config.json", text);
    free(text);
    json_decref(config);
    const struct mf_export_options untied = {.folder = at("untied", model)};
    must(mf_export_gguf(&untied, MF_GGUF_F16, gguf, &error), &error);
    check_back(model, gguf, back);
    check_tokenizer_back(model, back);
}

/* A model of `name` without windows and scaled RoPE, in the scratch folder under its name. */
static const char *plain_model(const char *name, char model[256]) {
    char from[256], path[256];
    json_t *config;
    struct mf_error error;
    snprintf(from, sizeof from, "tests/golden/models/%s", name);
    copy_model(from, name);
    snprintf(path, sizeof path, "%s/config.json", name);
    must(mf_json_read_file(scratch_path(path), 0, &config, &error), &error);
    json_object_set_new(config, "use_sliding_window", json_false());
    json_object_del(config, "layer_types");
    json_object_set_new(config, "rope_parameters",
                        json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", 1000000.0));
    char *text = json_dumps(config, 0);
    scratch_puts(path, text);
    free(text);
    json_decref(config);
    return at(name, model);
}

/* A golden model with one member of its config.json changed (NULL: taken out) and written as f16. */
static void export_changed(const char *name, const char *field, json_t *value, char gguf[256],
                           char back[256]) {
    char from[256], path[256], model[256];
    json_t *config;
    struct mf_error error;
    snprintf(from, sizeof from, "tests/golden/models/%s", name);
    copy_model(from, name);
    snprintf(path, sizeof path, "%s/config.json", name);
    must(mf_json_read_file(scratch_path(path), 0, &config, &error), &error);
    if (value)
        json_object_set_new(config, field, value);
    else
        json_object_del(config, field);
    char *text = json_dumps(config, 0);
    scratch_puts(path, text);
    free(text);
    json_decref(config);
    const struct mf_export_options options = {.folder = at(name, model)};
    must(mf_export_gguf(&options, MF_GGUF_F16, at("x.gguf", gguf), &error), &error);
    check_back(model, gguf, at("back", back));
}

/* Every family's weights come back, and what they are computed with: another model_type for Mistral, which is
 * a llama there. tests/golden/gguf_check.py sees what llama.cpp makes of the same files. */
static void families_come_back(void **state) {
    static const struct {
        const char *name, *field;
        int64_t value; /* 0: taken out */
        const char *type;
    } cases[] = {
        {"untied-llama3-rope", "mlp_bias", 0, "llama"},
        {"bias-linear-rope", "bos_token_id", 1, "llama"},
        {"mistral", "bos_token_id", 1, "llama"},
        {"gemma", "bos_token_id", 1, "gemma"},
        {"gemma2", "query_pre_attn_scalar", 8, "gemma2"},
        {"gemma3", "query_pre_attn_scalar", 8, "gemma3_text"},
        {"phi2", "bos_token_id", 1, "phi"},
        {"phi3", "bos_token_id", 1, "phi3"},
        {"phi3-longrope", "bos_token_id", 1, "phi3"},
        {"qwen2", "bos_token_id", 1, "qwen2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char gguf[256], back[256], model[256];
        float frequency[MF_ROPE_LONG_PAIRS], other[MF_ROPE_LONG_PAIRS];
        struct mf_architecture before, after;
        struct mf_error error;
        export_changed(cases[i].name, cases[i].field, cases[i].value ? json_integer(cases[i].value) : NULL,
                       gguf, back);
        must(mf_architecture_read(at(cases[i].name, model), &before, &error), &error);
        must(mf_architecture_read(back, &after, &error), &error);
        assert_string_equal(after.model_type, cases[i].type);
        assert_int_equal(after.rope.kind, before.rope.kind);
        assert_int_equal(after.rope.columns, before.rope.columns);
        assert_true(fabs(after.rope.attention_factor - before.rope.attention_factor) < 1e-6);
        assert_true(after.window_rope.theta == before.window_rope.theta);
        mf_rope_frequencies(&before.rope, before.max_positions, frequency);
        mf_rope_frequencies(&after.rope, before.max_positions, other);
        assert_memory_equal(frequency, other, (size_t)before.rope.columns / 2 * sizeof *frequency);
        assert_int_equal(after.attention_bias, before.attention_bias);
        assert_int_equal(after.mlp_bias, before.mlp_bias);
        assert_true(after.attention_scale == before.attention_scale);
        assert_true(after.attention_soft_cap == before.attention_soft_cap &&
                    after.final_soft_cap == before.final_soft_cap);
        if (!strcmp(cases[i].type, "llama") || !strcmp(cases[i].type, "qwen2")) {
            /* no windows there: the context ends where one would be felt */
            assert_int_equal(after.max_positions, before.window ? before.window : before.max_positions);
            continue;
        }
        assert_int_equal(after.max_positions, before.max_positions);
        assert_int_equal(after.window, before.window);
        assert_memory_equal(after.windowed, before.windowed, (size_t)before.layers * sizeof *after.windowed);
    }
}

/* llama.cpp turns Qwen's halves of a head as Hugging Face does: in the file itself no row has moved. */
static void check_order(const char *model, const char *family, const char *path) {
    static const char ours[] = "blk.1.attn_q.weight", theirs[] = "model.layers.1.self_attn.q_proj.weight";
    struct mf_gguf *file;
    struct mf_error error;
    int64_t layers = 0;
    char key[80];
    must(mf_gguf_open(path, &file, &error), &error);
    struct mf_safetensors *base = open_folder(model);
    snprintf(key, sizeof key, "%s.block_count", family);
    assert_true(mf_gguf_integer(file, key, &layers) && layers == 2);
    const struct mf_gguf_tensor *to = mf_gguf_find(file, ours);
    const struct mf_stored_tensor *from = mf_safetensors_find(base, theirs);
    assert_true(to && from && to->elements == (int64_t)(from->bytes / 2));
    for (int64_t i = 0; i < to->elements; i++) {
        float value;
        assert_true(mf_gguf_read(to, i, 1, &value));
        assert_true(value == mf_f16_to_f32(mf_f32_to_f16(value_of(from, (size_t)i))));
    }
    mf_safetensors_close(base);
    mf_gguf_close(file);
}

/* partial_rotary_factor is a fraction that readers multiply and cut to a whole number. */
static void rotary_parts_come_back(void **state) {
    (void)state;
    for (int64_t head_dim = 2; head_dim <= 512; head_dim += 2)
        for (int64_t columns = 2; columns <= head_dim; columns += 2) {
            json_t *number = json_real(mf_gguf_rotary_part(columns, head_dim));
            char *text = json_dumps(number, JSON_ENCODE_ANY);
            const double part = strtod(text, NULL);
            if ((int64_t)((double)head_dim * part) != columns || !(part <= 1))
                fail_msg("%d of %d columns: %s", (int)columns, (int)head_dim, text);
            free(text);
            json_decref(number);
        }
}

/* Renames a tensor of a GGUF file and expects that the file is refused before a tensor was looked into. */
static void expect_no_model(const char *gguf, const char *from, const char *to, const char *part) {
    char changed[256], folder[256], *data;
    size_t size;
    struct mf_error error;
    struct mf_convert_result result;
    assert_int_equal(strlen(from), strlen(to));
    must(mf_file_read(gguf, 1 << 20, &data, &size, &error), &error);
    char *place = memmem(data, size, from, strlen(from));
    assert_non_null(place);
    for (size_t i = 0; to[i]; i++)
        place[i] = to[i];
    scratch_put("changed.gguf", data, size);
    free(data);
    const struct mf_convert_options options = {at("changed.gguf", changed), at("none", folder), MF_F32};
    for (int whole = 0; whole < 2; whole++) {
        const enum mf_status status =
            whole ? mf_convert_gguf(&options, &result, &error) : mf_convert_gguf_check(changed, &error);
        if (status != MF_ERROR_WEIGHT_MISMATCH || !strstr(error.message, part) ||
            !strstr(error.message, "changed.gguf"))
            fail_msg("expected '%s', got %s: %s", part, mf_status_code(status), status ? error.message : "");
    }
    assert_false(mf_path_exists(scratch_path("none/model.safetensors")));
    assert_false(mf_path_exists(scratch_path("none/tokenizer.json")));
}

/* Biases of some modules or layers only, weights that are missing or too many: named by the tensor. */
static void tensors_must_make_the_model(void **state) {
    char gguf[256], back[256];
    (void)state;
    export_changed("bias-linear-rope", "bos_token_id", json_integer(1), gguf, back);
    expect_no_model(gguf, "blk.0.attn_q.bias", "blk.7.attn_q.bias",
                    "imply a tensor blk.0.attn_q.bias, which is not there");
    expect_no_model(gguf, "blk.1.ffn_up.bias", "blk.7.ffn_up.bias",
                    "imply a tensor blk.1.ffn_up.bias, which is not there");
    export_changed("phi2", "bos_token_id", json_integer(1), gguf, back);
    expect_no_model(gguf, "blk.1.attn_norm.bias", "blk.8.attn_norm.bias",
                    "imply a tensor blk.1.attn_norm.bias, which is not there");
    export_changed("mistral", "bos_token_id", json_integer(1), gguf, back);
    expect_no_model(gguf, "blk.0.ffn_up.weight", "blk.9.ffn_up.weight",
                    "imply a tensor blk.0.ffn_up.weight, which is not there");
}

/* Qwen: biases or norms of q and k, rows in place, keys under its own name; its words, too. */
static void qwen_comes_back(void **state) {
    static const char *const names[] = {"qwen2", "qwen3"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char gguf[256], back[256], model[256];
        struct mf_error error;
        struct mf_architecture before, after;
        json_t *tokenizer;
        plain_model(names[i], model);
        char path[300];
        snprintf(path, sizeof path, "%s/tokenizer.json", names[i]);
        must(mf_json_read_file(scratch_path(path), 0, &tokenizer, &error), &error);
        json_object_set_new(tokenizer, "normalizer", json_pack("{s:s}", "type", "NFC"));
        json_object_set_new(tokenizer, "pre_tokenizer",
                            json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b, s:b}]}", "type",
                                      "Sequence", "pretokenizers", "type", "Split", "pattern", "Regex",
                                      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                                      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
                                      "behavior", "Isolated", "invert", 0, "type", "ByteLevel",
                                      "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 0));
        char *text = json_dumps(tokenizer, 0);
        scratch_puts(path, text);
        free(text);
        json_decref(tokenizer);
        const struct mf_export_options options = {.folder = model};
        must(mf_export_gguf(&options, MF_GGUF_F16, at("x.gguf", gguf), &error), &error);
        check_order(model, names[i], gguf);
        check_back(model, gguf, at("back", back));
        check_tokenizer_back(model, back);
        must(mf_architecture_read(model, &before, &error), &error);
        must(mf_architecture_read(back, &after, &error), &error);
        assert_string_equal(after.model_type, names[i]);
        assert_int_equal(after.head_dim, before.head_dim);
        assert_int_equal(after.attention_bias, before.attention_bias);
        assert_int_equal(after.query_key_norm, before.query_key_norm);
        assert_true(after.rope.theta == before.rope.theta && after.norm_epsilon == before.norm_epsilon);
    }
}

/* SmolLM's pre-tokenizer is written as such, a vocabulary smaller than the model's is filled up. */
static void tokenizer_of_smollm(void **state) {
    const struct mf_convert_options convert = {"tests/golden/weights_llama.gguf", scratch_folder(), MF_F32};
    struct mf_convert_result result;
    struct mf_error error;
    struct mf_gguf *file;
    struct mf_gguf_text text;
    char gguf[256];
    (void)state;
    must(mf_convert_gguf(&convert, &result, &error), &error);
    const struct mf_export_options options = {.folder = scratch_folder()};
    must(mf_export_gguf(&options, MF_GGUF_Q8_0, at("x.gguf", gguf), &error), &error);
    must(mf_gguf_open(gguf, &file, &error), &error);
    assert_true(mf_gguf_string(file, "tokenizer.ggml.pre", &text));
    assert_memory_equal(text.data, "smollm", text.length);
    assert_int_equal(mf_gguf_find(file, "blk.0.ffn_up.weight")->type, MF_GGUF_Q8_0);
    assert_int_equal(mf_gguf_find(file, "output_norm.weight")->type, MF_GGUF_F32);
    mf_gguf_close(file);
}

static void expect_refusal(const char *folder, const char *words) {
    const struct mf_export_options options = {.folder = folder};
    struct mf_error error;
    char gguf[256];
    enum mf_status status = mf_export_gguf_check(folder, &error);
    if (status != MF_ERROR_UNSUPPORTED_FIELD || !strstr(error.message, words) ||
        !strstr(error.message, "output: gguf: "))
        fail_msg("expected '%s', got %s: %s", words, mf_status_code(status), status ? error.message : "");
    assert_int_equal(mf_export_gguf(&options, MF_GGUF_F16, at("no.gguf", gguf), &error), status);
    assert_false(mf_path_exists(gguf));
}

static void set_vocabulary(int tokens) {
    json_t *config;
    struct mf_error error;
    must(mf_json_read_file(scratch_path("model/config.json"), 0, &config, &error), &error);
    json_object_set_new(config, "vocab_size", json_integer(tokens));
    char *text = json_dumps(config, 0);
    scratch_puts("model/config.json", text);
    free(text);
    json_decref(config);
}

static void expect_refused_tokenizer(const char *name, const char *words) {
    char path[256], folder[256];
    snprintf(path, sizeof path, "tests/golden/tokenizer_%s/tokenizer.json", name);
    scratch_copy(path, "model/tokenizer.json");
    expect_refusal(at("model", folder), words);
}

static void refuses_by_name(void **state) {
    char folder[256];
    struct mf_error error;
    (void)state;
    expect_refusal("tests/golden/models/gemma2", "a query_pre_attn_scalar of its own");
    static const struct {
        const char *model, *field, *value, *words;
    } cases[] = {
        {"qwen3", "attention_bias", "true", "attention_bias or mlp_bias"},
        {"gemma2", "final_logit_softcapping", "null",
         "without attn_logit_softcapping or final_logit_softcapping"},
        {"gemma3", "final_logit_softcapping", "30.0",
         "with attn_logit_softcapping or final_logit_softcapping"},
        {"gemma3", "layer_types", "[\"full_attention\", \"full_attention\", \"sliding_attention\"]",
         "follow no pattern"},
        {"mistral", "rope_parameters",
         "{\"rope_type\": \"llama3\", \"rope_theta\": 10000.0, \"factor\": 2.0, \"low_freq_factor\": 1.0, "
         "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 16}",
         "a llama3 RoPE"},
        {"tied-gqa", "rope_parameters",
         "{\"rope_type\": \"yarn\", \"rope_theta\": 10000.0, \"factor\": 2.0, \"beta_fast\": 16.0, "
         "\"original_max_position_embeddings\": 16}",
         "beta_fast or beta_slow"},
        {"tied-gqa", "rope_parameters",
         "{\"rope_type\": \"yarn\", \"rope_theta\": 10000.0, \"factor\": 2.0, \"truncate\": false, "
         "\"original_max_position_embeddings\": 16}",
         "truncate false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char from[256];
        json_t *config;
        snprintf(from, sizeof from, "tests/golden/models/%s", cases[i].model);
        copy_model(from, "model");
        must(mf_json_read_file(scratch_path("model/config.json"), 0, &config, &error), &error);
        json_object_set_new(config, cases[i].field, json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        if (!strncmp(cases[i].model, "gemma", 5))
            json_object_set_new(config, "query_pre_attn_scalar", json_integer(8));
        char *text = json_dumps(config, 0);
        scratch_puts("model/config.json", text);
        free(text);
        json_decref(config);
        expect_refusal(at("model", folder), cases[i].words);
    }
    copy_model(TINY, "model");
    set_vocabulary(600);
    expect_refused_tokenizer("unigram", "the tokenizer's model, which is not BPE");
    expect_refused_tokenizer("sentencepiece", "whose merges are not SentencePiece's ('");
    expect_refused_tokenizer("bytelevel", "the tokenizer's post_processor");
    /* more tokens than the model has rows */
    set_vocabulary(300);
    scratch_copy("tests/golden/tokenizer_smollm/tokenizer.json", "model/tokenizer.json");
    assert_int_equal(mf_export_gguf_check(at("model", folder), &error), MF_ERROR_BAD_TOKENIZER);
    assert_non_null(strstr(error.message, "vocabulary of 300"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(merges_in_f32_and_rounds_once, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(carries_a_vision_tower, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(keeps_a_16_bit_dtype, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(leaves_nothing_half_written, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(gguf_comes_back, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(qwen_comes_back, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(families_come_back, scratch_make, scratch_remove),
        cmocka_unit_test(rotary_parts_come_back),
        cmocka_unit_test_setup_teardown(tensors_must_make_the_model, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(tokenizer_of_smollm, scratch_make, scratch_remove),
        cmocka_unit_test_setup_teardown(refuses_by_name, scratch_make, scratch_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
