/* The executor: what it refuses before the first step, what it hands to kernels, and a whole training step.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "kernels/passes/expand.h"

/* The oracle behind a table that a test can change. */
static const struct mf_backend *real;
static enum mf_op changed_op;
static struct mf_kernel changed;
static int prepared_nodes;

static const struct mf_kernel *find(const struct mf_backend *backend, enum mf_op op, enum mf_dtype dtype) {
    (void)backend;
    return op == changed_op ? &changed : real->find(real, op, dtype);
}

static enum mf_status prepare(struct mf_backend *backend, const struct mf_kernel_call *call, size_t *bytes,
                              struct mf_error *error) {
    (void)backend;
    (void)error;
    prepared_nodes++;
    *bytes += 100;
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        if (call->in[i].tensor >= 0 && call->in[i].data)
            assert_true(call->in[i].dtype == MF_F32);
    return MF_OK;
}

static struct mf_backend wrap(const struct mf_backend *backend, enum mf_op op) {
    struct mf_backend wrapped = *backend;
    real = backend;
    changed_op = op;
    changed = *backend->find(backend, op, MF_F32);
    wrapped.find = find;
    wrapped.prepare = prepare;
    return wrapped;
}

static int32_t build(struct fixture *fixture) {
    struct mf_error error;
    fixture_begin(fixture);
    fixture_adapters(fixture, 0, 1, 0.1f);
    int32_t loss = fixture_decoder(&fixture->builder, 1);
    require_ok(mf_pass_expand(fixture->graph, fixture->program, &error), &error);
    require_ok(mf_gradient_build(fixture->graph, fixture->program, loss, &error), &error);
    return loss;
}

static void test_nondeterministic_kernel_is_refused_by_name(void **state) {
    struct fixture fixture;
    struct mf_error error;
    struct mf_executor *executor;
    (void)state;
    build(&fixture);
    struct mf_backend backend = wrap(fixture.backend, MF_OP_ATTENTION_GRADIENT);
    changed.flags = MF_KERNEL_NONDETERMINISTIC;
    require_ok(mf_plan_create(fixture.graph, &backend, 0, &fixture.plan, &error), &error);
    assert_int_equal(mf_executor_create(fixture.graph, fixture.plan, &backend, NULL, &executor, &error),
                     MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_non_null(strstr(error.message, "attention_gradient"));
    require_ok(mf_executor_create(fixture.graph, fixture.plan, &backend,
                                  &(struct mf_executor_options){.allow_nondeterministic = true}, &executor,
                                  &error),
               &error);
    mf_executor_destroy(executor);
    fixture_end(&fixture);
}

static void test_missing_kernel_is_refused_by_name(void **state) {
    struct fixture fixture;
    struct mf_error error;
    struct mf_executor *executor;
    (void)state;
    build(&fixture);
    struct mf_backend backend = wrap(fixture.backend, MF_OP_ROPE);
    require_ok(mf_plan_create(fixture.graph, fixture.backend, 0, &fixture.plan, &error), &error);
    changed.function = NULL;
    assert_int_equal(mf_executor_create(fixture.graph, fixture.plan, &backend, NULL, &executor, &error),
                     MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_non_null(strstr(error.message, "the op rope"));
    fixture_end(&fixture);
}

static void test_weights_are_checked(void **state) {
    struct fixture fixture;
    struct mf_error error;
    float data[VOCABULARY * WIDTH] = {0};
    (void)state;
    build(&fixture);
    struct mf_backend backend = wrap(fixture.backend, MF_OP_ROPE);
    require_ok(mf_plan_create(fixture.graph, &backend, 0, &fixture.plan, &error), &error);
    require_ok(mf_executor_create(fixture.graph, fixture.plan, &backend, NULL, &fixture.executor, &error),
               &error);
    int32_t embedding = mf_graph_find_tensor(fixture.graph, "embedding");
    assert_int_equal(mf_executor_bind_weight(fixture.executor, embedding, data, sizeof data - 4, &error),
                     MF_ERROR_WEIGHT_MISMATCH);
    assert_non_null(strstr(error.message, "embedding"));
    assert_int_equal(
        mf_executor_bind_weight(fixture.executor, embedding, (char *)data + 1, sizeof data, &error),
        MF_ERROR_BAD_WEIGHTS);
    require_ok(mf_executor_bind_weight(fixture.executor, embedding, data, sizeof data, &error), &error);
    assert_int_equal(mf_executor_prepare(fixture.executor, &error), MF_ERROR_WEIGHT_MISMATCH);
    assert_non_null(strstr(error.message, "the model has no such weight"));
    assert_int_equal(mf_executor_run(fixture.executor, fixture.program, &fixture.step, &error),
                     MF_ERROR_INTERNAL);
    assert_non_null(strstr(error.message, "not prepared"));
    fixture_end(&fixture);
}

static void test_prepare_sees_each_node_with_a_weight(void **state) {
    struct fixture fixture;
    int expected = 0;
    (void)state;
    build(&fixture);
    struct mf_backend *original = fixture.backend, backend = wrap(fixture.backend, MF_OP_ROPE);
    const struct mf_program *program = fixture.graph->program[fixture.program];
    for (int32_t n = 0; n < program->nodes; n++) {
        bool weight = false;
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            weight = weight || (program->node[n].in[i] >= 0 &&
                                mf_graph_tensor(fixture.graph, program->node[n].in[i])->storage == MF_WEIGHT);
        expected += weight;
    }
    fixture.backend = &backend;
    prepared_nodes = 0;
    fixture_realize(&fixture, NULL);
    assert_int_equal(prepared_nodes, expected);
    assert_int_equal(mf_executor_prepared_bytes(fixture.executor), 100 * expected);
    fixture.backend = original;
    fixture_end(&fixture);
}

static void test_sizes_beyond_the_plan_are_refused(void **state) {
    struct fixture fixture;
    struct mf_error error;
    (void)state;
    build(&fixture);
    fixture_realize(&fixture, NULL);
    fixture.step.value[MF_TOKENS] = TOKENS + 1;
    assert_int_equal(mf_executor_run(fixture.executor, fixture.program, &fixture.step, &error),
                     MF_ERROR_INTERNAL);
    assert_non_null(strstr(error.message, "8 tokens are not within 0 .. 7"));
    fixture_end(&fixture);
}

static void test_kernel_errors_say_where(void **state) {
    struct fixture fixture;
    struct mf_error error;
    (void)state;
    build(&fixture);
    fixture_realize(&fixture, NULL);
    ((int32_t *)mf_executor_data(fixture.executor, fixture.graph->input[MF_INPUT_TOKENS]))[2] = VOCABULARY;
    assert_int_equal(mf_executor_run(fixture.executor, fixture.program, &fixture.step, &error),
                     MF_ERROR_INTERNAL);
    assert_non_null(strstr(error.message, "train program, node 1, layer -1, embedding"));
    fixture_end(&fixture);
}

static int traced;
static void count_trace(void *user, const struct mf_graph *graph, int32_t program, int32_t node,
                        const int32_t *value, double seconds) {
    assert_ptr_equal(user, &traced);
    assert_int_equal(value[MF_TOKENS], TOKENS);
    assert_true(node == traced && seconds >= 0 && program < graph->programs);
    traced++;
}

static void test_trace_sees_every_node(void **state) {
    struct fixture fixture;
    (void)state;
    build(&fixture);
    fixture_realize(&fixture, NULL);
    mf_executor_set_trace(fixture.executor, count_trace, &traced);
    traced = 0;
    fixture_run(&fixture);
    assert_int_equal(traced, fixture.graph->program[fixture.program]->nodes);
    fixture_end(&fixture);
}

/* Shorter batches than the plan's bounds, in poisoned memory, give the same numbers as in a plan made for
 * them. */
static void test_short_batches_do_not_see_the_bounds(void **state) {
    float loss[2];
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        struct fixture fixture;
        int32_t output = build(&fixture);
        if (wide)
            mf_program_set_bound(fixture.graph, fixture.program, MF_TOKENS, 5 * TOKENS);
        fixture_realize(&fixture, &(struct mf_executor_options){.poison = true});
        for (int32_t i = 0; i < fixture.graph->adapters; i++)
            fixture_fill(&fixture, fixture.graph->adapter[i].b);
        fixture_run(&fixture);
        loss[wide] = fixture_data(&fixture, output)[0];
        fixture_end(&fixture);
    }
    assert_true(isfinite(loss[0]));
    assert_memory_equal(&loss[0], &loss[1], sizeof loss[0]);
}

/* Train and update programs over one graph: the loss falls, gradients are zeroed, padding stays 0. */
static void test_training_lowers_the_loss(void **state) {
    struct fixture fixture;
    struct mf_error error;
    int32_t update, norm;
    float first = 0, last = 0;
    (void)state;
    int32_t loss = build(&fixture);
    require_ok(mf_graph_build_update(
                   fixture.graph, 0,
                   &(struct mf_optimizer){.adamw = {.beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-8f}},
                   &update, &norm, &error),
               &error);
    fixture_realize(&fixture, NULL);
    struct mf_bucket bucket = fixture.graph->bucket[0];
    for (int32_t i = 0; i < fixture.graph->adapters; i++)
        fixture_fill(&fixture, fixture.graph->adapter[i].a);
    fixture.step.learning_rate = 0.05f;
    fixture.step.clip = 1;
    for (uint32_t step = 1; step <= 60; step++) {
        fixture.step.step = fixture.step.optimizer_step = step;
        fixture_run(&fixture);
        last = fixture_data(&fixture, loss)[0];
        first = step == 1 ? last : first;
        require_ok(mf_executor_run(fixture.executor, update, &fixture.step, &error), &error);
        assert_true(fixture_data(&fixture, norm)[0] > 0);
        for (int64_t i = 0; i < bucket.elements; i++)
            assert_true(fixture_data(&fixture, bucket.gradient)[i] == 0);
    }
    assert_true(last < 0.7f * first);
    const struct mf_tensor *next = mf_graph_tensor(fixture.graph, fixture.graph->adapter[1].a);
    const struct mf_tensor *a =
        mf_graph_tensor(fixture.graph, fixture.graph->adapter[0].a); /* (2, 6): 4 of padding */
    assert_int_equal(next->view_offset - a->view_offset, 16);
    for (int i = 12; i < 16; i++)
        assert_true(fixture_data(&fixture, bucket.parameter)[a->view_offset + i] == 0);
    fixture_end(&fixture);
}

/* One fused linear over two modules, one of them with an adapter: columns are those of two separate linears.
 */
static void test_fused_linear_equals_its_modules(void **state) {
    struct fixture fixture;
    struct mf_error error;
    int32_t part[2], module[2], adapter, separate[2];
    (void)state;
    fixture_begin(&fixture);
    int32_t x = fixture_matrix(&fixture, "x"), weight = fixture_weight(&fixture, "fused", 9, WIDTH);
    require_ok(mf_graph_weight_rows(fixture.graph, "one.weight", weight, 0, 4, &part[0], &error), &error);
    require_ok(mf_graph_weight_rows(fixture.graph, "two.weight", weight, 4, 5, &part[1], &error), &error);
    require_ok(mf_graph_module(fixture.graph, "one", part[0], -1, &module[0], &error), &error);
    require_ok(mf_graph_module(fixture.graph, "two", part[1], -1, &module[1], &error), &error);
    require_ok(mf_graph_add_adapter(fixture.graph, 0, module[1], 3, 0.5f, 0.2f, &adapter, &error), &error);
    int32_t fused = mf_build_output(&fixture.builder, mf_build_linear(&fixture.builder, x, module, 2));
    for (int i = 0; i < 2; i++)
        separate[i] = mf_build_output(&fixture.builder, mf_build_linear(&fixture.builder, x, &module[i], 1));
    require_ok(mf_pass_expand(fixture.graph, fixture.program, &error), &error);
    fixture_realize(&fixture, &(struct mf_executor_options){.poison = true});
    fixture_fill(&fixture, x);
    fixture_fill(&fixture, fixture.graph->adapter[adapter].a);
    fixture_fill(&fixture, fixture.graph->adapter[adapter].b);
    fixture_run(&fixture);
    for (int t = 0; t < TOKENS; t++)
        for (int n = 0; n < 9; n++)
            assert_float_equal(fixture_data(&fixture, fused)[t * 9 + n],
                               n < 4 ? fixture_data(&fixture, separate[0])[t * 4 + n]
                                     : fixture_data(&fixture, separate[1])[t * 5 + n - 4],
                               1e-6f);
    const int32_t swapped[2] = {module[1], module[0]};
    fixture.graph->planned = false;
    assert_int_equal(mf_build_linear(&fixture.builder, x, swapped, 2), -1);
    fixture_end(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nondeterministic_kernel_is_refused_by_name),
        cmocka_unit_test(test_missing_kernel_is_refused_by_name),
        cmocka_unit_test(test_weights_are_checked),
        cmocka_unit_test(test_prepare_sees_each_node_with_a_weight),
        cmocka_unit_test(test_sizes_beyond_the_plan_are_refused),
        cmocka_unit_test(test_kernel_errors_say_where),
        cmocka_unit_test(test_trace_sees_every_node),
        cmocka_unit_test(test_short_batches_do_not_see_the_bounds),
        cmocka_unit_test(test_training_lowers_the_loss),
        cmocka_unit_test(test_fused_linear_equals_its_modules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
