#include "providers/convert.h"

#include "common/files.h"
#include "providers/convert_tokenizer.h"
#include "providers/gguf_names.h"
#include "providers/gguf_rope.h"
#include "providers/models/decoder.h"
#include "providers/weights/gguf.h"
#include "providers/weights/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_ELEMENTS = 1 << 18, MAX_WIDTH = 1 << 20 };

/* The kind and sizes of a model in GGUF. */
struct description {
    const struct mf_gguf_family *family;
    int64_t hidden, intermediate, layers, heads, key_value_heads, head_dim, positions, window;
    double epsilon;
    json_t *rope; /* members of config.json */
};

static enum mf_status out_of_memory(const char *what, struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "%s: out of memory", what);
    return MF_ERROR_OUT_OF_MEMORY;
}

/* ---- description ---- */

/* "llama.block_count" for "block_count"; any family's key fits. */
static const char *key_of(const struct description *d, const char *name, char key[80]) {
    snprintf(key, 80, "%s.%s", d->family->name, name);
    return key;
}

static enum mf_status require_integer(const struct mf_gguf *file, const struct description *d,
                                      const char *name, int64_t maximum, int64_t *value,
                                      struct mf_error *error) {
    char key[80];
    if (!mf_gguf_integer(file, key_of(d, name, key), value) || *value < 1 || *value > maximum)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "metadata %s is missing or not in 1 to %lld", key,
                            (long long)maximum);
    return MF_OK;
}

static enum mf_status read_family(const struct mf_gguf *file, struct description *out,
                                  struct mf_error *error) {
    struct mf_gguf_text text = {"", 0};
    char key[80];
    mf_gguf_string(file, "general.architecture", &text);
    out->family = mf_gguf_family(text.data, text.length);
    if (!out->family)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "general.architecture: '%.*s' is not supported (supported: %s)",
                            (int)(text.length < 64 ? text.length : 64), text.data, mf_gguf_family_list());
    int64_t experts = 0;
    if (mf_gguf_integer(file, key_of(out, "expert_count", key), &experts) && experts)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: %lld is not supported", key,
                            (long long)experts);
    return MF_OK;
}

static enum mf_status read_description(const struct mf_gguf *file, struct description *out,
                                       struct mf_error *error) {
    char key[80];
    enum mf_status status;
    if ((status = read_family(file, out, error)) ||
        (status = require_integer(file, out, "embedding_length", MAX_WIDTH, &out->hidden, error)) ||
        (status = require_integer(file, out, "feed_forward_length", MAX_WIDTH, &out->intermediate, error)) ||
        (status = require_integer(file, out, "block_count", 4096, &out->layers, error)) ||
        (status = require_integer(file, out, "context_length", INT32_MAX, &out->positions, error)) ||
        (status = require_integer(file, out, "attention.head_count", MAX_WIDTH, &out->heads, error)))
        return status;
    out->key_value_heads = out->heads;
    mf_gguf_integer(file, key_of(out, "attention.head_count_kv", key), &out->key_value_heads);
    out->head_dim = out->hidden / out->heads;
    mf_gguf_integer(file, key_of(out, "attention.key_length", key), &out->head_dim);
    if (out->key_value_heads < 1 || out->key_value_heads > out->heads || out->head_dim < 2 ||
        out->head_dim > MAX_WIDTH || out->head_dim % 2)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%lld heads, %lld key / value heads of %lld are not supported",
                            (long long)out->heads, (long long)out->key_value_heads, (long long)out->head_dim);
    mf_gguf_integer(file, key_of(out, "attention.sliding_window", key), &out->window);
    if (out->window < 0 || out->window > INT32_MAX)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "metadata %s is not in 0 to %d", key, INT32_MAX);
    if (!mf_gguf_number(file, key_of(out, mf_gguf_epsilon_key(out->family), key), &out->epsilon))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "metadata %s is missing", key);
    if (!(out->epsilon > 0 && out->epsilon <= 1))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "metadata %s is not above 0 and up to 1", key);
    out->rope = json_object();
    return mf_gguf_read_rope(file, out->family, out->head_dim, out->positions, out->rope, error);
}

static void put_layer_types(const struct description *d, int64_t pattern, json_t *config) {
    json_t *types = json_array();
    for (int64_t i = 1; i <= d->layers; i++)
        json_array_append_new(types, json_string(i % pattern ? "sliding_attention" : "full_attention"));
    json_object_set_new(config, "layer_types", types);
}

/* Of a module of any layer: one that is missing elsewhere is then named (check_tensors). */
static bool any_bias(const struct mf_gguf *file, const char *part) {
    for (size_t i = 0; i < mf_gguf_count(file); i++) {
        const char *name = mf_gguf_at(file, i)->name, *end = strrchr(name, '.');
        if (!strncmp(name, "blk.", 4) && !strcmp(end, ".bias") && strstr(name, part) &&
            !strstr(name, "norm.bias"))
            return true;
    }
    return false;
}

/* What only some families say. */
static void put_family(const struct mf_gguf *file, const struct description *d, json_t *config) {
    const struct mf_gguf_family *family = d->family;
    const bool wide = family->wide_layers && d->layers == family->wide_layers;
    double cap = 0;
    char key[80];
    if (family->optional_biases) {
        json_object_set_new(config, "attention_bias", json_boolean(any_bias(file, ".attn_")));
        json_object_set_new(config, "mlp_bias", json_boolean(any_bias(file, ".ffn_")));
    }
    if (family->unit_norms)
        json_object_set_new(config, "hidden_activation", json_string(family->activation));
    if (family->windows != MF_GGUF_WINDOWS_NONE)
        json_object_set_new(config, "sliding_window", d->window ? json_integer(d->window) : json_null());
    int64_t pattern = family->pattern;
    mf_gguf_integer(file, key_of(d, "attention.sliding_window_pattern", key), &pattern);
    if (family->windows == MF_GGUF_WINDOWS_PATTERN)
        put_layer_types(d, pattern < 1 ? family->pattern : pattern, config);
    if (family->windows == MF_GGUF_WINDOWS_PATTERN)
        json_object_set_new(config, "query_pre_attn_scalar",
                            json_integer(wide ? d->hidden / d->heads : d->head_dim));
    if (family->soft_caps && mf_gguf_number(file, key_of(d, "attn_logit_softcapping", key), &cap))
        json_object_set_new(config, "attn_logit_softcapping", json_real(mf_gguf_shortest(cap)));
    if (family->soft_caps && mf_gguf_number(file, key_of(d, "final_logit_softcapping", key), &cap))
        json_object_set_new(config, "final_logit_softcapping", json_real(mf_gguf_shortest(cap)));
}

static void put_token(const struct mf_gguf *file, const char *key, const char *name, json_t *config) {
    int64_t id;
    json_object_set_new(config, name, mf_gguf_integer(file, key, &id) ? json_integer(id) : json_null());
}

/* config.json of a model with so many tokens; NULL: out of memory. */
static json_t *make_config(const struct mf_gguf *file, const struct description *d, enum mf_dtype dtype,
                           int64_t vocabulary) {
    json_t *config = json_pack(
        "{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:b, s:s}", "architectures",
        d->family->class_name, "model_type", d->family->model_type, "hidden_act", d->family->activation,
        "vocab_size", (json_int_t)vocabulary, "hidden_size", (json_int_t)d->hidden, "intermediate_size",
        (json_int_t)d->intermediate, "num_hidden_layers", (json_int_t)d->layers, "num_attention_heads",
        (json_int_t)d->heads, "num_key_value_heads", (json_int_t)d->key_value_heads, "head_dim",
        (json_int_t)d->head_dim, "max_position_embeddings", (json_int_t)d->positions,
        d->family->all_biases ? "layer_norm_eps" : "rms_norm_eps", mf_gguf_shortest(d->epsilon),
        "tie_word_embeddings", !mf_gguf_find(file, "output.weight"), "torch_dtype",
        dtype == MF_BF16 ? "bfloat16" : "float32");
    if (!config)
        return NULL;
    put_token(file, "tokenizer.ggml.bos_token_id", "bos_token_id", config);
    put_token(file, "tokenizer.ggml.eos_token_id", "eos_token_id", config);
    put_token(file, "tokenizer.ggml.padding_token_id", "pad_token_id", config);
    put_family(file, d, config);
    json_object_update(config, d->rope);
    return config;
}

static enum mf_status write_config(const struct mf_gguf *file, const struct description *d,
                                   const struct mf_convert_options *options, int32_t vocabulary,
                                   struct mf_error *error) {
    json_t *config = make_config(file, d, options->dtype, vocabulary);
    char *path = mf_path_join(options->output_folder, "config.json");
    char *text = config ? json_dumps(config, JSON_INDENT(1)) : NULL;
    enum mf_status status = path && text ? mf_file_write_atomic(path, text, strlen(text), 0644, error)
                                         : mf_error_errno(error, ENOMEM, "config.json");
    free(text);
    free(path);
    json_decref(config);
    return status;
}

/* ---- weights ---- */

/* One tensor on its way: rows of `columns` elements, in the order of Hugging Face. */
struct job {
    const struct mf_gguf_tensor *tensor;
    char name[MF_GGUF_NAME_BYTES];
    int64_t first; /* its first row in the tensor, which may hold other weights, too */
    int64_t rows, columns;
    int32_t rank;
    int64_t dim[2];
    int64_t heads; /* 0: rows stay; else those of each head change places (gguf_names.h) */
    float offset;  /* subtracted: the norms of a family whose norms are 1 + weight */
};

static int64_t source_row(const struct job *job, int64_t row) {
    return job->first + (job->heads ? mf_huggingface_row_to_gguf(job->rows, job->heads, row) : row);
}

static enum mf_status plan_tensor(const struct mf_gguf_tensor *tensor, const struct description *d,
                                  struct job *job, struct mf_error *error) {
    char part[MF_GGUF_NAME_BYTES];
    if (!mf_huggingface_name_of(d->family, tensor->name, job->name, part))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "tensor %s does not belong to a %s model",
                            tensor->name, d->family->name);
    job->tensor = tensor;
    job->heads = !d->family->interleaved   ? 0
                 : !strcmp(part, "attn_q") ? d->heads
                 : !strcmp(part, "attn_k") ? d->key_value_heads
                                           : 0;
    job->offset = d->family->unit_norms && strstr(tensor->name, "norm.weight") ? 1 : 0;
    job->columns = tensor->rank == 1 && job->heads ? 1 : tensor->dim[tensor->rank - 1];
    job->rows = tensor->elements / job->columns;
    if (tensor->rank > 2 || (job->heads && job->rows != job->heads * d->head_dim))
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "tensor %s has an unexpected shape",
                            tensor->name);
    job->rank = tensor->rank;
    memcpy(job->dim, tensor->dim, (size_t)tensor->rank * sizeof *job->dim);
    return MF_OK;
}

/* "blk.3.attn_qkv.weight" -> jobs of the three that lie in it, one behind the other. */
static enum mf_status split_tensor(const struct mf_gguf_tensor *tensor, const struct description *d,
                                   const char *at, struct job job[3], struct mf_error *error) {
    static const char *const stem[] = {"attn_q", "attn_k", "attn_v"};
    const int64_t keys = d->key_value_heads * d->head_dim, rows[] = {d->heads * d->head_dim, keys, keys};
    int64_t first = 0;
    if (tensor->rank > 2 || tensor->dim[0] != rows[0] + 2 * keys)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "tensor %s has an unexpected shape",
                            tensor->name);
    for (int i = 0; i < 3; i++) {
        char name[MF_GGUF_NAME_BYTES], part[MF_GGUF_NAME_BYTES];
        snprintf(name, sizeof name, "%.*s%s%s", (int)(at - tensor->name), tensor->name, stem[i],
                 at + strlen("attn_qkv"));
        if (!mf_huggingface_name_of(d->family, name, job[i].name, part))
            return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "tensor %s does not belong to a %s model",
                                tensor->name, d->family->name);
        job[i].tensor = tensor;
        job[i].columns = tensor->rank == 1 ? 1 : tensor->dim[1];
        job[i].first = first;
        job[i].rows = job[i].dim[0] = rows[i];
        job[i].rank = tensor->rank;
        job[i].dim[1] = job[i].columns;
        first += rows[i];
    }
    return MF_OK;
}

/* What becomes of each tensor. job[3 * mf_gguf_count(file)]. */
static enum mf_status plan_tensors(const struct mf_gguf *file, const struct description *d, struct job *job,
                                   size_t *count, struct mf_error *error) {
    enum mf_status status = MF_OK;
    *count = 0; /* without those that only say where positions turn */
    for (size_t i = 0; i < mf_gguf_count(file) && status == MF_OK; i++) {
        const struct mf_gguf_tensor *tensor = mf_gguf_at(file, i);
        const char *fused = d->family->may_fuse_query ? strstr(tensor->name, "attn_qkv.") : NULL;
        if (mf_gguf_is_factors(tensor->name))
            continue;
        status = fused ? split_tensor(tensor, d, fused, job + *count, error)
                       : plan_tensor(tensor, d, job + *count, error);
        *count += fused ? 3 : 1;
    }
    return status;
}

/* ---- do the tensors make the model that the metadata describe? ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct job *)a)->name, ((const struct job *)b)->name);
}

/* The tensor of the weight `name`, for messages. */
static const char *tensor_of(const struct description *d, const char *name, char gguf[MF_GGUF_NAME_BYTES]) {
    return mf_gguf_name_of(d->family, name, gguf) ? gguf : name;
}

static enum mf_status check_need(const struct description *d, const struct mf_decoder_weight *need,
                                 const struct job *sorted, size_t count, struct mf_error *error) {
    struct job key;
    char gguf[MF_GGUF_NAME_BYTES];
    snprintf(key.name, sizeof key.name, "%s", need->name);
    const struct job *found = bsearch(&key, sorted, count, sizeof key, by_name);
    if (!found)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH,
                            "the metadata and the other tensors imply a tensor %s, which is not there",
                            tensor_of(d, need->name, gguf));
    if (found->rank != need->rank || found->dim[0] != need->dim[0] ||
        (need->rank > 1 && found->dim[1] != need->dim[1]))
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH,
                            "tensor %s: %lld rows of %lld for %s, the metadata imply %lld of %lld",
                            found->tensor->name, (long long)found->dim[0],
                            (long long)(found->rank > 1 ? found->dim[1] : 1), need->name,
                            (long long)need->dim[0], (long long)(need->rank > 1 ? need->dim[1] : 1));
    return MF_OK;
}

static int by_weight(const void *a, const void *b) {
    return strcmp(((const struct mf_decoder_weight *)a)->name, ((const struct mf_decoder_weight *)b)->name);
}

static enum mf_status check_weights(const struct description *d, const struct mf_architecture *architecture,
                                    const struct job *sorted, size_t count, struct mf_error *error) {
    struct mf_decoder_weight *need = NULL;
    size_t needed = 0;
    enum mf_status status = mf_decoder_weights(architecture, &need, &needed, error);
    for (size_t i = 0; i < needed && status == MF_OK; i++)
        status = check_need(d, &need[i], sorted, count, error);
    if (status == MF_OK)
        qsort(need, needed, sizeof *need, by_weight);
    for (size_t i = 0; i < count && status == MF_OK; i++) {
        struct mf_decoder_weight key;
        snprintf(key.name, sizeof key.name, "%.*s", (int)sizeof key.name - 1, sorted[i].name);
        const bool twice = i > 0 && !strcmp(sorted[i].name, sorted[i - 1].name);
        if (twice || !bsearch(&key, need, needed, sizeof key, by_weight))
            status = mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH,
                                  twice ? "tensor %s: another one holds %s, too"
                                        : "tensor %s: the model that the metadata describe has no %s",
                                  sorted[i].tensor->name, sorted[i].name);
    }
    free(need);
    return status;
}

/* Before anything is dequantised. */
static enum mf_status check_tensors(const struct mf_gguf *file, const struct description *d,
                                    const struct job *job, size_t count, struct mf_error *error) {
    const struct mf_gguf_tensor *embeddings = mf_gguf_find(file, "token_embd.weight");
    struct mf_architecture *architecture = malloc(sizeof *architecture);
    struct job *sorted = malloc((count + 1) * sizeof *sorted);
    json_t *config = make_config(file, d, MF_F32, embeddings ? embeddings->dim[0] : 1);
    enum mf_status status = MF_ERROR_OUT_OF_MEMORY;
    if (architecture && sorted && config)
        status =
            mf_architecture_from_json(config, "what its metadata say as config.json", architecture, error);
    else
        out_of_memory("the list of tensors", error);
    if (status == MF_OK) {
        memcpy(sorted, job, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, by_name);
        status = check_weights(d, architecture, sorted, count, error);
    }
    json_decref(config);
    free(sorted);
    free(architecture);
    return status;
}

/* What the file says and what it holds. d->rope and *job are freed by the caller, whatever is returned. */
static enum mf_status read_model(const struct mf_gguf *file, struct description *d, struct job **job,
                                 size_t *count, struct mf_error *error) {
    *job = calloc(3 * mf_gguf_count(file) + 1, sizeof **job);
    if (!*job) {
        out_of_memory("the list of tensors", error);
        return MF_ERROR_OUT_OF_MEMORY;
    }
    enum mf_status status = read_description(file, d, error);
    if (status == MF_OK)
        status = plan_tensors(file, d, *job, count, error);
    if (status != MF_OK || !d->family) /* it has one by now, which the analyzer does not see */
        return status != MF_OK ? status : MF_ERROR_INTERNAL;
    return check_tensors(file, d, *job, *count, error);
}

/* ---- writing ---- */

/* Reads `rows` rows from `row` on as f32. */
static enum mf_status read_rows(const struct job *job, int64_t row, int64_t rows, float *value,
                                struct mf_error *error) {
    for (int64_t i = 0; i < rows; i++)
        if (!mf_gguf_read(job->tensor, source_row(job, row + i) * job->columns, job->columns,
                          value + i * job->columns))
            return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "tensor %s: its blocks do not fit its rows",
                                job->tensor->name);
    return MF_OK;
}

static enum mf_status write_tensor(const struct job *job, enum mf_dtype dtype,
                                   struct mf_safetensors_writer *writer, struct mf_error *error) {
    int64_t batch = BATCH_ELEMENTS / job->columns;
    batch = batch < 1 ? 1 : batch > job->rows ? job->rows : batch;
    float *value = malloc((size_t)(batch * job->columns) * sizeof *value);
    uint16_t *narrow = malloc((size_t)(batch * job->columns) * sizeof *narrow);
    enum mf_status status = value && narrow ? MF_OK : out_of_memory(job->name, error);
    for (int64_t row = 0; row < job->rows && status == MF_OK; row += batch) {
        int64_t rows = job->rows - row < batch ? job->rows - row : batch;
        size_t count = (size_t)(rows * job->columns);
        status = read_rows(job, row, rows, value, error);
        for (size_t i = 0; i < count && job->offset > 0; i++)
            value[i] -= job->offset;
        for (size_t i = 0; i < count && dtype == MF_BF16; i++)
            narrow[i] = mf_f32_to_bf16(value[i]);
        if (status == MF_OK)
            status = dtype == MF_BF16 ? mf_safetensors_write(writer, narrow, count * sizeof *narrow, error)
                                      : mf_safetensors_write(writer, value, count * sizeof *value, error);
    }
    free(narrow);
    free(value);
    return status;
}

static enum mf_status write_weights(const struct job *job, size_t count,
                                    const struct mf_convert_options *options, struct mf_error *error) {
    struct mf_safetensors_writer *writer = NULL;
    struct mf_safetensors_entry *entry = calloc(count + 1, sizeof *entry);
    char *path = mf_path_join(options->output_folder, "model.safetensors");
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    enum mf_status status = MF_OK;
    if (!entry || !path || !metadata) {
        status = mf_error_errno(error, ENOMEM, "model.safetensors");
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        entry[i].name = job[i].name;
        entry[i].dtype = options->dtype;
        entry[i].rank = job[i].rank;
        memcpy(entry[i].dim, job[i].dim, sizeof job[i].dim);
    }
    status = mf_safetensors_create(path, entry, count, metadata, &writer, error);
    for (size_t i = 0; i < count && status == MF_OK; i++)
        status = write_tensor(&job[i], options->dtype, writer, error);
    if (status == MF_OK)
        status = mf_safetensors_finish(writer, error);
    else
        mf_safetensors_abandon(writer);
done:
    json_decref(metadata);
    free(path);
    free(entry);
    return status;
}

static enum mf_status check_options(const struct mf_convert_options *options, struct mf_error *error) {
    if (options->dtype != MF_F32 && options->dtype != MF_BF16)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "dtype: f32 or bf16, not %s",
                            mf_dtype_name(options->dtype));
    return mf_directory_create(options->output_folder, 0755, error);
}

/* A folder is complete when it has a config.json: an older one must not vouch for half-written files. */
static enum mf_status remove_old_config(const char *folder, struct mf_error *error) {
    char *path = mf_path_join(folder, "config.json");
    enum mf_status status = path ? mf_tree_remove(path, error) : mf_error_errno(error, ENOMEM, "%s", folder);
    free(path);
    return status;
}

static enum mf_status convert(const struct mf_gguf *file, const struct mf_convert_options *options,
                              struct mf_convert_result *result, struct mf_error *error) {
    struct description description = {0};
    struct job *job = NULL;
    size_t count = 0;
    enum mf_status status = read_model(file, &description, &job, &count, error);
    if (status)
        goto done;
    *result = (struct mf_convert_result){.layers = (int32_t)description.layers, .tensors = (int64_t)count};
    for (size_t i = 0; i < count; i++)
        result->parameters += job[i].rows * job[i].columns;
    const int64_t embeddings = mf_gguf_find(file, "token_embd.weight")->dim[0];
    if ((status = remove_old_config(options->output_folder, error)) ||
        (status = mf_convert_tokenizer(file, options->output_folder, &result->vocabulary, error)))
        goto done;
    status = result->vocabulary == embeddings
                 ? write_weights(job, count, options, error)
                 : mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH,
                                "token_embd.weight has %lld rows, but the tokenizer %d tokens",
                                (long long)embeddings, (int)result->vocabulary);
    if (status == MF_OK)
        status = write_config(file, &description, options, result->vocabulary, error);
done:
    json_decref(description.rope);
    free(job);
    return status;
}

enum mf_status mf_convert_gguf(const struct mf_convert_options *options, struct mf_convert_result *result,
                               struct mf_error *error) {
    struct mf_gguf *file = NULL;
    enum mf_status status = check_options(options, error);
    if (status)
        return status;
    status = mf_gguf_open(options->gguf_path, &file, error);
    if (status)
        return status;
    status = convert(file, options, result, error);
    if (status)
        mf_error_prefix(error, "%s", options->gguf_path);
    mf_gguf_close(file);
    return status;
}

enum mf_status mf_convert_gguf_check(const char *path, struct mf_error *error) {
    struct mf_gguf *file = NULL;
    struct description description = {0};
    struct job *job = NULL;
    size_t count = 0;
    enum mf_status status = mf_gguf_open(path, &file, error);
    if (status)
        return status;
    status = read_model(file, &description, &job, &count, error);
    if (status)
        mf_error_prefix(error, "%s", path);
    free(job);
    json_decref(description.rope);
    mf_gguf_close(file);
    return status;
}
