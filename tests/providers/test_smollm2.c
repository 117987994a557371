/* A real model: SmolLM2-135M-Instruct as ops/quickstart converts it. MF_TEST_SMOLLM2 names its folder;
 * without it the test is skipped. Golden ids and chats: tests/golden/tokenizer_golden.py; the paragraph's
 * mean negative log-likelihood is that of Transformers 5.24 in f32 (tests/golden/weights_golden.py FOLDER
 * prints it). */
#include "kernels/cpu/backend.h"
#include "providers/models/model.h"
#include "providers/weights/safetensors.h"
#include "tests/providers/scratch.h"
#include "tests/providers/tokenizer_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static void rig_make(struct rig *rig, const char *model, enum mf_dtype dtype, int32_t tokens) {
    const struct mf_model_options options = {.folder = model, .compute_dtype = dtype};
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
        rig_make(&rig, folder, dtype, (int32_t)tokens.count);
        assert_int_equal(mf_model_parameters(rig.model), 134515008);
        double loss = mean_loss(&rig, &tokens);
        print_message("%s: %.6f, Transformers in f32 %.6f\n", mf_dtype_name(dtype), loss, transformers_loss);
        assert_true(fabs(loss - transformers_loss) <= tolerance[dtype]);
        rig_free(&rig);
    }
    mf_tokens_free(&tokens);
    mf_tokenizer_close(tokenizer);
}

/* ---- the same weights as another family's ---- */

/* config.json of SmolLM2 with another type; the head is tied, there are no biases and no windows. */
static void write_config(const char *type, const char *class_name) {
    static const char *const left_out[] = {"attention_bias", "mlp_bias", "head_dim"};
    char path[1024];
    snprintf(path, sizeof path, "%s/config.json", folder);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        json_object_del(config, left_out[i]);
    json_object_set_new(config, "model_type", json_string(type));
    json_object_set_new(config, "architectures", json_pack("[s]", class_name));
    json_object_set_new(config, "sliding_window", json_null());
    assert_int_equal(json_dump_file(config, scratch_path("config.json"), 0), 0);
    json_decref(config);
}

enum { FUSED_PARTS = 3 };

/* The parts of the weight that Phi-3 has in place of `name`: 0 when it goes into an earlier one, 1 when it
 * stays as it is. */
static int parts_of(const struct mf_safetensors *file, const char *name,
                    const struct mf_stored_tensor *part[FUSED_PARTS], char fused[128]) {
    static const char *const together[][FUSED_PARTS + 1] = {
        {"self_attn.qkv_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
        {"mlp.gate_up_proj", "mlp.gate_proj", "mlp.up_proj", NULL}};
    part[0] = mf_safetensors_find(file, name);
    snprintf(fused, 128, "%s", name);
    for (size_t t = 0; t < sizeof together / sizeof *together; t++)
        for (int p = 1; p <= FUSED_PARTS && together[t][p]; p++) {
            const char *at = strstr(name, together[t][p]);
            if (!at)
                continue;
            int parts = 0;
            for (; p == 1 && parts < FUSED_PARTS && together[t][parts + 1]; parts++) {
                snprintf(fused, 128, "%.*s%s.weight", (int)(at - name), name, together[t][parts + 1]);
                part[parts] = mf_safetensors_find(file, fused);
                assert_non_null(part[parts]);
            }
            snprintf(fused, 128, "%.*s%s.weight", (int)(at - name), name, together[t][0]);
            return parts;
        }
    return 1;
}

/* Weights as Phi-3 stores them: rows of queries, keys and values one after another, and of gate and up. */
static void write_fused_weights(void) {
    struct mf_safetensors *file;
    struct mf_safetensors_writer *writer;
    struct mf_error error;
    static struct mf_safetensors_entry entry[512];
    static char name[512][128];
    const struct mf_stored_tensor *part[FUSED_PARTS];
    size_t count = 0;
    check(mf_safetensors_open_folder(folder, &file, &error), &error);
    assert_true(mf_safetensors_count(file) <= 512);
    for (size_t i = 0; i < mf_safetensors_count(file); i++) {
        int parts = parts_of(file, mf_safetensors_at(file, i)->name, part, name[count]);
        if (!parts)
            continue;
        entry[count] = (struct mf_safetensors_entry){
            .name = name[count], .dtype = part[0]->dtype, .rank = part[0]->rank};
        memcpy(entry[count].dim, part[0]->dim, sizeof part[0]->dim);
        for (int p = 1; p < parts; p++)
            entry[count].dim[0] += part[p]->dim[0];
        count++;
    }
    check(mf_safetensors_create(scratch_path("model.safetensors"), entry, count, NULL, &writer, &error),
          &error);
    for (size_t i = 0; i < mf_safetensors_count(file); i++) {
        char fused[128];
        int parts = parts_of(file, mf_safetensors_at(file, i)->name, part, fused);
        for (int p = 0; p < parts; p++)
            check(mf_safetensors_write(writer, part[p]->data, part[p]->bytes, &error), &error);
    }
    check(mf_safetensors_finish(writer, &error), &error);
    mf_safetensors_close(file);
}

/* Log-probabilities of the paragraph's tokens under the model in `model`. */
static void run_paragraph(const char *model, const struct mf_tokens *tokens, float *log_probability) {
    struct rig rig;
    rig_make(&rig, model, MF_F32, (int32_t)tokens->count);
    mean_loss(&rig, tokens);
    memcpy(log_probability, mf_executor_data(rig.executor, rig.evaluate.log_probability),
           (tokens->count - 1) * sizeof *log_probability);
    rig_free(&rig);
}

/* Mistral without windows is Llama; Phi-3 is Llama with weights laid side by side. */
static void other_families_give_the_same(void **state) {
    float llama[256], other[256];
    char weights[1024];
    struct mf_tokenizer *tokenizer;
    struct mf_tokens tokens = {0};
    struct mf_error error;
    (void)state;
    check(mf_tokenizer_open(folder, &tokenizer, &error), &error);
    check(mf_tokenizer_encode(tokenizer, paragraph, strlen(paragraph), MF_SPECIAL_ADD, &tokens, &error),
          &error);
    mf_tokenizer_close(tokenizer);
    assert_true(tokens.count <= 256);
    run_paragraph(folder, &tokens, llama);
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    write_config("mistral", "MistralForCausalLM");
    assert_int_equal(symlink(weights, scratch_path("model.safetensors")), 0);
    run_paragraph(scratch_folder(), &tokens, other);
    assert_memory_equal(llama, other, (tokens.count - 1) * sizeof *llama);
    assert_int_equal(unlink(scratch_path("model.safetensors")), 0);
    write_config("phi3", "Phi3ForCausalLM");
    write_fused_weights();
    run_paragraph(scratch_folder(), &tokens, other);
    double greatest = 0;
    for (size_t i = 0; i + 1 < tokens.count; i++)
        greatest = fmax(greatest, fabs((double)(llama[i] - other[i])));
    print_message("Phi-3: the greatest difference of a log-probability is %.3g\n", greatest);
    assert_true(greatest <= 2e-5);
    mf_tokens_free(&tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_ids_and_chats),
        cmocka_unit_test(likelihood_of_a_paragraph),
        cmocka_unit_test_setup_teardown(other_families_give_the_same, scratch_make, scratch_remove),
    };
    folder = getenv("MF_TEST_SMOLLM2");
    if (!folder || !*folder)
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
