/* The passes that save copies: on every backend and in both dtypes loss and gradients are as without them,
 * bit for bit, and what they are to remove is gone. */
#include <string.h>

#include "fixture.h"
#include "kernels/passes/cast.h"
#include "kernels/passes/columns.h"
#include "kernels/passes/expand.h"

enum { FEATURES = 8, RANK = 8, ELEMENTS = 1024 };

struct result {
    float loss, gradient[ELEMENTS];
    size_t elements;
    int added, cast; /* ADD_COLUMNS and CAST nodes that were run */
};

static int count(const struct fixture *fixture, enum mf_op op) {
    const struct mf_program *program = fixture->graph->program[fixture->program];
    int found = 0;
    for (int32_t n = 0; n < program->nodes; n++)
        found += program->node[n].op == op;
    return found;
}

/* A gated layer whose gate and up are one product with an adapter each; returns the loss. */
static int32_t build(struct fixture *fixture) {
    struct mf_builder *builder = &fixture->builder;
    struct mf_error error;
    int32_t part[2], module[3], adapter;
    const int32_t table = fixture_weight(fixture, "table", VOCABULARY, WIDTH);
    const int32_t fused = fixture_weight(fixture, "fused", 2 * FEATURES, WIDTH);
    const int32_t down = fixture_weight(fixture, "down.weight", WIDTH, FEATURES);
    for (int i = 0; i < 2; i++) {
        const char *names[] = {"gate", "up"}, *weights[] = {"gate.weight", "up.weight"};
        require_ok(
            mf_graph_weight_rows(fixture->graph, weights[i], fused, i * FEATURES, FEATURES, &part[i], &error),
            &error);
        require_ok(mf_graph_module(fixture->graph, names[i], part[i], -1, &module[i], &error), &error);
        require_ok(mf_graph_add_adapter(fixture->graph, 0, module[i], RANK, 0.5f, 0, &adapter, &error),
                   &error);
    }
    require_ok(mf_graph_module(fixture->graph, "down", down, -1, &module[2], &error), &error);
    const int32_t x = mf_build_embedding(builder, table, fixture->graph->input[MF_INPUT_TOKENS], 1);
    const int32_t both = mf_build_linear(builder, x, module, 2);
    const int32_t gate = mf_build_columns(builder, both, 0, FEATURES);
    const int32_t up = mf_build_columns(builder, both, FEATURES, FEATURES);
    const int32_t h = mf_build_gated_activation(builder, gate, up, MF_ACTIVATION_SILU);
    const struct mf_head_outputs head =
        mf_build_head(builder, mf_build_linear(builder, h, &module[2], 1), table, -1,
                      (struct mf_head_attributes){.logit_scale = 1, .chunk_rows = 2});
    const int32_t loss = mf_build_output(builder, mf_build_loss(builder, head.log_probability));
    require_ok(mf_builder_finish(builder, &error), &error);
    require_ok(mf_pass_expand(fixture->graph, fixture->program, &error), &error);
    require_ok(mf_gradient_build(fixture->graph, fixture->program, loss, &error), &error);
    return loss;
}

/* With what bf16 holds, too: a backend that multiplies by f32 adapters sees no difference either. */
static void fill(struct fixture *fixture, int32_t parameter) {
    float *value = fixture_data(fixture, parameter);
    fixture_fill(fixture, parameter);
    for (int64_t i = 0; i < fixture_elements(fixture, parameter); i++)
        value[i] = mf_bf16_to_f32(mf_f32_to_bf16(value[i]));
}

static void train(bool fast, enum mf_dtype dtype, bool tidied, struct result *result) {
    struct mf_backend *backend;
    struct mf_error error;
    struct fixture fixture;
    require_ok(fast ? mf_cpu_create(&(struct mf_cpu_options){.threads = 2}, &backend, &error)
                    : mf_cpu_reference_create(&backend, &error),
               &error);
    fixture_begin_on(&fixture, backend, dtype);
    const int32_t loss = build(&fixture);
    if (tidied) {
        require_ok(mf_pass_columns(fixture.graph, fixture.program, &error), &error);
        require_ok(mf_pass_cast(fixture.graph, fixture.program, &error), &error);
    }
    result->added = count(&fixture, MF_OP_ADD_COLUMNS);
    result->cast = count(&fixture, MF_OP_CAST);
    fixture_realize(&fixture, &(struct mf_executor_options){.poison = true});
    for (int32_t i = 0; i < fixture.graph->adapters; i++) {
        fill(&fixture, fixture.graph->adapter[i].a);
        fill(&fixture, fixture.graph->adapter[i].b);
    }
    fixture_run(&fixture);
    result->loss = fixture_data(&fixture, loss)[0];
    result->elements = (size_t)fixture.graph->bucket[0].elements;
    assert_true(result->elements <= ELEMENTS);
    memcpy(result->gradient, fixture_data(&fixture, fixture.graph->bucket[0].gradient),
           result->elements * sizeof *result->gradient);
    fixture_end(&fixture);
}

static void test_no_bit_changes(void **state) {
    static struct result plain, tidied;
    (void)state;
    for (int fast = 0; fast <= 1; fast++)
        for (int dtype = MF_F32; dtype <= MF_BF16; dtype++) {
            train(fast, (enum mf_dtype)dtype, false, &plain);
            train(fast, (enum mf_dtype)dtype, true, &tidied);
            assert_memory_equal(&plain.loss, &tidied.loss, sizeof plain.loss);
            for (size_t i = 0; i < plain.elements; i++) /* a zero may have another sign */
                assert_true(plain.gradient[i] == tidied.gradient[i]);
            assert_int_equal(plain.added, 4); /* gate and up, and what their adapters make between A and B */
            assert_int_equal(tidied.added, 0);
            assert_int_equal(plain.cast, 0);
            assert_int_equal(tidied.cast, dtype == MF_BF16);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_bit_changes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
