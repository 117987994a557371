/* Models whose programs a provider builds, or changes nodes of: struct mf_model_source of provider.h, as
 * model.c works with it. Private to providers/. A source belongs to its model; one thread at a time. */
#ifndef MF_PROVIDERS_MODELS_SOURCE_H
#define MF_PROVIDERS_MODELS_SOURCE_H

#include "providers/models/decoder.h"
#include "providers/models/model.h"

struct mf_source;

/* Copies *own, and takes over its close(), which is called here after a failure. What it lacks is
 * MF_ERROR_PROVIDER_UNAVAILABLE. */
enum mf_status mf_source_create(const struct mf_model_source *own, struct mf_source **out,
                                struct mf_error *error);
void mf_source_destroy(struct mf_source *source); /* NULL is fine */

/* Has it a build() of its own? Else what follows, but mf_source_rewrite(), is not to be called. */
bool mf_source_builds(const struct mf_source *source);

/* What config.json would have said; texts are the source's. */
void mf_source_describe(const struct mf_source *source, struct mf_architecture *out);

/* Which dtype the graph holds a weight in; `owner` is given to it. */
struct mf_source_weights {
    enum mf_dtype (*dtype)(const void *owner, const char *name);
    const void *owner;
};

/* Builds a program in a graph of its own to see which weights and modules it names; lists as of decoder.h. */
enum mf_status mf_source_survey(struct mf_source *source, struct mf_source_weights weights,
                                enum mf_dtype compute, struct mf_decoder_weight **weight, size_t *count,
                                struct mf_model_module **module, size_t *modules, struct mf_error *error);

/* The weights of the survey, as a list of the caller's. */
enum mf_status mf_source_list_weights(const struct mf_source *source, struct mf_decoder_weight **weight,
                                      size_t *count, struct mf_error *error);

/* The graph's module for module `index` of the survey, with its weights. */
enum mf_status mf_source_graph_module(const struct mf_source *source, struct mf_source_weights weights,
                                      struct mf_graph *graph, size_t index, int32_t *id,
                                      struct mf_error *error);

/* Appends the forward pass to the empty program out->program and fills the other ids of *out. */
enum mf_status mf_source_build(struct mf_source *source, struct mf_source_weights weights,
                               struct mf_graph *graph, struct mf_model_program *out, struct mf_error *error);

/* Asks the provider for every node of the forward pass, where it has a rewrite(). */
enum mf_status mf_source_rewrite(struct mf_source *source, struct mf_graph *graph, int32_t program,
                                 struct mf_error *error);

/* The values of a constant, by the name of its tensor; NULL: there is no such constant. */
const float *mf_source_values(const struct mf_source *source, const char *name, size_t *bytes);

/* ---- what builder.c offers in build() ---- */

struct mf_source_program; /* one program in the making */

void mf_source_set_layer(struct mf_source_program *program, int32_t layer);
int32_t mf_source_weight(struct mf_source_program *program, const char *name, uint32_t rank,
                         const int64_t *dim);
int32_t mf_source_constant(struct mf_source_program *program, const char *name, const float *value,
                           uint64_t count);
int32_t mf_source_linear(struct mf_source_program *program, int32_t x, const char *name, int64_t columns,
                         bool bias);
int32_t mf_source_attention(struct mf_source_program *program, int32_t q, int32_t k, int32_t v,
                            struct mf_attention_attributes attributes);
void mf_source_head(struct mf_source_program *program, int32_t hidden, int32_t table, int32_t bias,
                    struct mf_head_attributes attributes);

#endif
