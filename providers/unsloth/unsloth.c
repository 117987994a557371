#include "providers/unsloth/unsloth.h"

static const struct mf_host_api *host;

/* The first row that matches counts. */
static const struct mf_capability rows[] = {
#define ROW(level, architecture, task, strategy, reason) \
    { sizeof(struct mf_capability), MF_CAPABILITY_##level, architecture, task, strategy, reason }
/* The model types of models/architecture.c that golden values of make_models.py hold for, fused too. */
#define TRAINS(architecture)                                       \
    ROW(SUPPORTED, architecture, "text-generation", "sft",         \
        "fused projections, compared with Transformers and PEFT"), \
        ROW(LIMITED, architecture, "text-generation", "qlora",     \
            "fused projections with quantised weights; whole quantised models are compared unfused only")
    ROW(UNSUPPORTED, "*", "summarization", "*", "this version trains text-generation only"),
    ROW(UNSUPPORTED, "*", "extractive-question-answering", "*", "this version trains text-generation only"),
    ROW(UNSUPPORTED, "*", "*", "dpo", "this version has the strategies sft and qlora only"),
    ROW(UNSUPPORTED, "*", "*", "rlhf", "this version has the strategies sft and qlora only"),
    TRAINS("llama"),
    TRAINS("mistral"),
    TRAINS("qwen2"),
    TRAINS("qwen3"),
    TRAINS("gemma"),
    TRAINS("gemma2"),
    TRAINS("gemma3_text"),
    TRAINS("phi3"),
    TRAINS("phi"),
#undef TRAINS
#undef ROW
};

static const char *get_provider_name(void) {
    return "unsloth";
}

static int capabilities(const struct mf_device *device, struct mf_capabilities *out, struct mf_error *error) {
    if (device->kind != MF_DEVICE_CPU && device->kind != MF_DEVICE_CUDA)
        return host->fail(error, "provider_unavailable",
                          "unsloth: this version computes on CPUs and CUDA GPUs");
    out->stride = sizeof(struct mf_capability); /* the same programs on both, so the same rows */
    out->row = rows;
    out->count = sizeof rows / sizeof *rows;
    return MF_PROVIDER_OK;
}

static int validate_model_access(struct mf_provider_context *context,
                                 const struct mf_model_reference *reference, struct mf_error *error) {
    return host->check_model(context, reference, error);
}

static int load_model(struct mf_provider_context *context, const struct mf_load_options *options,
                      struct mf_model **out, struct mf_error *error) {
    if (options->provider_config[0])
        return host->fail(error, "invalid_field",
                          "provider_config.%s: unsloth has no such setting (it has none)",
                          options->provider_config[0]);
    const int status = host->check_model(context, options->reference, error);
    if (status)
        return status;
    if (host->cancelled(context))
        return host->fail(error, "cancelled", "cancelled while loading the model");
    host->log(context, "opening the model folder");
    struct mf_load_options fused = *options;
    fused.size = sizeof fused;
    fused.fuse = 1;
    return host->open_model(context, &fused, out, error);
}

static int load_tokenizer(struct mf_provider_context *context, const struct mf_model_reference *reference,
                          struct mf_tokenizer **out, struct mf_error *error) {
    return host->open_tokenizer(context, reference, out, error);
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

const struct mf_provider *mf_unsloth_entry(uint32_t host_abi, const struct mf_host_api *host_api) {
    if (host_abi != MF_PROVIDER_ABI || host_api->size < sizeof *host_api)
        return NULL;
    host = host_api;
    return &provider;
}
