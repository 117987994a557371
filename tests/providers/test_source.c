/* Programs that providers build or change, through the host table as a plug-in has it: what is wrong with
 * them is said when the model is opened, or where the program is built. (What is right is in outside.sh.) */
#include "providers/host.h"
#include "providers/models/model.h"
#include "providers/models/trained.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define MODEL "tests/golden/models/tied-gqa"

enum wrong {
    NOTHING,
    NO_HEAD,
    HEAD_TWICE,
    MISSING_WEIGHT,
    OTHER_SHAPE,
    UNKNOWN_OP,
    CLOSED_OP,
    UNKNOWN_ATTRIBUTE,
    BAD_ATTRIBUTE,
    NO_TENSOR,
    BAD_LAYER,
    BAD_NAME,
    FLAT_ATTENTION,
    SILENT,
    OWN_ERROR,
    CHANGES
};

/* Which of tied-gqa's weights are named, and what is done wrong. */
struct own {
    enum wrong wrong;
    int calls, closed;
};

static const struct mf_host_api *host;
static const struct mf_graph_api *graph;

static void name_all_weights(struct mf_program_builder *builder) {
    static const struct {
        const char *name;
        uint32_t rank;
        int64_t dim[2];
    } weights[] = {{"input_layernorm.weight", 1, {64, 1}},   {"post_attention_layernorm.weight", 1, {64, 1}},
                   {"self_attn.q_proj.weight", 2, {64, 64}}, {"self_attn.k_proj.weight", 2, {32, 64}},
                   {"self_attn.v_proj.weight", 2, {32, 64}}, {"self_attn.o_proj.weight", 2, {64, 64}},
                   {"mlp.gate_proj.weight", 2, {96, 64}},    {"mlp.up_proj.weight", 2, {96, 64}},
                   {"mlp.down_proj.weight", 2, {64, 96}}};
    char name[96];
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s", layer, weights[i].name);
            graph->weight(builder, name, weights[i].rank, weights[i].dim);
        }
}

static void do_wrong(struct own *own, struct mf_program_builder *builder, int32_t x) {
    const struct mf_op_attribute unknown = {"beta", 1}, bad = {"variant", 0.5};
    const int64_t dim[2] = {7, 7};
    const int32_t two[] = {x, x}, none[] = {x, 1 << 20};
    char module[48];
    switch (own->wrong) {
    case MISSING_WEIGHT:
        graph->weight(builder, "model.extra.weight", 2, dim);
        break;
    case OTHER_SHAPE:
        graph->weight(builder, "model.norm.weight", 2, dim);
        break;
    case UNKNOWN_OP:
        graph->emit(builder, "mystery", &x, 1, NULL, 0);
        break;
    case CLOSED_OP:
        graph->emit(builder, "zero", &x, 1, NULL, 0);
        break;
    case UNKNOWN_ATTRIBUTE:
        graph->emit(builder, "rms_norm", two, 2, &unknown, 1);
        break;
    case BAD_ATTRIBUTE:
        graph->emit(builder, "rms_norm", two, 2, &bad, 1);
        break;
    case NO_TENSOR:
        graph->emit(builder, "add", none, 2, NULL, 0);
        break;
    case BAD_LAYER:
        graph->set_layer(builder, 2);
        break;
    case BAD_NAME:
        graph->linear(builder, x, "a+b", 64, 0);
        break;
    case FLAT_ATTENTION:
        graph->attention(builder, x, x, x, 1, 0, 0);
        break;
    case CHANGES:
        snprintf(module, sizeof module, "model.module%d", own->calls);
        if (own->calls > 1)
            graph->linear(builder, x, module, 64, 0);
        break;
    default:
        break;
    }
}

static int build(void *state, struct mf_program_builder *builder, struct mf_error *error) {
    struct own *own = state;
    const int64_t table_dim[2] = {300, 64};
    const int32_t table = graph->weight(builder, "model.embed_tokens.weight", 2, table_dim);
    const int32_t in[] = {table, graph->input(builder, MF_PROGRAM_TOKENS)};
    const int32_t x = graph->emit(builder, "embedding", in, 2, NULL, 0);
    own->calls++;
    name_all_weights(builder);
    do_wrong(own, builder, x);
    const int32_t norm[] = {x, graph->weight(builder, "model.norm.weight", 1, table_dim + 1)};
    const int32_t y = graph->emit(builder, "rms_norm", norm, 2, NULL, 0);
    if (own->wrong == SILENT)
        return 77;
    if (own->wrong == OWN_ERROR)
        return (host->fail)(error, "model_config", "the moon is full");
    if (own->wrong == HEAD_TWICE)
        graph->head(builder, y, table, MF_NO_TENSOR, 1, 0);
    return own->wrong == NO_HEAD ? MF_PROVIDER_OK : graph->head(builder, y, table, MF_NO_TENSOR, 1, 0);
}

static void close_own(void *state) {
    ((struct own *)state)->closed++;
}

static int open_source(const struct mf_model_source *source, struct mf_model **model,
                       struct mf_error *error) {
    static const char *const none[] = {NULL};
    const struct mf_model_reference reference = {.size = sizeof reference, .model_id = MODEL};
    const struct mf_load_options options = {
        .size = sizeof options, .reference = &reference, .device_map = "auto", .provider_config = none};
    return graph->open_source(NULL, &options, source, model, error);
}

static struct mf_model_source source_of(struct own *own) {
    return (struct mf_model_source){.size = sizeof(struct mf_model_source),
                                    .build = build,
                                    .close = close_own,
                                    .state = own,
                                    .model_type = "bag",
                                    .vocabulary = 300,
                                    .hidden = 64,
                                    .layers = 2,
                                    .max_positions = 128,
                                    .end_token = -1};
}

static void what_is_wrong_is_said(void **state) {
    static const struct {
        enum wrong wrong;
        const char *message;
    } cases[] = {
        {NO_HEAD, "build() did not call head()"},
        {HEAD_TWICE, "head() was called twice"},
        {MISSING_WEIGHT,
         MODEL ": config.json implies the weight model.extra.weight, but no weight file holds it"},
        {OTHER_SHAPE, "model.norm.weight"},
        {UNKNOWN_OP,
         "a program cannot be made with 'mystery' of 1 inputs: the provider ABI has no such op, and none "
         "of this name was registered"},
        {CLOSED_OP,
         "a program cannot be made with 'zero' of 1 inputs: the provider ABI has no such op, and none of "
         "this name was registered"},
        {UNKNOWN_ATTRIBUTE, "the op rms_norm has no attribute 'beta'"},
        {BAD_ATTRIBUTE, "variant of the op rms_norm cannot be 0.5"},
        {NO_TENSOR, "evaluate program, add: input 1 is no tensor"},
        {BAD_LAYER, "set_layer(2): the model has 2 layers"},
        {BAD_NAME, "'a+b' cannot be the name of a weight, module or constant"},
        {FLAT_ATTENTION, "attention() takes q (T, H, d), k and v (T, G, d): see heads()"},
        {SILENT, "build(): failed without saying why"},
        {OWN_ERROR, "build(): the moon is full"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct own own = {.wrong = cases[i].wrong};
        const struct mf_model_source source = source_of(&own);
        struct mf_model *model = (struct mf_model *)&own;
        struct mf_error error;
        assert_int_not_equal(open_source(&source, &model, &error), MF_PROVIDER_OK);
        if (!strstr(error.message, cases[i].message))
            fail_msg("expected '%s', got '%s'", cases[i].message, error.message);
        assert_null(model);
        assert_int_equal(own.closed, 1);
    }
}

static void a_model_is_what_was_built(void **state) {
    struct own own = {.wrong = NOTHING};
    const struct mf_model_source source = source_of(&own);
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    if (open_source(&source, &model, &error))
        fail_msg("%s", error.message);
    assert_string_equal(mf_model_architecture(model)->model_type, "bag");
    assert_int_equal(mf_model_module_count(model), 0);
    assert_int_equal(own.closed, 0);
    mf_model_close(model);
    assert_int_equal(own.closed, 1);
}

/* Every weight that it reads may be trained whole: programs of the slot then read that. */
static void weights_are_trained_whole(void **state) {
    struct own own = {.wrong = NOTHING};
    const struct mf_model_source source = source_of(&own);
    struct mf_graph *programs;
    struct mf_model_program out = {0};
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    assert_int_equal(open_source(&source, &model, &error), MF_PROVIDER_OK);
    assert_int_equal(mf_graph_create(&programs, &error), MF_OK);
    if (mf_model_train_all(model, programs, 0, &error) ||
        mf_model_build(model, programs, MF_TRAIN, 0, &out, &error))
        fail_msg("%s", error.message);
    const struct mf_trained *table = mf_graph_find_trained(programs, 0, "model.embed_tokens.weight");
    assert_non_null(table);
    static const char *const saved[] = {"norm"};
    assert_int_equal(mf_model_train_modules(model, programs, 1, saved, 1, NULL, &error),
                     MF_ERROR_UNSUPPORTED_FIELD);
    int read = 0;
    const struct mf_program *program = programs->program[out.program];
    for (int32_t n = 0; n < program->nodes; n++)
        if (program->node[n].op == MF_OP_EMBEDDING || program->node[n].op == MF_OP_HEAD)
            read += program->node[n].in[program->node[n].op == MF_OP_HEAD] == table->computed;
    assert_int_equal(read, 2);
    mf_graph_destroy(programs);
    mf_model_close(model);
}

/* The survey saw other modules than a program then asks for. */
static void one_that_changes_its_mind_is_told(void **state) {
    struct own own = {.wrong = CHANGES};
    const struct mf_model_source source = source_of(&own);
    struct mf_graph *programs;
    struct mf_model_program out;
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    assert_int_equal(open_source(&source, &model, &error), MF_PROVIDER_OK);
    assert_int_equal(mf_graph_create(&programs, &error), MF_OK);
    assert_int_equal(mf_model_build(model, programs, MF_EVALUATE, -1, &out, &error),
                     MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_string_equal(error.message,
                        "the module model.module2 was not there before, or had another shape: build() "
                        "is to build the same each time");
    mf_graph_destroy(programs);
    mf_model_close(model);
}

static void a_source_that_lacks_something_is_refused(void **state) {
    struct own own = {.wrong = NOTHING};
    struct mf_model_source source = source_of(&own);
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    source.layers = 0;
    assert_int_equal(open_source(&source, &model, &error), MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_non_null(strstr(error.message, "layers, max_positions or end_token that cannot be"));
    assert_int_equal(own.closed, 1);
    source.layers = 2;
    source.build = NULL;
    assert_int_equal(open_source(&source, &model, &error), MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_non_null(strstr(error.message, "has neither build() nor rewrite()"));
    source.size = 24;
    assert_int_equal(open_source(&source, &model, &error), MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_non_null(strstr(error.message, "its struct mf_model_source has 24 bytes, fewer than the "));
    assert_int_equal(own.closed, 2); /* what it would call is not known */
}

/* Puts an op of another shape in the place of every add; or a sum that is not the last node. */
static int32_t rewrite(void *state, struct mf_program_builder *builder, const struct mf_op_node *node,
                       struct mf_error *error) {
    const bool wider = *(const int *)state == 0;
    if (*(const int *)state == 2)
        return (host->fail)(error, "invalid_field", "not today"), MF_NO_TENSOR;
    if (strcmp(node->op, "add") != 0)
        return MF_NO_TENSOR;
    const int32_t y = graph->emit(builder, "add", node->in, 2, NULL, 0);
    return wider ? graph->columns(builder, y, 0, 8) : graph->emit(builder, "add", node->in, 2, NULL, 0) - 1;
}

static void a_wrong_rewrite_is_told(void **state) {
    static const char *const messages[] = {"what stands for a add is not the first output of the last node",
                                           "what stands for a add is not the first output of the last node",
                                           "rewrite(): not today"};
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        const struct mf_model_source source = {.size = sizeof source, .rewrite = rewrite, .state = &kind};
        struct mf_graph *programs;
        struct mf_model_program out;
        struct mf_model *model;
        struct mf_error error;
        assert_int_equal(open_source(&source, &model, &error), MF_PROVIDER_OK);
        assert_int_equal(mf_graph_create(&programs, &error), MF_OK);
        assert_int_not_equal(mf_model_build(model, programs, MF_EVALUATE, -1, &out, &error), MF_OK);
        if (!strstr(error.message, messages[kind]))
            fail_msg("expected '%s', got '%s'", messages[kind], error.message);
        mf_graph_destroy(programs);
        mf_model_close(model);
    }
}

static int any_shape(void *state, const struct mf_op_node *node, const struct mf_op_shape *in,
                     struct mf_op_shape *out, struct mf_error *error) {
    (void)state, (void)node, (void)error;
    out[0] = in[0];
    return MF_PROVIDER_OK;
}

static int no_kernel(const struct mf_op_call *call, struct mf_error *error) {
    (void)call, (void)error;
    return 1;
}

static void definitions_are_checked(void **state) {
    static const char *const many[] = {"a", "b", "c", "d", "e", NULL};
    const struct mf_op_definition good = {.size = sizeof good,
                                          .inputs = 1,
                                          .outputs = 1,
                                          .name = "test.defined",
                                          .shape = any_shape,
                                          .compute = no_kernel};
    struct mf_op_definition bad;
    struct mf_error error;
    (void)state;
    assert_int_equal(graph->register_op(&good, &error), MF_PROVIDER_OK);
    assert_int_equal(graph->register_op(&good, &error), MF_PROVIDER_OK); /* again */
#define REFUSED(member, value, text)                                                   \
    bad = good;                                                                        \
    bad.member = value;                                                                \
    assert_int_equal(graph->register_op(&bad, &error), MF_ERROR_PROVIDER_UNAVAILABLE); \
    assert_non_null(strstr(error.message, text))
    REFUSED(size, 16, "has 16 bytes, fewer than the");
    REFUSED(name, NULL, "it lacks its name or shape()");
    REFUSED(name, "defined", "its name is to be OWNER.OP");
    REFUSED(shape, NULL, "it lacks its name or shape()");
    REFUSED(inputs, 9, "1 to 8 inputs");
    REFUSED(outputs, 0, "1 to 4 outputs");
    REFUSED(compute, NULL, "neither compute() nor expand()");
    REFUSED(flags, 8, "a flag that this version does not know");
    REFUSED(attribute, many, "more than 4 attributes");
    REFUSED(state, &error, "another one has this name");
#undef REFUSED
}

/* Members of config.json, for families that are built from it. */
static void config_is_read_by_key(void **state) {
    char text[8] = "before";
    double value = -7;
    (void)state;
    assert_int_equal(host->config_number(NULL, MODEL, "hidden_size", &value), 1);
    assert_true(value == 64);
    assert_int_equal(host->config_number(NULL, MODEL, "tie_word_embeddings", &value), 1);
    assert_true(value == 1);
    assert_int_equal(host->config_number(NULL, MODEL, "model_type", &value), 0);
    assert_int_equal(host->config_number(NULL, MODEL, "rope_parameters.rope_theta", &value), 1);
    assert_true(value == 10000);
    assert_int_equal(host->config_number(NULL, MODEL, "rope_parameters.none.more", &value), 0);
    assert_int_equal(host->config_number(NULL, "tests/golden/none", "hidden_size", &value), 0);
    assert_int_equal(host->config_text(NULL, MODEL, "hidden_size", text, sizeof text), 0);
    assert_string_equal(text, "before");
    assert_int_equal(host->config_text(NULL, MODEL, "model_type", text, 4), 1);
    assert_string_equal(text, "lla");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(a_model_is_what_was_built),
        cmocka_unit_test(weights_are_trained_whole),
        cmocka_unit_test(one_that_changes_its_mind_is_told),
        cmocka_unit_test(a_source_that_lacks_something_is_refused),
        cmocka_unit_test(a_wrong_rewrite_is_told),
        cmocka_unit_test(definitions_are_checked),
        cmocka_unit_test(config_is_read_by_key),
    };
    host = mf_host();
    graph = host->graph;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
