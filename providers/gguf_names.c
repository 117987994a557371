#include "providers/gguf_names.h"

#include "providers/models/rope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mf_gguf_name llama_names[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},       {NULL, NULL},
};

static const struct mf_gguf_name qwen3_names[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k", "self_attn.k_proj"},
    {"attn_k_norm", "self_attn.k_norm"}, {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},       {NULL, NULL},
};

/* Gemma 2 and 3; the norms of heads are Gemma 3's alone. */
static const struct mf_gguf_name gemma_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {NULL, NULL},
};

static const struct mf_gguf_name phi3_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_qkv", "self_attn.qkv_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_up", "mlp.gate_up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {NULL, NULL},
};

static const struct mf_gguf_name phi_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.dense"},
    {"ffn_up", "mlp.fc1"},
    {"ffn_down", "mlp.fc2"},
    {NULL, NULL},
};

static const struct mf_gguf_name phi_outer_names[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.final_layernorm"},
    {"output", "lm_head"},
    {NULL, NULL},
};

static const struct mf_gguf_name outer_names[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {NULL, NULL},
};

enum {
    LINEAR = 1 << MF_ROPE_LINEAR,
    LLAMA3 = 1 << MF_ROPE_LLAMA3,
    YARN = 1 << MF_ROPE_YARN,
    LONG = 1 << MF_ROPE_LONG
};

static const struct mf_gguf_family families[] = {
    {.name = "llama",
     .model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .activation = "silu",
     .name_of_layer = llama_names,
     .ropes = LINEAR | LLAMA3 | YARN | LONG,
     .interleaved = true,
     .optional_biases = true},
    /* A Mistral is a llama there, and comes back as one. */
    {.name = "llama",
     .model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .activation = "silu",
     .name_of_layer = llama_names,
     .ropes = LINEAR | YARN,
     .interleaved = true},
    {.name = "qwen2",
     .model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .activation = "silu",
     .name_of_layer = llama_names,
     .ropes = LINEAR | YARN,
     .query_bias = true},
    {.name = "qwen3",
     .model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .activation = "silu",
     .name_of_layer = qwen3_names,
     .ropes = LINEAR | YARN},
    {.name = "gemma",
     .model_type = "gemma",
     .class_name = "GemmaForCausalLM",
     .activation = "gelu_pytorch_tanh",
     .name_of_layer = llama_names,
     .ropes = LINEAR,
     .tied_head = true,
     .unit_norms = true},
    {.name = "gemma2",
     .model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .activation = "gelu_pytorch_tanh",
     .name_of_layer = gemma_names,
     .windows = MF_GGUF_WINDOWS_PATTERN,
     .pattern = 2,
     .wide_layers = 46,
     .tied_head = true,
     .unit_norms = true,
     .soft_caps = true},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .activation = "gelu_pytorch_tanh",
     .name_of_layer = gemma_names,
     .ropes = LINEAR,
     .windows = MF_GGUF_WINDOWS_PATTERN,
     .pattern = 6,
     .wide_layers = 62,
     .tied_head = true,
     .unit_norms = true,
     .local_theta = true},
    /* Its text part is one there; it comes back without the vision tower. */
    {.name = "gemma3",
     .model_type = "gemma3",
     .class_name = "Gemma3ForCausalLM",
     .activation = "gelu_pytorch_tanh",
     .name_of_layer = gemma_names,
     .ropes = LINEAR,
     .windows = MF_GGUF_WINDOWS_PATTERN,
     .pattern = 6,
     .wide_layers = 62,
     .unit_norms = true,
     .local_theta = true},
    {.name = "phi3",
     .model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .activation = "silu",
     .name_of_layer = phi3_names,
     .ropes = LONG,
     .windows = MF_GGUF_WINDOWS_ALL,
     .partial_rotary = true},
    {.name = "phi2",
     .model_type = "phi",
     .class_name = "PhiForCausalLM",
     .activation = "gelu_new",
     .name_of_layer = phi_names,
     .name_outside = phi_outer_names,
     .partial_rotary = true,
     .query_bias = true,
     .all_biases = true,
     .may_fuse_query = true},
};

enum { FAMILIES = sizeof families / sizeof *families };

const struct mf_gguf_family *mf_gguf_family_of_type(const char *model_type) {
    for (size_t i = 0; i < FAMILIES; i++)
        if (!strcmp(families[i].model_type, model_type))
            return &families[i];
    return NULL;
}

const struct mf_gguf_family *mf_gguf_family(const char *name, size_t length) {
    for (size_t i = 0; i < FAMILIES; i++)
        if (strlen(families[i].name) == length && !memcmp(families[i].name, name, length))
            return &families[i];
    return NULL;
}

const char *mf_gguf_family_list(void) {
    return "llama, qwen2, qwen3, gemma, gemma2, gemma3, phi3, phi2";
}

/* The member of `names` whose stem on one side is `stem`; NULL: none. */
static const struct mf_gguf_name *find_name(const struct mf_gguf_name *names, bool gguf, const char *stem,
                                            size_t length) {
    for (; names->gguf; names++) {
        const char *other = gguf ? names->gguf : names->huggingface;
        if (strlen(other) == length && !memcmp(other, stem, length))
            return names;
    }
    return NULL;
}

/* "blk.3.attn_q.weight" with "blk.": layer 3, stem "attn_q"; layer -1: outside the layers. False: neither a
 * weight nor a bias. */
static bool take_apart(const char *name, const char *layers, long *layer, const char **stem, size_t *length) {
    const char *end = strrchr(name, '.');
    if (!end || (strcmp(end, ".weight") != 0 && strcmp(end, ".bias") != 0))
        return false;
    *layer = -1;
    *stem = name;
    if (!strncmp(name, layers, strlen(layers))) {
        char *after;
        const char *number = name + strlen(layers);
        *layer = strtol(number, &after, 10);
        if (after == number || *after != '.' || *layer < 0 || *layer > INT32_MAX || after + 1 > end)
            return false;
        *stem = after + 1;
    }
    *length = (size_t)(end - *stem);
    return true;
}

static bool translate(const struct mf_gguf_family *family, const char *from, bool gguf,
                      const char *from_layers, const char *to_layers, char name[MF_GGUF_NAME_BYTES],
                      const char **part) {
    long layer;
    const char *stem;
    size_t length;
    if (!take_apart(from, from_layers, &layer, &stem, &length))
        return false;
    const struct mf_gguf_name *outside = family->name_outside ? family->name_outside : outer_names;
    const struct mf_gguf_name *found =
        find_name(layer < 0 ? outside : family->name_of_layer, gguf, stem, length);
    if (!found)
        return false;
    const char *to = gguf ? found->huggingface : found->gguf;
    *part = layer < 0 ? "" : found->gguf;
    if (layer < 0)
        snprintf(name, MF_GGUF_NAME_BYTES, "%s%s", to, stem + length);
    else
        snprintf(name, MF_GGUF_NAME_BYTES, "%s%ld.%s%s", to_layers, layer, to, stem + length);
    return true;
}

bool mf_huggingface_name_of(const struct mf_gguf_family *family, const char *gguf,
                            char name[MF_GGUF_NAME_BYTES], char part[MF_GGUF_NAME_BYTES]) {
    const char *stem = "";
    const bool found = translate(family, gguf, true, "blk.", "model.layers.", name, &stem);
    snprintf(part, MF_GGUF_NAME_BYTES, "%s", stem);
    return found;
}

bool mf_gguf_name_of(const struct mf_gguf_family *family, const char *huggingface,
                     char name[MF_GGUF_NAME_BYTES]) {
    const char *stem;
    return translate(family, huggingface, false, "model.layers.", "blk.", name, &stem);
}

int64_t mf_gguf_row_to_huggingface(int64_t rows, int64_t heads, int64_t row) {
    const int64_t size = rows / heads, head = row / size, j = row % size;
    return head * size + j / 2 + j % 2 * (size / 2);
}

int64_t mf_huggingface_row_to_gguf(int64_t rows, int64_t heads, int64_t row) {
    const int64_t size = rows / heads, head = row / size, j = row % size;
    return head * size + j % (size / 2) * 2 + j / (size / 2);
}
