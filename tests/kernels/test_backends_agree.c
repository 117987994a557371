/* The same decoder on every backend: loss and all gradients of the fast CPU path, and of the first GPU where
 * there is one, against the oracle, in the planned arena with its in-place ops, poisoned. And each against
 * itself: bit for bit. */
#include <math.h>
#include <string.h>

#include "fixture.h"
#include "kernels/cuda/backend.h"
#include "kernels/passes/expand.h"
#include "kernels/passes/recompute.h"

enum { LAYERS = 2, ELEMENTS = 2048 };

struct result {
    double loss;
    float gradient[ELEMENTS];
    int64_t elements;
};

static void train(struct mf_backend *backend, enum mf_dtype dtype, enum mf_recompute recompute,
                  struct result *result) {
    struct fixture fixture;
    struct mf_error error;
    fixture_begin_on(&fixture, backend, dtype);
    fixture_adapters(&fixture, 0, LAYERS, 0.25f);
    int32_t loss = fixture_decoder(&fixture.builder, LAYERS);
    require_ok(mf_pass_expand(fixture.graph, fixture.program, &error), &error);
    require_ok(mf_gradient_build(fixture.graph, fixture.program, loss, &error), &error);
    require_ok(mf_pass_recompute(fixture.graph, fixture.program, recompute, &error), &error);
    fixture_realize(&fixture, &(struct mf_executor_options){.poison = true});
    for (int32_t i = 0; i < fixture.graph->adapters; i++) {
        fixture_fill(&fixture, fixture.graph->adapter[i].a);
        fixture_fill(&fixture, fixture.graph->adapter[i].b);
    }
    /* Managed bytes are counted completely before anything is allocated. */
    assert_int_equal(fixture.plan->copy_bytes, mf_executor_prepared_bytes(fixture.executor));
    fixture_run(&fixture);
    result->loss = (double)fixture_data(&fixture, loss)[0];
    result->elements = fixture.graph->bucket[0].elements;
    assert_true(result->elements <= ELEMENTS);
    memcpy(result->gradient, fixture_data(&fixture, fixture.graph->bucket[0].gradient),
           (size_t)result->elements * sizeof *result->gradient);
    fixture_end(&fixture);
}

static struct mf_backend *reference(void) {
    struct mf_backend *backend;
    struct mf_error error;
    require_ok(mf_cpu_reference_create(&backend, &error), &error);
    return backend;
}

static struct mf_backend *fast(void) {
    struct mf_backend *backend;
    struct mf_error error;
    require_ok(mf_cpu_create(&(struct mf_cpu_options){.threads = 2}, &backend, &error), &error);
    return backend;
}

static struct mf_backend *cuda(void) {
    struct mf_backend *backend;
    struct mf_error error;
    require_ok(mf_cuda_create(0, &backend, &error), &error);
    return backend;
}

/* The one under test. */
static struct mf_backend *(*candidate)(void);

/* ||a - b|| / ||b|| */
static double distance(const struct result *a, const struct result *b) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < b->elements; i++) {
        double d = (double)a->gradient[i] - (double)b->gradient[i];
        difference += d * d;
        norm += (double)b->gradient[i] * (double)b->gradient[i];
    }
    assert_true(norm > 1e-2);
    return sqrt(difference / norm);
}

static double cosine(const struct result *a, const struct result *b) {
    double product = 0, left = 0, right = 0;
    for (int64_t i = 0; i < b->elements; i++) {
        product += (double)a->gradient[i] * (double)b->gradient[i];
        left += (double)a->gradient[i] * (double)a->gradient[i];
        right += (double)b->gradient[i] * (double)b->gradient[i];
    }
    return product / sqrt(left * right);
}

static void test_f32_agrees_with_the_oracle(void **state) {
    static struct result oracle, quick;
    (void)state;
    train(reference(), MF_F32, MF_RECOMPUTE_NONE, &oracle);
    train(candidate(), MF_F32, MF_RECOMPUTE_NONE, &quick);
    assert_true(fabs(quick.loss - oracle.loss) <= 1e-5 * fabs(oracle.loss));
    assert_true(distance(&quick, &oracle) <= 1e-4);
}

static void test_bf16_points_the_same_way(void **state) {
    static struct result oracle, slow, quick;
    (void)state;
    train(reference(), MF_F32, MF_RECOMPUTE_NONE, &oracle);
    train(reference(), MF_BF16, MF_RECOMPUTE_NONE, &slow);
    train(candidate(), MF_BF16, MF_RECOMPUTE_NONE, &quick);
    assert_true(fabs(quick.loss - oracle.loss) <= 2e-2 * fabs(oracle.loss));
    assert_true(cosine(&quick, &oracle) >= 0.999);
    assert_true(distance(&quick, &oracle) <= 1.5 * distance(&slow, &oracle));
}

static void test_repeats_bit_for_bit(void **state) {
    static struct result first, second, recomputed;
    (void)state;
    for (int dtype = MF_F32; dtype <= MF_BF16; dtype++) {
        train(candidate(), (enum mf_dtype)dtype, MF_RECOMPUTE_NONE, &first);
        train(candidate(), (enum mf_dtype)dtype, MF_RECOMPUTE_NONE, &second);
        assert_memory_equal(first.gradient, second.gradient, (size_t)first.elements * sizeof *first.gradient);
        for (int level = MF_RECOMPUTE_CHEAP; level < MF_RECOMPUTE_LEVELS; level++) {
            train(candidate(), (enum mf_dtype)dtype, (enum mf_recompute)level, &recomputed);
            assert_memory_equal(&first.loss, &recomputed.loss, sizeof first.loss);
            assert_memory_equal(first.gradient, recomputed.gradient,
                                (size_t)first.elements * sizeof *first.gradient);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_f32_agrees_with_the_oracle),
                                       cmocka_unit_test(test_bf16_points_the_same_way),
                                       cmocka_unit_test(test_repeats_bit_for_bit)};
    candidate = fast;
    int failed = cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
    if (mf_cuda_device_count(NULL) > 0) {
        candidate = cuda;
        failed += cmocka_run_group_tests_name("cuda", tests, NULL, NULL);
    }
    return failed;
}
