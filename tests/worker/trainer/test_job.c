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
    assert_false(job.recompute);
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

/* The losses of three steps, and what the plan took. */
static int64_t train(size_t budget_bytes, double loss[3], bool *recompute, int32_t *pass) {
    struct mf_job job;
    struct mf_error error;
    prepare_well(&job, budget_bytes);
    for (int64_t step = 1; step <= 3; step++) {
        struct mf_window window;
        struct mf_step_record record;
        mf_sampler_next(&job.sampler, &window);
        if (mf_loop_step(&job, &window, step, &record, &error) != MF_OK)
            fail_msg("%s", error.message);
        loss[step - 1] = record.loss;
    }
    const int64_t bytes = mf_runtime_managed_bytes(&job.runtime);
    *recompute = job.recompute;
    *pass = job.pass_tokens;
    assert_true(!budget_bytes || (size_t)bytes <= budget_bytes);
    mf_job_close(&job);
    return bytes;
}

static void test_little_memory(void **state) {
    (void)state;
    double wide[3], again[3], narrow[3];
    bool recompute;
    int32_t pass, less;
    struct mf_job job;
    struct mf_error error;
    const int64_t bytes = train(0, wide, &recompute, &pass);
    assert_false(recompute);
    const int64_t recomputed = train((size_t)bytes - 1, again, &recompute, &less);
    assert_true(recompute);
    assert_int_equal(less, pass);
    assert_memory_equal(wide, again, sizeof wide); /* the same bits */
    train((size_t)recomputed - 1, narrow, &recompute, &less);
    assert_true(less < pass);
    for (int i = 0; i < 3; i++) /* dropout goes by row, not by pass; only rounding differs */
        assert_true(wide[i] - narrow[i] < 2e-3 * wide[i] && narrow[i] - wide[i] < 2e-3 * wide[i]);
    assert_int_equal(prepare(&job, 4096, &error), MF_ERROR_PLAN_TOO_LARGE);
    mf_job_close(&job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_too_many_steps),
        cmocka_unit_test(test_little_memory),
    };
    return cmocka_run_group_tests(tests, write_files, remove_files);
}
