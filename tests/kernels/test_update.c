/* Update programs on every CPU backend against PyTorch and bitsandbytes (tests/golden/make_optimizers.py). */
#include "kernels/cpu/instruction_set.h"
#include "providers/weights/safetensors.h"
#include "tests/kernels/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARAMETERS = 5, STEPS = 4 };
static const char *const parameter_name[PARAMETERS] = {"plain_small", "whole", "small", "ragged",
                                                       "plain_large"};

static struct mf_safetensors *golden;

static int open_golden(void **state) {
    struct mf_error error;
    (void)state;
    return mf_safetensors_open_file("tests/golden/optimizers.safetensors", &golden, &error) != MF_OK;
}

static int close_golden(void **state) {
    (void)state;
    mf_safetensors_close(golden);
    return 0;
}

static const struct mf_stored_tensor *golden_of(const char *name, const char *what) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", name, what);
    const struct mf_stored_tensor *tensor = mf_safetensors_find(golden, key);
    if (!tensor)
        fail_msg("there is no golden %s", key);
    return tensor;
}

static int64_t elements_of(const char *name) {
    return (int64_t)(golden_of(name, "start")->bytes / sizeof(float));
}

struct run {
    struct mf_graph *graph;
    struct mf_plan *plan;
    struct mf_executor *executor;
    struct mf_backend *backend;
    const struct mf_bucket *bucket;
    int32_t id[PARAMETERS], update, norm;
};

/* The oracle, then the instruction sets that this processor has. */
static bool open_backend(int index, struct mf_backend **backend) {
    static const char *const names[] = {"sse", "avx2", "avx512"};
    struct mf_error error;
    if (index == 0)
        return mf_cpu_reference_create(backend, &error) == MF_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (mf_instruction_set_find(names[i]).kernels && --index == 0) {
            const struct mf_cpu_options options = {.instruction_set = names[i]};
            return mf_cpu_create(&options, backend, &error) == MF_OK;
        }
    return false;
}

static void begin(struct run *run, struct mf_backend *backend, enum mf_optimizer_kind kind) {
    const struct mf_optimizer optimizer = {.kind = kind, .adamw = {0.9f, 0.999f, 1e-8f, 0.01f}};
    struct mf_error error;
    *run = (struct run){.backend = backend};
    require_ok(mf_graph_create(&run->graph, &error), &error);
    for (int i = 0; i < PARAMETERS; i++)
        require_ok(mf_graph_parameter(
                       run->graph, 0, parameter_name[i], 1, (int64_t[]){elements_of(parameter_name[i])},
                       strncmp(parameter_name[i], "plain", 5) ? 0 : MF_TENSOR_NO_DECAY, &run->id[i], &error),
                   &error);
    require_ok(mf_graph_build_update(run->graph, 0, &optimizer, &run->update, &run->norm, &error), &error);
    require_ok(mf_plan_create(run->graph, backend, 0, &run->plan, &error), &error);
    require_ok(mf_executor_create(run->graph, run->plan, backend, NULL, &run->executor, &error), &error);
    require_ok(mf_executor_prepare(run->executor, &error), &error);
    run->bucket = &run->graph->bucket[0];
    for (int i = 0; i < PARAMETERS; i++)
        memcpy(mf_executor_data(run->executor, run->id[i]), golden_of(parameter_name[i], "start")->data,
               golden_of(parameter_name[i], "start")->bytes);
}

static void end(struct run *run) {
    mf_executor_destroy(run->executor);
    mf_plan_destroy(run->plan);
    mf_graph_destroy(run->graph);
    mf_backend_destroy(run->backend);
}

static void step(struct run *run, int number) {
    struct mf_error error;
    struct mf_step values = {.learning_rate =
                                 ((const float *)mf_safetensors_find(golden, "rates")->data)[number],
                             .optimizer_step = (uint32_t)number + 1};
    for (int i = 0; i < PARAMETERS; i++) {
        const int64_t n = elements_of(parameter_name[i]);
        const float *from = (const float *)golden_of(parameter_name[i], "gradients")->data + number * n;
        float *to = mf_executor_data(run->executor, mf_gradient_of_parameter(run->graph, run->id[i]));
        memcpy(to, from, (size_t)n * sizeof *to);
    }
    require_ok(mf_executor_run(run->executor, run->update, &values, &error), &error);
}

/* How far the steps of each parameter are from those of the golden values, relative to the greatest. */
static void check_parameters(struct run *run, const char *optimizer, int number, double bound) {
    for (int i = 0; i < PARAMETERS; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s.%d", optimizer, number);
        const float *expected = golden_of(parameter_name[i], key)->data,
                    *start = golden_of(parameter_name[i], "start")->data,
                    *made = mf_executor_data(run->executor, run->id[i]);
        double worst = 0, moved = 0;
        for (int64_t j = 0; j < elements_of(parameter_name[i]); j++) {
            worst = fmax(worst, fabs((double)made[j] - (double)expected[j]));
            moved = fmax(moved, fabs((double)expected[j] - (double)start[j]));
        }
        if (!(moved > 0 && worst <= bound))
            fail_msg("%s %s %s: %g away after a way of %g", run->backend->instruction_set, parameter_name[i],
                     key, worst, moved);
    }
}

static void check_padding(struct run *run) {
    const float *parameter = mf_executor_data(run->executor, run->bucket->parameter);
    double all = 0, own = 0;
    for (int64_t i = 0; i < run->bucket->elements; i++)
        all += fabs((double)parameter[i]);
    for (int i = 0; i < PARAMETERS; i++)
        for (int64_t j = 0; j < elements_of(parameter_name[i]); j++)
            own += fabs((double)((float *)mf_executor_data(run->executor, run->id[i]))[j]);
    assert_true(fabs(all - own) <= 1e-9 * all);
}

static void run_steps(struct run *run, const char *optimizer, double bound) {
    for (int number = 0; number < STEPS; number++) {
        step(run, number);
        if (number == 0)
            check_parameters(run, optimizer, 1, bound);
    }
    check_parameters(run, optimizer, STEPS, bound);
    check_padding(run);
}

static void test_adamw(void **state) {
    struct mf_backend *backend;
    (void)state;
    for (int i = 0; open_backend(i, &backend); i++) {
        struct run run;
        begin(&run, backend, MF_ADAMW);
        run_steps(&run, "adamw", 1e-6);
        assert_int_equal(run.plan->storage_bytes[MF_OPTIMIZER], 2 * 4 * run.bucket->elements);
        end(&run);
    }
}

static void test_sgd(void **state) {
    struct mf_backend *backend;
    (void)state;
    for (int i = 0; open_backend(i, &backend); i++) {
        struct run run;
        begin(&run, backend, MF_SGD);
        run_steps(&run, "sgd", 1e-6);
        assert_int_equal(run.plan->storage_bytes[MF_OPTIMIZER], 0);
        end(&run);
    }
}

/* Where a large parameter's elements lie among the 8-bit moments. */
static int64_t code_of(const struct run *run, int parameter) {
    const int64_t offset = mf_graph_tensor(run->graph, run->id[parameter])->view_offset;
    const int64_t small = run->bucket->end[MF_SMALL_DECAYED] - run->bucket->end[MF_LARGE_DECAYED];
    return offset < run->bucket->end[MF_LARGE_DECAYED] ? offset : offset - small;
}

static void check_codes(struct run *run, int parameter, enum mf_optimizer_state state, const char *what) {
    const uint8_t *expected = golden_of(parameter_name[parameter], what)->data,
                  *made = (uint8_t *)mf_executor_data(run->executor, run->bucket->state[state]) +
                          code_of(run, parameter);
    for (int64_t j = 0; j < elements_of(parameter_name[parameter]); j++)
        if (made[j] != expected[j])
            fail_msg("%s %s.%s: %d at %lld, not %d", run->backend->instruction_set, parameter_name[parameter],
                     what, made[j], (long long)j, expected[j]);
}

/* bitsandbytes' operators on the CPU take 1 - beta2 in double, its kernels and ours in f32: 0.00100005. */
static void check_scales(struct run *run, int parameter, int which, const char *what) {
    const struct mf_stored_tensor *expected = golden_of(parameter_name[parameter], what);
    const float *made = (float *)mf_executor_data(run->executor, run->bucket->state[MF_MOMENT_SCALES]) +
                        code_of(run, parameter) / MF_BUCKET_BLOCK * 2 + which;
    for (int64_t j = 0; j < expected->dim[0]; j++) {
        const double value = (double)((const float *)expected->data)[j];
        if (!(fabs((double)made[2 * j] - value) <= 1e-4 * value))
            fail_msg("%s %s.%s[%lld]: %g, not %g", run->backend->instruction_set, parameter_name[parameter],
                     what, (long long)j, (double)made[2 * j], value);
    }
}

/* Codes are equal, one by one; a moment of a tensor below 4,096 elements is no code. */
static void test_adamw_8bit(void **state) {
    struct mf_backend *backend;
    (void)state;
    for (int i = 0; open_backend(i, &backend); i++) {
        struct run run;
        begin(&run, backend, MF_ADAMW_8BIT);
        run_steps(&run, "adamw_8bit", 1e-6);
        for (int p = 0; p < PARAMETERS; p++) {
            if (elements_of(parameter_name[p]) < MF_BUCKET_LARGE)
                continue;
            check_codes(&run, p, MF_FIRST_MOMENT_CODE, "state1");
            check_codes(&run, p, MF_SECOND_MOMENT_CODE, "state2");
            check_scales(&run, p, 0, "absmax1");
            check_scales(&run, p, 1, "absmax2");
        }
        end(&run);
    }
}

/* One byte a moment, and a scale of four for each 256 of them. */
static void test_memory_of_8_bits(void **state) {
    struct mf_backend *backend;
    struct run run;
    (void)state;
    assert_true(open_backend(0, &backend));
    begin(&run, backend, MF_ADAMW_8BIT);
    const int64_t small = 2 * 256; /* 100 and 40 elements, each in a part of its own */
    const int64_t large = run.bucket->elements - small;
    assert_int_equal(large, 4096 + 17 * 256 + 4608);
    const int64_t bytes = 2 * large + large / 256 * 8 + 2 * 4 * small;
    assert_true((int64_t)run.plan->storage_bytes[MF_OPTIMIZER] >= bytes);
    assert_true((int64_t)run.plan->storage_bytes[MF_OPTIMIZER] < bytes + 5 * 64); /* alignment */
    end(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_adamw), cmocka_unit_test(test_sgd),
                                       cmocka_unit_test(test_adamw_8bit),
                                       cmocka_unit_test(test_memory_of_8_bits)};
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
