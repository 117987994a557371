/* A supervisor whose thread cannot be made leaves nothing behind that another thread might hold. */
#include "worker/supervisor.h"

#include "common/files.h"
#include "worker/job.h"
#include "worker/worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

static struct mf_worker worker;
static size_t jobs_seen;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                          void *argument);
/* NOLINTNEXTLINE(readability-non-const-parameter): the form of what it stands for */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                          void *argument) {
    (void)thread, (void)attributes, (void)start, (void)argument;
    jobs_seen = mf_job_table_count(worker.jobs); /* what the recorder could take up now */
    return EAGAIN;
}

static size_t entries(const char *folder) {
    struct dirent **entry = NULL;
    const int count = scandir(folder, &entry, NULL, NULL);
    assert_true(count >= 2);
    for (int i = 0; i < count; i++)
        free(entry[i]);
    free(entry);
    return (size_t)count - 2;
}

static void a_thread_that_cannot_be_made(void **state) {
    (void)state;
    char folder[] = "/tmp/modelforge-supervisor.XXXXXX", runs[64];
    struct mf_error error;
    assert_non_null(mkdtemp(folder));
    struct mf_settings settings = {
        .work_dir = folder, .spool_memory_bytes = 1 << 16, .spool_file_bytes = 1 << 16};
    worker.settings = &settings;
    assert_int_equal(mf_job_table_new(&worker.jobs, &error), MF_OK);
    struct mf_claim claim = {.attempt_id = "00000000-0000-4000-8000-000000000001",
                             .tenant = strdup("default"),
                             .request_id = strdup("r"),
                             .config = strdup("{\"seed\": 1}")};
    struct mf_gpu_lock *gpu = calloc(1, sizeof *gpu);
    const int lock_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_non_null(gpu);
    *gpu = (struct mf_gpu_lock){.uuid = "GPU-a", .fd = lock_fd};
    assert_int_not_equal(mf_supervisor_start(&worker, &claim, gpu, 1, &error), MF_OK);
    assert_int_equal(fcntl(lock_fd, F_GETFD), -1); /* another job may have the GPU */
    assert_non_null(strstr(error.message, "supervisor thread"));
    assert_int_equal(jobs_seen, 0);
    assert_int_equal(mf_job_table_count(worker.jobs), 0);
    snprintf(runs, sizeof runs, "%s/runs", folder);
    assert_int_equal(entries(runs), 0);
    mf_job_table_free(worker.jobs);
    assert_int_equal(mf_tree_remove(folder, &error), MF_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_thread_that_cannot_be_made)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
