/* Model families, tensor names and row order in GGUF and in Hugging Face. Private to providers/. */
#ifndef MF_PROVIDERS_GGUF_NAMES_H
#define MF_PROVIDERS_GGUF_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_GGUF_NAME_BYTES = 300 };

/* Stems of names: "attn_q" of "blk.3.attn_q.weight", "mlp.fc1" of "model.layers.3.mlp.fc1.bias". */
struct mf_gguf_name {
    const char *gguf, *huggingface;
};

/* What llama.cpp knows of windowed attention. */
enum mf_gguf_windows {
    MF_GGUF_WINDOWS_NONE,   /* nothing: the context ends where a window does */
    MF_GGUF_WINDOWS_ALL,    /* every layer */
    MF_GGUF_WINDOWS_PATTERN /* all but every `pattern`-th layer */
};

/* A model family as llama.cpp's own converter writes it and its loader computes it. What a row does not say
 * is refused by name. */
struct mf_gguf_family {
    const char *name;       /* `general.architecture`, and the first part of the metadata's keys */
    const char *model_type; /* of config.json */
    const char *class_name;
    const char *activation;                   /* `hidden_act` */
    const struct mf_gguf_name *name_of_layer; /* inside layers; ends with NULL */
    const struct mf_gguf_name *name_outside;  /* of them; NULL: those of most families */
    uint32_t ropes; /* the kinds of scaled RoPE: a bit (1 << enum mf_rope_kind) each */
    enum mf_gguf_windows windows;
    int32_t pattern;
    int32_t wide_layers;  /* models of so many layers scale scores by the root of hidden / heads; 0: none */
    bool interleaved;     /* rows of q and k change places, see below */
    bool query_bias;      /* q, k and v have a bias in every model */
    bool optional_biases; /* q, k, v, o and the feed-forward may have one */
    bool all_biases;      /* every module has one, the head too, and norms are layer norms */
    bool may_fuse_query;  /* q, k and v may lie in one tensor, one behind the other, which HF splits */
    bool unit_norms;      /* norms multiply by 1 + weight in Hugging Face, by the weight in GGUF */
    bool tied_head;       /* the head is always the table of tokens */
    bool soft_caps;       /* of scores and logits, always */
    bool local_theta;     /* windowed layers have rotary positions of their own, never scaled */
    bool partial_rotary;  /* of a head only the first columns may be rotated */
};

/* By `model_type` or, for the second, by `general.architecture`: the first that has it. NULL: none. Static.
 */
const struct mf_gguf_family *mf_gguf_family_of_type(const char *model_type);
const struct mf_gguf_family *mf_gguf_family(const char *name, size_t length);
/* "llama, qwen2, ...": all `general.architecture`. Static. */
const char *mf_gguf_family_list(void);

/* What the family's key of the norms' epsilon ends with. */
static inline const char *mf_gguf_epsilon_key(const struct mf_gguf_family *family) {
    return family->all_biases ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
}

/* "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; false for a name that the family does
 * not have. `part` gets the stem ("attn_q"), "" outside the layers. */
bool mf_huggingface_name_of(const struct mf_gguf_family *family, const char *gguf,
                            char name[MF_GGUF_NAME_BYTES], char part[MF_GGUF_NAME_BYTES]);
/* The way back. */
bool mf_gguf_name_of(const struct mf_gguf_family *family, const char *huggingface,
                     char name[MF_GGUF_NAME_BYTES]);

/* Query and key rows of a head of an `interleaved` family are interleaved pairs (2i, 2i + 1) in GGUF and
 * halves (i, d / 2 + i) in Hugging Face. Which row of the one stands at row `row` of the other. */
int64_t mf_gguf_row_to_huggingface(int64_t rows, int64_t heads, int64_t row);
int64_t mf_huggingface_row_to_gguf(int64_t rows, int64_t heads, int64_t row);

#endif
