/* Time of a training step on the CPU: forward, input and adapter gradients, update, on random tokens of one
 * length, every token labelled. Prints tokens per second and, with "ledger", what every op took of the
 * processors' time beside the least that its work takes at the machine's rates.
 *
 *     cpu_step MODEL_FOLDER f32|bf16 SEQUENCES LENGTH STEPS RANK DROPOUT [ledger]
 *
 * tests/bench/cpu_step.py is the same step in PyTorch and PEFT. */
#include "kernels/cpu/backend.h"
#include "kernels/executor.h"
#include "kernels/gradient.h"
#include "kernels/ledger.h"
#include "providers/models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct run {
    struct mf_model *model;
    struct mf_graph *graph;
    struct mf_backend *backend;
    struct mf_plan *plan;
    struct mf_executor *executor;
    struct mf_model_program train;
    int32_t update, norm;
    struct mf_ledger ledger;
    double noted; /* processor time up to which the ledger has it */
};

static double seconds_of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}
static double now(void) {
    return seconds_of(CLOCK_MONOTONIC);
}
/* Of all threads: what a step costs, whatever else the machine does. */
static double processor_time(void) {
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

static enum mf_status build(struct run *run, int32_t sequences, int32_t length, int32_t rank, float dropout,
                            struct mf_error *error) {
    size_t modules = mf_model_module_count(run->model);
    bool *chosen = calloc(modules, sizeof *chosen);
    enum mf_status status = mf_graph_create(&run->graph, error);
    if (status == MF_OK)
        status = mf_model_choose_modules(run->model, NULL, 0, chosen, error);
    if (status == MF_OK)
        status = mf_model_add_adapters(run->model, run->graph, 0, chosen, rank, 2.0f, dropout, error);
    free(chosen);
    if (status == MF_OK)
        status = mf_model_build(run->model, run->graph, MF_TRAIN, 0, &run->train, error);
    if (status == MF_OK)
        status = mf_gradient_build(run->graph, run->train.program, run->train.loss, error);
    if (status != MF_OK)
        return status;
    mf_program_set_bound(run->graph, run->train.program, MF_TOKENS, sequences * length);
    mf_program_set_bound(run->graph, run->train.program, MF_SEQUENCES, sequences);
    mf_program_set_bound(run->graph, run->train.program, MF_LABELLED, sequences * (length - 1));
    const struct mf_optimizer adamw = {MF_ADAMW, {0.9f, 0.999f, 1e-8f, 0.0f}};
    status = mf_graph_build_update(run->graph, 0, &adamw, &run->update, &run->norm, error);
    if (status == MF_OK)
        status = mf_plan_create(run->graph, run->backend, 0, &run->plan, error);
    if (status == MF_OK)
        status = mf_executor_create(run->graph, run->plan, run->backend, NULL, &run->executor, error);
    if (status == MF_OK)
        status = mf_model_bind(run->model, NULL, run->graph, run->executor, error);
    if (status == MF_OK)
        status = mf_executor_prepare(run->executor, error);
    return status;
}

/* A node's processor time instead of its wall time: the machine may do other things. */
static void note(void *user, const struct mf_graph *graph, int32_t program, int32_t node,
                 const int32_t *value, double seconds) {
    struct run *run = user;
    const double passed = processor_time();
    (void)seconds;
    mf_ledger_note(&run->ledger, graph, program, node, value, (passed - run->noted) / run->backend->threads);
    run->noted = passed;
}

static int32_t *input(const struct run *run, enum mf_graph_input which) {
    return mf_executor_data(run->executor, run->graph->input[which]);
}

static void fill(const struct run *run, int32_t sequences, int32_t length) {
    uint32_t random = 1;
    int32_t labelled = 0;
    for (int32_t s = 0; s < sequences; s++) {
        input(run, MF_INPUT_OFFSETS)[s] = s * length;
        for (int32_t i = 0; i < length; i++) {
            int32_t t = s * length + i;
            random = random * 1664525u + 1013904223u;
            input(run, MF_INPUT_TOKENS)[t] = (int32_t)(random >> 16) % 40000;
            input(run, MF_INPUT_POSITIONS)[t] = i;
            input(run, MF_INPUT_ROWS)[t] = s;
        }
        for (int32_t i = 0; i + 1 < length; i++, labelled++) {
            input(run, MF_INPUT_LABEL_ROWS)[labelled] = s * length + i;
            input(run, MF_INPUT_LABELS)[labelled] = input(run, MF_INPUT_TOKENS)[s * length + i + 1];
            ((float *)mf_executor_data(run->executor, run->graph->input[MF_INPUT_COEFFICIENTS]))[labelled] =
                1;
        }
    }
    input(run, MF_INPUT_OFFSETS)[sequences] = sequences * length;
    for (int32_t a = 0; a < run->graph->adapters; a++) { /* B stays 0 */
        float *value = mf_executor_data(run->executor, run->graph->adapter[a].a);
        size_t count = mf_executor_bytes(run->executor, run->graph->adapter[a].a) / sizeof *value;
        for (size_t i = 0; i < count; i++) {
            random = random * 1664525u + 1013904223u;
            value[i] = ((float)(random >> 8) * 0x1p-23f - 1.0f) * 0.04f;
        }
    }
}

static enum mf_status time_steps(struct run *run, int32_t sequences, int32_t length, int steps,
                                 bool with_ledger, struct mf_error *error) {
    fill(run, sequences, length);
    struct mf_step step = {.learning_rate = 1e-4f, .clip = 0.3f, .seed = 1};
    step.value[MF_TOKENS] = sequences * length;
    step.value[MF_SEQUENCES] = sequences;
    step.value[MF_LABELLED] = sequences * (length - 1);
    step.inverse_count = 1.0f / (float)step.value[MF_LABELLED];
    double start = 0, best = 1e30;
    enum mf_status status = MF_OK;
    if (with_ledger)
        status = mf_cpu_measure(run->backend, mf_model_compute_dtype(run->model), &run->ledger.rates, error);
    if (status != MF_OK)
        return status;
    for (int i = -1; i < steps; i++) { /* the first warms up */
        if (i == 0) {
            start = now();
            if (with_ledger)
                mf_executor_set_trace(run->executor, note, run);
        }
        step.step = (uint32_t)(i + 1);
        step.optimizer_step = (uint32_t)(i + 2);
        double from = now(), processor_from = processor_time();
        run->noted = processor_from;
        status = mf_executor_run(run->executor, run->train.program, &step, error);
        if (status != MF_OK)
            return status;
        float loss = *(float *)mf_executor_data(run->executor, run->train.loss);
        status = mf_executor_run(run->executor, run->update, &step, error);
        if (status != MF_OK)
            return status;
        double took = now() - from;
        if (with_ledger && i >= 0)
            mf_ledger_end_step(&run->ledger);
        best = i >= 0 && took < best ? took : best;
        printf("step %d: loss %.5f, gradient norm %.5f, %.1f ms, %.0f tokens/s, processor time %.1f ms\n",
               i + 1, (double)loss, (double)*(float *)mf_executor_data(run->executor, run->norm), 1e3 * took,
               step.value[MF_TOKENS] / took, 1e3 * (processor_time() - processor_from));
    }
    double seconds = now() - start;
    printf("best %.0f tokens/s, mean %.0f tokens/s\n", step.value[MF_TOKENS] / best,
           step.value[MF_TOKENS] * steps / seconds);
    if (with_ledger)
        mf_ledger_print(&run->ledger, stdout);
    return MF_OK;
}

static int32_t number(const char *text) {
    return (int32_t)strtol(text, NULL, 10);
}

int main(int count, char **argument) {
    if (count < 8) {
        fprintf(stderr,
                "usage: cpu_step MODEL_FOLDER f32|bf16 SEQUENCES LENGTH STEPS RANK DROPOUT [ledger]\n");
        return 2;
    }
    struct mf_error error = {.message = ""};
    struct run run = {0};
    bool with_ledger = count > 8;
    int32_t sequences = number(argument[3]), length = number(argument[4]), steps = number(argument[5]);
    struct mf_model_options options = {.folder = argument[1],
                                       .compute_dtype = strcmp(argument[2], "bf16") == 0 ? MF_BF16 : MF_F32};
    enum mf_status status = mf_model_open(&options, &run.model, &error);
    if (status == MF_OK)
        status = mf_cpu_create(NULL, &run.backend, &error);
    if (status == MF_OK)
        status = build(&run, sequences, length, number(argument[6]), strtof(argument[7], NULL), &error);
    if (status == MF_OK) {
        printf("%s, %d threads, %s\n", run.backend->instruction_set, run.backend->threads,
               run.backend->library);
        mf_plan_print(run.plan, stdout);
        status = time_steps(&run, sequences, length, steps, with_ledger, &error);
    }
    if (status != MF_OK)
        fprintf(stderr, "%s\n", error.message);
    mf_executor_destroy(run.executor);
    mf_plan_destroy(run.plan);
    mf_graph_destroy(run.graph);
    mf_backend_destroy(run.backend);
    mf_model_close(run.model);
    return status == MF_OK ? 0 : 1;
}
