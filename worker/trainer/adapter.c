#include "worker/trainer/adapter.h"

#include "common/files.h"
#include "common/json.h"
#include "kernels/random.h"
#include "providers/folder.h"
#include "providers/models/trained.h"
#include "providers/weights/safetensors.h"
#include "worker/trainer/batcher.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char prefix[] = "base_model.model.";
static const char suffix_a[] = ".lora_A.weight", suffix_b[] = ".lora_B.weight";

enum { MAX_MODULE_NAME_BYTES = 900 };

struct mf_adapter_file {
    char *folder, *base;
    struct mf_adapter_settings settings;
    struct mf_safetensors *weights;
    const char **whole; /* modules_to_save, texts of `config`; NULL: none */
    size_t wholes;
    json_t *config;
};

static enum mf_status out_of_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "adapter: out of memory");
    return MF_ERROR_OUT_OF_MEMORY;
}

double mf_adapter_scale(const struct mf_adapter_settings *settings) {
    return settings->alpha / (settings->rslora ? sqrt((double)settings->rank) : (double)settings->rank);
}

enum mf_status mf_adapter_add(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                              const bool *chosen, const struct mf_adapter_settings *settings,
                              struct mf_error *error) {
    return mf_model_add_adapters(model, graph, slot, chosen, settings->rank,
                                 (float)mf_adapter_scale(settings), (float)settings->dropout, error);
}

void mf_adapter_initialize(const struct mf_graph *graph, int16_t slot, struct mf_executor *executor,
                           uint64_t seed) {
    const uint64_t key = mf_random_key(seed, MF_RANDOM_OUTSIDE_STEPS);
    for (int32_t i = 0; i < graph->adapters; i++) {
        const struct mf_adapter *adapter = &graph->adapter[i];
        if (adapter->slot != slot)
            continue;
        const struct mf_tensor *a = mf_graph_tensor(graph, adapter->a),
                               *b = mf_graph_tensor(graph, adapter->b);
        const uint32_t stream = graph->module[adapter->module].random_stream;
        const int32_t rows = a->dim[0].multiplier, columns = a->dim[1].multiplier;
        const double bound = 1 / sqrt((double)columns);
        float *value = mf_executor_data(executor, adapter->a);
        for (int32_t row = 0; row < rows; row++) {
            uint32_t word[4] = {0};
            for (int32_t column = 0; column < columns; column++) {
                if (column % 4 == 0)
                    mf_random_words(key, stream, 0, (uint32_t)row, (uint32_t)column / 4, word);
                const double unit = (2.0 * word[column % 4] + 1) / 4294967296.0 - 1;
                value[(size_t)row * (size_t)columns + (size_t)column] = (float)(unit * bound);
            }
        }
        memset(mf_executor_data(executor, adapter->b), 0,
               (size_t)b->dim[0].multiplier * (size_t)b->dim[1].multiplier * sizeof(float));
    }
}

/* ---- writing
 * ----------------------------------------------------------------------------------------------- */

/* What target_modules names a module by: its last part. */
static const char *last_part(const char *module) {
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

static bool has_adapter(const struct mf_graph *graph, int16_t slot, int32_t module) {
    return mf_graph_find_adapter(graph, slot, module) >= 0;
}

/* Sets `text` in the array once; the array stays sorted by nothing: order of the forward pass. */
static bool append_once(json_t *array, const char *text) {
    size_t index;
    json_t *value;
    json_array_foreach(array, index, value) {
        if (!strcmp(json_string_value(value), text))
            return true;
    }
    return json_array_append_new(array, json_string(text)) == 0;
}

/* Of a model of several parts: another part may have modules of the same last part, which no graph shows. */
static bool is_one_part(const char *module) {
    return strstr(module, ".language_model.") != NULL;
}

/* The last parts of the adapted modules when these choose exactly them, else their whole names. */
static json_t *target_modules(const struct mf_graph *graph, int16_t slot) {
    json_t *parts = json_array(), *names = json_array();
    bool exact = true, good = parts && names;
    for (int32_t i = 0; good && i < graph->modules; i++) {
        if (!has_adapter(graph, slot, i))
            continue;
        exact = exact && !is_one_part(graph->module[i].name);
        good = append_once(parts, last_part(graph->module[i].name)) &&
               json_array_append_new(names, json_string(graph->module[i].name)) == 0;
    }
    for (int32_t i = 0; good && i < graph->modules; i++) {
        size_t index;
        json_t *part;
        json_array_foreach(parts, index, part) {
            if (!strcmp(json_string_value(part), last_part(graph->module[i].name)) &&
                !has_adapter(graph, slot, i))
                exact = false;
        }
    }
    json_t *chosen = good ? json_incref(exact ? parts : names) : NULL;
    json_decref(parts);
    json_decref(names);
    return chosen;
}

/* What the slot trains beside the model's own weights. */
static bool is_whole(const struct mf_trained *trained, int16_t slot) {
    return trained->slot == slot && trained->beside;
}

/* The modules that are trained whole, by their whole names: PEFT takes every module whose name ends so. Null
 * without any. */
static json_t *modules_to_save(const struct mf_graph *graph, int16_t slot) {
    json_t *names = json_array();
    bool good = names != NULL;
    for (int32_t i = 0; good && i < graph->trains; i++) {
        char name[MAX_MODULE_NAME_BYTES];
        if (!is_whole(&graph->trained[i], slot))
            continue;
        (void)snprintf(name, sizeof name, "%s", graph->trained[i].weight);
        char *dot = strrchr(name, '.');
        if (dot)
            *dot = '\0';
        good = append_once(names, name);
    }
    if (good && json_array_size(names))
        return names;
    json_decref(names);
    return good ? json_null() : NULL;
}

static enum mf_status write_config(const char *folder, const struct mf_graph *graph, int16_t slot,
                                   const struct mf_adapter_settings *settings, const char *base_model,
                                   struct mf_error *error) {
    json_t *targets = target_modules(graph, slot);
    json_t *alpha = settings->alpha == floor(settings->alpha) ? json_integer((json_int_t)settings->alpha)
                                                              : json_real(settings->alpha);
    json_t *config =
        json_pack("{s:s, s:s, s:s, s:n, s:i, s:o, s:f, s:o, s:b, s:s, s:b, s:b, s:b, s:o, s:{}, s:{}}",
                  "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base_model,
                  "revision", "r", settings->rank, "lora_alpha", alpha, "lora_dropout", settings->dropout,
                  "target_modules", targets, "use_rslora", settings->rslora, "bias", "none", "fan_in_fan_out",
                  false, "inference_mode", true, "init_lora_weights", true, "modules_to_save",
                  modules_to_save(graph, slot), "rank_pattern", "alpha_pattern");
    char *text =
        config ? json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(15)) : NULL;
    char *path = mf_path_join(folder, "adapter_config.json");
    enum mf_status status =
        text && path ? mf_file_write_atomic(path, text, strlen(text), 0644, error) : out_of_memory(error);
    json_decref(config);
    free(text);
    free(path);
    return status;
}

static struct mf_safetensors_entry entry_of(const struct mf_graph *graph, int32_t id) {
    const struct mf_tensor *row = mf_graph_tensor(graph, id);
    struct mf_safetensors_entry entry = {.name = row->name, .dtype = MF_F32, .rank = row->rank};
    for (int i = 0; i < row->rank; i++)
        entry.dim[i] = row->dim[i].multiplier;
    return entry;
}

static enum mf_status write_weights(const char *folder, const struct mf_graph *graph, int16_t slot,
                                    struct mf_executor *executor, struct mf_error *error) {
    const size_t room = 2 * (size_t)graph->adapters + (size_t)graph->trains;
    struct mf_safetensors_entry *entry = calloc(room + 1, sizeof *entry);
    int32_t *tensor = calloc(room + 1, sizeof *tensor);
    struct mf_safetensors_writer *writer = NULL;
    char *path = mf_path_join(folder, "adapter_model.safetensors");
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    size_t count = 0;
    enum mf_status status = entry && tensor && path && metadata ? MF_OK : out_of_memory(error);
    for (int32_t i = 0; status == MF_OK && i < graph->adapters; i++) {
        if (graph->adapter[i].slot != slot)
            continue;
        const int32_t pair[2] = {graph->adapter[i].a, graph->adapter[i].b};
        for (int half = 0; half < 2; half++) {
            tensor[count] = pair[half];
            entry[count++] = entry_of(graph, pair[half]);
        }
    }
    for (int32_t i = 0; status == MF_OK && i < graph->trains; i++)
        if (is_whole(&graph->trained[i], slot)) {
            tensor[count] = graph->trained[i].parameter;
            entry[count++] = entry_of(graph, graph->trained[i].parameter);
        }
    if (status == MF_OK)
        status = mf_safetensors_create(path, entry, count, metadata, &writer, error);
    for (size_t i = 0; status == MF_OK && i < count; i++)
        status = mf_safetensors_write(writer, mf_executor_data(executor, tensor[i]),
                                      mf_executor_bytes(executor, tensor[i]), error);
    if (status == MF_OK)
        status = mf_safetensors_finish(writer, error);
    else
        mf_safetensors_abandon(writer);
    json_decref(metadata);
    free(path);
    free(tensor);
    free(entry);
    return status;
}

enum mf_status mf_adapter_save(const char *folder, const struct mf_graph *graph, int16_t slot,
                               struct mf_executor *executor, const struct mf_adapter_settings *settings,
                               const char *base_model, const char *tokenizer_folder, struct mf_error *error) {
    char made[4096];
    if ((size_t)snprintf(made, sizeof made, "%s.partial", folder) >= sizeof made)
        return mf_error_set(error, MF_ERROR_IO, "%s: the path is too long", folder);
    enum mf_status status = mf_tree_remove(made, error);
    if (status == MF_OK)
        status = mf_directory_create(made, 0755, error);
    if (status == MF_OK)
        status = write_weights(made, graph, slot, executor, error);
    if (status == MF_OK && tokenizer_folder)
        status = mf_folder_copy_tokenizer(tokenizer_folder, made, error);
    if (status == MF_OK)
        status = write_config(made, graph, slot, settings, base_model, error);
    if (status == MF_OK)
        status = mf_directory_sync(made, error);
    if (status == MF_OK)
        return mf_folder_replace(made, folder, error);
    mf_tree_remove(made, NULL);
    return status;
}

/* ---- reading
 * ----------------------------------------------------------------------------------------------- */

/* Members whose value must be null, false, "none", empty or absent, because they change what the adapter
 * computes. */
static enum mf_status refuse_features(const json_t *config, const char *path, struct mf_error *error) {
    static const char *const names[] = {
        "use_dora",    "fan_in_fan_out",    "alpha_pattern",           "bias",
        "lora_bias",   "layer_replication", "trainable_token_indices", "target_parameters",
        "use_qalora",  "use_bdlora",        "alora_invocation_tokens", "megatron_config",
        "arrow_config"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *value = json_object_get(config, names[i]);
        const bool off = !value || json_is_null(value) || json_is_false(value) ||
                         (json_is_string(value) && !strcmp(json_string_value(value), "none")) ||
                         (json_is_object(value) && !json_object_size(value)) ||
                         (json_is_array(value) && !json_array_size(value));
        if (!off)
            return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                                "%s: %s is set; only plain LoRA on linear modules can be read", path,
                                names[i]);
    }
    return MF_OK;
}

/* null, absent, or an array of texts, which `config` owns. */
static enum mf_status read_whole(const json_t *config, const char *path, struct mf_adapter_file *file,
                                 struct mf_error *error) {
    const json_t *list = json_object_get(config, "modules_to_save"), *value;
    size_t i;
    if (!list || json_is_null(list))
        return MF_OK;
    file->whole = calloc(json_array_size(list) + 1, sizeof *file->whole);
    if (!file->whole)
        return out_of_memory(error);
    bool good = json_is_array(list);
    json_array_foreach(list, i, value) {
        good = good && json_is_string(value);
        file->whole[file->wholes++] = json_string_value(value);
    }
    if (!good)
        return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH, "%s: modules_to_save is no array of strings",
                            path);
    if (file->wholes && json_is_true(json_object_get(config, "ensure_weight_tying")))
        return mf_error_set(
            error, MF_ERROR_ADAPTER_MISMATCH,
            "%s: ensure_weight_tying is set; only modules_to_save that share no weight can be "
            "read",
            path);
    return MF_OK;
}

static enum mf_status read_config(const char *path, struct mf_adapter_file *file, struct mf_error *error) {
    struct mf_adapter_settings *settings = &file->settings;
    json_t *config = NULL;
    const char *type = NULL, *base = "";
    int64_t rank = 0;
    enum mf_status status = mf_json_read_file(path, 0, &config, error);
    if (status == MF_OK)
        status = mf_json_string(config, path, "peft_type", 64, &type, error);
    if (status == MF_OK && strcmp(type, "LORA") != 0)
        status = mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH, "%s: peft_type is %s, not LORA", path, type);
    if (status == MF_OK)
        status = mf_json_integer(config, path, "r", 1, 65536, &rank, error);
    if (status == MF_OK)
        status = mf_json_number(config, path, "lora_alpha", 0, 1e9, &settings->alpha, error);
    if (status == MF_OK)
        status = mf_json_optional_number(config, path, "lora_dropout", 0, 1, &settings->dropout, error);
    if (status == MF_OK)
        status = mf_json_optional_boolean(config, path, "use_rslora", &settings->rslora, error);
    if (status == MF_OK)
        status = mf_json_optional_string(config, path, "base_model_name_or_path", 4096, &base, error);
    if (status == MF_OK && !(file->base = strdup(base)))
        status = out_of_memory(error);
    if (status == MF_OK)
        status = refuse_features(config, path, error);
    if (status == MF_OK)
        status = read_whole(config, path, file, error);
    settings->rank = (int32_t)rank;
    file->config = config;
    return status;
}

enum mf_status mf_adapter_open(const char *folder, struct mf_adapter_file **out, struct mf_error *error) {
    struct mf_adapter_file *file = calloc(1, sizeof *file);
    char *config = mf_path_join(folder, "adapter_config.json");
    char *weights = mf_path_join(folder, "adapter_model.safetensors");
    enum mf_status status = file && config && weights ? MF_OK : out_of_memory(error);
    if (status == MF_OK && !mf_path_exists(folder))
        status = mf_error_set(error, MF_ERROR_MODEL_NOT_FOUND, "%s: there is no such adapter folder", folder);
    else if (status == MF_OK && !mf_path_exists(config))
        status = mf_error_set(error, MF_ERROR_MODEL_INCOMPLETE, "%s: adapter_config.json is missing", folder);
    if (status == MF_OK)
        status = read_config(config, file, error);
    if (status == MF_OK)
        status = mf_safetensors_open_file(weights, &file->weights, error);
    if (status == MF_OK && !(file->folder = strdup(folder)))
        status = out_of_memory(error);
    free(config);
    free(weights);
    if (status == MF_OK)
        *out = file;
    else
        mf_adapter_close(file);
    return status;
}

void mf_adapter_close(struct mf_adapter_file *file) {
    if (!file)
        return;
    mf_safetensors_close(file->weights);
    free(file->folder);
    free(file->base);
    free(file->whole);
    json_decref(file->config);
    free(file);
}

const struct mf_adapter_settings *mf_adapter_file_settings(const struct mf_adapter_file *file) {
    return &file->settings;
}

const char *mf_adapter_file_base(const struct mf_adapter_file *file) {
    return file->base;
}

void mf_adapter_file_set_dropout(struct mf_adapter_file *file, double dropout) {
    file->settings.dropout = dropout;
}

enum mf_status mf_adapter_file_digest(const struct mf_adapter_file *file, char digest[MF_SHA256_TEXT_BYTES],
                                      struct mf_error *error) {
    char *path = mf_path_join(file->folder, "adapter_model.safetensors");
    enum mf_status status = path ? mf_file_sha256(path, digest, NULL, error) : out_of_memory(error);
    free(path);
    return status;
}

/* The file's tensor of a module, NULL when there is none. */
static const struct mf_stored_tensor *find_part(const struct mf_adapter_file *file, const char *module,
                                                const char *suffix) {
    char name[1024];
    snprintf(name, sizeof name, "%s%s%s", prefix, module, suffix);
    return mf_safetensors_find(file->weights, name);
}

static enum mf_status attach_one(const struct mf_adapter_file *file, const struct mf_model *model,
                                 size_t module, struct mf_graph *graph, int16_t slot, bool *chosen,
                                 struct mf_error *error) {
    const struct mf_model_module *row = mf_model_module(model, module);
    const struct mf_stored_tensor *a = find_part(file, row->name, suffix_a);
    const struct mf_stored_tensor *b = find_part(file, row->name, suffix_b);
    if (!a || !b || a->rank != 2 || b->rank != 2 || !a->floating || !b->floating || a->dim[0] != b->dim[1] ||
        a->dim[0] < 1 || a->dim[1] != row->input_features || b->dim[0] != row->output_features)
        return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                            "%s: lora_A and lora_B of '%s' do not fit each other and its weight (%lld, %lld)",
                            file->folder, row->name, (long long)row->output_features,
                            (long long)row->input_features);
    struct mf_adapter_settings own = file->settings;
    own.rank = (int32_t)a->dim[0];
    chosen[module] = true;
    enum mf_status status = mf_adapter_add(model, graph, slot, chosen, &own, error);
    chosen[module] = false;
    return status;
}

/* The name of a tensor of the file that no module of the model took. */
static const char *left_over(const struct mf_adapter_file *file, const struct mf_graph *graph) {
    for (size_t i = 0; i < mf_safetensors_count(file->weights); i++)
        if (mf_graph_find_tensor(graph, mf_safetensors_at(file->weights, i)->name) < 0)
            return mf_safetensors_at(file->weights, i)->name;
    return NULL;
}

/* The modules that were trained whole, which take no adapter. chosen[modules] is false before and after. */
static enum mf_status attach_whole(const struct mf_adapter_file *file, const struct mf_model *model,
                                   struct mf_graph *graph, int16_t slot, bool *chosen,
                                   struct mf_error *error) {
    const size_t modules = mf_model_module_count(model);
    memset(chosen, true, modules * sizeof *chosen);
    enum mf_status status =
        mf_model_train_modules(model, graph, slot, file->whole, file->wholes, chosen, error);
    if (status == MF_ERROR_INVALID_FIELD) {
        const struct mf_error reason = *error;
        status = mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH, "%s: %.900s", file->folder, reason.message);
    }
    for (size_t i = 0; status == MF_OK && i < modules; i++) {
        const char *name = mf_model_module(model, i)->name;
        if (!chosen[i] && (find_part(file, name, suffix_a) || find_part(file, name, suffix_b)))
            status =
                mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                             "%s: '%s' is among modules_to_save and has an adapter, too", file->folder, name);
    }
    for (int32_t i = 0; status == MF_OK && i < graph->trains; i++) {
        const struct mf_tensor *tensor = mf_graph_tensor(graph, graph->trained[i].parameter);
        const struct mf_stored_tensor *stored = mf_safetensors_find(file->weights, tensor->name);
        bool fits = stored && stored->floating && stored->rank == tensor->rank;
        for (int32_t k = 0; fits && k < stored->rank; k++)
            fits = stored->dim[k] == tensor->dim[k].multiplier;
        if (is_whole(&graph->trained[i], slot) && !fits)
            status = mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                                  "%s: modules_to_save asks for '%s', which is missing or has another shape "
                                  "than the model's",
                                  file->folder, tensor->name);
    }
    memset(chosen, false, modules * sizeof *chosen);
    return status;
}

enum mf_status mf_adapter_attach(const struct mf_adapter_file *file, const struct mf_model *model,
                                 struct mf_graph *graph, int16_t slot, struct mf_error *error) {
    const size_t modules = mf_model_module_count(model);
    bool *chosen = calloc(modules + 1, sizeof *chosen);
    enum mf_status status =
        chosen ? attach_whole(file, model, graph, slot, chosen, error) : out_of_memory(error);
    for (size_t i = 0; status == MF_OK && i < modules; i++) {
        const char *name = mf_model_module(model, i)->name;
        if (find_part(file, name, suffix_a) || find_part(file, name, suffix_b))
            status = attach_one(file, model, i, graph, slot, chosen, error);
    }
    free(chosen);
    const char *name = status == MF_OK ? left_over(file, graph) : NULL;
    if (name)
        status = mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                              "%s: tensor '%.300s' has no place in the model", file->folder, name);
    if (status == MF_OK && !mf_safetensors_count(file->weights))
        status =
            mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH, "%s: the adapter holds no tensor", file->folder);
    return status;
}

static void copy_as_f32(float *to, const struct mf_stored_tensor *from) {
    mf_stored_values(from, 0, (int64_t)(from->bytes / mf_dtype_bytes(from->dtype)), to);
}

enum mf_status mf_adapter_load(const struct mf_adapter_file *file, const struct mf_graph *graph,
                               struct mf_executor *executor, struct mf_error *error) {
    for (size_t i = 0; i < mf_safetensors_count(file->weights); i++) {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(file->weights, i);
        const int32_t id = mf_graph_find_tensor(graph, tensor->name);
        if (id < 0)
            return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH, "%s: tensor '%s' has no place in the model",
                                file->folder, tensor->name);
        copy_as_f32(mf_executor_data(executor, id), tensor);
    }
    mf_executor_round_copies(executor);
    return MF_OK;
}

/* ---- merging
 * ----------------------------------------------------------------------------------------------- */

/* Does training this weight beside the model's own make head and table of tokens two? */
static bool unties(const char *weight) {
    static const char table[] = ".embed_tokens.weight";
    const size_t length = strlen(weight), end = sizeof table - 1;
    return !strcmp(weight, "lm_head.weight") || (length > end && !strcmp(weight + length - end, table));
}

bool mf_adapter_unties_head(const struct mf_graph *graph, int16_t slot) {
    for (int32_t i = 0; i < graph->trains; i++)
        if (is_whole(&graph->trained[i], slot) && unties(graph->trained[i].weight))
            return true;
    return false;
}

static struct mf_weight_value value_of(const struct mf_graph *graph, const struct mf_trained *trained,
                                       struct mf_executor *executor) {
    const struct mf_tensor *tensor = mf_graph_tensor(graph, trained->parameter);
    struct mf_weight_value value = {.name = trained->weight,
                                    .rank = tensor->rank,
                                    .value = mf_executor_data(executor, trained->parameter)};
    for (int i = 0; i < tensor->rank && i < 2; i++)
        value.dim[i] = tensor->dim[i].multiplier;
    return value;
}

enum mf_status mf_adapter_deltas(const struct mf_graph *graph, int16_t slot, struct mf_executor *executor,
                                 struct mf_adapter_deltas *deltas, struct mf_error *error) {
    *deltas = (struct mf_adapter_deltas){.delta = calloc((size_t)graph->adapters + 1, sizeof *deltas->delta),
                                         .value = calloc((size_t)graph->trains + 1, sizeof *deltas->value)};
    if (!deltas->delta || !deltas->value)
        return out_of_memory(error);
    for (int32_t i = 0; i < graph->trains; i++) {
        const struct mf_trained *trained = &graph->trained[i];
        if (trained->slot == slot)
            deltas->value[deltas->whole++] = value_of(graph, trained, executor);
    }
    deltas->untie_head = mf_adapter_unties_head(graph, slot);
    for (int32_t i = 0; i < graph->adapters; i++) {
        const struct mf_adapter *adapter = &graph->adapter[i];
        if (adapter->slot != slot)
            continue;
        const struct mf_tensor *a = mf_graph_tensor(graph, adapter->a),
                               *b = mf_graph_tensor(graph, adapter->b);
        deltas->delta[deltas->count++] =
            (struct mf_weight_delta){.module = graph->module[adapter->module].name,
                                     .output_features = b->dim[0].multiplier,
                                     .input_features = a->dim[1].multiplier,
                                     .rank = a->dim[0].multiplier,
                                     .scale = adapter->scale,
                                     .a = mf_executor_data(executor, adapter->a),
                                     .b = mf_executor_data(executor, adapter->b)};
    }
    return MF_OK;
}

/* "base_model.model.<module>.lora_A.weight" -> <module>; false for another name. */
static bool module_of(const char *tensor, char *module, size_t bytes) {
    const size_t length = strlen(tensor), around = sizeof prefix - 1 + sizeof suffix_a - 1;
    if (length <= around || length - around >= bytes || strncmp(tensor, prefix, sizeof prefix - 1) != 0 ||
        strcmp(tensor + length - (sizeof suffix_a - 1), suffix_a) != 0)
        return false;
    memcpy(module, tensor + sizeof prefix - 1, length - around);
    module[length - around] = 0;
    return true;
}

/* Is the tensor what was trained of a module of modules_to_save? */
static bool belongs_to_whole(const struct mf_adapter_file *file, const struct mf_stored_tensor *tensor) {
    const char *dot = strrchr(tensor->name, '.');
    bool found = false;
    if (strncmp(tensor->name, prefix, sizeof prefix - 1) != 0 || tensor->rank < 1 || tensor->rank > 2 ||
        !tensor->floating || (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0))
        return false;
    for (size_t i = 0; i < file->wholes; i++) {
        const size_t length = strlen(file->whole[i]);
        found |= length > 0 && (size_t)(dot - tensor->name) - (sizeof prefix - 1) >= length &&
                 !strncmp(dot - length, file->whole[i], length);
    }
    return found;
}

/* Takes room for values and names where those of the pairs end. */
static void collect_values(const struct mf_adapter_file *file, float *value, char *name,
                           struct mf_adapter_deltas *deltas) {
    for (size_t i = 0; i < mf_safetensors_count(file->weights); i++) {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(file->weights, i);
        if (strstr(tensor->name, ".lora_") || !belongs_to_whole(file, tensor))
            continue;
        const char *weight = tensor->name + sizeof prefix - 1;
        memcpy(name, weight, strlen(weight) + 1);
        copy_as_f32(value, tensor);
        deltas->value[deltas->whole++] =
            (struct mf_weight_value){.name = name,
                                     .rank = tensor->rank,
                                     .dim = {tensor->dim[0], tensor->rank > 1 ? tensor->dim[1] : 0},
                                     .value = value};
        deltas->untie_head |= unties(name);
        value += tensor->bytes / mf_dtype_bytes(tensor->dtype);
        name += strlen(name) + 1;
    }
}

static enum mf_status collect_deltas(const struct mf_adapter_file *file, struct mf_adapter_deltas *deltas,
                                     struct mf_error *error) {
    float *value = deltas->values;
    char *name = deltas->names;
    for (size_t i = 0; i < mf_safetensors_count(file->weights); i++) {
        const struct mf_stored_tensor *a = mf_safetensors_at(file->weights, i);
        if (!module_of(a->name, name, MAX_MODULE_NAME_BYTES))
            continue;
        const struct mf_stored_tensor *b = find_part(file, name, suffix_b);
        if (!b || a->rank != 2 || b->rank != 2 || !a->floating || !b->floating || a->dim[0] != b->dim[1] ||
            a->dim[0] < 1)
            return mf_error_set(error, MF_ERROR_ADAPTER_MISMATCH,
                                "%s: lora_A and lora_B of '%s' do not fit each other", file->folder, name);
        struct mf_adapter_settings own = file->settings;
        own.rank = (int32_t)a->dim[0];
        struct mf_weight_delta *delta = &deltas->delta[deltas->count++];
        *delta = (struct mf_weight_delta){.module = name,
                                          .output_features = b->dim[0],
                                          .input_features = a->dim[1],
                                          .rank = a->dim[0],
                                          .scale = (float)mf_adapter_scale(&own),
                                          .a = value,
                                          .b = value + a->dim[0] * a->dim[1]};
        copy_as_f32(value, a);
        copy_as_f32(value + a->dim[0] * a->dim[1], b);
        value += a->dim[0] * a->dim[1] + b->dim[0] * b->dim[1];
        name += strlen(name) + 1;
    }
    collect_values(file, value, name, deltas);
    if (2 * deltas->count + deltas->whole != mf_safetensors_count(file->weights) ||
        !mf_safetensors_count(file->weights))
        return mf_error_set(
            error, MF_ERROR_ADAPTER_MISMATCH,
            "%s: only pairs of lora_A.weight and lora_B.weight and weights of modules_to_save "
            "can be merged; it holds %zu pairs, %zu such weights and %zu tensors in all",
            file->folder, deltas->count, deltas->whole, mf_safetensors_count(file->weights));
    return MF_OK;
}

enum mf_status mf_adapter_file_deltas(const struct mf_adapter_file *file, struct mf_adapter_deltas *deltas,
                                      struct mf_error *error) {
    size_t values = 0, names = MAX_MODULE_NAME_BYTES;
    const size_t count = mf_safetensors_count(file->weights);
    for (size_t i = 0; i < count; i++) {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(file->weights, i);
        names += strlen(tensor->name) + 1;
        values += tensor->floating ? tensor->bytes / mf_dtype_bytes(tensor->dtype) : 0;
    }
    *deltas = (struct mf_adapter_deltas){.delta = calloc(count + 1, sizeof *deltas->delta),
                                         .value = calloc(count + 1, sizeof *deltas->value),
                                         .values = calloc(values + 1, sizeof *deltas->values),
                                         .names = calloc(names, 1)};
    enum mf_status status = deltas->delta && deltas->value && deltas->values && deltas->names
                                ? collect_deltas(file, deltas, error)
                                : out_of_memory(error);
    if (status != MF_OK)
        mf_adapter_deltas_destroy(deltas);
    return status;
}

void mf_adapter_deltas_destroy(struct mf_adapter_deltas *deltas) {
    free(deltas->delta);
    free(deltas->value);
    free(deltas->values);
    free(deltas->names);
    *deltas = (struct mf_adapter_deltas){0};
}
