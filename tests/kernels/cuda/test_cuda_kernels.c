/* The cases of op_cases.c on the first GPU, and what only the CUDA backend promises. Skipped where there is
 * no GPU. */
#include "kernels/cuda/backend.h"
#include "tests/kernels/kernel_bench.h"
#include "tests/kernels/op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define DIM(...) ((const int64_t[]){__VA_ARGS__})

enum { SKIPPED = 77 };

static struct mf_backend *open_backend(int index) {
    struct mf_backend *backend;
    struct mf_error error;
    if (index > 0)
        return NULL;
    if (mf_cuda_create(0, &backend, &error) != MF_OK)
        fail_msg("%s", error.message);
    return backend;
}

static void test_a_bad_value_is_named(void **state) {
    struct mf_backend *backend = open_backend(0);
    const int32_t tokens[] = {3, 100, 99};
    struct mf_error error;
    struct bench bench;
    (void)state;
    for (int again = 0; again < 2; again++) { /* a fault is told once */
        bench_begin(&bench, MF_OP_EMBEDDING);
        bench.node.a.embedding.scale = 1;
        bench_input(&bench, 0, MF_F32, 2, DIM(again ? 101 : 100, 8), 0);
        bench_integers(&bench, 1, tokens, 3);
        bench_output(&bench, 0, MF_F32, 2, DIM(3, 8), 0);
        assert_int_equal(bench_try(&bench, backend, MF_F32, &error), again ? MF_OK : MF_ERROR_INTERNAL);
        if (!again)
            assert_string_equal(error.message, "embedding: 100 at 1 is not in 0..99");
        bench_end(&bench);
    }
    mf_backend_destroy(backend);
}

static void test_another_device_is_refused(void **state) {
    struct mf_backend *backend;
    struct mf_error error;
    (void)state;
    assert_int_equal(mf_cuda_create(4096, &backend, &error), MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_null(backend);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_bad_value_is_named),
                                       cmocka_unit_test(test_another_device_is_refused)};
    const char *reason;
    if (mf_cuda_device_count(&reason) == 0) {
        printf("no GPU: %s\n", reason);
        return SKIPPED;
    }
    op_cases_use(open_backend);
    const int failed = op_cases_run();
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
