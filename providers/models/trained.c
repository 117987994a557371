#include "providers/models/trained.h"

#include "providers/models/decoder.h"
#include "providers/weights/safetensors.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char head_name[] = "lm_head.weight";

/* Is `text` a whole part of the dotted name, or, with `inside`, the end of one behind "_"? */
static bool has_part(const char *name, const char *text, bool inside) {
    const size_t length = strlen(text);
    for (const char *at = strstr(name, text); at; at = strstr(at + 1, text)) {
        const bool begins = at == name || at[-1] == '.' || (inside && at[-1] == '_');
        if (begins && (at[length] == '.' || !at[length]))
            return true;
    }
    return false;
}

/* Trainer.get_decay_parameter_names: bias | layernorm | rmsnorm | (^|\.)norm($|\.) | _norm($|\.) in lower
 * case. */
static bool is_not_decayed(const char *weight) {
    char name[MF_DECODER_NAME_BYTES];
    size_t i = 0;
    for (; weight[i] && i + 1 < sizeof name; i++)
        name[i] = (char)tolower((unsigned char)weight[i]);
    name[i] = '\0';
    return strstr(name, "bias") || strstr(name, "layernorm") || strstr(name, "rmsnorm") ||
           has_part(name, "norm", true);
}

static enum mf_status train(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                            const struct mf_decoder_weight *weight, const char *name, bool beside,
                            struct mf_error *error) {
    char table_name[MF_DECODER_NAME_BYTES];
    mf_decoder_embedding_name(mf_model_architecture(model), table_name);
    const uint8_t flags = (uint8_t)((is_not_decayed(weight->name) ? MF_TENSOR_NO_DECAY : 0) |
                                    (!strcmp(weight->name, table_name) ? MF_TENSOR_EXACT_MOMENTS : 0));
    return mf_graph_train_weight(graph, slot, weight->name, name, mf_model_compute_dtype(model), weight->rank,
                                 weight->dim, flags, beside, error);
}

enum mf_status mf_model_train_all(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                                  struct mf_error *error) {
    struct mf_decoder_weight *weight = NULL;
    size_t count = 0;
    enum mf_status status = mf_model_weights(model, &weight, &count, error);
    for (size_t i = 0; status == MF_OK && i < count; i++)
        status = train(model, graph, slot, &weight[i], weight[i].name, false, error);
    free(weight);
    return status;
}

/* ---- modules_to_save ---- */

/* The weights that modules may be chosen of: those on disk and that of a tied head. */
static enum mf_status list_weights(const struct mf_model *model, struct mf_decoder_weight **list,
                                   size_t *count, struct mf_error *error) {
    const struct mf_architecture *architecture = mf_model_architecture(model);
    enum mf_status status = mf_model_weights(model, list, count, error);
    if (status != MF_OK || !architecture->tied_embeddings)
        return status;
    struct mf_decoder_weight *longer = realloc(*list, (*count + 1) * sizeof **list);
    if (!longer) {
        free(*list);
        *list = NULL;
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "the list of weights: out of memory");
    }
    *list = longer;
    longer[*count] =
        (struct mf_decoder_weight){.rank = 2, .dim = {architecture->vocabulary, architecture->hidden}};
    snprintf(longer[*count].name, sizeof longer->name, "%s", head_name);
    ++*count;
    return MF_OK;
}

/* The module that a weight belongs to: its name without the last part. */
static void module_of(const struct mf_decoder_weight *weight, char module[MF_DECODER_NAME_BYTES]) {
    snprintf(module, MF_DECODER_NAME_BYTES, "%s", weight->name);
    char *dot = strrchr(module, '.');
    if (dot)
        *dot = '\0';
}

static bool ends_with(const char *name, const char *text) {
    const size_t length = strlen(name), end = strlen(text);
    return end > 0 && length >= end && !strcmp(name + length - end, text);
}

static enum mf_status no_such_module(const struct mf_decoder_weight *weight, size_t count, const char *text,
                                     struct mf_error *error) {
    char known[512] = ",", module[MF_DECODER_NAME_BYTES], part[MF_DECODER_NAME_BYTES + 3];
    for (size_t i = 0; i < count; i++) {
        module_of(&weight[i], module);
        const char *dot = strrchr(module, '.');
        const size_t used = strlen(known);
        snprintf(part, sizeof part, " %s,", dot ? dot + 1 : module);
        if (!strstr(known, part) && used + strlen(part) < sizeof known)
            (void)snprintf(known + used, sizeof known - used, "%s", part);
    }
    known[strlen(known) - 1] = '\0';
    return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                        "modules_to_save: no module of this model that has weights of its own ends with '%s' "
                        "(there are: %s)",
                        text, known + 2);
}

static void take_out(const struct mf_model *model, const char *module, bool *chosen) {
    for (size_t i = 0; i < mf_model_module_count(model); i++)
        if (!strcmp(mf_model_module(model, i)->name, module))
            chosen[i] = false;
}

static enum mf_status train_beside(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                                   const struct mf_decoder_weight *weight, struct mf_error *error) {
    char name[MF_DECODER_NAME_BYTES + 32];
    if (mf_graph_find_trained(graph, slot, weight->name))
        return MF_OK; /* two of the texts mean it */
    if (mf_model_is_quantized(model, weight->name))
        return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                            "modules_to_save and quantised weights: '%s' is quantised, and what is trained "
                            "whole needs its weights whole; leave it out, or train without quantisation",
                            weight->name);
    snprintf(name, sizeof name, "base_model.model.%s", weight->name);
    return train(model, graph, slot, weight, name, true, error);
}

enum mf_status mf_model_train_modules(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                                      const char *const *modules, size_t count, bool *chosen,
                                      struct mf_error *error) {
    struct mf_decoder_weight *weight = NULL;
    size_t weights = 0;
    if (count && mf_model_is_built(model))
        return mf_error_set(
            error, MF_ERROR_UNSUPPORTED_FIELD,
            "modules_to_save: what shares a weight with them is not known of a model whose programs "
            "its provider builds; finetuning: full trains every weight of it");
    enum mf_status status = list_weights(model, &weight, &weights, error);
    if (status != MF_OK || !weight)
        return status;
    for (size_t m = 0; status == MF_OK && m < count; m++) {
        bool found = false;
        for (size_t i = 0; status == MF_OK && i < weights; i++) {
            char module[MF_DECODER_NAME_BYTES];
            module_of(&weight[i], module);
            if (!ends_with(module, modules[m]))
                continue;
            found = true;
            take_out(model, module, chosen);
            status = train_beside(model, graph, slot, &weight[i], error);
        }
        if (status == MF_OK && !found)
            status = no_such_module(weight, weights, modules[m], error);
    }
    free(weight);
    return status;
}

/* ---- values ---- */

enum mf_status mf_model_load_trained(const struct mf_model *model, const struct mf_graph *graph, int16_t slot,
                                     struct mf_executor *executor, struct mf_error *error) {
    for (int32_t i = 0; i < graph->trains; i++) {
        const struct mf_trained *trained = &graph->trained[i];
        if (trained->slot != slot)
            continue;
        const struct mf_stored_tensor *stored = mf_model_stored(model, trained->weight);
        if (!stored && !strcmp(trained->weight, head_name)) {
            char table_name[MF_DECODER_NAME_BYTES];
            mf_decoder_embedding_name(mf_model_architecture(model), table_name);
            stored = mf_model_stored(model, table_name);
        }
        if (!stored)
            return mf_error_set(error, MF_ERROR_INTERNAL, "%s: the model has no such weight",
                                trained->weight);
        mf_stored_values(stored, 0, mf_tensor_elements(mf_graph_tensor(graph, trained->parameter), NULL),
                         mf_executor_data(executor, trained->parameter));
        mf_safetensors_release(stored);
    }
    mf_executor_round_copies(executor);
    return MF_OK;
}
