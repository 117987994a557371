#include "worker/trainer/tiny_model.h"

#include "common/files.h"
#include "common/text.h"
#include "providers/weights/safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 32,
    INNER = 64,
    LAYERS = 2,
    HEADS = 4,
    KV_HEADS = 2,
    POSITIONS = 256,
    END = 256,
    VOCABULARY = 257
};

static const char config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": 257,\n"
    " \"hidden_size\": 32, \"intermediate_size\": 64, \"num_hidden_layers\": 2,\n"
    " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 8,\n"
    " \"max_position_embeddings\": 256, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0,\n"
    " \"hidden_act\": \"silu\", \"attention_bias\": false, \"mlp_bias\": false,\n"
    " \"tie_word_embeddings\": true, \"bos_token_id\": 256, \"eos_token_id\": 256,\n"
    " \"torch_dtype\": \"float32\"}\n";
static const char tokenizer_config[] = "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"eos_token\": "
                                       "\"<|end|>\", \"model_max_length\": 256}\n";

static enum mf_status put(const char *folder, const char *name, const char *text, struct mf_error *error) {
    char *path = mf_path_join(folder, name);
    enum mf_status status = path && text
                                ? mf_file_write_atomic(path, text, strlen(text), 0644, error)
                                : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a model");
    free(path);
    return status;
}

/* ---- weights ---- */

struct shape {
    const char *name;
    int64_t rows, columns; /* columns 0: a vector */
};
static const struct shape layer_shapes[] = {
    {"input_layernorm", WIDTH, 0},
    {"self_attn.q_proj", WIDTH, WIDTH},
    {"self_attn.k_proj", WIDTH / HEADS *KV_HEADS, WIDTH},
    {"self_attn.v_proj", WIDTH / HEADS *KV_HEADS, WIDTH},
    {"self_attn.o_proj", WIDTH, WIDTH},
    {"post_attention_layernorm", WIDTH, 0},
    {"mlp.gate_proj", INNER, WIDTH},
    {"mlp.up_proj", INNER, WIDTH},
    {"mlp.down_proj", WIDTH, INNER},
};
enum { LAYER_SHAPES = sizeof layer_shapes / sizeof *layer_shapes, TENSORS = LAYERS * LAYER_SHAPES + 2 };

static void name_tensors(struct mf_safetensors_entry *entry, char (*name)[96]) {
    static const struct shape outer[] = {{"model.embed_tokens.weight", VOCABULARY, WIDTH},
                                         {"model.norm.weight", WIDTH, 0}};
    for (int i = 0; i < TENSORS; i++) {
        const int layer = (i - 2) / LAYER_SHAPES;
        const struct shape *shape = i < 2 ? &outer[i] : &layer_shapes[(i - 2) % LAYER_SHAPES];
        if (i < 2)
            snprintf(name[i], sizeof name[i], "%s", shape->name);
        else
            snprintf(name[i], sizeof name[i], "model.layers.%d.%s.weight", layer, shape->name);
        entry[i] = (struct mf_safetensors_entry){.name = name[i],
                                                 .dtype = MF_F32,
                                                 .rank = shape->columns ? 2 : 1,
                                                 .dim = {shape->rows, shape->columns}};
    }
}

/* Even in [-0.1, 0.1], by a linear congruential generator: the same file everywhere. Norms are 1. */
static enum mf_status write_values(struct mf_safetensors_writer *writer,
                                   const struct mf_safetensors_entry *entry, uint32_t *state,
                                   struct mf_error *error) {
    const int64_t count = entry->dim[0] * (entry->rank == 2 ? entry->dim[1] : 1);
    enum mf_status status = MF_OK;
    for (int64_t i = 0; i < count && status == MF_OK; i++) {
        *state = *state * 1664525 + 1013904223;
        const float value = entry->rank == 1 ? 1.0F : ((float)(*state >> 8) / (float)(1 << 24) - 0.5F) * 0.2F;
        status = mf_safetensors_write(writer, &value, sizeof value, error);
    }
    return status;
}

static enum mf_status write_weights(const char *folder, struct mf_error *error) {
    struct mf_safetensors_entry entry[TENSORS];
    char name[TENSORS][96];
    char *path = mf_path_join(folder, "model.safetensors");
    struct mf_safetensors_writer *writer = NULL;
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    uint32_t state = 1;
    name_tensors(entry, name);
    enum mf_status status = path ? mf_safetensors_create(path, entry, TENSORS, metadata, &writer, error)
                                 : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a model");
    for (int i = 0; i < TENSORS && status == MF_OK; i++)
        status = write_values(writer, &entry[i], &state, error);
    if (status == MF_OK)
        status = mf_safetensors_finish(writer, error);
    else
        mf_safetensors_abandon(writer);
    json_decref(metadata);
    free(path);
    return status;
}

/* ---- the tokenizer ---- */

/* The character by which byte-level tokenizers write a byte (GPT-2's table), as UTF-8. */
static void byte_character(int byte, char text[3]) {
    static const int printable[][2] = {{'!', '~'}, {0xA1, 0xAC}, {0xAE, 0xFF}};
    int code = byte, before = 0;
    bool shown = false;
    for (int i = 0; i < 3; i++)
        shown |= byte >= printable[i][0] && byte <= printable[i][1];
    for (int other = 0; other < byte && !shown; other++) {
        bool other_shown = false;
        for (int i = 0; i < 3; i++)
            other_shown |= other >= printable[i][0] && other <= printable[i][1];
        before += !other_shown;
    }
    if (!shown)
        code = 0x100 + before;
    if (code < 0x80) {
        text[0] = (char)code;
        text[1] = 0;
    } else {
        text[0] = (char)(0xC0 | code >> 6);
        text[1] = (char)(0x80 | (code & 0x3F));
        text[2] = 0;
    }
}

static enum mf_status write_tokenizer(const char *folder, struct mf_error *error) {
    json_t *vocabulary = json_object();
    for (int byte = 0; byte < END; byte++) {
        char character[4] = "";
        byte_character(byte, character);
        json_object_set_new(vocabulary, character, json_integer(byte));
    }
    json_object_set_new(vocabulary, "<|end|>", json_integer(END));
    json_t *file = json_pack(
        "{s:s, s:n, s:n, s:[{s:i, s:s, s:b, s:b, s:b, s:b, s:b}], s:n, s:{s:s, s:b, s:b, s:b}, s:n,"
        " s:{s:s, s:b, s:b, s:b}, s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:O, s:[]}}",
        "version", "1.0", "truncation", "padding", "added_tokens", "id", END, "content", "<|end|>",
        "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1, "normalizer",
        "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1,
        "post_processor", "decoder", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
        "use_regex", 1, "model", "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix",
        "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "vocab", vocabulary, "merges");
    char *text = file ? json_dumps(file, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    enum mf_status status = put(folder, "tokenizer.json", text, error);
    free(text);
    json_decref(file);
    json_decref(vocabulary);
    return status;
}

enum mf_status mf_tiny_model_write(const char *folder, struct mf_error *error) {
    enum mf_status status = mf_directory_create(folder, 0755, error);
    if (status == MF_OK)
        status = put(folder, "config.json", config, error);
    if (status == MF_OK)
        status = put(folder, "tokenizer_config.json", tokenizer_config, error);
    if (status == MF_OK)
        status = write_tokenizer(folder, error);
    return status == MF_OK ? write_weights(folder, error) : status;
}

enum mf_status mf_tiny_rows_write(const char *path, struct mf_error *error) {
    struct mf_text text = {0};
    for (int i = 0; i < MF_TINY_ROWS; i++)
        mf_text_printf(&text, "{\"input\": \"What follows %d?\", \"output\": \"%d\"}\n", i, i + 1);
    enum mf_status status = mf_text_status(&text, error);
    if (status == MF_OK)
        status = mf_file_write_atomic(path, mf_text_string(&text), text.length, 0644, error);
    mf_text_free(&text);
    return status;
}
