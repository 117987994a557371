/* A real model: SmolLM2-135M-Instruct as ops/quickstart converts it. MF_TEST_SMOLLM2 names its folder;
 * without it the test is skipped. Golden ids and chats: tests/golden/tokenizer_golden.py; the paragraph's
 * mean negative log-likelihood is that of Transformers 5.24 in f32 (tests/golden/weights_golden.py FOLDER
 * prints it). */
#include "kernels/cpu/backend.h"
#include "providers/models/model.h"
#include "tests/providers/tokenizer_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char paragraph[] = "A small workshop by the harbour repairs clocks. Every morning the owner "
                                "opens the shutters, winds the oldest "
                                "clock in the window and writes the date in a notebook. People bring alarm "
                                "clocks, kitchen timers and, once in a "
                                "while, a tall case clock that has been in a family for two hundred years. "
                                "She never promises a day on which the "
                                "work will be finished, because a spring that was bent in 1820 does not care "
                                "about promises. When a clock runs "
                                "again she lets it stand on the shelf for a week and compares it with the "
                                "radio at noon. Only then does she call "
                                "the customer, and only then does she write the price.";
static const double transformers_loss = 3.870321;
static const size_t paragraph_tokens = 135;

static const char *folder;

static void token_ids_and_chats(void **state) {
    struct mf_tokenizer *tokenizer;
    struct mf_error error;
    (void)state;
    if (mf_tokenizer_open(folder, &tokenizer, &error))
        fail_msg("%s", error.message);
    json_t *golden = load_golden("tests/golden/tokenizer_smollm2.json");
    assert_int_equal(mf_tokenizer_vocabulary(tokenizer), 49152);
    assert_int_equal(mf_tokenizer_bos(tokenizer), 1);
    assert_int_equal(mf_tokenizer_eos(tokenizer), 2);
    assert_true(check_texts(tokenizer, "smollm2", json_object_get(golden, "texts")) > 45);
    assert_int_equal(check_chats(tokenizer, "smollm2", json_object_get(golden, "chats")), 12);
    json_decref(golden);
    mf_tokenizer_close(tokenizer);
}

/* One evaluate program on the fast CPU backend. */
struct rig {
    struct mf_model *model;
    struct mf_graph *graph;
    struct mf_plan *plan;
    struct mf_backend *backend;
    struct mf_executor *executor;
    struct mf_model_program evaluate;
};

static void check(enum mf_status status, const struct mf_error *error) {
    if (status)
        fail_msg("%s: %s", mf_status_code(status), error->message);
}

static void rig_make(struct rig *rig, enum mf_dtype dtype, int32_t tokens) {
    const struct mf_load_options options = {.size = sizeof options,
                                            .reference = {sizeof options.reference, folder, NULL},
                                            .compute_dtype = dtype};
    struct mf_error error;
    check(mf_model_open(&options, &rig->model, &error), &error);
    check(mf_graph_create(&rig->graph, &error), &error);
    check(mf_model_build(rig->model, rig->graph, MF_EVALUATE, -1, &rig->evaluate, &error), &error);
    mf_program_set_bound(rig->graph, rig->evaluate.program, MF_TOKENS, tokens);
    mf_program_set_bound(rig->graph, rig->evaluate.program, MF_SEQUENCES, 1);
    mf_program_set_bound(rig->graph, rig->evaluate.program, MF_OFFSETS, 2);
    mf_program_set_bound(rig->graph, rig->evaluate.program, MF_LABELLED, tokens);
    check(mf_cpu_create(NULL, &rig->backend, &error), &error);
    check(mf_plan_create(rig->graph, rig->backend, 0, &rig->plan, &error), &error);
    check(mf_executor_create(rig->graph, rig->plan, rig->backend, NULL, &rig->executor, &error), &error);
    check(mf_model_bind(rig->model, NULL, rig->graph, rig->executor, &error), &error);
    check(mf_executor_prepare(rig->executor, &error), &error);
}

static void rig_free(struct rig *rig) {
    mf_executor_destroy(rig->executor);
    mf_plan_destroy(rig->plan);
    mf_backend_destroy(rig->backend);
    mf_graph_destroy(rig->graph);
    mf_model_close(rig->model);
}

static double mean_loss(const struct rig *rig, const struct mf_tokens *tokens) {
    struct mf_error error;
    int32_t *input[MF_INPUTS];
    const int32_t count = (int32_t)tokens->count;
    struct mf_step step = {.inverse_count = 1.0f / (float)(count - 1)};
    for (int i = 0; i < MF_INPUTS; i++)
        input[i] = mf_executor_data(rig->executor, rig->graph->input[i]);
    for (int32_t i = 0; i < count; i++) {
        input[MF_INPUT_TOKENS][i] = tokens->id[i];
        input[MF_INPUT_POSITIONS][i] = i;
        if (i + 1 < count) {
            input[MF_INPUT_LABEL_ROWS][i] = i;
            input[MF_INPUT_LABELS][i] = tokens->id[i + 1];
            ((float *)(void *)input[MF_INPUT_COEFFICIENTS])[i] = 1;
        }
    }
    input[MF_INPUT_OFFSETS][0] = 0;
    input[MF_INPUT_OFFSETS][1] = count;
    step.value[MF_TOKENS] = count;
    step.value[MF_SEQUENCES] = 1;
    step.value[MF_LABELLED] = count - 1;
    check(mf_executor_run(rig->executor, rig->evaluate.program, &step, &error), &error);
    return (double)*(float *)mf_executor_data(rig->executor, rig->evaluate.loss);
}

static void likelihood_of_a_paragraph(void **state) {
    static const double tolerance[] = {[MF_F32] = 1e-4, [MF_BF16] = 4e-3};
    struct mf_tokenizer *tokenizer;
    struct mf_tokens tokens = {0};
    struct mf_error error;
    (void)state;
    check(mf_tokenizer_open(folder, &tokenizer, &error), &error);
    check(mf_tokenizer_encode(tokenizer, paragraph, strlen(paragraph), MF_SPECIAL_ADD, &tokens, &error),
          &error);
    assert_int_equal(tokens.count, paragraph_tokens);
    for (enum mf_dtype dtype = MF_F32; dtype <= MF_BF16; dtype++) {
        struct rig rig;
        rig_make(&rig, dtype, (int32_t)tokens.count);
        assert_int_equal(mf_model_parameters(rig.model), 134515008);
        double loss = mean_loss(&rig, &tokens);
        print_message("%s: %.6f, Transformers in f32 %.6f\n", mf_dtype_name(dtype), loss, transformers_loss);
        assert_true(fabs(loss - transformers_loss) <= tolerance[dtype]);
        rig_free(&rig);
    }
    mf_tokens_free(&tokens);
    mf_tokenizer_close(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_ids_and_chats),
        cmocka_unit_test(likelihood_of_a_paragraph),
    };
    folder = getenv("MF_TEST_SMOLLM2");
    if (!folder || !*folder)
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
