#include "providers/host.h"

#include "common/error.h"
#include "common/files.h"
#include "common/json.h"
#include "common/log.h"
#include "kernels/quantize.h"
#include "kernels/tensor.h"
#include "providers/builder.h"
#include "providers/convert.h"
#include "providers/locate.h"
#include "providers/made_folder.h"
#include "providers/models/model.h"
#include "providers/models/source.h"
#include "providers/registry.h"
#include "providers/tokenizer/tokenizer.h"
#include "providers/weights/weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES = 16 << 20 };

/* The numbers of the ABI are those of the engine. */
_Static_assert((int)MF_NUMBER_F32 == MF_F32 && (int)MF_NUMBER_BF16 == MF_BF16 && (int)MF_NUMBER_F16 == MF_F16,
               "dtypes");
_Static_assert((int)MF_WEIGHTS_PLAIN == MF_QUANTIZATION_NONE && (int)MF_WEIGHTS_NF4 == MF_QUANTIZATION_NF4 &&
                   (int)MF_WEIGHTS_FP4 == MF_QUANTIZATION_FP4 && (int)MF_WEIGHTS_INT8 == MF_QUANTIZATION_INT8,
               "quantisations");

static int fail(struct mf_error *error, const char *code, const char *format, ...) {
    char text[MF_ERROR_TEXT_BYTES];
    enum mf_status status = mf_status_from_code(code ? code : "");
    if (status == MF_OK || (status == MF_ERROR_INTERNAL && (!code || strcmp(code, "internal") != 0)))
        status = MF_ERROR_PROVIDER_UNAVAILABLE; /* a code that there is not */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return (int)mf_error_set(error, status, "%s", text);
}

static void log_line(struct mf_provider_context *context, const char *message) {
    (void)context;
    mf_log_info(message);
}

static int cancelled(struct mf_provider_context *context) {
    return context && context->cancelled && context->cancelled(context->argument);
}

static void *allocate(size_t bytes) {
    return malloc(bytes ? bytes : 1);
}

static int check_model(struct mf_provider_context *context, const struct mf_model_reference *reference,
                       struct mf_error *error) {
    return (int)mf_model_check(context, reference, error);
}

/* `source` is the model's, or destroyed. */
static int open_with(struct mf_provider_context *context, const struct mf_load_options *options,
                     struct mf_source *source, struct mf_model **out, struct mf_error *error) {
    const struct mf_model_options model = {.folder = options->reference->model_id,
                                           .compute_dtype = (enum mf_dtype)options->compute_dtype,
                                           .quantization = (enum mf_quantization)options->quantization,
                                           .nested_quantization = options->nested != 0,
                                           .fuse = options->fuse != 0,
                                           .source = source};
    *out = NULL;
    enum mf_status status = MF_OK;
    if (options->model_class != MF_MODEL_CAUSAL_LM)
        status = mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED, "model_class %u is not supported",
                              options->model_class);
    if (status == MF_OK)
        status = mf_made_folders_allow(context, model.folder, error);
    if (status == MF_OK)
        return (int)mf_model_open(&model, out, error);
    mf_source_destroy(source);
    return (int)status;
}

static int open_model(struct mf_provider_context *context, const struct mf_load_options *options,
                      struct mf_model **out, struct mf_error *error) {
    return open_with(context, options, NULL, out, error);
}

int mf_host_open_source(struct mf_provider_context *context, const struct mf_load_options *options,
                        const struct mf_model_source *source, struct mf_model **out, struct mf_error *error) {
    struct mf_source *own = NULL;
    *out = NULL;
    const enum mf_status status = mf_source_create(source, &own, error);
    return status == MF_OK ? open_with(context, options, own, out, error) : (int)status;
}

static int open_tokenizer(struct mf_provider_context *context, const struct mf_model_reference *reference,
                          struct mf_tokenizer **out, struct mf_error *error) {
    const enum mf_status status = mf_made_folders_allow(context, reference->model_id, error);
    return (int)(status == MF_OK ? mf_tokenizer_open(reference->model_id, out, error) : status);
}

/* ---- weights and folders ---- */

static int open_weights(struct mf_provider_context *context, const char *path, struct mf_weights **out,
                        struct mf_error *error) {
    const enum mf_status status = mf_made_folders_allow(context, path, error);
    return (int)(status == MF_OK ? mf_weights_open(path, out, error) : status);
}

static uint64_t weight_count(const struct mf_weights *weights) {
    return mf_weights_count(weights);
}

static void weight_at(const struct mf_weights *weights, uint64_t index, struct mf_weight *out) {
    mf_weights_at(weights, index, out);
}

static int read_weight(const struct mf_weights *weights, uint64_t index, int64_t first, int64_t count,
                       float *value, struct mf_error *error) {
    return (int)mf_weights_read(weights, index, first, count, value, error);
}

static int metadata_text(const struct mf_weights *weights, const char *key, const char **text,
                         uint64_t *bytes) {
    size_t length = 0;
    const bool found = mf_weights_text(weights, key, text, &length);
    *bytes = length;
    return found;
}

static int metadata_number(const struct mf_weights *weights, const char *key, double *value) {
    return mf_weights_number(weights, key, value);
}

/* A member of config.json, a new reference; NULL: there is none, or the job may not read the folder. */
static json_t *config_member(struct mf_provider_context *context, const char *folder, const char *key) {
    char *path = mf_path_join(folder, "config.json"), *copy = strdup(key), *rest = copy;
    json_t *config = NULL;
    struct mf_error ignored;
    if (path && copy && mf_made_folders_allow(context, folder, &ignored) == MF_OK)
        (void)mf_json_read_file(path, CONFIG_BYTES, &config, &ignored);
    const json_t *member = config;
    while (member && rest)
        member = json_object_get(member, strsep(&rest, "."));
    json_t *found = json_incref((json_t *)member);
    json_decref(config);
    free(copy);
    free(path);
    return found;
}

static int config_number(struct mf_provider_context *context, const char *folder, const char *key,
                         double *value) {
    json_t *member = config_member(context, folder, key);
    const int found = json_is_number(member) || json_is_boolean(member);
    if (found)
        *value = json_is_boolean(member) ? json_is_true(member) : json_number_value(member);
    json_decref(member);
    return found;
}

static int config_text(struct mf_provider_context *context, const char *folder, const char *key, char *text,
                       size_t bytes) {
    json_t *member = config_member(context, folder, key);
    const int found = json_is_string(member) && bytes;
    if (found)
        snprintf(text, bytes, "%s", json_string_value(member));
    json_decref(member);
    return found;
}

static int make_folder(struct mf_provider_context *context, const struct mf_folder_source *source,
                       const char **path, struct mf_error *error) {
    return (int)mf_made_folder_write(context, source, path, error);
}

static int check_gguf(struct mf_provider_context *context, const char *file, struct mf_error *error) {
    if (!strncmp(file, "hf://", 5))
        return (int)mf_model_check_gguf(context, file, error);
    const enum mf_status status = mf_made_folders_allow(context, file, error);
    return (int)(status == MF_OK ? mf_convert_gguf_check(file, error) : status);
}

static int make_folder_of_gguf(struct mf_provider_context *context, const char *file, uint32_t dtype,
                               const char **path, struct mf_error *error) {
    return (int)mf_made_folder_of_gguf(context, file, (enum mf_dtype)dtype, path, error);
}

static const struct mf_host_api table = {
    .size = sizeof table,
    .abi_version = MF_PROVIDER_ABI,
    .fail = fail,
    .log = log_line,
    .cancelled = cancelled,
    .allocate = allocate,
    .release = free,
    .check_model = check_model,
    .open_model = open_model,
    .open_tokenizer = open_tokenizer,
    .close_model = mf_model_close,
    .close_tokenizer = mf_tokenizer_close,
    .open_weights = open_weights,
    .close_weights = mf_weights_close,
    .weight_count = weight_count,
    .weight_at = weight_at,
    .find_weight = mf_weights_find,
    .read_weight = read_weight,
    .metadata_text = metadata_text,
    .metadata_number = metadata_number,
    .make_folder = make_folder,
    .check_gguf = check_gguf,
    .make_folder_of_gguf = make_folder_of_gguf,
    .config_number = config_number,
    .config_text = config_text,
    .graph = &mf_graph_table,
};

const struct mf_host_api *mf_host(void) {
    return &table;
}
