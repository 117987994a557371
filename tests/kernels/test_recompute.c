/* The recompute pass: a twin repeats its forward node bit for bit, no gradient changes by a bit, memory is
 * saved. */
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "kernels/passes/expand.h"
#include "kernels/passes/recompute.h"

enum { LAYERS = 3, ELEMENTS = 2048 };

static void build(struct fixture *fixture, enum mf_recompute level) {
    struct mf_error error;
    fixture_begin(fixture);
    fixture_adapters(fixture, 0, LAYERS, 0.25f);
    int32_t loss = fixture_decoder(&fixture->builder, LAYERS);
    require_ok(mf_pass_expand(fixture->graph, fixture->program, &error), &error);
    require_ok(mf_gradient_build(fixture->graph, fixture->program, loss, &error), &error);
    require_ok(mf_pass_recompute(fixture->graph, fixture->program, level, &error), &error);
}

static void run(struct fixture *fixture) {
    fixture->random = 5;
    fixture_realize(fixture, &(struct mf_executor_options){.poison = true});
    for (int32_t i = 0; i < fixture->graph->adapters; i++) {
        fixture_fill(fixture, fixture->graph->adapter[i].a);
        fixture_fill(fixture, fixture->graph->adapter[i].b);
    }
    fixture_run(fixture);
}

static void test_gradients_do_not_change_by_a_bit(void **state) {
    static float gradient[MF_RECOMPUTE_LEVELS][ELEMENTS];
    char sha256[MF_RECOMPUTE_LEVELS][65];
    size_t bytes[MF_RECOMPUTE_LEVELS], size = 0;
    (void)state;
    for (int level = 0; level < MF_RECOMPUTE_LEVELS; level++) {
        struct fixture fixture;
        build(&fixture, (enum mf_recompute)level);
        run(&fixture);
        size = (size_t)fixture.graph->bucket[0].elements * sizeof(float);
        assert_true(size <= sizeof gradient[0]);
        memcpy(gradient[level], fixture_data(&fixture, fixture.graph->bucket[0].gradient), size);
        memcpy(sha256[level], fixture.plan->record_sha256, sizeof sha256[level]);
        bytes[level] = fixture.plan->program_bytes;
        fixture_end(&fixture);
    }
    for (int level = 1; level < MF_RECOMPUTE_LEVELS; level++) {
        assert_memory_equal(gradient[0], gradient[level], size);
        assert_string_equal(sha256[0], sha256[level]); /* the choice is not numeric */
        assert_true(bytes[level] < bytes[level - 1]);
    }
}

static void test_twins_repeat_bit_for_bit(void **state) {
    struct fixture fixture;
    int twins = 0;
    build(&fixture, *(const enum mf_recompute *)*state);
    const struct mf_program *program = fixture.graph->program[fixture.program];
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_node *node = &program->node[n];
        if (node->phase != MF_RECOMPUTE)
            continue;
        assert_int_equal(node->op, program->node[node->twin].op);
        assert_int_equal(program->node[node->twin].phase, MF_FORWARD);
        assert_memory_equal(&node->a, &program->node[node->twin].a, sizeof node->a);
        mf_build_output(&fixture.builder, node->out[0]);
        mf_build_output(&fixture.builder, program->node[node->twin].out[0]);
        twins++;
    }
    /* A layer: the attention norm with dropout of q and v, the gated activation with dropout of down; gate
     * and up, and the norm that they read; q (with its branch and rotation), k (with its rotation) and v
     * (with its branch); attention. */
    static const int expected[MF_RECOMPUTE_LEVELS] = {0, 5, 8, 15, 16};
    assert_int_equal(twins, LAYERS * expected[*(const enum mf_recompute *)*state]);
    run(&fixture);
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_node *node = &program->node[n];
        if (node->phase != MF_RECOMPUTE)
            continue;
        int32_t first = program->node[node->twin].out[0];
        assert_memory_equal(fixture_data(&fixture, node->out[0]), fixture_data(&fixture, first),
                            (size_t)fixture_elements(&fixture, first) * sizeof(float));
    }
    fixture_end(&fixture);
}

static enum mf_recompute levels[MF_RECOMPUTE_LEVELS];
#define TWINS(level) cmocka_unit_test_prestate(test_twins_repeat_bit_for_bit, &levels[level])

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients_do_not_change_by_a_bit),
                                       TWINS(MF_RECOMPUTE_NONE),
                                       TWINS(MF_RECOMPUTE_CHEAP),
                                       TWINS(MF_RECOMPUTE_FEED_FORWARD),
                                       TWINS(MF_RECOMPUTE_PROJECTIONS),
                                       TWINS(MF_RECOMPUTE_ATTENTION)};
    for (int level = 0; level < MF_RECOMPUTE_LEVELS; level++)
        levels[level] = (enum mf_recompute)level;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
