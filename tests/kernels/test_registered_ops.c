/* Ops beside those of the table: registering, shapes, kernels, gradients and expansions. */
#include "kernels/registered_ops.h"

#include "kernels/cpu/backend.h"
#include "kernels/executor.h"
#include "kernels/gradient.h"
#include "kernels/gradient_context.h"
#include "kernels/passes/expand.h"
#include "kernels/passes/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

enum { TOKENS = 3, WIDTH = 4 };

static void must(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK)
        fail_msg("%s", error->message);
}

/* y = factor * x, (T, D) as x. */
static enum mf_status like_input(const struct mf_graph *graph, const struct mf_node *node,
                                 enum mf_dtype dtype, struct mf_output_shape output[MF_NODE_OUTPUTS],
                                 struct mf_error *error) {
    const struct mf_tensor *x = mf_graph_tensor(graph, node->in[0]);
    (void)dtype;
    (void)error;
    output[0].dtype = x->dtype;
    output[0].rank = x->rank;
    memcpy(output[0].dim, x->dim, sizeof output[0].dim);
    return MF_OK;
}

static enum mf_status times(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)error;
    for (int64_t i = 0; i < mf_array_elements(&call->in[0]); i++)
        ((float *)call->out[0].data)[i] =
            call->node->a.registered.value[0] * ((const float *)call->in[0].data)[i];
    return MF_OK;
}

static int32_t doubled(struct mf_builder *builder, const struct mf_node *node) {
    return mf_build_add(builder, node->in[0], node->in[0]);
}

/* An expansion whose last node is not what it returns. */
static int32_t astray(struct mf_builder *builder, const struct mf_node *node) {
    const int32_t first = mf_build_add(builder, node->in[0], node->in[0]);
    mf_build_add(builder, first, first);
    return first;
}

static void gradient_times(struct mf_gradient_context *context, const struct mf_node *node) {
    const int32_t dy = mf_gradient_get(context, node->out[0]);
    mf_gradient_add(context, node->in[0], mf_emit(&context->builder, (enum mf_op)node->op, &dy, 1, &node->a));
}

static const struct mf_attribute_name factor[] = {{"factor", false}, {NULL, false}};

static struct mf_registered_op op_named(const char *name) {
    return (struct mf_registered_op){.row = {.name = name,
                                             .required = 1,
                                             .outputs = 1,
                                             .in_place = -1,
                                             .attribute_bytes = sizeof(struct mf_registered_attributes),
                                             .attribute = factor,
                                             .shape = like_input},
                                     .kernel = {.function = times}};
}

static int32_t add_op(const struct mf_registered_op *op) {
    struct mf_error error;
    int32_t number = -1;
    must(mf_register_op(op, &number, &error), &error);
    return number;
}

static void names_and_states_are_kept(void **state) {
    static const char *const bad[] = {
        "",    "plain", ".x",    "a.",
        "A.b", "a.b.c", "a b.c", "a.0123456789012345678901234567890123456789012345678901234567890123"};
    struct mf_registered_op op = op_named("test.kept");
    struct mf_error error;
    int32_t number, again;
    char name[] = "test.kept";
    int mine, other;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct mf_registered_op wrong = op_named(bad[i]);
        assert_int_equal(mf_register_op(&wrong, &number, &error), MF_ERROR_PROVIDER_UNAVAILABLE);
    }
    op.row.name = name;
    op.state = &mine;
    number = add_op(&op);
    name[0] = 'x';
    assert_true(number >= MF_OPS);
    assert_string_equal(mf_op_name((enum mf_op)number), "test.kept");
    assert_int_equal(mf_op_find("test.kept"), number);
    assert_int_equal(mf_op_find("add"), MF_OP_ADD);
    assert_int_equal(mf_op_find("test.none"), -1);
    assert_ptr_equal(mf_registered_state((uint16_t)number), &mine);
    name[0] = 't';
    assert_int_equal(mf_register_op(&op, &again, &error), MF_OK);
    assert_int_equal(again, number);
    op.state = &other;
    assert_int_equal(mf_register_op(&op, &again, &error), MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_string_equal(error.message, "the op 'test.kept' cannot be registered: another one has this name");
    assert_null(mf_registered_kernel(MF_OP_ADD));
}

/* A program of one op over an input (TOKENS, WIDTH), and the gradient that comes with `dy`. */
struct rig {
    struct mf_graph *graph;
    struct mf_backend *backend;
    struct mf_plan *plan;
    struct mf_executor *executor;
    int32_t program, x, dy, y, dx;
};

static enum mf_status build(struct rig *rig, int32_t op, bool differentiate, bool expand,
                            struct mf_error *error) {
    const struct mf_dim dim[2] = {mf_dim_symbol(MF_TOKENS, 1), mf_dim_const(WIDTH)};
    const union mf_attributes attributes = {.registered = {.value = {2}}};
    memset(rig, 0, sizeof *rig);
    must(mf_graph_create(&rig->graph, error), error);
    rig->graph->expand_registered = expand;
    must(mf_graph_extra_input(rig->graph, "x", MF_F32, 2, dim, &rig->x, error), error);
    must(mf_graph_extra_input(rig->graph, "dy", MF_F32, 2, dim, &rig->dy, error), error);
    must(mf_program_create(rig->graph, MF_TRAIN, -1, MF_F32, &rig->program, error), error);
    mf_program_set_bound(rig->graph, rig->program, MF_TOKENS, TOKENS);
    struct mf_builder builder = mf_builder_begin(rig->graph, rig->program);
    rig->y = mf_build_output(&builder, mf_emit(&builder, (enum mf_op)op, &rig->x, 1, &attributes));
    enum mf_status status = mf_builder_finish(&builder, error);
    if (status == MF_OK)
        status = mf_pass_expand(rig->graph, rig->program, error);
    if (status != MF_OK || !differentiate)
        return status;
    const struct mf_gradient_request request = {.output = &rig->y,
                                                .output_gradient = &rig->dy,
                                                .outputs = 1,
                                                .wanted = &rig->x,
                                                .wanted_count = 1,
                                                .wanted_gradient = &rig->dx};
    status = mf_gradient_build_request(rig->graph, rig->program, &request, error);
    if (status == MF_OK)
        rig->graph->tensor[mf_graph_owner(rig->graph, rig->dx)].flags |= MF_TENSOR_OUTPUT;
    return status;
}

static void check_run(struct rig *rig) {
    struct mf_error error;
    const struct mf_step step = {.value = {[MF_TOKENS] = TOKENS}};
    must(mf_cpu_reference_create(&rig->backend, &error), &error);
    must(mf_plan_create(rig->graph, rig->backend, 0, &rig->plan, &error), &error);
    must(mf_executor_create(rig->graph, rig->plan, rig->backend, NULL, &rig->executor, &error), &error);
    must(mf_executor_prepare(rig->executor, &error), &error);
    float *x = mf_executor_data(rig->executor, rig->x), *dy = mf_executor_data(rig->executor, rig->dy);
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        x[i] = (float)i;
        dy[i] = (float)(100 + i);
    }
    must(mf_executor_run(rig->executor, rig->program, &step, &error), &error);
    const float *y = mf_executor_data(rig->executor, rig->y), *dx = mf_executor_data(rig->executor, rig->dx);
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        assert_true(y[i] == 2 * (float)i);
        assert_true(dx[i] == 2 * (float)(100 + i));
    }
}

static void tear_down(struct rig *rig) {
    mf_executor_destroy(rig->executor);
    mf_plan_destroy(rig->plan);
    mf_backend_destroy(rig->backend);
    mf_graph_destroy(rig->graph);
}

static int count(const struct rig *rig, int32_t op) {
    const struct mf_program *program = rig->graph->program[rig->program];
    int found = 0;
    for (int32_t n = 0; n < program->nodes; n++)
        found += program->node[n].op == op;
    return found;
}

static void kernel_and_expansion_give_the_same(void **state) {
    struct mf_registered_op op = op_named("test.times");
    struct mf_error error;
    struct rig rig;
    (void)state;
    op.row.expansion = doubled;
    op.row.gradient = gradient_times;
    const int32_t number = add_op(&op);
    must(build(&rig, number, true, false, &error), &error);
    assert_int_equal(count(&rig, number), 2);
    check_run(&rig);
    tear_down(&rig);
    must(build(&rig, number, true, true, &error), &error);
    assert_int_equal(count(&rig, number), 0);
    check_run(&rig);
    tear_down(&rig);
}

/* Without a gradient of its own an op is trained through its expansion; without that it is refused by name.
 */
static void a_gradient_comes_from_somewhere(void **state) {
    struct mf_registered_op op = op_named("test.expands");
    struct mf_error error;
    struct rig rig;
    (void)state;
    op.row.expansion = doubled;
    must(build(&rig, add_op(&op), true, false, &error), &error);
    check_run(&rig);
    tear_down(&rig);
    op = op_named("test.alone");
    assert_int_equal(build(&rig, add_op(&op), true, false, &error), MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_string_equal(error.message, "layer -1, test.alone: the op has no gradient");
    tear_down(&rig);
}

static void what_stands_in_is_checked(void **state) {
    struct mf_registered_op op = op_named("test.astray");
    struct mf_error error;
    struct rig rig;
    (void)state;
    op.row.expansion = astray;
    assert_int_equal(build(&rig, add_op(&op), false, true, &error), MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_non_null(
        strstr(error.message, "what stands for a test.astray is not the first output of the last node"));
    tear_down(&rig);
}

/* A backend that has no kernel says so before anything runs. */
static void an_op_without_a_kernel_is_refused_by_name(void **state) {
    struct mf_registered_op op = op_named("test.nowhere");
    struct mf_error error;
    struct rig rig;
    (void)state;
    op.kernel.function = NULL;
    must(build(&rig, add_op(&op), false, false, &error), &error);
    must(mf_cpu_reference_create(&rig.backend, &error), &error);
    assert_int_equal(mf_plan_create(rig.graph, rig.backend, 0, &rig.plan, &error),
                     MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_string_equal(error.message,
                        "backend reference has no f32 kernel for the op test.nowhere of the train program");
    tear_down(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_states_are_kept),
        cmocka_unit_test(kernel_and_expansion_give_the_same),
        cmocka_unit_test(a_gradient_comes_from_somewhere),
        cmocka_unit_test(what_stands_in_is_checked),
        cmocka_unit_test(an_op_without_a_kernel_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
