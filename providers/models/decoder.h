/* Decoder-only models: which weights and modules a description implies, and the forward pass that computes
 * with them. Private to providers/ (model.c calls it, and convert.c for what must be there). */
#ifndef MF_PROVIDERS_MODELS_DECODER_H
#define MF_PROVIDERS_MODELS_DECODER_H

#include "providers/models/model.h"

/* What a module is used for. A layer has, in this order, either the fused or the single ones; the parts of a
 * fused one are columns of its output: queries, keys, values; gate, up. */
enum mf_decoder_role {
    MF_DECODER_QUERY,
    MF_DECODER_KEY,
    MF_DECODER_VALUE,
    MF_DECODER_QUERY_KEY_VALUE,
    MF_DECODER_OUTPUT,
    MF_DECODER_GATE,
    MF_DECODER_UP,
    MF_DECODER_GATE_UP,
    MF_DECODER_DOWN,
    MF_DECODER_ROLES
};

enum { MF_DECODER_NAME_BYTES = 128 };

/* A weight that must be on disk. */
struct mf_decoder_weight {
    char name[MF_DECODER_NAME_BYTES];
    int32_t rank;
    int64_t dim[2];
};

/* All weights that `architecture` implies, in the order of the forward pass; freed by the caller. */
enum mf_status mf_decoder_weights(const struct mf_architecture *architecture,
                                  struct mf_decoder_weight **weight, size_t *count, struct mf_error *error);

/* The name of the weight of the embeddings: "model.embed_tokens.weight". */
void mf_decoder_embedding_name(const struct mf_architecture *architecture, char name[MF_DECODER_NAME_BYTES]);

/* All linear modules in the order of the forward pass: those of each layer, then the head when it is not
 * tied. Names are owned by the rows; freed with mf_decoder_modules_free. */
enum mf_status mf_decoder_modules(const struct mf_architecture *architecture, struct mf_model_module **module,
                                  size_t *count, struct mf_error *error);
void mf_decoder_modules_free(struct mf_model_module *module, size_t count);

/* What the builder needs beside the description. */
struct mf_decoder {
    const struct mf_architecture *architecture;
    const struct mf_model_module *module; /* of mf_decoder_modules */
    /* The dtype that the graph holds a weight in. */
    enum mf_dtype (*weight_dtype)(const void *owner, const char *name);
    const void *owner;
    bool fuse; /* queries, keys and values are one product, gate and up are one: their weights lie as rows of
                  one */
};

/* The name of a weight whose rows are those of several on disk: their names with this in between. */
#define MF_DECODER_FUSED "+"
enum { MF_DECODER_FUSED_BYTES = 3 * MF_DECODER_NAME_BYTES };

/* The names of the f32 weights that hold mf_rope_frequencies of `rope` and of `window_rope`. */
#define MF_DECODER_ROPE_NAME        "rope.inverse_frequency"
#define MF_DECODER_WINDOW_ROPE_NAME "rope.window.inverse_frequency"

/* The graph's module for module `index`, with its weights. */
enum mf_status mf_decoder_graph_module(const struct mf_decoder *decoder, struct mf_graph *graph, size_t index,
                                       int32_t *id, struct mf_error *error);

/* Appends the forward pass to the empty program out->program and fills the other ids of *out. */
enum mf_status mf_decoder_build(const struct mf_decoder *decoder, struct mf_graph *graph,
                                struct mf_model_program *out, struct mf_error *error);

#endif
