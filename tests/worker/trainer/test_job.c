/* Preparing a job: steps, counts, and a plan that gives way to little memory without changing a number. */
#include "worker/trainer/job.h"

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

static struct trained train(size_t budget_bytes) {
    struct mf_job job;
    struct mf_error error;
    struct trained trained = {0};
    prepare_well(&job, budget_bytes);
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
    assert_true(!budget_bytes || (size_t)trained.bytes <= budget_bytes);
    mf_job_close(&job);
    return trained;
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_too_many_steps),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_refusal_says_what_would_fit),
        cmocka_unit_test(test_request_limits_memory),
    };
    return cmocka_run_group_tests(tests, write_files, remove_files);
}
