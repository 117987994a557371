/* Preparing a job: steps, counts, and a plan that gives way to little memory without changing a number. */
#include "worker/trainer/job.h"

#include "kernels/cpu/backend.h"
#include "worker/trainer/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char rows[] = "/tmp/modelforge-job-rows-XXXXXX", request[] = "/tmp/modelforge-job-XXXXXX";

static int write_files(void **state) {
    (void)state;
    FILE *file = fdopen(mkstemp(rows), "w");
    for (int i = 0; i < 40; i++)
        fprintf(file, "{\"prompt\":\"Number %d\",\"completion\":\"%.*s\"}\n", i, 1 + i % 30,
                "abcdefghijklmnopqrstuvwxyzabcd");
    fclose(file);
    file = fdopen(mkstemp(request), "w");
    fprintf(file,
            "{\"task\":\"text-generation\",\"model_name\":\"tests/golden/models/"
            "tied-gqa\",\"dataset\":\"%s\",\"lora_dropout\":0.1,"
            "\"per_device_train_batch_size\":3,\"gradient_accumulation_steps\":3,\"num_train_epochs\":2.5,"
            "\"learning_rate\":0.01,\"warmup_ratio\":0.1}",
            rows);
    fclose(file);
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    return unlink(rows) | unlink(request);
}

static enum mf_status prepare(struct mf_job *job, size_t budget_bytes, struct mf_error *error) {
    enum mf_status status = mf_job_open(request, "/tmp/unused", NULL, NULL, job, error);
    if (status != MF_OK)
        fail_msg("%s", error->message);
    job->budget_bytes = budget_bytes;
    return mf_job_prepare(job, error);
}

static void prepare_well(struct mf_job *job, size_t budget_bytes) {
    struct mf_error error;
    if (prepare(job, budget_bytes, &error) != MF_OK)
        fail_msg("%s", error.message);
}

static void test_counts(void **state) {
    (void)state;
    struct mf_job job;
    prepare_well(&job, 0);
    assert_int_equal(job.split.train_count, 32);
    assert_int_equal(job.split.eval_count, 8);
    assert_int_equal(job.total_steps, 10); /* ceil(2.5 * ceil(ceil(32 / 3) / 3)) */
    assert_int_equal(job.warmup_steps, 1);
    assert_int_equal(job.trainable_parameters,
                     29696); /* r 16 on (64,64)x2, (32,64)x2, (96,64)x2, (64,96), 2 layers */
    assert_int_equal(job.memory.recompute, MF_RECOMPUTE_NONE);
    assert_true(job.pass_tokens > job.samples.longest);
    mf_job_close(&job);
}

static void test_too_many_steps(void **state) {
    (void)state;
    struct mf_job job;
    struct mf_error error;
    assert_int_equal(mf_job_open(request, "/tmp/unused", NULL, NULL, &job, &error), MF_OK);
    job.request.num_train_epochs = 25000000; /* 4 steps each */
    assert_int_equal(mf_job_prepare(&job, &error), MF_OK);
    mf_job_close(&job);
    assert_int_equal(mf_job_open(request, "/tmp/unused", NULL, NULL, &job, &error), MF_OK);
    job.request.num_train_epochs = 25000001;
    assert_int_equal(mf_job_prepare(&job, &error), MF_ERROR_CONFLICTING_FIELDS);
    assert_string_equal(error.message,
                        "num_train_epochs: 2.5e+07 epochs of 32 rows are 100000004 steps, more than "
                        "100000000; ask for fewer epochs or set max_steps");
    mf_job_close(&job);
}

/* A plan, and the losses of its first three steps. */
struct trained {
    double loss[3];
    int64_t bytes;
    struct mf_memory_choice memory;
    int32_t pass;
    char sha256[65];
};

static struct trained train_prepared(struct mf_job *prepared) {
    struct mf_job job = *prepared;
    struct mf_error error;
    struct trained trained = {0};
    for (int64_t step = 1; step <= 3; step++) {
        struct mf_window window;
        struct mf_step_record record;
        mf_sampler_next(&job.sampler, &window);
        if (mf_loop_step(&job, &window, step, &record, &error) != MF_OK)
            fail_msg("%s", error.message);
        trained.loss[step - 1] = record.loss;
    }
    trained.bytes = mf_runtime_managed_bytes(&job.runtime);
    trained.memory = job.memory;
    trained.pass = job.pass_tokens;
    memcpy(trained.sha256, job.runtime.plan->record_sha256, sizeof trained.sha256);
    /* Everything is counted before it is allocated. */
    assert_int_equal(job.runtime.plan->copy_bytes, mf_executor_prepared_bytes(job.runtime.executor));
    assert_true(job.runtime.plan->copy_bytes > 0);
    assert_true(!job.budget_bytes || (size_t)trained.bytes <= job.budget_bytes);
    mf_job_close(&job);
    return trained;
}

static struct trained train(size_t budget_bytes) {
    struct mf_job job;
    prepare_well(&job, budget_bytes);
    return train_prepared(&job);
}

/* Less and less memory: first what is cheap is computed again, then passes shrink to the longest row, then
 * dearer things are computed again, then nothing fits. */
static void test_little_memory(void **state) {
    (void)state;
    const struct trained wide = train(0);
    assert_int_equal(wide.memory.recompute, MF_RECOMPUTE_NONE);
    struct trained last = train((size_t)wide.bytes - 1);
    assert_int_equal(last.memory.recompute, MF_RECOMPUTE_CHEAP);
    assert_int_equal(last.pass, wide.pass);
    assert_memory_equal(wide.loss, last.loss, sizeof wide.loss); /* the same bits */
    assert_string_equal(wide.sha256, last.sha256);               /* of one numeric plan */
    struct trained narrow = train((size_t)last.bytes - 1);
    assert_true(narrow.pass < last.pass);
    assert_string_not_equal(narrow.sha256, wide.sha256);
    for (int i = 0; i < 3; i++) /* dropout goes by row, not by pass; only rounding differs */
        assert_true(wide.loss[i] - narrow.loss[i] < 2e-3 * wide.loss[i] &&
                    narrow.loss[i] - wide.loss[i] < 2e-3 * wide.loss[i]);
    while (last.memory.recompute <= MF_RECOMPUTE_CHEAP) {
        last = narrow;
        narrow = train((size_t)last.bytes - 1);
    }
    assert_int_equal(narrow.pass, last.pass);
    assert_memory_equal(narrow.loss, last.loss, sizeof narrow.loss);
    assert_string_equal(narrow.sha256, last.sha256);
}

static size_t gibibytes(double value) {
    return (size_t)(value * 1073741824);
}

/* The refusal says what would fit; it does. */
static void test_refusal_says_what_would_fit(void **state) {
    (void)state;
    struct mf_job job;
    struct mf_error error;
    double needed = 0, weights = 0, allowed = 0, budget = 0;
    int length = 0, longest = 0;
    assert_int_equal(prepare(&job, 4096, &error), MF_ERROR_PLAN_TOO_LARGE);
    assert_null(strstr(error.message, "max_seq_length")); /* no row is short enough */
    mf_job_close(&job);
    prepare_well(&job, 0);
    const size_t fixed = mf_plan_bytes(job.runtime.plan) - job.runtime.plan->program_bytes;
    mf_job_close(&job);
    assert_int_equal(prepare(&job, fixed + 300000, &error), MF_ERROR_PLAN_TOO_LARGE);
    assert_int_equal(
        sscanf(error.message, /* NOLINT(cert-err34-c): our own text, compared by its numbers */
               "the smallest plan of this job needs %lf GiB (%lf for weights and their copies), "
               "%lf may be used; any of these would fit: memory_budget_gib %lf, max_seq_length %d "
               "(the longest row has %d tokens)",
               &needed, &weights, &allowed, &budget, &length, &longest),
        6);
    assert_int_equal(longest, job.samples.longest);
    mf_job_close(&job);
    prepare_well(&job, gibibytes(budget));
    mf_job_close(&job);
    assert_int_equal(mf_job_open(request, "/tmp/unused", NULL, NULL, &job, &error), MF_OK);
    job.request.max_seq_length.set = true;
    job.request.max_seq_length.value = length;
    job.budget_bytes = fixed + 300000;
    if (mf_job_prepare(&job, &error) != MF_OK)
        fail_msg("%s", error.message);
    mf_job_close(&job);
}

/* The request's own budget, and what it may not do. */
static void test_request_limits_memory(void **state) {
    (void)state;
    struct mf_job job;
    struct mf_error error;
    const struct trained wide = train(0);
    assert_int_equal(mf_job_open(request, "/tmp/unused", NULL, NULL, &job, &error), MF_OK);
    job.request.memory_budget_gib.set = true;
    job.request.memory_budget_gib.value = (double)(wide.bytes - 1) / 1073741824;
    job.request.gradient_checkpointing = false;
    assert_int_equal(mf_job_prepare(&job, &error), MF_OK);
    assert_int_equal(job.memory.recompute, MF_RECOMPUTE_NONE); /* forbidden: a smaller pass instead */
    assert_true(job.pass_tokens < wide.pass && mf_runtime_managed_bytes(&job.runtime) < wide.bytes);
    mf_job_close(&job);
}

/* ---- weights in few bits ---- */

struct few_bits {
    const char *provider, *form;
    bool nested, bf16;
};

static void set_text(char **field, const char *text) {
    free(*field);
    *field = strdup(text);
}

static void open_few_bits(struct mf_job *job, const struct few_bits *bits, size_t budget_bytes) {
    struct mf_error error;
    assert_int_equal(mf_job_open(request, "/tmp/unused", NULL, NULL, job, &error), MF_OK);
    set_text(&job->request.provider, bits->provider);
    job->request.use_8bit = !strcmp(bits->form, "int8");
    job->request.use_4bit.set = job->request.use_4bit.value = !job->request.use_8bit;
    if (!job->request.use_8bit) {
        set_text(&job->request.strategy, "qlora");
        set_text(&job->request.bnb_4bit_quant_type, bits->form);
        assert_int_equal(mf_strategy_find("qlora", &job->strategy, &error), MF_OK);
    }
    job->request.use_nested_quant = bits->nested;
    job->request.bf16.set = true;
    job->request.bf16.value = bits->bf16;
    job->budget_bytes = budget_bytes;
    if (mf_job_prepare(job, &error) != MF_OK)
        fail_msg("%s", error.message);
}

/* Every quantised weight is dequantised once in forward and at most once after it, and is itself in no
 * memory. */
static void check_dequantized_once(const struct mf_job *job) {
    const struct mf_graph *graph = job->runtime.graph;
    const struct mf_program *train = graph->program[job->programs.train.program];
    assert_true(graph->quantizeds > 0);
    for (int32_t row = 0; row < graph->quantizeds; row++) {
        int forward = 0, later = 0;
        for (int32_t n = 0; n < train->nodes; n++)
            if (train->node[n].op == MF_OP_DEQUANTIZE && train->node[n].in[0] == graph->quantized[row].codes)
                *(train->node[n].phase == MF_FORWARD ? &forward : &later) += 1;
        assert_int_equal(forward, 1);
        assert_true(later <= 1);
        assert_false(mf_executor_reads(job->runtime.executor, graph->quantized[row].weight));
    }
}

/* Where memory is short weights stay in few bits: less memory, one numeric plan, the same bits. */
static void test_weights_stay_quantized(void **state) {
    static const struct few_bits forms[] = {
        {"huggingface", "nf4", true, true},   {"huggingface", "nf4", false, false},
        {"huggingface", "int8", false, true}, {"unsloth", "nf4", true, false},
        {"unsloth", "fp4", true, true},       {"unsloth", "int8", false, false}};
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct mf_job job;
        if (forms[i].bf16 && mf_cpu_preferred_dtype() != MF_BF16)
            continue;
        open_few_bits(&job, &forms[i], 0);
        const bool dequantizes = job.runtime.backend->dequantizes;
        assert_false(job.memory.quantized);
        const size_t weights = job.runtime.plan->weight_bytes;
        const struct trained wide = train_prepared(&job);
        size_t budget = (size_t)wide.bytes - 1;
        for (int tries = 0; tries < 3; tries++) { /* at first what is cheap is computed again */
            open_few_bits(&job, &forms[i], budget);
            if (job.memory.quantized || !dequantizes)
                break;
            budget = (size_t)mf_runtime_managed_bytes(&job.runtime) - 1;
            mf_job_close(&job);
        }
        assert_int_equal(job.memory.quantized, dequantizes);
        if (dequantizes) {
            check_dequantized_once(&job);
            assert_true(job.runtime.plan->weight_bytes < weights);
        }
        const struct trained few = train_prepared(&job);
        assert_true(few.bytes < wide.bytes);
        if (!dequantizes)
            continue;
        assert_int_equal(few.pass, wide.pass);
        assert_memory_equal(few.loss, wide.loss, sizeof wide.loss);
        assert_string_equal(few.sha256, wide.sha256);
    }
}

/* ---- the driver's word on memory ---- */

static size_t in_use;

static struct mf_memory_use fake_use(const struct mf_backend *backend) {
    (void)backend;
    return (struct mf_memory_use){.bytes = in_use, .of_process = true};
}

/* What training.json says of a GPU that at the end has `more` bytes than after the first step. */
static void check_device_memory(size_t more, bool as_planned) {
    static const struct mf_backend_memory memory = {.use = fake_use};
    struct mf_job job;
    prepare_well(&job, 0);
    struct mf_backend *const own = job.runtime.backend;
    struct mf_backend device = *own;
    const size_t planned = (size_t)mf_runtime_managed_bytes(&job.runtime), beside = 500 << 20;
    mf_device_memory_warm(&job); /* host memory: nothing to tell */
    mf_device_memory_finish(&job);
    json_t *said = mf_device_memory_json(&job.device_memory);
    assert_true(json_is_null(said));
    device.memory = &memory;
    job.runtime.backend = &device;
    in_use = planned + beside;
    mf_device_memory_warm(&job);
    in_use += more;
    mf_device_memory_warm(&job); /* later steps change nothing */
    mf_device_memory_finish(&job);
    said = mf_device_memory_json(&job.device_memory);
    assert_int_equal(json_integer_value(json_object_get(said, "planned_bytes")), planned);
    assert_int_equal(json_integer_value(json_object_get(said, "beside_bytes")), beside);
    assert_int_equal(json_integer_value(json_object_get(said, "used_bytes")), planned + beside + more);
    assert_int_equal(json_is_true(json_object_get(said, "as_planned")), as_planned);
    assert_string_equal(json_string_value(json_object_get(said, "measured_of")), "process");
    json_decref(said);
    job.runtime.backend = own;
    mf_job_close(&job);
}

static void test_device_memory_is_held_against_the_plan(void **state) {
    (void)state;
    check_device_memory(0, true);
    check_device_memory(64 << 20, true);
    check_device_memory((64 << 20) + 1, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_too_many_steps),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_refusal_says_what_would_fit),
        cmocka_unit_test(test_request_limits_memory),
        cmocka_unit_test(test_weights_stay_quantized),
        cmocka_unit_test(test_device_memory_is_held_against_the_plan),
    };
    return cmocka_run_group_tests(tests, write_files, remove_files);
}
