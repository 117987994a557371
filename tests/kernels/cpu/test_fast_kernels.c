/* The cases of op_cases.c on every instruction set of this processor, and what only the fast CPU backend
 * promises. */
#include "kernels/cpu/instruction_set.h"
#include "tests/kernels/kernel_bench.h"
#include "tests/kernels/op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define DIM(...) ((const int64_t[]){__VA_ARGS__})

/* Those that this processor has, in order. */
static struct mf_backend *open_backend(int index) {
    static const char *const names[] = {"sse", "avx2", "avx512"};
    struct mf_backend *backend;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (mf_instruction_set_find(names[i]).kernels && index-- == 0) {
            const struct mf_cpu_options options = {.instruction_set = names[i]};
            assert_int_equal(mf_cpu_create(&options, &backend, NULL), MF_OK);
            return backend;
        }
    return NULL;
}

/* What the data says is checked before memory is touched. */
static void test_bad_values_are_named(void **state) {
    (void)state;
    const int32_t bad_rows[] = {0, 33}, labels[] = {0, 100}, good_rows[] = {0, 32};
    for (int which = 0; which < 2; which++) {
        struct mf_backend *backend;
        struct mf_error error;
        struct bench bench;
        assert_int_equal(mf_cpu_create(NULL, &backend, &error), MF_OK);
        bench_begin(&bench, MF_OP_HEAD);
        bench.node.a.head = (struct mf_head_attributes){1, 0, 4, false};
        bench_input(&bench, 0, MF_F32, 2, DIM(33, 16), 0);
        bench_input(&bench, 1, MF_F32, 2, DIM(100, 16), 0);
        bench_integers(&bench, 2, which ? good_rows : bad_rows, 2);
        bench_integers(&bench, 3, labels, 2);
        bench_output(&bench, 0, MF_F32, 1, DIM(2), 0);
        bench_output(&bench, 1, MF_F32, 1, DIM(2), 0);
        bench_workspace(&bench, 2, DIM(4, 100));
        assert_int_equal(bench_try(&bench, backend, MF_F32, &error), MF_ERROR_INTERNAL);
        assert_string_equal(error.message, which ? "head: label 100 at 1 is not in 0..99"
                                                 : "head: row 33 at 1 is not in 0..32");
        bench_end(&bench);
        mf_backend_destroy(backend);
    }
}

static void test_unknown_instruction_set_is_refused(void **state) {
    (void)state;
    struct mf_cpu_options options = {.instruction_set = "mmx"};
    struct mf_backend *backend;
    struct mf_error error;
    assert_int_equal(mf_cpu_create(&options, &backend, &error), MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_null(backend);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_values_are_named),
        cmocka_unit_test(test_unknown_instruction_set_is_refused),
    };
    op_cases_use(open_backend);
    const int failed = op_cases_run();
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
