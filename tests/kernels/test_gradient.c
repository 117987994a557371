/* The gradient pass on a whole decoder: what it emits, what it leaves out, what it refuses, and that it is
 * right. */
#include <math.h>
#include <string.h>

#include "fixture.h"
#include "kernels/passes/expand.h"

static const struct mf_program *program_of(const struct fixture *fixture) {
    return fixture->graph->program[fixture->program];
}

static int count(const struct fixture *fixture, enum mf_op op, int phase, int layer) {
    const struct mf_program *program = program_of(fixture);
    int found = 0;
    for (int32_t n = 0; n < program->nodes; n++)
        found += (op == MF_OPS || program->node[n].op == op) && program->node[n].phase == phase &&
                 (layer < 0 || program->node[n].layer == layer);
    return found;
}

/* Adapters on layers first .. 1 of two; returns the loss after expansion and the gradient pass. */
static int32_t build(struct fixture *fixture, int first, float dropout) {
    struct mf_error error;
    fixture_begin(fixture);
    fixture_adapters(fixture, first, 2, dropout);
    int32_t loss = fixture_decoder(&fixture->builder, 2);
    require_ok(mf_builder_finish(&fixture->builder, &error), &error);
    require_ok(mf_pass_expand(fixture->graph, fixture->program, &error), &error);
    require_ok(mf_gradient_build(fixture->graph, fixture->program, loss, &error), &error);
    return loss;
}

static void test_nothing_below_the_lowest_adapter(void **state) {
    struct fixture fixture;
    (void)state;
    build(&fixture, 1, 0);
    assert_int_equal(count(&fixture, MF_OPS, MF_BACKWARD, 0), 0);
    assert_true(count(&fixture, MF_OPS, MF_BACKWARD, 1) > 0);
    /* Of layer 1's attention input only the adapters' own products are needed: no gradient of the first norm.
     */
    assert_int_equal(count(&fixture, MF_OP_RMS_NORM_GRADIENT, MF_BACKWARD, 1), 1);
    assert_int_equal(count(&fixture, MF_OP_LINEAR_WEIGHT_GRADIENT, MF_BACKWARD, 1), 6);
    fixture_end(&fixture);
}

static void test_consumers_add_through_addends(void **state) {
    struct fixture fixture;
    (void)state;
    build(&fixture, 0, 0.1f);
    /* q, k, v, their branches and the residual meet in one tensor; only dropout has no addend, so one ADD is
     * left: where q's branch comes to what v and k gave. */
    assert_int_equal(count(&fixture, MF_OP_ADD, MF_BACKWARD, 1), 1);
    assert_int_equal(count(&fixture, MF_OP_ADD, MF_BACKWARD, 0), 0);
    assert_int_equal(count(&fixture, MF_OP_DROPOUT, MF_FORWARD, -1), 6);
    assert_int_equal(count(&fixture, MF_OP_DROPOUT, MF_BACKWARD, -1), 4);
    fixture_end(&fixture);
}

static void test_phases_follow_each_other(void **state) {
    struct fixture fixture;
    int last_layer = 2;
    (void)state;
    build(&fixture, 0, 0);
    const struct mf_program *program = program_of(&fixture);
    for (int32_t n = 1; n < program->nodes; n++)
        assert_true(program->node[n].phase >= program->node[n - 1].phase);
    for (int32_t n = 0; n < program->nodes; n++)
        if (program->node[n].phase == MF_BACKWARD && program->node[n].layer >= 0) {
            assert_true(program->node[n].layer <= last_layer);
            last_layer = program->node[n].layer;
        }
    fixture_end(&fixture);
}

static void test_slot_without_adapters_is_the_reference_model(void **state) {
    struct fixture fixture;
    struct mf_error error;
    int32_t score;
    (void)state;
    fixture_begin(&fixture);
    fixture_adapters(&fixture, 0, 2, 0.1f);
    require_ok(mf_program_create(fixture.graph, MF_EVALUATE, -1, MF_F32, &score, &error), &error);
    struct mf_builder builder = mf_builder_begin(fixture.graph, score);
    fixture_decoder(&builder, 2);
    require_ok(mf_builder_finish(&builder, &error), &error);
    const struct mf_program *program = fixture.graph->program[score];
    for (int32_t n = 0; n < program->nodes; n++) {
        assert_int_not_equal(program->node[n].op, MF_OP_ADAPTED_LINEAR);
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            if (program->node[n].in[i] >= 0)
                assert_int_not_equal(mf_graph_tensor(fixture.graph, program->node[n].in[i])->storage,
                                     MF_ADAPTER);
    }
    fixture_end(&fixture);
}

static void test_evaluation_has_no_dropout(void **state) {
    struct fixture fixture;
    struct mf_error error;
    int32_t evaluate;
    (void)state;
    fixture_begin(&fixture);
    fixture_adapters(&fixture, 0, 2, 0.1f);
    require_ok(mf_program_create(fixture.graph, MF_EVALUATE, 0, MF_F32, &evaluate, &error), &error);
    struct mf_builder builder = mf_builder_begin(fixture.graph, evaluate);
    fixture_decoder(&builder, 2);
    require_ok(mf_pass_expand(fixture.graph, evaluate, &error), &error);
    fixture.program = evaluate;
    assert_int_equal(count(&fixture, MF_OP_DROPOUT, MF_FORWARD, -1), 0);
    assert_int_equal(count(&fixture, MF_OP_ADAPTED_LINEAR, MF_FORWARD, -1), 0);
    assert_int_equal(count(&fixture, MF_OP_LINEAR, MF_FORWARD, -1), 14 + 2 * 6);
    fixture_end(&fixture);
}

static void test_refusals_name_the_op(void **state) {
    struct fixture fixture;
    struct mf_error error;
    (void)state;
    /* An op that only backward has. */
    fixture_begin(&fixture);
    const int32_t norm =
        mf_build_rms_norm(&fixture.builder, fixture_matrix(&fixture, "x"),
                          fixture_parameter(&fixture, "norm", WIDTH, 0), 1e-5f, MF_NORM_CAST_THEN_SCALE);
    const int32_t wide = mf_emit(&fixture.builder, MF_OP_ADD_COLUMNS, &norm, 1,
                                 &(union mf_attributes){.columns = {.width = WIDTH}});
    int32_t head = fixture_weight(&fixture, "head", VOCABULARY, WIDTH);
    int32_t loss =
        mf_build_loss(&fixture.builder, mf_build_head(&fixture.builder, wide, head, -1,
                                                      (struct mf_head_attributes){.logit_scale = 1})
                                            .log_probability);
    require_ok(mf_builder_finish(&fixture.builder, &error), &error);
    assert_int_equal(mf_gradient_build(fixture.graph, fixture.program, loss, &error),
                     MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_non_null(strstr(error.message, "add_columns"));
    fixture_end(&fixture);
    /* A fused op that was not expanded. */
    fixture_begin(&fixture);
    fixture_adapters(&fixture, 0, 1, 0);
    loss = fixture_decoder(&fixture.builder, 1);
    assert_int_equal(mf_gradient_build(fixture.graph, fixture.program, loss, &error),
                     MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_non_null(strstr(error.message, "adapted_linear"));
    fixture_end(&fixture);
    /* Nothing to train. */
    fixture_begin(&fixture);
    loss = fixture_decoder(&fixture.builder, 1);
    assert_int_equal(mf_gradient_build(fixture.graph, fixture.program, loss, &error), MF_ERROR_INTERNAL);
    assert_non_null(strstr(error.message, "no trainable parameter"));
    fixture_end(&fixture);
}

/* The gradient of every parameter of the decoder, dropout and all, against a difference quotient of the loss.
 */
static void test_whole_decoder_against_differences(void **state) {
    const double step = 1.0 / 64;
    struct fixture fixture;
    double difference = 0, norm = 0;
    (void)state;
    int32_t loss = build(&fixture, 0, 0.25f);
    fixture_realize(&fixture, &(struct mf_executor_options){.poison = true});
    struct mf_bucket bucket = fixture.graph->bucket[0];
    float *parameter = fixture_data(&fixture, bucket.parameter);
    for (int32_t i = 0; i < fixture.graph->adapters; i++) {
        fixture_fill(&fixture, fixture.graph->adapter[i].a);
        fixture_fill(&fixture, fixture.graph->adapter[i].b);
    }
    fixture_run(&fixture);
    float gradient[2048];
    assert_true(bucket.elements <= 2048);
    memcpy(gradient, fixture_data(&fixture, bucket.gradient), (size_t)bucket.elements * sizeof *gradient);
    for (int64_t i = 0; i < bucket.elements; i++) {
        float kept = parameter[i];
        double value[4];
        for (int point = 0; point < 4; point++) {
            parameter[i] = (float)((double)kept + (point < 2 ? point - 2 : point - 1) * step);
            fixture_run(&fixture);
            value[point] = (double)fixture_data(&fixture, loss)[0];
        }
        parameter[i] = kept;
        double numeric = (value[0] - 8 * value[1] + 8 * value[2] - value[3]) / (12 * step);
        difference += (numeric - (double)gradient[i]) * (numeric - (double)gradient[i]);
        norm += numeric * numeric;
    }
    assert_true(norm > 1e-2);
    assert_true(sqrt(difference / norm) < 2e-3);
    fixture_end(&fixture);
}

static void test_micro_batches_accumulate(void **state) {
    struct fixture fixture;
    float once[2048];
    (void)state;
    build(&fixture, 0, 0);
    fixture_realize(&fixture, NULL);
    struct mf_bucket bucket = fixture.graph->bucket[0];
    for (int32_t i = 0; i < fixture.graph->adapters; i++) {
        fixture_fill(&fixture, fixture.graph->adapter[i].a);
        fixture_fill(&fixture, fixture.graph->adapter[i].b);
    }
    fixture_run(&fixture);
    memcpy(once, fixture_data(&fixture, bucket.gradient), (size_t)bucket.elements * sizeof *once);
    fixture_run(&fixture);
    double sum = 0;
    for (int64_t i = 0; i < bucket.elements; i++) {
        assert_float_equal(fixture_data(&fixture, bucket.gradient)[i], 2 * once[i],
                           1e-6f + 1e-5f * fabsf(once[i]));
        sum += fabs((double)once[i]);
    }
    assert_true(sum > 0.1);
    fixture_end(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_below_the_lowest_adapter),
        cmocka_unit_test(test_consumers_add_through_addends),
        cmocka_unit_test(test_phases_follow_each_other),
        cmocka_unit_test(test_slot_without_adapters_is_the_reference_model),
        cmocka_unit_test(test_evaluation_has_no_dropout),
        cmocka_unit_test(test_refusals_name_the_op),
        cmocka_unit_test(test_whole_decoder_against_differences),
        cmocka_unit_test(test_micro_batches_accumulate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
