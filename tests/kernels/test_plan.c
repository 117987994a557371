/* The memory plan: no two tensors that live at the same time share a byte, unless an op runs in place; and
 * the record of the numeric plan. */
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "kernels/passes/expand.h"
#include "kernels/passes/plan.h"

/* Where an owner lies and how long, computed here from the nodes, not from the plan's own lifetimes. */
struct life {
    int64_t first_byte, last_byte;
    int32_t first, last;
};

static struct life life_of(const struct fixture *fixture, int32_t owner) {
    const struct mf_program *program = fixture->graph->program[fixture->program];
    const struct mf_tensor *tensor = mf_graph_tensor(fixture->graph, owner);
    struct life life = {.first = -1, .last = -1};
    for (int32_t n = 0; n < program->nodes; n++) {
        const int32_t *lists[3] = {program->node[n].in, program->node[n].out, program->node[n].workspace};
        const int lengths[3] = {MF_NODE_INPUTS, MF_NODE_OUTPUTS, MF_NODE_WORKSPACES};
        for (int list = 0; list < 3; list++)
            for (int i = 0; i < lengths[list]; i++)
                if (lists[list][i] >= 0 && mf_graph_owner(fixture->graph, lists[list][i]) == owner) {
                    life.first = life.first < 0 ? n : life.first;
                    life.last = n;
                }
    }
    if (tensor->flags & MF_TENSOR_OUTPUT)
        life.last = program->nodes - 1;
    life.first_byte = fixture->plan->offset[owner];
    life.last_byte =
        life.first_byte +
        mf_tensor_elements(tensor, program->bound) * (int64_t)mf_dtype_bytes((enum mf_dtype)tensor->dtype) -
        1;
    return life;
}

/* Does the op of the node where `old` ends make `young` in place of it? */
static bool in_place(const struct fixture *fixture, int32_t old, int32_t young, int32_t n) {
    const struct mf_node *node = &fixture->graph->program[fixture->program]->node[n];
    int index = mf_op_row((enum mf_op)node->op)->in_place;
    return index >= 0 && node->out[0] == young && node->in[index] >= 0 &&
           mf_graph_owner(fixture->graph, node->in[index]) == old;
}

static void check_no_overlap(const struct fixture *fixture) {
    int32_t tensors = fixture->graph->tensors;
    for (int32_t i = 0; i < tensors; i++) {
        if (mf_graph_tensor(fixture->graph, i)->storage < MF_ACTIVATION ||
            mf_graph_owner(fixture->graph, i) != i)
            continue;
        struct life a = life_of(fixture, i);
        if (a.first < 0)
            continue;
        assert_true(a.first_byte >= (int64_t)fixture->plan->persistent_bytes);
        assert_true(a.last_byte < (int64_t)fixture->plan->arena_bytes);
        assert_int_equal(a.first_byte % MF_PLAN_ALIGNMENT, 0);
        for (int32_t j = 0; j < i; j++) {
            if (mf_graph_tensor(fixture->graph, j)->storage < MF_ACTIVATION ||
                mf_graph_owner(fixture->graph, j) != j)
                continue;
            struct life b = life_of(fixture, j);
            if (b.first < 0 || b.last_byte < a.first_byte || b.first_byte > a.last_byte || b.last < a.first ||
                b.first > a.last)
                continue;
            if ((a.first == b.last && in_place(fixture, j, i, a.first)) ||
                (b.first == a.last && in_place(fixture, i, j, b.first)))
                continue;
            fail_msg("tensors %d and %d lie on each other and live at the same time", (int)j, (int)i);
        }
    }
}

/* A random program over matrices of two widths: every op takes what was made before, so lifetimes are of all
 * lengths. `keep` marks everything as output: then nothing is reused and nothing runs in place. */
static int32_t build_random(struct fixture *fixture, uint64_t seed, int nodes, bool keep) {
    int32_t made[64], wide[64], x, y;
    int count = 0, wides = 0;
    fixture_begin(fixture);
    fixture->random = seed;
    int32_t gain = fixture_weight(fixture, "norm", WIDTH, 0), up = fixture_weight(fixture, "up", 10, WIDTH),
            down = fixture_weight(fixture, "down", WIDTH, 10);
    made[count++] = mf_build_embedding(&fixture->builder, fixture_weight(fixture, "table", VOCABULARY, WIDTH),
                                       fixture->graph->input[MF_INPUT_TOKENS], 1);
    const int32_t first[] = {made[0], up};
    wide[wides++] =
        mf_emit(&fixture->builder, MF_OP_LINEAR, first, 2, &(union mf_attributes){.linear = {.alpha = 0.3f}});
    for (int n = 0; n < nodes; n++) {
        x = made[(int)((fixture_random(fixture) + 1) / 2 * (float)count)];
        y = made[(int)((fixture_random(fixture) + 1) / 2 * (float)count)];
        int32_t w = wide[(int)((fixture_random(fixture) + 1) / 2 * (float)wides)];
        const int32_t into_wide[] = {x, up, -1, w}, into_narrow[] = {w, down, -1, y};
        switch ((int)((fixture_random(fixture) + 1) / 2 * 5)) {
        case 0:
            made[count++] = mf_build_add(&fixture->builder, x, y);
            break;
        case 1:
            made[count++] = mf_build_rms_norm(&fixture->builder, x, gain, 1e-5f, MF_NORM_CAST_THEN_SCALE);
            break;
        case 2:
            made[count++] = mf_build_gated_activation(&fixture->builder, x, y, MF_ACTIVATION_SILU);
            break;
        case 3:
            wide[wides++] = mf_emit(&fixture->builder, MF_OP_LINEAR, into_wide, 4,
                                    &(union mf_attributes){.linear = {.alpha = 0.3f}});
            break;
        default:
            made[count++] = mf_emit(&fixture->builder, MF_OP_LINEAR, into_narrow, 4,
                                    &(union mf_attributes){.linear = {.alpha = 0.3f}});
        }
    }
    int32_t result = mf_build_output(&fixture->builder,
                                     mf_build_rms_norm(&fixture->builder, made[count - 1], gain, 1e-5f, 0));
    for (int i = 0; i < count && keep; i++)
        mf_build_output(&fixture->builder, made[i]);
    for (int i = 0; i < wides && keep; i++)
        mf_build_output(&fixture->builder, wide[i]);
    return result;
}

/* Random programs: the plan never overlaps, and what is computed in the shared arena is bit for bit what is
 * computed when every tensor has memory of its own. */
static void test_random_programs(void **state) {
    int shared = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        float result[2][TOKENS * WIDTH];
        size_t bytes[2];
        for (int keep = 0; keep < 2; keep++) {
            struct fixture fixture;
            int32_t output = build_random(&fixture, seed * 7919, 5 + (int)(seed % 40), keep);
            fixture.random = seed;
            fixture_realize(&fixture, &(struct mf_executor_options){.poison = true});
            check_no_overlap(&fixture);
            for (int32_t i = 0; i < fixture.plan->tensors; i++)
                shared += fixture.plan->shares[i] >= 0;
            fixture_run(&fixture);
            memcpy(result[keep], fixture_data(&fixture, output), sizeof result[keep]);
            bytes[keep] = fixture.plan->program_bytes;
            fixture_end(&fixture);
        }
        assert_memory_equal(result[0], result[1], sizeof result[0]);
        assert_true(bytes[0] <= bytes[1]);
    }
    assert_true(shared > 50); /* in-place ops did occur */
}

/* An op may not run in place when its input is read once more by the same op, or by the host. */
static void test_in_place_only_where_nothing_is_lost(void **state) {
    (void)state;
    for (int variant = 0; variant < 3; variant++) {
        struct fixture fixture;
        fixture_begin(&fixture);
        int32_t table = fixture_weight(&fixture, "table", VOCABULARY, WIDTH);
        int32_t x = mf_build_embedding(&fixture.builder, table, fixture.graph->input[MF_INPUT_TOKENS], 1);
        int32_t z = mf_build_embedding(&fixture.builder, table, fixture.graph->input[MF_INPUT_TOKENS], 2);
        const int32_t in[] = {variant == 0 ? x : z, fixture_weight(&fixture, "w", WIDTH, WIDTH), -1, x};
        if (variant == 1) /* the host reads x */
            mf_build_output(&fixture.builder, x);
        int32_t y =
            mf_emit(&fixture.builder, MF_OP_LINEAR, in, 4, &(union mf_attributes){.linear = {.alpha = 1}});
        mf_build_output(&fixture.builder, y);
        fixture_realize(&fixture, NULL);
        assert_int_equal(fixture.plan->shares[y], variant == 2 ? x : -1);
        fixture_end(&fixture);
    }
}

static void build_decoder(struct fixture *fixture, float epsilon_decay) {
    struct mf_error error;
    int32_t update, norm;
    fixture_begin(fixture);
    fixture_adapters(fixture, 0, 3, 0.1f);
    int32_t loss = fixture_decoder(&fixture->builder, 3);
    require_ok(mf_pass_expand(fixture->graph, fixture->program, &error), &error);
    require_ok(mf_gradient_build(fixture->graph, fixture->program, loss, &error), &error);
    require_ok(
        mf_graph_build_update(
            fixture->graph, 0,
            &(struct mf_optimizer){
                .kind = MF_ADAMW,
                .adamw = {.beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-8f, .weight_decay = epsilon_decay}},
            &update, &norm, &error),
        &error);
}

static void test_decoder_does_not_overlap(void **state) {
    struct fixture fixture;
    (void)state;
    build_decoder(&fixture, 0.01f);
    fixture_realize(&fixture, NULL);
    check_no_overlap(&fixture);
    fixture_end(&fixture);
}

static void test_record_is_a_pure_function(void **state) {
    char record[3][65];
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct fixture fixture;
        build_decoder(&fixture, i == 2 ? 0.02f : 0.01f);
        fixture_realize(&fixture, NULL);
        assert_non_null(strstr(fixture.plan->record, "\"backend\":\"reference\""));
        assert_non_null(strstr(fixture.plan->record, "\"head_chunk_rows\":2"));
        assert_null(strstr(fixture.plan->record, "\n"));
        memcpy(record[i], fixture.plan->record_sha256, sizeof record[i]);
        fixture_end(&fixture);
    }
    assert_string_equal(record[0], record[1]);
    assert_string_not_equal(record[0], record[2]); /* another weight decay computes other numbers */
}

static void test_budget_refuses_with_the_bytes(void **state) {
    struct fixture fixture;
    struct mf_error error;
    struct mf_plan *plan;
    char text[32];
    (void)state;
    build_decoder(&fixture, 0);
    require_ok(mf_plan_create(fixture.graph, fixture.backend, 0, &plan, &error), &error);
    size_t needed = mf_plan_bytes(plan), arena = plan->arena_bytes;
    assert_true(arena > plan->persistent_bytes && plan->persistent_bytes > 0);
    assert_int_equal(needed, arena + plan->weight_bytes); /* the oracle copies no weight */
    mf_plan_destroy(plan);
    fixture_end(&fixture);

    build_decoder(&fixture, 0);
    assert_int_equal(mf_plan_create(fixture.graph, fixture.backend, needed - 1, &plan, &error),
                     MF_ERROR_PLAN_TOO_LARGE);
    snprintf(text, sizeof text, "%zu bytes", needed);
    assert_non_null(strstr(error.message, text));
    require_ok(mf_plan_create(fixture.graph, fixture.backend, needed, &plan, &error), &error);
    assert_int_equal(plan->arena_bytes, arena);
    mf_plan_destroy(plan);
    fixture_end(&fixture);
}

static void test_missing_bound_is_refused(void **state) {
    struct fixture fixture;
    struct mf_error error;
    struct mf_plan *plan;
    (void)state;
    build_decoder(&fixture, 0);
    mf_program_set_bound(fixture.graph, fixture.program, MF_LABELLED, 0);
    assert_int_equal(mf_plan_create(fixture.graph, fixture.backend, 0, &plan, &error), MF_ERROR_INTERNAL);
    assert_non_null(strstr(error.message, "no bound for labelled"));
    fixture_end(&fixture);
}

static void test_unexpanded_op_is_refused_by_name(void **state) {
    struct fixture fixture;
    struct mf_error error;
    struct mf_plan *plan;
    (void)state;
    fixture_begin(&fixture);
    fixture_adapters(&fixture, 0, 1, 0);
    fixture_decoder(&fixture.builder, 1);
    assert_int_equal(mf_plan_create(fixture.graph, fixture.backend, 0, &plan, &error),
                     MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_non_null(strstr(error.message, "no f32 kernel for the op adapted_linear of the train program"));
    fixture_end(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_in_place_only_where_nothing_is_lost),
        cmocka_unit_test(test_decoder_does_not_overlap),
        cmocka_unit_test(test_record_is_a_pure_function),
        cmocka_unit_test(test_budget_refuses_with_the_bytes),
        cmocka_unit_test(test_missing_bound_is_refused),
        cmocka_unit_test(test_unexpanded_op_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
