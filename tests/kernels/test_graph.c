/* Rows of a graph, shape rules, builder errors and the rules of a program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

static void assert_message(const struct mf_error *error, const char *part) {
    if (!strstr(error->message, part))
        fail_msg("\"%s\" does not say \"%s\"", error->message, part);
}

static void test_names_give_the_same_row(void **state) {
    const int64_t dim[2] = {3, 4}, other[2] = {4, 3};
    struct fixture fixture;
    struct mf_error error;
    int32_t a, b;
    (void)state;
    fixture_begin(&fixture);
    require_ok(mf_graph_weight(fixture.graph, "w", MF_BF16, 2, dim, &a, &error), &error);
    require_ok(mf_graph_weight(fixture.graph, "w", MF_BF16, 2, dim, &b, &error), &error);
    assert_int_equal(a, b);
    assert_int_equal(mf_graph_find_tensor(fixture.graph, "w"), a);
    assert_int_equal(mf_graph_weight(fixture.graph, "w", MF_BF16, 2, other, &b, &error),
                     MF_ERROR_WEIGHT_MISMATCH);
    assert_message(&error, "w: is weight (3, 4) bf16, but weight (4, 3) bf16 was asked for");
    assert_int_equal(mf_graph_weight(fixture.graph, "w", MF_F32, 2, dim, &b, &error),
                     MF_ERROR_WEIGHT_MISMATCH);
    assert_int_equal(mf_graph_weight(fixture.graph, "z", MF_F32, 2, (int64_t[]){3, 0}, &b, &error),
                     MF_ERROR_INTERNAL);
    assert_int_equal(mf_graph_weight(fixture.graph, "z", MF_F32, 1, (int64_t[]){1LL << 40}, &b, &error),
                     MF_ERROR_INTERNAL);
    fixture_end(&fixture);
}

static void test_adapters_carry_names_and_streams(void **state) {
    struct fixture fixture;
    struct mf_error error;
    int32_t module, adapter;
    (void)state;
    fixture_begin(&fixture);
    require_ok(
        mf_graph_module(fixture.graph, "a", fixture_weight(&fixture, "a.weight", 5, 7), -1, &module, &error),
        &error);
    assert_int_equal(fixture.graph->module[module].random_stream, 0xe40c292cu); /* FNV-1a of "a" */
    require_ok(mf_graph_add_adapter(fixture.graph, 0, module, 2, 0.5f, 0.1f, &adapter, &error), &error);
    const struct mf_adapter *row = &fixture.graph->adapter[adapter];
    const struct mf_tensor *a = mf_graph_tensor(fixture.graph, row->a),
                           *b = mf_graph_tensor(fixture.graph, row->b);
    assert_string_equal(a->name, "base_model.model.a.lora_A.weight");
    assert_string_equal(b->name, "base_model.model.a.lora_B.weight");
    assert_int_equal(a->dim[0].multiplier, 2);
    assert_int_equal(a->dim[1].multiplier, 7);
    assert_int_equal(b->dim[0].multiplier, 5);
    assert_int_equal(b->dim[1].multiplier, 2);
    assert_int_equal(mf_graph_add_adapter(fixture.graph, 0, module, 2, 1, 0, &adapter, &error),
                     MF_ERROR_INTERNAL);
    require_ok(mf_graph_add_adapter(fixture.graph, 1, module, 3, 1, 0, &adapter, &error),
               &error); /* another slot */
    assert_int_equal(mf_graph_add_adapter(fixture.graph, 2, module, 2, 1, 1.0f, &adapter, &error),
                     MF_ERROR_INTERNAL);
    fixture_end(&fixture);
}

static void test_bucket_holds_all_parameters(void **state) {
    struct fixture fixture;
    struct mf_error error;
    int32_t bucket, again, plain, large, id;
    (void)state;
    fixture_begin(&fixture);
    require_ok(mf_graph_parameter(fixture.graph, 0, "large plain", 1, (int64_t[]){4097}, MF_TENSOR_NO_DECAY,
                                  &large, &error),
               &error);
    require_ok(
        mf_graph_parameter(fixture.graph, 0, "plain", 1, (int64_t[]){5}, MF_TENSOR_NO_DECAY, &plain, &error),
        &error);
    int32_t first = fixture_parameter(&fixture, "first", 3, 7),
            second = fixture_parameter(&fixture, "second", 2, 8),
            whole = fixture_parameter(&fixture, "whole", 64, 64),
            ragged = fixture_parameter(&fixture, "ragged", 17, 241);
    require_ok(mf_graph_bucket(fixture.graph, 0, &bucket, &error), &error);
    require_ok(mf_graph_bucket(fixture.graph, 0, &again, &error), &error);
    assert_int_equal(bucket, again);
    const struct mf_bucket *row = &fixture.graph->bucket[bucket];
    assert_int_equal(mf_graph_tensor(fixture.graph, whole)->view_offset, 0);
    assert_int_equal(mf_graph_tensor(fixture.graph, ragged)->view_offset, 4096);
    assert_int_equal(row->end[MF_LARGE_DECAYED], 8448); /* 4,097 in whole blocks of 256 */
    assert_int_equal(mf_graph_tensor(fixture.graph, first)->view_offset, 8448);
    assert_int_equal(mf_graph_tensor(fixture.graph, second)->view_offset, 8480);
    assert_int_equal(row->end[MF_SMALL_DECAYED], 8704);
    assert_int_equal(mf_graph_tensor(fixture.graph, large)->view_offset, 8704);
    assert_int_equal(row->end[MF_LARGE_NOT_DECAYED], 13056);
    assert_int_equal(mf_graph_tensor(fixture.graph, plain)->view_offset, 13056);
    assert_int_equal(row->end[MF_SMALL_NOT_DECAYED], 13312);
    assert_int_equal(row->elements, 13312);
    int32_t gradient = mf_gradient_of_parameter(fixture.graph, second);
    assert_true(gradient >= 0);
    assert_int_equal(mf_graph_owner(fixture.graph, gradient), row->gradient);
    assert_int_equal(mf_graph_tensor(fixture.graph, gradient)->view_offset, 8480);
    assert_true(mf_tensor_same_shape(mf_graph_tensor(fixture.graph, gradient),
                                     mf_graph_tensor(fixture.graph, second)));
    assert_int_equal(mf_graph_parameter(fixture.graph, 0, "late", 1, (int64_t[]){5}, 0, &id, &error),
                     MF_ERROR_INTERNAL);
    fixture_end(&fixture);
}

static void test_errors_are_sticky_and_say_where(void **state) {
    struct fixture fixture;
    struct mf_error error;
    (void)state;
    fixture_begin(&fixture);
    int32_t x = fixture_matrix(&fixture, "x");
    fixture.builder.layer = 3;
    assert_int_equal(mf_build_rms_norm(&fixture.builder, x, fixture_weight(&fixture, "n", 5, 0), 1e-5f, 0),
                     -1);
    assert_int_equal(mf_build_add(&fixture.builder, x, x), -1);
    assert_int_equal(mf_build_reshape(&fixture.builder, x, 1, &(struct mf_dim){1, MF_CONST, 0, 0}), -1);
    assert_int_equal(fixture.graph->program[fixture.program]->nodes, 0);
    assert_int_equal(mf_builder_finish(&fixture.builder, &error), MF_ERROR_INTERNAL);
    assert_message(&error, "train program, layer 3, rms_norm");
    assert_message(&error, "input 1 is (5) f32");
    fixture_end(&fixture);
}

/* Every op refuses a wrong input by its own name: inputs of a shape that no op takes. */
static void test_every_op_checks_its_inputs(void **state) {
    (void)state;
    for (int op = 0; op < MF_OPS; op++) {
        const struct mf_op_row *row = mf_op_row((enum mf_op)op);
        int32_t in[MF_NODE_INPUTS];
        struct fixture fixture;
        struct mf_error error;
        if (op == MF_OP_ZERO) /* zeroes whatever it is given */
            continue;
        fixture_begin(&fixture);
        int32_t wrong = -1;
        const struct mf_dim dim[4] = {mf_dim_symbol(MF_TOKENS, 1), mf_dim_const(2), mf_dim_const(3),
                                      mf_dim_const(5)};
        require_ok(mf_graph_extra_input(fixture.graph, "wrong", MF_U8, 4, dim, &wrong, &error), &error);
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            in[i] = wrong;
        assert_int_equal(mf_emit(&fixture.builder, (enum mf_op)op, in, row->required, NULL), -1);
        assert_int_equal(mf_builder_finish(&fixture.builder, &error), MF_ERROR_INTERNAL);
        assert_message(&error, row->name);
        fixture.builder = mf_builder_begin(fixture.graph, fixture.program);
        assert_int_equal(mf_emit(&fixture.builder, (enum mf_op)op, in, row->required - 1, NULL), -1);
        assert_int_equal(mf_emit(&fixture.builder, (enum mf_op)op, in, row->required, NULL), -1);
        assert_int_equal(mf_builder_finish(&fixture.builder, &error), MF_ERROR_INTERNAL);
        assert_message(&error, "inputs, takes");
        fixture_end(&fixture);
    }
}

static void test_shapes_that_almost_fit(void **state) {
    struct fixture fixture;
    struct mf_error error;
    (void)state;
    for (int variant = 0; variant < 6; variant++) {
        fixture_begin(&fixture);
        struct mf_builder *builder = &fixture.builder;
        int32_t x = fixture_matrix(&fixture, "x");
        int32_t q =
            fixture_input(&fixture, "q", 3, symbol_dim(MF_TOKENS, 1), mf_dim_const(4), mf_dim_const(6));
        int32_t k =
            fixture_input(&fixture, "k", 3, symbol_dim(MF_TOKENS, 1), mf_dim_const(3), mf_dim_const(6));
        int32_t offsets = fixture.graph->input[MF_INPUT_OFFSETS];
        const int32_t wide[] = {x, fixture_weight(&fixture, "w", 5, WIDTH), -1, x};
        if (variant == 0) /* 3 key heads do not divide 4 query heads */
            mf_build_attention(builder, q, k, k, offsets, offsets, -1,
                               (struct mf_attention_attributes){.scale = 1});
        if (variant == 1) /* columns 2 .. 6 of 6: 2 + 5 is too wide */
            mf_emit(builder, MF_OP_LINEAR, wide, 4,
                    &(union mf_attributes){.linear = {.alpha = 1, .first = 2}});
        if (variant == 2) /* an offset without an addend */
            mf_emit(builder, MF_OP_LINEAR, wide, 2,
                    &(union mf_attributes){.linear = {.alpha = 1, .first = 1}});
        if (variant == 3)
            mf_build_columns(builder, x, 4, 3);
        if (variant == 4)
            mf_build_heads(builder, x, 4);
        if (variant == 5) /* a column view is not contiguous */
            mf_build_reshape(builder, mf_build_columns(builder, x, 1, 4), 1,
                             &(struct mf_dim){4, MF_TOKENS, 0, 0});
        if (mf_builder_finish(builder, &error) != MF_ERROR_INTERNAL)
            fail_msg("variant %d was accepted", variant);
        fixture_end(&fixture);
    }
}

static void test_views_share_storage(void **state) {
    struct fixture fixture;
    struct mf_error error;
    (void)state;
    fixture_begin(&fixture);
    int32_t x = fixture_matrix(&fixture, "x");
    int32_t columns = mf_build_columns(&fixture.builder, x, 2, 4),
            heads = mf_build_heads(&fixture.builder, columns, 2);
    int32_t rows = mf_build_head_rows(&fixture.builder, x, 3);
    int32_t back = mf_build_merge_heads(&fixture.builder, rows, 3);
    require_ok(mf_builder_finish(&fixture.builder, &error), &error);
    const struct mf_tensor *view = mf_graph_tensor(fixture.graph, heads);
    assert_int_equal(view->view_of, x);
    assert_int_equal(view->view_offset, 2);
    assert_int_equal(view->stride[0], WIDTH);
    assert_int_equal(view->stride[1], 2);
    assert_int_equal(mf_graph_tensor(fixture.graph, rows)->dim[0].multiplier, 3);
    assert_true(
        mf_tensor_same_shape(mf_graph_tensor(fixture.graph, back), mf_graph_tensor(fixture.graph, x)));
    fixture_end(&fixture);
}

static void test_program_rules(void **state) {
    struct fixture fixture;
    struct mf_error error;
    int32_t cache, other;
    (void)state;
    fixture_begin(&fixture);
    const struct mf_dim dim[3] = {mf_dim_symbol(MF_CACHE, 1), mf_dim_const(2), mf_dim_const(6)};
    require_ok(mf_graph_state(fixture.graph, "cache", MF_F32, 3, dim, &cache, &error), &error);
    int32_t rows =
        fixture_input(&fixture, "rows", 3, symbol_dim(MF_TOKENS, 1), mf_dim_const(2), mf_dim_const(6));
    int32_t slots = fixture.graph->input[MF_INPUT_CACHE_SLOTS];
    int32_t sum = mf_build_add(&fixture.builder, rows, rows);
    int32_t written = mf_build_cache_write(&fixture.builder, cache, sum, slots);
    assert_int_equal(mf_graph_tensor(fixture.graph, written)->version, 1);
    assert_int_equal(mf_graph_owner(fixture.graph, written), cache);
    int32_t again = mf_build_cache_write(&fixture.builder, written, sum, slots);
    assert_int_equal(mf_graph_tensor(fixture.graph, again)->version, 2);
    require_ok(mf_builder_finish(&fixture.builder, &error), &error);

    struct mf_node *node = fixture.graph->program[fixture.program]->node;
    struct mf_node kept = node[2];
    node[2].in[0] = cache; /* reads what node 1 has overwritten */
    assert_int_equal(mf_program_check(fixture.graph, fixture.program, &error), MF_ERROR_INTERNAL);
    assert_message(&error, "old version");
    node[2] = kept;
    node[2].out[0] = written;
    assert_int_equal(mf_program_check(fixture.graph, fixture.program, &error), MF_ERROR_INTERNAL);
    assert_message(&error, "two writers");
    node[2] = node[0];
    node[0] = kept; /* order of 2, 1, 0 */
    assert_int_equal(mf_program_check(fixture.graph, fixture.program, &error), MF_ERROR_INTERNAL);
    assert_message(&error, "before it is made");
    node[0] = node[2];
    node[2] = kept;
    require_ok(mf_program_check(fixture.graph, fixture.program, &error), &error);
    require_ok(mf_program_create(fixture.graph, MF_SCORE, -1, MF_F32, &other, &error), &error);
    struct mf_builder builder = mf_builder_begin(fixture.graph, other);
    mf_build_add(&builder, sum, sum); /* another program's activation */
    assert_int_equal(mf_builder_finish(&builder, &error), MF_ERROR_INTERNAL);
    assert_message(&error, "another program");
    fixture_end(&fixture);
}

static void test_print_shows_every_node(void **state) {
    struct fixture fixture;
    char *text = NULL, expected[256];
    size_t size = 0;
    (void)state;
    fixture_begin(&fixture);
    int32_t x = fixture_matrix(&fixture, "x");
    fixture.builder.layer = 2;
    int32_t sum = mf_build_add(&fixture.builder, x, x);
    fixture.builder.layer = -1;
    fixture.builder.phase = MF_BACKWARD;
    int32_t again = mf_build_add(&fixture.builder, sum, x);
    snprintf(expected, sizeof expected,
             "0 forward layer 2 add %d (T, 6) f32 <- %d %d\n1 backward add %d (T, 6) f32 <- %d %d\n",
             (int)sum, (int)x, (int)x, (int)again, (int)sum, (int)x);
    FILE *file = open_memstream(&text, &size);
    assert_non_null(file);
    mf_program_print(fixture.graph, fixture.program, file);
    fclose(file);
    assert_string_equal(text, expected);
    free(text);
    fixture_end(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_give_the_same_row),
        cmocka_unit_test(test_adapters_carry_names_and_streams),
        cmocka_unit_test(test_bucket_holds_all_parameters),
        cmocka_unit_test(test_errors_are_sticky_and_say_where),
        cmocka_unit_test(test_every_op_checks_its_inputs),
        cmocka_unit_test(test_shapes_that_almost_fit),
        cmocka_unit_test(test_views_share_storage),
        cmocka_unit_test(test_program_rules),
        cmocka_unit_test(test_print_shows_every_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
