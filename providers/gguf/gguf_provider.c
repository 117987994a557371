/* The provider `gguf`: trains adapters on a model straight from its GGUF file.
 *
 * A plug-in as anybody may write one: it is compiled from this file and the installed header alone, and works
 * through the host table (providers/CUSTOM.md leads through a smaller one). The values that are trained on
 * are those that the file's quantised blocks stand for. */
#include <modelforge/provider.h>

#include <stdio.h>
#include <string.h>

static const struct mf_host_api *host;

/* ---- what it can do ---- */

#define ROW(level, architecture, task, strategy, reason) \
    { sizeof(struct mf_capability), MF_CAPABILITY_##level, architecture, task, strategy, reason }
#define TRAINS(architecture)                                                                              \
    ROW(SUPPORTED, architecture, "text-generation", "sft",                                                \
        "the values that the file's blocks stand for; unquantised ones equal the Hugging Face folder's"), \
        ROW(LIMITED, architecture, "text-generation", "qlora",                                            \
            "blocks are dequantised and quantised again, as bitsandbytes does, which rounds twice")

static const struct mf_capability rows[] = {
    ROW(UNSUPPORTED, "*", "summarization", "*", "this version trains text-generation only"),
    ROW(UNSUPPORTED, "*", "extractive-question-answering", "*", "this version trains text-generation only"),
    TRAINS("llama"),
    TRAINS("qwen2"),
    TRAINS("qwen3"),
    TRAINS("gemma"),
    TRAINS("gemma2"),
    TRAINS("gemma3_text"),
    TRAINS("phi"),
    TRAINS("phi3"),
    ROW(UNSUPPORTED, "mistral", "text-generation", "*",
        "a GGUF file calls a Mistral a llama, and it is trained as one"),
    ROW(UNSUPPORTED, "*", "text-generation", "sft", "no GGUF file of this architecture is read"),
    ROW(UNSUPPORTED, "*", "text-generation", "qlora", "no GGUF file of this architecture is read"),
    ROW(UNSUPPORTED, "*", "*", "*", "this version has the strategies sft and qlora only"),
};

static const char *get_provider_name(void) {
    return "gguf";
}

static int capabilities(const struct mf_device *device, struct mf_capabilities *out, struct mf_error *error) {
    if (device->kind != MF_DEVICE_CPU && device->kind != MF_DEVICE_CUDA)
        return host->fail(error, "provider_unavailable", "gguf: computes on CPUs and CUDA GPUs");
    out->stride = sizeof rows[0];
    out->row = rows;
    out->count = sizeof rows / sizeof rows[0];
    return MF_PROVIDER_OK;
}

/* ---- the file ---- */

static int ends_with(const char *text, const char *end) {
    const size_t length = strlen(text), wanted = strlen(end);
    return length >= wanted && !strcmp(text + length - wanted, end);
}

static int validate_model_access(struct mf_provider_context *context,
                                 const struct mf_model_reference *reference, struct mf_error *error) {
    const char *path = reference->model_id, *at = strchr(path, '@');
    const int hub = !strncmp(path, "hf://", 5);
    char name[640];
    if (reference->revision && !hub)
        return host->fail(error, "unsupported_field",
                          "revision: '%s' cannot be chosen: gguf reads a file, which has no revisions",
                          reference->revision);
    snprintf(name, sizeof name, "%.*s", hub && at ? (int)(at - path) : (int)strlen(path), path);
    if (!ends_with(name, ".gguf"))
        return host->fail(
            error, "model_not_found",
            "model_name: %s is not a .gguf file of this machine, nor one of a hub "
            "(hf://organisation/name/FILE.gguf), which is what the provider gguf trains; folders and whole "
            "models of a hub are for the provider huggingface",
            path);
    if (hub && reference->revision && !at) { /* two of them are the host's to compare */
        snprintf(name, sizeof name, "%s@%s", path, reference->revision);
        path = name;
    }
    return host->check_gguf(context, path, error);
}

/* ---- the model ---- */

/* The one setting: what dequantised values are kept in while the job runs. */
static int read_settings(const struct mf_load_options *options, uint32_t *dtype, struct mf_error *error) {
    const char *const *setting = options->provider_config;
    *dtype = MF_NUMBER_F32;
    for (; setting[0]; setting += 2) {
        if (strcmp(setting[0], "dtype") != 0)
            return host->fail(error, "invalid_field",
                              "provider_config.%s: gguf has no such setting (it has dtype)", setting[0]);
        if (!strcmp(setting[1], "bf16"))
            *dtype = MF_NUMBER_BF16;
        else if (strcmp(setting[1], "f32") != 0)
            return host->fail(error, "invalid_field", "provider_config.dtype: '%.64s' is not f32 or bf16",
                              setting[1]);
    }
    return MF_PROVIDER_OK;
}

static int load_model(struct mf_provider_context *context, const struct mf_load_options *options,
                      struct mf_model **out, struct mf_error *error) {
    struct mf_model_reference folder = {.size = sizeof folder};
    struct mf_load_options of_folder = {.size = sizeof of_folder};
    uint32_t dtype;
    int status = read_settings(options, &dtype, error);
    if (status == MF_PROVIDER_OK)
        status =
            host->make_folder_of_gguf(context, options->reference->model_id, dtype, &folder.model_id, error);
    if (status != MF_PROVIDER_OK)
        return status;
    host->log(context, "the GGUF file is dequantised");
    /* Everything else is as it was asked for. */
    of_folder.model_class = options->model_class;
    of_folder.quantization = options->quantization;
    of_folder.nested = options->nested;
    of_folder.compute_dtype = options->compute_dtype;
    of_folder.device_map = options->device_map;
    of_folder.reference = &folder;
    return host->open_model(context, &of_folder, out, error);
}

/* After load_model() this is the folder that it made; alone it makes one. */
static int load_tokenizer(struct mf_provider_context *context, const struct mf_model_reference *reference,
                          struct mf_tokenizer **out, struct mf_error *error) {
    struct mf_model_reference folder = {.size = sizeof folder};
    const int status =
        host->make_folder_of_gguf(context, reference->model_id, MF_NUMBER_F32, &folder.model_id, error);
    return status == MF_PROVIDER_OK ? host->open_tokenizer(context, &folder, out, error) : status;
}

static const struct mf_provider provider = {
    .size = sizeof provider,
    .abi_version = MF_PROVIDER_ABI,
    .get_provider_name = get_provider_name,
    .capabilities = capabilities,
    .validate_model_access = validate_model_access,
    .load_model = load_model,
    .load_tokenizer = load_tokenizer,
};

const struct mf_provider *mf_provider_entry(uint32_t host_abi, const struct mf_host_api *host_api) {
    if (host_abi != MF_PROVIDER_ABI || !MF_HOST_HAS(host_api, make_folder_of_gguf))
        return NULL;
    host = host_api;
    return &provider;
}
