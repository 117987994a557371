#include "providers/gguf_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mf_gguf_family families[] = {
    {.name = "llama", .class_name = "LlamaForCausalLM", .interleaved = true},
    {.name = "qwen2", .class_name = "Qwen2ForCausalLM", .query_bias = true},
    {.name = "qwen3", .class_name = "Qwen3ForCausalLM", .query_key_norm = true},
};

static const struct {
    const char *gguf, *huggingface;
} layer_names[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},       {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
};

static const struct {
    const char *gguf, *huggingface;
} outer_names[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};

const struct mf_gguf_family *mf_gguf_family(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strlen(families[i].name) == length && !memcmp(families[i].name, name, length))
            return &families[i];
    return NULL;
}

bool mf_huggingface_name_of(const char *gguf, char name[MF_GGUF_NAME_BYTES], char part[MF_GGUF_NAME_BYTES]) {
    part[0] = 0;
    for (size_t i = 0; i < sizeof outer_names / sizeof *outer_names; i++)
        if (!strcmp(outer_names[i].gguf, gguf)) {
            snprintf(name, MF_GGUF_NAME_BYTES, "%s", outer_names[i].huggingface);
            return true;
        }
    if (strncmp(gguf, "blk.", 4) != 0)
        return false;
    char *middle;
    long layer = strtol(gguf + 4, &middle, 10);
    if (middle == gguf + 4 || *middle != '.' || layer < 0 || layer > INT32_MAX)
        return false;
    middle++;
    const char *dot = strrchr(gguf, '.');
    if (dot < middle || (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0))
        return false;
    snprintf(part, MF_GGUF_NAME_BYTES, "%.*s", (int)(dot - middle), middle);
    for (size_t i = 0; i < sizeof layer_names / sizeof *layer_names; i++)
        if (!strcmp(layer_names[i].gguf, part)) {
            snprintf(name, MF_GGUF_NAME_BYTES, "model.layers.%ld.%s%s", layer, layer_names[i].huggingface,
                     dot);
            return true;
        }
    return false;
}

bool mf_gguf_name_of(const char *huggingface, char name[MF_GGUF_NAME_BYTES]) {
    static const char layers[] = "model.layers.";
    for (size_t i = 0; i < sizeof outer_names / sizeof *outer_names; i++)
        if (!strcmp(outer_names[i].huggingface, huggingface)) {
            snprintf(name, MF_GGUF_NAME_BYTES, "%s", outer_names[i].gguf);
            return true;
        }
    if (strncmp(huggingface, layers, sizeof layers - 1) != 0)
        return false;
    char *middle;
    const long layer = strtol(huggingface + sizeof layers - 1, &middle, 10);
    const char *dot = strrchr(huggingface, '.');
    if (middle == huggingface + sizeof layers - 1 || *middle++ != '.' || layer < 0 || layer > INT32_MAX ||
        dot < middle || (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0))
        return false;
    for (size_t i = 0; i < sizeof layer_names / sizeof *layer_names; i++)
        if (strlen(layer_names[i].huggingface) == (size_t)(dot - middle) &&
            !strncmp(layer_names[i].huggingface, middle, (size_t)(dot - middle))) {
            snprintf(name, MF_GGUF_NAME_BYTES, "blk.%ld.%s%s", layer, layer_names[i].gguf, dot);
            return true;
        }
    return false;
}

int64_t mf_gguf_row_to_huggingface(int64_t rows, int64_t heads, int64_t row) {
    const int64_t size = rows / heads, head = row / size, j = row % size;
    return head * size + j / 2 + j % 2 * (size / 2);
}

int64_t mf_huggingface_row_to_gguf(int64_t rows, int64_t heads, int64_t row) {
    const int64_t size = rows / heads, head = row / size, j = row % size;
    return head * size + j % (size / 2) * 2 + j / (size / 2);
}
