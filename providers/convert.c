#include "providers/convert.h"

#include "common/files.h"
#include "providers/convert_tokenizer.h"
#include "providers/gguf_names.h"
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
    int64_t hidden, intermediate, layers, heads, key_value_heads, head_dim, positions;
    double epsilon, theta;
};

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
                            "general.architecture: '%.*s' is not supported (supported: llama, qwen2, qwen3)",
                            (int)(text.length < 64 ? text.length : 64), text.data);
    if (mf_gguf_string(file, key_of(out, "rope.scaling.type", key), &text) &&
        (text.length != 4 || memcmp(text.data, "none", 4) != 0))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "%s: '%.*s' is not supported", key,
                            (int)(text.length < 64 ? text.length : 64), text.data);
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
    int64_t rotary = out->head_dim;
    mf_gguf_integer(file, key_of(out, "rope.dimension_count", key), &rotary);
    if (out->key_value_heads < 1 || out->key_value_heads > out->heads || out->head_dim < 2 ||
        out->head_dim > MAX_WIDTH || out->head_dim % 2 || rotary != out->head_dim)
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG,
                            "%lld heads, %lld key / value heads of %lld (rotary %lld) are not supported",
                            (long long)out->heads, (long long)out->key_value_heads, (long long)out->head_dim,
                            (long long)rotary);
    out->theta = 10000;
    mf_gguf_number(file, key_of(out, "rope.freq_base", key), &out->theta);
    if (!mf_gguf_number(file, key_of(out, "attention.layer_norm_rms_epsilon", key), &out->epsilon))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "metadata %s is missing", key);
    return MF_OK;
}

/* The double with the shortest decimal among those that are `value` in f32: 1e-05 for 9.999999747378752e-06.
 */
static double shortest(double value) {
    for (int digits = 1; digits < 9; digits++) {
        char text[40];
        snprintf(text, sizeof text, "%.*g", digits, value);
        if ((float)strtod(text, NULL) == (float)value)
            return strtod(text, NULL);
    }
    return value;
}

static enum mf_status write_config(const struct mf_gguf *file, const struct description *d, bool tied,
                                   bool attention_bias, bool mlp_bias,
                                   const struct mf_convert_options *options, int32_t vocabulary,
                                   struct mf_error *error) {
    int64_t id;
    json_t *config = json_pack(
        "{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:b, s:b, s:s}",
        "architectures", d->family->class_name, "model_type", d->family->name, "hidden_act", "silu",
        "vocab_size", (json_int_t)vocabulary, "hidden_size", (json_int_t)d->hidden, "intermediate_size",
        (json_int_t)d->intermediate, "num_hidden_layers", (json_int_t)d->layers, "num_attention_heads",
        (json_int_t)d->heads, "num_key_value_heads", (json_int_t)d->key_value_heads, "head_dim",
        (json_int_t)d->head_dim, "max_position_embeddings", (json_int_t)d->positions, "rms_norm_eps",
        shortest(d->epsilon), "rope_theta", shortest(d->theta), "tie_word_embeddings", tied, "attention_bias",
        attention_bias, "mlp_bias", mlp_bias, "torch_dtype",
        options->dtype == MF_BF16 ? "bfloat16" : "float32");
    if (mf_gguf_integer(file, "tokenizer.ggml.bos_token_id", &id))
        json_object_set_new(config, "bos_token_id", json_integer(id));
    if (mf_gguf_integer(file, "tokenizer.ggml.eos_token_id", &id))
        json_object_set_new(config, "eos_token_id", json_integer(id));
    if (mf_gguf_integer(file, "tokenizer.ggml.padding_token_id", &id))
        json_object_set_new(config, "pad_token_id", json_integer(id));
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
    int64_t rows, columns;
    int64_t heads; /* 0: rows stay; else those of each head change places (gguf_names.h) */
};

static int64_t source_row(const struct job *job, int64_t row) {
    return job->heads ? mf_huggingface_row_to_gguf(job->rows, job->heads, row) : row;
}

static enum mf_status plan_tensor(const struct mf_gguf_tensor *tensor, const struct description *d,
                                  struct job *job, struct mf_error *error) {
    char part[MF_GGUF_NAME_BYTES];
    if (!mf_huggingface_name_of(tensor->name, job->name, part) ||
        (!d->family->query_key_norm && (!strcmp(part, "attn_q_norm") || !strcmp(part, "attn_k_norm"))))
        return mf_error_set(error, MF_ERROR_MODEL_CONFIG, "tensor %s does not belong to a %s model",
                            tensor->name, d->family->name);
    job->tensor = tensor;
    job->heads = !d->family->interleaved   ? 0
                 : !strcmp(part, "attn_q") ? d->heads
                 : !strcmp(part, "attn_k") ? d->key_value_heads
                                           : 0;
    job->columns = tensor->rank == 1 && job->heads ? 1 : tensor->dim[tensor->rank - 1];
    job->rows = tensor->elements / job->columns;
    if (tensor->rank > 2 || (job->heads && job->rows != job->heads * d->head_dim))
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "tensor %s has an unexpected shape",
                            tensor->name);
    return MF_OK;
}

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
    enum mf_status status = value && narrow ? MF_OK : mf_error_errno(error, ENOMEM, "%s", job->name);
    for (int64_t row = 0; row < job->rows && status == MF_OK; row += batch) {
        int64_t rows = job->rows - row < batch ? job->rows - row : batch;
        size_t count = (size_t)(rows * job->columns);
        status = read_rows(job, row, rows, value, error);
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
        entry[i].rank = job[i].tensor->rank;
        memcpy(entry[i].dim, job[i].tensor->dim, sizeof job[i].tensor->dim);
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
    size_t count = mf_gguf_count(file);
    bool mlp_bias = mf_gguf_find(file, "blk.0.ffn_gate.bias") != NULL;
    bool tied = !mf_gguf_find(file, "output.weight");
    struct job *job = calloc(count + 1, sizeof *job);
    if (!job)
        return mf_error_errno(error, ENOMEM, "the list of tensors");
    enum mf_status status = read_description(file, &description, error);
    const bool attention_bias =
        status == MF_OK && !description.family->query_bias && mf_gguf_find(file, "blk.0.attn_q.bias") != NULL;
    *result = (struct mf_convert_result){.tensors = (int64_t)count, .layers = (int32_t)description.layers};
    for (size_t i = 0; i < count && status == MF_OK; i++) {
        status = plan_tensor(mf_gguf_at(file, i), &description, &job[i], error);
        result->parameters += mf_gguf_at(file, i)->elements;
    }
    if (status || (status = remove_old_config(options->output_folder, error)) ||
        (status = mf_convert_tokenizer(file, options->output_folder, &result->vocabulary, error)) ||
        (status = write_weights(job, count, options, error)))
        goto done;
    status =
        write_config(file, &description, tied, attention_bias, mlp_bias, options, result->vocabulary, error);
done:
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
    enum mf_status status = mf_gguf_open(path, &file, error);
    if (status)
        return status;
    status = read_description(file, &description, error);
    if (status)
        mf_error_prefix(error, "%s", path);
    mf_gguf_close(file);
    return status;
}
