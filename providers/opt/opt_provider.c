/* The provider `opt`: trains adapters on OPT models (Zhang et al. 2022, https://arxiv.org/abs/2205.01068), a
 * family that modelforge does not know.
 *
 * An example of a plug-in that builds its own programs with ops of its own (providers/CUSTOM.md, part 5). It
 * is compiled from this file and the installed header alone. */
#include <modelforge/provider.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mf_host_api *host;
static const struct mf_graph_api *graph;

/* ---- two ops that modelforge does not have ---- */

static float get(const struct mf_op_array *array, int64_t row, int64_t column) {
    const int64_t at = row * array->stride[0] + column;
    return array->number == MF_NUMBER_BF16 ? mf_number_from_bf16(((const uint16_t *)array->data)[at])
                                           : ((const float *)array->data)[at];
}

static void put(const struct mf_op_array *array, int64_t row, int64_t column, float value) {
    const int64_t at = row * array->stride[0] + column;
    if (array->number == MF_NUMBER_BF16)
        ((uint16_t *)array->data)[at] = mf_number_to_bf16(value);
    else
        ((float *)array->data)[at] = value;
}

/* y = x > 0 ? x : 0; with a second input dy instead dx = x > 0 ? dy : 0. All are (T, F). */
static int relu_shape(void *state, const struct mf_op_node *node, const struct mf_op_shape *in,
                      struct mf_op_shape *out, struct mf_error *error) {
    (void)state;
    if (in[0].rank != 2 || in[0].number > MF_NUMBER_BF16)
        return host->fail(error, "provider_unsupported", "%s takes a tensor (T, F) of f32 or bf16", node->op);
    out[0] = in[0];
    out[0].rows_of = 0;
    return MF_PROVIDER_OK;
}

static int relu_compute(const struct mf_op_call *call, struct mf_error *error) {
    const struct mf_op_array *x = &call->in[0], *from = &call->in[call->inputs - 1];
    (void)error;
    for (int64_t t = 0; t < x->dim[0]; t++)
        for (int64_t f = 0; f < x->dim[1]; f++)
            put(&call->out[0], t, f, get(x, t, f) > 0 ? get(from, t, f) : 0);
    return MF_PROVIDER_OK;
}

static int relu_gradient(void *state, struct mf_program_builder *builder, const struct mf_op_node *node,
                         const int32_t *output_gradient, int32_t *input_gradient, struct mf_error *error) {
    const int32_t in[] = {node->in[0], output_gradient[0]};
    (void)state, (void)error;
    input_gradient[0] = graph->emit(builder, "opt.relu_gradient", in, 2, NULL, 0);
    return MF_PROVIDER_OK;
}

/* y = x + by, of whole numbers (T): OPT's positions begin at 2. It reads no activation and needs no gradient.
 */
static int shift_shape(void *state, const struct mf_op_node *node, const struct mf_op_shape *in,
                       struct mf_op_shape *out, struct mf_error *error) {
    (void)state;
    if (in[0].rank != 1 || in[0].number != MF_NUMBER_I32)
        return host->fail(error, "provider_unsupported", "%s takes whole numbers (T)", node->op);
    out[0] = in[0];
    out[0].rows_of = 0;
    return MF_PROVIDER_OK;
}

static int shift_compute(const struct mf_op_call *call, struct mf_error *error) {
    (void)error;
    for (int64_t t = 0; t < call->in[0].dim[0]; t++)
        ((int32_t *)call->out[0].data)[t] =
            ((const int32_t *)call->in[0].data)[t] + (int32_t)call->attribute[0];
    return MF_PROVIDER_OK;
}

static const char *const shift_attributes[] = {"by", NULL};
static const struct mf_op_definition ops[] = {
    {.size = sizeof ops[0],
     .inputs = 1,
     .outputs = 1,
     .name = "opt.relu",
     .shape = relu_shape,
     .compute = relu_compute,
     .gradient = relu_gradient},
    {.size = sizeof ops[0],
     .inputs = 2,
     .outputs = 1,
     .name = "opt.relu_gradient",
     .shape = relu_shape,
     .compute = relu_compute},
    {.size = sizeof ops[0],
     .inputs = 1,
     .outputs = 1,
     .name = "opt.shift",
     .attribute = shift_attributes,
     .shape = shift_shape,
     .compute = shift_compute},
};

/* ---- the forward pass ---- */

struct opt {
    int64_t vocabulary, hidden, feed_forward, layers, heads, positions;
    double end_token;
};

/* LayerNorm of x (T, D) by the weights `name`.weight and `name`.bias. */
static int32_t norm(const struct opt *opt, struct mf_program_builder *builder, int32_t x, const char *name) {
    static const struct mf_op_attribute epsilon = {"epsilon", 1e-5};
    char weight[96], bias[96];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    const int32_t in[] = {x, graph->weight(builder, weight, 1, &opt->hidden),
                          graph->weight(builder, bias, 1, &opt->hidden)};
    return graph->emit(builder, "layer_norm", in, 3, &epsilon, 1);
}

static int32_t add(struct mf_program_builder *builder, int32_t a, int32_t b) {
    const int32_t in[] = {a, b};
    return graph->emit(builder, "add", in, 2, NULL, 0);
}

/* x (T, D) -> (T, D). Names are those of the weights on disk, and what PEFT calls the modules. */
static int32_t layer(const struct opt *opt, struct mf_program_builder *builder, int32_t x, int32_t index) {
    static const char *const names[] = {"q_proj", "k_proj", "v_proj"};
    const int32_t heads = (int32_t)opt->heads;
    int32_t part[3], y;
    char prefix[48], name[80];
    snprintf(prefix, sizeof prefix, "model.decoder.layers.%d", index);
    snprintf(name, sizeof name, "%s.self_attn_layer_norm", prefix);
    y = norm(opt, builder, x, name);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.self_attn.%s", prefix, names[i]);
        part[i] = graph->heads(builder, graph->linear(builder, y, name, opt->hidden, 1), heads);
    }
    const int64_t head_size = opt->hidden / opt->heads;
    y = graph->attention(builder, part[0], part[1], part[2], 1.0F / sqrtf((float)head_size), 0, 0);
    snprintf(name, sizeof name, "%s.self_attn.out_proj", prefix);
    x = add(builder, x, graph->linear(builder, graph->merge_heads(builder, y, heads), name, opt->hidden, 1));
    snprintf(name, sizeof name, "%s.final_layer_norm", prefix);
    y = norm(opt, builder, x, name);
    snprintf(name, sizeof name, "%s.fc1", prefix);
    y = graph->linear(builder, y, name, opt->feed_forward, 1);
    y = graph->emit(builder, "opt.relu", &y, 1, NULL, 0);
    snprintf(name, sizeof name, "%s.fc2", prefix);
    return add(builder, x, graph->linear(builder, y, name, opt->hidden, 1));
}

/* Training, evaluation, generation: the host asks for each, and they read alike. */
static int build(void *state, struct mf_program_builder *builder, struct mf_error *error) {
    static const struct mf_op_attribute by = {"by", 2};
    const struct opt *opt = state;
    const int64_t tokens_dim[] = {opt->vocabulary, opt->hidden},
                  positions_dim[] = {opt->positions + 2, opt->hidden};
    const int32_t table = graph->weight(builder, "model.decoder.embed_tokens.weight", 2, tokens_dim);
    const int32_t position = graph->input(builder, MF_PROGRAM_POSITIONS);
    const int32_t by_token[] = {table, graph->input(builder, MF_PROGRAM_TOKENS)};
    const int32_t by_position[] = {
        graph->weight(builder, "model.decoder.embed_positions.weight", 2, positions_dim),
        graph->emit(builder, "opt.shift", &position, 1, &by, 1)};
    (void)error;
    int32_t x = add(builder, graph->emit(builder, "embedding", by_token, 2, NULL, 0),
                    graph->emit(builder, "embedding", by_position, 2, NULL, 0));
    for (int32_t i = 0; i < opt->layers; i++) {
        graph->set_layer(builder, i);
        x = layer(opt, builder, x, i);
    }
    graph->set_layer(builder, -1);
    return graph->head(builder, norm(opt, builder, x, "model.decoder.final_layer_norm"), table, MF_NO_TENSOR,
                       1, 0);
}

/* ---- the provider ---- */

static int read_config(struct mf_provider_context *context, const char *folder, struct opt *opt,
                       struct mf_error *error) {
    const struct {
        const char *key;
        int64_t *value;
    } sizes[] = {{"vocab_size", &opt->vocabulary},     {"hidden_size", &opt->hidden},
                 {"ffn_dim", &opt->feed_forward},      {"num_hidden_layers", &opt->layers},
                 {"num_attention_heads", &opt->heads}, {"max_position_embeddings", &opt->positions},
                 {"word_embed_proj_dim", &opt->hidden}};
    char type[32] = "", activation[32] = "";
    double value, before = 1, tied = 1;
    host->config_text(context, folder, "model_type", type, sizeof type);
    host->config_text(context, folder, "activation_function", activation, sizeof activation);
    host->config_number(context, folder, "do_layer_norm_before", &before);
    host->config_number(context, folder, "tie_word_embeddings", &tied);
    if (strcmp(type, "opt") != 0 || strcmp(activation, "relu") != 0 || before != 1 || tied != 1)
        return host->fail(
            error, "model_config",
            "%s/config.json: opt trains models of type opt with relu, do_layer_norm_before and tied "
            "embeddings",
            folder);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (!host->config_number(context, folder, sizes[i].key, &value) || value < 1 || value > 1e6 ||
            (*sizes[i].value && (double)*sizes[i].value != value))
            return host->fail(error, "model_config", "%s/config.json: %s is missing or cannot be", folder,
                              sizes[i].key);
        *sizes[i].value = (int64_t)value;
    }
    if (opt->hidden % opt->heads)
        return host->fail(error, "model_config",
                          "%s/config.json: num_attention_heads does not divide hidden_size", folder);
    opt->end_token = -1;
    host->config_number(context, folder, "eos_token_id", &opt->end_token);
    return MF_PROVIDER_OK;
}

static int load_model(struct mf_provider_context *context, const struct mf_load_options *options,
                      struct mf_model **out, struct mf_error *error) {
    struct opt *opt = calloc(1, sizeof *opt);
    if (!opt)
        return host->fail(error, "out_of_memory", "opt: no memory for a model");
    int status = read_config(context, options->reference->model_id, opt, error);
    if (status == MF_PROVIDER_OK && options->provider_config[0])
        status = host->fail(error, "invalid_field", "provider_config.%s: opt has no settings",
                            options->provider_config[0]);
    for (size_t i = 0; status == MF_PROVIDER_OK && i < sizeof ops / sizeof *ops; i++)
        status = graph->register_op(&ops[i], error);
    if (status != MF_PROVIDER_OK) {
        free(opt);
        return status;
    }
    const struct mf_model_source source = {.size = sizeof source,
                                           .build = build,
                                           .close = free, /* from here on the host's to call */
                                           .state = opt,
                                           .model_type = "opt",
                                           .vocabulary = opt->vocabulary,
                                           .hidden = opt->hidden,
                                           .layers = opt->layers,
                                           .max_positions = opt->positions,
                                           .end_token = (int64_t)opt->end_token};
    return graph->open_source(context, options, &source, out, error);
}

static const char *get_provider_name(void) {
    return "opt";
}

static int capabilities(const struct mf_device *device, struct mf_capabilities *out, struct mf_error *error) {
    static const struct mf_capability rows[] = {
        {sizeof rows[0], MF_CAPABILITY_SUPPORTED, "opt", "text-generation", "sft",
         "equal to Transformers and PEFT"},
        {sizeof rows[0], MF_CAPABILITY_UNSUPPORTED, "*", "*", "*", "opt trains OPT models by sft only"},
    };
    if (device->kind != MF_DEVICE_CPU)
        return host->fail(error, "provider_unavailable", "opt: its ops have kernels for the CPU only");
    out->row = rows;
    out->count = sizeof rows / sizeof rows[0];
    out->stride = sizeof rows[0];
    return MF_PROVIDER_OK;
}

static int validate_model_access(struct mf_provider_context *context,
                                 const struct mf_model_reference *reference, struct mf_error *error) {
    return host->check_model(context, reference, error);
}

static int load_tokenizer(struct mf_provider_context *context, const struct mf_model_reference *reference,
                          struct mf_tokenizer **out, struct mf_error *error) {
    return host->open_tokenizer(context, reference, out, error);
}

const struct mf_provider *mf_provider_entry(uint32_t host_abi, const struct mf_host_api *host_api) {
    static const struct mf_provider provider = {
        .size = sizeof provider,
        .abi_version = MF_PROVIDER_ABI,
        .get_provider_name = get_provider_name,
        .capabilities = capabilities,
        .validate_model_access = validate_model_access,
        .load_model = load_model,
        .load_tokenizer = load_tokenizer,
    };
    if (host_abi != MF_PROVIDER_ABI || !MF_HOST_HAS(host_api, config_text))
        return NULL;
    host = host_api;
    graph = host_api->graph;
    return &provider;
}
