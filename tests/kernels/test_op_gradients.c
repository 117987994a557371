/* Every op that has a gradient against numeric differentiation on the oracle: for random r the gradient of
 * Σ r * y that the gradient table gives must equal a five-point difference quotient. An op of the table
 * without a case here fails the test. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "kernels/op_rules.h"

enum { WANTED = 4 };
static const double STEP = 1.0 / 64, TOLERANCE = 5e-4;

struct subject {
    int32_t output;         /* what is differentiated */
    int32_t wanted[WANTED]; /* inputs that it is differentiated by */
    int wanted_count;
    int32_t parameter; /* by this one too; -1 */
};

/* --- cases: each builds one op over fresh inputs
 * ---------------------------------------------------------------- */

static void want(struct subject *subject, int32_t tensor) {
    subject->wanted[subject->wanted_count++] = tensor;
}

static struct subject rms_norm(struct fixture *fixture, enum mf_norm_variant variant) {
    struct subject subject = {.parameter = -1};
    int32_t x = fixture_matrix(fixture, "x"), weight = fixture_weight(fixture, "norm", WIDTH, 0);
    want(&subject, x);
    subject.output = mf_build_rms_norm(&fixture->builder, x, weight, 1e-5f, variant);
    return subject;
}
static struct subject case_rms_norm(struct fixture *fixture) {
    return rms_norm(fixture, MF_NORM_CAST_THEN_SCALE);
}
static struct subject case_rms_norm_unit_offset(struct fixture *fixture) {
    return rms_norm(fixture, MF_NORM_UNIT_OFFSET);
}
/* The same input normed twice: the second gradient takes the first as its addend. */
static struct subject case_rms_norm_twice(struct fixture *fixture) {
    struct subject subject = rms_norm(fixture, MF_NORM_CAST_THEN_SCALE);
    int32_t other = fixture_weight(fixture, "other", WIDTH, 0);
    int32_t second =
        mf_build_rms_norm(&fixture->builder, subject.wanted[0], other, 1e-5f, MF_NORM_CAST_THEN_SCALE);
    subject.output = mf_build_add(&fixture->builder, subject.output, second);
    return subject;
}

/* Twice: the second gradient takes the first as its addend. */
static struct subject case_layer_norm(struct fixture *fixture) {
    struct subject subject = {.parameter = -1};
    struct mf_builder *builder = &fixture->builder;
    int32_t x = fixture_matrix(fixture, "x"), bias = fixture_weight(fixture, "bias", WIDTH, 0);
    want(&subject, x);
    int32_t first = mf_build_layer_norm(builder, x, fixture_weight(fixture, "norm", WIDTH, 0), bias, 1e-5f);
    int32_t second = mf_build_layer_norm(builder, x, fixture_weight(fixture, "other", WIDTH, 0), bias, 1e-2f);
    subject.output = mf_build_add(builder, first, second);
    return subject;
}

/* A weight, or a bias, of two norms. */
static struct subject layer_norm_trained(struct fixture *fixture, bool bias) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "trained", WIDTH, 0)};
    struct mf_builder *builder = &fixture->builder;
    const int32_t x = fixture_matrix(fixture, "x"), frozen = fixture_weight(fixture, "norm", WIDTH, 0);
    const int32_t weight = bias ? frozen : subject.parameter, shift = bias ? subject.parameter : frozen;
    want(&subject, x);
    const int32_t y = mf_build_layer_norm(builder, x, weight, shift, 1e-5f);
    subject.output = mf_build_layer_norm(builder, mf_build_add(builder, x, y), weight, shift, 1e-5f);
    return subject;
}
static struct subject case_layer_norm_weight(struct fixture *fixture) {
    return layer_norm_trained(fixture, false);
}
static struct subject case_layer_norm_bias(struct fixture *fixture) {
    return layer_norm_trained(fixture, true);
}

/* One weight, of two norms. */
static struct subject rms_norm_weight(struct fixture *fixture, enum mf_norm_variant variant) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "norm", WIDTH, 0)};
    int32_t x = fixture_matrix(fixture, "x");
    want(&subject, x);
    int32_t y = mf_build_rms_norm(&fixture->builder, x, subject.parameter, 1e-5f, variant);
    subject.output = mf_build_rms_norm(&fixture->builder, mf_build_add(&fixture->builder, x, y),
                                       subject.parameter, 1e-5f, variant);
    return subject;
}
static struct subject case_rms_norm_weight(struct fixture *fixture) {
    return rms_norm_weight(fixture, MF_NORM_CAST_THEN_SCALE);
}
static struct subject case_rms_norm_weight_unit_offset(struct fixture *fixture) {
    return rms_norm_weight(fixture, MF_NORM_UNIT_OFFSET);
}

static struct subject case_linear(struct fixture *fixture) {
    struct subject subject = {.parameter = -1};
    int32_t x = fixture_matrix(fixture, "x");
    const int32_t in[] = {x, fixture_weight(fixture, "weight", 5, WIDTH),
                          fixture_weight(fixture, "bias", 5, 0)};
    want(&subject, x);
    subject.output =
        mf_emit(&fixture->builder, MF_OP_LINEAR, in, 3, &(union mf_attributes){.linear = {.alpha = 0.5f}});
    return subject;
}
/* A trainable weight whose product goes into columns 2 .. 4 of an addend. */
static struct subject case_linear_columns(struct fixture *fixture) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "weight", 3, WIDTH)};
    int32_t x = fixture_matrix(fixture, "x"),
            addend = fixture_input(fixture, "addend", 2, symbol_dim(MF_TOKENS, 1), mf_dim_const(7),
                                   mf_dim_const(1));
    const int32_t in[] = {x, subject.parameter, -1, addend};
    want(&subject, x);
    want(&subject, addend);
    subject.output = mf_emit(&fixture->builder, MF_OP_LINEAR, in, 4,
                             &(union mf_attributes){.linear = {.alpha = 1.5f, .first = 2}});
    return subject;
}
/* One weight used twice: its gradient is added into one place, version after version. */
static struct subject case_linear_shared(struct fixture *fixture) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "weight", WIDTH, WIDTH)};
    int32_t x = fixture_matrix(fixture, "x");
    const union mf_attributes attributes = {.linear = {.alpha = 1}};
    const int32_t first[] = {x, subject.parameter};
    want(&subject, x);
    int32_t y = mf_emit(&fixture->builder, MF_OP_LINEAR, first, 2, &attributes);
    const int32_t second[] = {y, subject.parameter};
    subject.output = mf_emit(&fixture->builder, MF_OP_LINEAR, second, 2, &attributes);
    return subject;
}

/* The bias alone is trained, of a product into columns 2 .. 6 of an addend. */
static struct subject case_linear_bias(struct fixture *fixture) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "bias", 5, 0)};
    int32_t x = fixture_matrix(fixture, "x"),
            addend = fixture_input(fixture, "addend", 2, symbol_dim(MF_TOKENS, 1), mf_dim_const(7),
                                   mf_dim_const(1));
    const int32_t in[] = {x, fixture_weight(fixture, "weight", 5, WIDTH), subject.parameter, addend};
    want(&subject, x);
    subject.output = mf_emit(&fixture->builder, MF_OP_LINEAR, in, 4,
                             &(union mf_attributes){.linear = {.alpha = 1.5f, .first = 2}});
    return subject;
}

/* Token 5 twice in the batch. */
static struct subject case_embedding(struct fixture *fixture) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "table", VOCABULARY, WIDTH)};
    subject.output = mf_build_embedding(&fixture->builder, subject.parameter,
                                        fixture->graph->input[MF_INPUT_TOKENS], 1.25f);
    return subject;
}

static struct subject case_dropout(struct fixture *fixture) {
    struct subject subject = {.parameter = -1};
    int32_t x = fixture_matrix(fixture, "x");
    const int32_t in[] = {x, fixture->graph->input[MF_INPUT_ROWS], fixture->graph->input[MF_INPUT_POSITIONS]};
    want(&subject, x);
    subject.output = mf_emit(&fixture->builder, MF_OP_DROPOUT, in, 3,
                             &(union mf_attributes){.dropout = {.rate = 0.3f, .stream = 99}});
    return subject;
}

static struct subject case_add(struct fixture *fixture) {
    struct subject subject = {.parameter = -1};
    int32_t a = fixture_matrix(fixture, "a"), b = fixture_matrix(fixture, "b");
    want(&subject, a);
    want(&subject, b);
    subject.output = mf_build_add(&fixture->builder, mf_build_add(&fixture->builder, a, b), a);
    return subject;
}

/* Columns of one input, some of them used twice, one not at all: each use adds to its part of the gradient.
 */
static struct subject case_columns(struct fixture *fixture) {
    struct subject subject = {.parameter = -1};
    struct mf_builder *builder = &fixture->builder;
    int32_t x = fixture_input(fixture, "x", 2, symbol_dim(MF_TOKENS, 1), mf_dim_const(13), mf_dim_const(1));
    int32_t table = mf_build_rope_table(builder, fixture_weight(fixture, "inverse_frequency", 1, 0),
                                        fixture->graph->input[MF_INPUT_POSITIONS], 1);
    want(&subject, x);
    int32_t left = mf_build_columns(builder, x, 0, 6), right = mf_build_columns(builder, x, 7, 6);
    int32_t turned = mf_build_rope(builder, mf_build_heads(builder, right, 3), table);
    int32_t product = mf_build_gated_activation(builder, left, right, MF_ACTIVATION_SILU);
    subject.output = mf_build_add(builder, product, mf_build_merge_heads(builder, turned, 3));
    return subject;
}

static int32_t heads_input(struct fixture *fixture, const char *name, enum mf_symbol symbol, int heads) {
    return fixture_input(fixture, name, 3, symbol_dim(symbol, 1), mf_dim_const(heads), mf_dim_const(6));
}

static struct subject case_rope(struct fixture *fixture) {
    struct subject subject = {.parameter = -1};
    int32_t x = heads_input(fixture, "x", MF_TOKENS, 3);
    int32_t table = mf_build_rope_table(&fixture->builder, fixture_weight(fixture, "inverse_frequency", 2, 0),
                                        fixture->graph->input[MF_INPUT_POSITIONS], 1.25f);
    want(&subject, x);
    subject.output = mf_build_rope(&fixture->builder, x, table);
    return subject;
}

static struct subject attention(struct fixture *fixture, struct mf_attention_attributes attributes,
                                enum mf_symbol keys, enum mf_graph_input key_offsets) {
    struct subject subject = {.parameter = -1};
    int32_t q = heads_input(fixture, "q", MF_TOKENS, 4), k = heads_input(fixture, "k", keys, 2),
            v = heads_input(fixture, "v", keys, 2);
    want(&subject, q);
    want(&subject, k);
    want(&subject, v);
    subject.output = mf_build_attention(&fixture->builder, q, k, v, fixture->graph->input[MF_INPUT_OFFSETS],
                                        fixture->graph->input[key_offsets], -1, attributes);
    return subject;
}
static struct subject case_attention(struct fixture *fixture) {
    return attention(fixture, (struct mf_attention_attributes){.scale = 0.4f, .causal = 1}, MF_TOKENS,
                     MF_INPUT_OFFSETS);
}
static struct subject case_attention_window_soft_cap(struct fixture *fixture) {
    return attention(
        fixture, (struct mf_attention_attributes){.scale = 0.9f, .causal = 1, .window = 2, .soft_cap = 0.75f},
        MF_TOKENS, MF_INPUT_OFFSETS);
}
static struct subject case_attention_cross(struct fixture *fixture) {
    return attention(fixture, (struct mf_attention_attributes){.scale = 0.4f}, MF_CACHE,
                     MF_INPUT_CACHE_OFFSETS);
}

static struct subject gated(struct fixture *fixture, enum mf_activation activation) {
    struct subject subject = {.parameter = -1};
    int32_t gate = fixture_matrix(fixture, "gate"), up = fixture_matrix(fixture, "up");
    want(&subject, gate);
    want(&subject, up);
    subject.output = mf_build_gated_activation(&fixture->builder, gate, up, activation);
    return subject;
}
static struct subject case_gated_silu(struct fixture *fixture) {
    return gated(fixture, MF_ACTIVATION_SILU);
}
static struct subject case_gated_gelu_tanh(struct fixture *fixture) {
    return gated(fixture, MF_ACTIVATION_GELU_TANH);
}

static struct subject activation(struct fixture *fixture, enum mf_activation kind) {
    struct subject subject = {.parameter = -1};
    want(&subject, fixture_matrix(fixture, "x"));
    subject.output = mf_build_activation(&fixture->builder, subject.wanted[0], kind);
    return subject;
}
static struct subject case_silu(struct fixture *fixture) {
    return activation(fixture, MF_ACTIVATION_SILU);
}
static struct subject case_gelu_tanh(struct fixture *fixture) {
    return activation(fixture, MF_ACTIVATION_GELU_TANH);
}

static struct subject head(struct fixture *fixture, bool bias, struct mf_head_attributes attributes) {
    struct subject subject = {.parameter = -1};
    int32_t hidden = fixture_matrix(fixture, "hidden");
    want(&subject, hidden);
    subject.output =
        mf_build_head(&fixture->builder, hidden, fixture_weight(fixture, "head", VOCABULARY, WIDTH),
                      bias ? fixture_weight(fixture, "head_bias", VOCABULARY, 0) : -1, attributes)
            .log_probability;
    return subject;
}
/* Chunks of 2 rows over 3: the last one is not full. */
static struct subject case_head(struct fixture *fixture) {
    return head(fixture, false, (struct mf_head_attributes){.logit_scale = 1, .chunk_rows = 2});
}
static struct subject case_head_soft_cap(struct fixture *fixture) {
    return head(fixture, false,
                (struct mf_head_attributes){.logit_scale = 0.7f, .soft_cap = 1.1f, .chunk_rows = 8});
}
static struct subject case_head_bias(struct fixture *fixture) {
    return head(fixture, true,
                (struct mf_head_attributes){.logit_scale = 0.7f, .soft_cap = 1.1f, .chunk_rows = 8});
}

static struct subject head_weight(struct fixture *fixture, struct mf_head_attributes attributes) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "head", VOCABULARY, WIDTH)};
    int32_t hidden = fixture_matrix(fixture, "hidden");
    want(&subject, hidden);
    subject.output =
        mf_build_head(&fixture->builder, hidden, subject.parameter, -1, attributes).log_probability;
    return subject;
}
static struct subject case_head_weight(struct fixture *fixture) {
    return head_weight(fixture, (struct mf_head_attributes){.logit_scale = 1, .chunk_rows = 2});
}
static struct subject case_head_weight_soft_cap(struct fixture *fixture) {
    return head_weight(fixture,
                       (struct mf_head_attributes){.logit_scale = 0.7f, .soft_cap = 1.1f, .chunk_rows = 8});
}
static struct subject case_head_trained_bias(struct fixture *fixture) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "head_bias", VOCABULARY, 0)};
    const struct mf_head_attributes attributes = {.logit_scale = 0.7f, .soft_cap = 1.1f, .chunk_rows = 2};
    const int32_t hidden = fixture_matrix(fixture, "hidden");
    want(&subject, hidden);
    subject.output =
        mf_build_head(&fixture->builder, hidden, fixture_weight(fixture, "head", VOCABULARY, WIDTH),
                      subject.parameter, attributes)
            .log_probability;
    return subject;
}
/* One table for the first layer and the last: the two gradients are summed. */
static struct subject case_head_tied(struct fixture *fixture) {
    struct subject subject = {.parameter = fixture_parameter(fixture, "table", VOCABULARY, WIDTH)};
    struct mf_builder *builder = &fixture->builder;
    int32_t x = mf_build_embedding(builder, subject.parameter, fixture->graph->input[MF_INPUT_TOKENS], 2);
    int32_t norm = fixture_weight(fixture, "norm", WIDTH, 0);
    int32_t hidden = mf_build_rms_norm(builder, x, norm, 1e-5f, MF_NORM_CAST_THEN_SCALE);
    subject.output = mf_build_head(builder, hidden, subject.parameter, -1,
                                   (struct mf_head_attributes){.logit_scale = 1, .chunk_rows = 2})
                         .log_probability;
    return subject;
}

static struct subject case_loss(struct fixture *fixture) {
    struct subject subject = {.parameter = -1};
    int32_t log_probability = fixture_input(fixture, "log_probability", 1, symbol_dim(MF_LABELLED, 1),
                                            mf_dim_const(1), mf_dim_const(1));
    want(&subject, log_probability);
    subject.output = mf_build_loss(&fixture->builder, log_probability);
    return subject;
}

static const struct {
    enum mf_op op;
    const char *name;
    struct subject (*build)(struct fixture *fixture);
} cases[] = {
    {MF_OP_RMS_NORM, "rms_norm", case_rms_norm},
    {MF_OP_RMS_NORM, "rms_norm, weight + 1", case_rms_norm_unit_offset},
    {MF_OP_RMS_NORM, "rms_norm, two consumers", case_rms_norm_twice},
    {MF_OP_LAYER_NORM, "layer_norm, two consumers", case_layer_norm},
    {MF_OP_LAYER_NORM, "layer_norm, trainable weight", case_layer_norm_weight},
    {MF_OP_LAYER_NORM, "layer_norm, trainable bias", case_layer_norm_bias},
    {MF_OP_RMS_NORM, "rms_norm, trainable", case_rms_norm_weight},
    {MF_OP_RMS_NORM, "rms_norm, trainable, weight + 1", case_rms_norm_weight_unit_offset},
    {MF_OP_EMBEDDING, "embedding", case_embedding},
    {MF_OP_LINEAR, "linear, trainable bias", case_linear_bias},
    {MF_OP_LINEAR, "linear", case_linear},
    {MF_OP_LINEAR, "linear into columns, trainable", case_linear_columns},
    {MF_OP_LINEAR, "linear, shared weight", case_linear_shared},
    {MF_OP_DROPOUT, "dropout", case_dropout},
    {MF_OP_ADD, "add", case_add},
    {MF_OP_ROPE, "rope", case_rope},
    {MF_OP_GATED_ACTIVATION, "gated silu of columns", case_columns},
    {MF_OP_ATTENTION, "attention", case_attention},
    {MF_OP_ATTENTION, "attention, window, soft-cap", case_attention_window_soft_cap},
    {MF_OP_ATTENTION, "attention, cross", case_attention_cross},
    {MF_OP_GATED_ACTIVATION, "gated silu", case_gated_silu},
    {MF_OP_GATED_ACTIVATION, "gated gelu_tanh", case_gated_gelu_tanh},
    {MF_OP_ACTIVATION, "silu", case_silu},
    {MF_OP_ACTIVATION, "gelu_tanh", case_gelu_tanh},
    {MF_OP_HEAD, "head", case_head},
    {MF_OP_HEAD, "head, soft-cap", case_head_soft_cap},
    {MF_OP_HEAD, "head, soft-cap, bias", case_head_bias},
    {MF_OP_HEAD, "head, trainable", case_head_weight},
    {MF_OP_HEAD, "head, trainable, soft-cap", case_head_weight_soft_cap},
    {MF_OP_HEAD, "head, trainable bias, soft-cap", case_head_trained_bias},
    {MF_OP_HEAD, "head, the embedding's", case_head_tied},
    {MF_OP_LOSS, "loss", case_loss},
};

/* --- the comparison
 * ---------------------------------------------------------------------------------------------- */

/* Σ r * y in double after a run; the loss itself when there is no r. */
static double objective(struct fixture *fixture, int32_t output, int32_t weights) {
    const float *y, *r = weights < 0 ? NULL : fixture_data(fixture, weights);
    double sum = 0;
    fixture_run(fixture);
    y = fixture_data(fixture, output);
    for (int64_t i = 0; i < fixture_elements(fixture, output); i++)
        sum += (r ? (double)r[i] : 1.0) * (double)y[i];
    return sum;
}

static double quotient(struct fixture *fixture, const struct subject *subject, int32_t weights,
                       float *element) {
    static const double factor[4] = {1, -8, 8, -1}, offset[4] = {-2, -1, 1, 2};
    float kept = *element;
    double sum = 0, span = 0;
    for (int i = 0; i < 4; i++) {
        *element = (float)((double)kept + offset[i] * STEP);
        sum += factor[i] * objective(fixture, subject->output, weights);
    }
    span = 12 * STEP;
    *element = kept;
    return sum / span;
}

static void compare(struct fixture *fixture, const char *name, const struct subject *subject, int32_t weights,
                    int32_t variable, const float *gradient) {
    float *data = fixture_data(fixture, variable);
    double difference = 0, reference = 0;
    for (int64_t i = 0; i < fixture_elements(fixture, variable); i++) {
        double numeric = quotient(fixture, subject, weights, &data[i]);
        difference += (numeric - (double)gradient[i]) * (numeric - (double)gradient[i]);
        reference += numeric * numeric;
    }
    if (!(reference > 1e-4) || !(sqrt(difference / reference) < TOLERANCE))
        fail_msg("%s: gradient of tensor %d differs by %g of %g", name, (int)variable, sqrt(difference),
                 sqrt(reference));
}

static float *copy_of(struct fixture *fixture, int32_t tensor) {
    size_t bytes = (size_t)fixture_elements(fixture, tensor) * sizeof(float);
    float *copy = malloc(bytes);
    assert_non_null(copy);
    memcpy(copy, fixture_data(fixture, tensor), bytes);
    return copy;
}

static void check_case(const char *name, struct subject (*build)(struct fixture *fixture)) {
    const struct mf_executor_options poison = {.poison = true};
    int32_t wanted_gradient[WANTED], weights = -1;
    float *gradient[WANTED + 1] = {NULL};
    struct fixture fixture;
    struct mf_error error;
    fixture_begin(&fixture);
    struct subject subject = build(&fixture);
    require_ok(mf_builder_finish(&fixture.builder, &error), &error);
    mf_build_output(&fixture.builder, subject.output);
    struct mf_tensor shape = *mf_graph_tensor(fixture.graph, subject.output);
    if (fixture.graph->program[fixture.program]->node[0].op != MF_OP_LOSS)
        weights = fixture_input(&fixture, "r", shape.rank, shape.dim[0], shape.dim[1], shape.dim[2]);
    const struct mf_gradient_request request = {.output = &subject.output,
                                                .output_gradient = &weights,
                                                .outputs = 1,
                                                .wanted = subject.wanted,
                                                .wanted_count = subject.wanted_count,
                                                .wanted_gradient = wanted_gradient};
    require_ok(mf_gradient_build_request(fixture.graph, fixture.program, &request, &error), &error);
    for (int i = 0; i < subject.wanted_count; i++)
        if (wanted_gradient[i] < 0)
            fail_msg("%s: no gradient for input %d", name, i);
        else
            mf_build_output(&fixture.builder, wanted_gradient[i]);
    fixture_realize(&fixture, &poison);
    for (int i = 0; i < subject.wanted_count; i++)
        fixture_fill(&fixture, subject.wanted[i]);
    if (weights >= 0)
        fixture_fill(&fixture, weights);
    if (subject.parameter >= 0)
        fixture_fill(&fixture, subject.parameter);
    fixture_run(&fixture);
    for (int i = 0; i < subject.wanted_count; i++)
        gradient[i] = copy_of(&fixture, wanted_gradient[i]);
    if (subject.parameter >= 0)
        gradient[WANTED] = copy_of(&fixture, mf_gradient_of_parameter(fixture.graph, subject.parameter));
    for (int i = 0; i < subject.wanted_count; i++)
        compare(&fixture, name, &subject, weights, subject.wanted[i], gradient[i]);
    if (subject.parameter >= 0)
        compare(&fixture, name, &subject, weights, subject.parameter, gradient[WANTED]);
    for (int i = 0; i <= WANTED; i++)
        free(gradient[i]);
    fixture_end(&fixture);
}

static void test_gradients_equal_numeric_differentiation(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(cases[i].name, cases[i].build);
}

static void test_every_op_with_a_gradient_has_a_case(void **state) {
    (void)state;
    for (int op = 0; op < MF_OPS; op++) {
        const struct mf_op_row *row = mf_op_row((enum mf_op)op);
        bool found = row->gradient == mf_gradient_refuse || row->gradient == mf_gradient_stop;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            found = found || (int)cases[i].op == op;
        if (!found)
            fail_msg("the op %s has a gradient and no case", row->name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients_equal_numeric_differentiation),
                                       cmocka_unit_test(test_every_op_with_a_gradient_has_a_case)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
