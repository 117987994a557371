/* Layers folded with their adapters: the loss and all gradients are those of three products but for rounding,
 * whatever else a program is passed through, and no copy and no memory is left over. */
#include <math.h>
#include <string.h>

#include "fixture.h"
#include "kernels/passes/cast.h"
#include "kernels/passes/columns.h"
#include "kernels/passes/expand.h"
#include "kernels/passes/fold.h"
#include "kernels/passes/recompute.h"

enum {
    LAYERS = 2,
    ELEMENTS = 4096,
    FOLDED_A_LAYER = 4 /* q, o, gate, down: k, v and up read what q and gate do */
};

struct result {
    float loss, gradient[ELEMENTS];
    size_t elements, arena_bytes;
    int folded, added;
};

struct run {
    bool fast, fold;
    enum mf_dtype dtype;
    float dropout;
    enum mf_recompute recompute;
};

static int count(const struct fixture *fixture, enum mf_op op) {
    const struct mf_program *program = fixture->graph->program[fixture->program];
    int found = 0;
    for (int32_t n = 0; n < program->nodes; n++)
        found += program->node[n].op == op;
    return found;
}

static void train(struct run run, struct result *result) {
    struct mf_backend *backend;
    struct mf_error error;
    struct fixture fixture;
    require_ok(run.fast ? mf_cpu_create(&(struct mf_cpu_options){.threads = 2}, &backend, &error)
                        : mf_cpu_reference_create(&backend, &error),
               &error);
    fixture_begin_on(&fixture, backend, run.dtype);
    fixture_adapters_on_all(&fixture, LAYERS, run.dropout);
    const int32_t loss = fixture_decoder(&fixture.builder, LAYERS);
    require_ok(mf_pass_expand(fixture.graph, fixture.program, &error), &error);
    require_ok(mf_gradient_build(fixture.graph, fixture.program, loss, &error), &error);
    if (run.fold)
        require_ok(mf_pass_fold(fixture.graph, fixture.program, 1, &error), &error);
    require_ok(mf_pass_recompute(fixture.graph, fixture.program, run.recompute, &error), &error);
    require_ok(mf_pass_columns(fixture.graph, fixture.program, &error), &error);
    require_ok(mf_pass_cast(fixture.graph, fixture.program, &error), &error);
    result->folded = count(&fixture, MF_OP_FOLD_ADAPTERS);
    result->added = count(&fixture, MF_OP_ADD_COLUMNS);
    fixture_realize(&fixture, &(struct mf_executor_options){.poison = true});
    for (int32_t i = 0; i < fixture.graph->adapters; i++) {
        fixture_fill(&fixture, fixture.graph->adapter[i].a);
        fixture_fill(&fixture, fixture.graph->adapter[i].b);
    }
    fixture_run(&fixture);
    result->loss = fixture_data(&fixture, loss)[0];
    result->elements = (size_t)fixture.graph->bucket[0].elements;
    result->arena_bytes = fixture.graph->program[fixture.program]->arena_bytes;
    assert_true(result->elements <= ELEMENTS);
    memcpy(result->gradient, fixture_data(&fixture, fixture.graph->bucket[0].gradient),
           result->elements * sizeof *result->gradient);
    fixture_end(&fixture);
}

/* Of the gradient's norm. */
static double distance(const struct result *a, const struct result *b) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < a->elements; i++) {
        difference += pow((double)a->gradient[i] - (double)b->gradient[i], 2);
        norm += pow((double)a->gradient[i], 2);
    }
    assert_true(norm > 0);
    return sqrt(difference / norm);
}

static struct result plain, folded, again;

static void test_results(void **state) {
    (void)state;
    for (int fast = 0; fast <= 1; fast++)
        for (int dropout = 0; dropout <= 1; dropout++) {
            struct run run = {.fast = fast, .dropout = dropout ? 0.25f : 0};
            train(run, &plain);
            run.fold = true;
            train(run, &folded);
            assert_int_equal(plain.folded, 0);
            assert_int_equal(folded.folded, FOLDED_A_LAYER * LAYERS);
            assert_int_equal(plain.elements, folded.elements);
            assert_true(fabs((double)plain.loss - (double)folded.loss) < 2e-6);
            assert_true(distance(&plain, &folded) < 2e-6);
            if (dropout == 0)
                assert_int_equal(folded.added, 0);
        }
}

/* The fixture's weights are f32: a program in another dtype multiplies by what it was given. */
static void test_other_dtype(void **state) {
    (void)state;
    train((struct run){.fast = true, .dtype = MF_BF16, .fold = true}, &folded);
    assert_int_equal(folded.folded, 0);
}

/* Recomputing changes no bit of a folded program, and what lies beside a recomputed part keeps no storage. */
static void test_recompute(void **state) {
    (void)state;
    train((struct run){.fast = true, .fold = true}, &folded);
    for (int level = MF_RECOMPUTE_CHEAP; level < MF_RECOMPUTE_LEVELS; level++) {
        train((struct run){.fast = true, .fold = true, .recompute = (enum mf_recompute)level}, &again);
        assert_memory_equal(&folded.loss, &again.loss, sizeof folded.loss);
        for (size_t i = 0; i < folded.elements; i++)
            assert_true(folded.gradient[i] == again.gradient[i]);
        assert_true(again.arena_bytes < folded.arena_bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_results), cmocka_unit_test(test_other_dtype),
                                       cmocka_unit_test(test_recompute)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
