/* Every choice of memory passes, on every backend and in both dtypes, for adapters and for whole weights:
 * loss and all gradients as without them, bit for bit, under one numeric plan; and less memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "kernels/cost.h"
#include "kernels/cuda/backend.h"
#include "kernels/passes/expand.h"
#include "kernels/passes/memory.h"

/* Tokens: two blocks and a bit, in sequences that no stretch's edge respects. */
enum { LAYERS = 3, ELEMENTS = 4096, BOUND = 700, LONG = 2 * MF_ROW_BLOCK + 37, LABELS = 90, ROWS = 3 };

static const struct mf_memory_choice choices[] = {
    {.recompute = MF_RECOMPUTE_NONE},
    {.recompute = MF_RECOMPUTE_CHEAP},
    {.recompute = MF_RECOMPUTE_FEED_FORWARD},
    {.recompute = MF_RECOMPUTE_FEED_FORWARD, .chunk = true},
    {.recompute = MF_RECOMPUTE_PROJECTIONS, .chunk = true},
    {.recompute = MF_RECOMPUTE_ATTENTION, .chunk = true},
    {.recompute = MF_RECOMPUTE_NONE, .offload = true},
    {.recompute = MF_RECOMPUTE_ATTENTION, .offload = true},
    {.recompute = MF_RECOMPUTE_ATTENTION, .chunk = true, .offload = true},
};
enum { CHOICES = sizeof choices / sizeof *choices, CHOICES_IN_PLACE = CHOICES - 3 };

struct result {
    float loss[ROWS], gradient[ELEMENTS];
    size_t elements, program_bytes, host_bytes, managed_bytes;
    size_t fixed_bytes; /* of what is managed: neither of a program nor offloaded */
    double cost;
    char sha256[65];
};

/* A batch of `tokens`, in sequences of 100 and a rest; every sixth token labelled. */
static void write_batch(struct fixture *fixture, int32_t tokens) {
    int32_t *input[MF_INPUTS], labelled = 0, sequences = 0;
    for (int i = 0; i < MF_INPUTS; i++)
        input[i] = mf_executor_data(fixture->executor, fixture->graph->input[i]);
    for (int32_t t = 0; t < tokens; t++) {
        input[MF_INPUT_TOKENS][t] = (t * 7 + t / 5) % VOCABULARY;
        input[MF_INPUT_POSITIONS][t] = t % 100;
        input[MF_INPUT_ROWS][t] = t / 100;
        if (t % 100 == 0)
            input[MF_INPUT_OFFSETS][sequences++] = t;
        if (t % 6 == 0 && labelled < LABELS) {
            input[MF_INPUT_LABEL_ROWS][labelled] = t;
            input[MF_INPUT_LABELS][labelled] = (t * 5 + 1) % VOCABULARY;
            ((float *)input[MF_INPUT_COEFFICIENTS])[labelled++] = 1;
        }
    }
    input[MF_INPUT_OFFSETS][sequences] = tokens;
    fixture->step.value[MF_TOKENS] = tokens;
    fixture->step.value[MF_SEQUENCES] = sequences;
    fixture->step.value[MF_LABELLED] = labelled;
}

/* What is trained: LoRA on every module, or every weight. */
enum trained { ADAPTERS, WHOLE };

static void give_values(struct fixture *fixture) {
    for (int32_t i = 0; i < fixture->graph->adapters; i++) {
        fixture_fill(fixture, fixture->graph->adapter[i].a);
        fixture_fill(fixture, fixture->graph->adapter[i].b);
    }
    for (int32_t i = 0; i < fixture->graph->trains; i++)
        fixture_fill(fixture, fixture->graph->trained[i].parameter);
    mf_executor_round_copies(fixture->executor);
}

static void train(struct mf_backend *backend, enum mf_dtype dtype, enum trained trained,
                  struct mf_memory_choice choice, struct result *result) {
    static const int32_t tokens[ROWS] = {LONG, MF_ROW_BLOCK + 1, 5}; /* later stretches are empty */
    struct fixture fixture;
    struct mf_error error;
    fixture_begin_on(&fixture, backend, dtype);
    mf_program_set_bound(fixture.graph, fixture.program, MF_TOKENS, BOUND);
    mf_program_set_bound(fixture.graph, fixture.program, MF_SEQUENCES, BOUND / 100 + 1);
    mf_program_set_bound(fixture.graph, fixture.program, MF_LABELLED, LABELS);
    if (trained == WHOLE)
        fixture_train_all(&fixture, LAYERS);
    else
        fixture_adapters_on_all(&fixture, LAYERS, 0.25f);
    int32_t loss = fixture_decoder(&fixture.builder, LAYERS);
    require_ok(mf_pass_expand(fixture.graph, fixture.program, &error), &error);
    require_ok(mf_gradient_build(fixture.graph, fixture.program, loss, &error), &error);
    require_ok(mf_pass_memory(fixture.graph, fixture.program, &choice, &error), &error);
    fixture_realize(&fixture, &(struct mf_executor_options){.poison = true});
    give_values(&fixture);
    for (int i = 0; i < ROWS; i++) { /* gradients add up */
        write_batch(&fixture, tokens[i]);
        fixture_run(&fixture);
        result->loss[i] = fixture_data(&fixture, loss)[0];
    }
    result->elements = (size_t)fixture.graph->bucket[0].elements;
    assert_true(result->elements <= ELEMENTS);
    memcpy(result->gradient, fixture_data(&fixture, fixture.graph->bucket[0].gradient),
           result->elements * sizeof *result->gradient);
    result->program_bytes = fixture.plan->program_bytes;
    result->host_bytes = fixture.plan->host_bytes;
    result->managed_bytes = mf_plan_bytes(fixture.plan);
    result->fixed_bytes =
        fixture.plan->weight_bytes + fixture.plan->copy_bytes + fixture.plan->persistent_bytes;
    result->cost = mf_memory_cost(fixture.graph, fixture.program, backend);
    memcpy(result->sha256, fixture.plan->record_sha256, sizeof result->sha256);
    fixture_end(&fixture);
}

static struct mf_backend *create(bool fast) {
    struct mf_backend *backend;
    struct mf_error error;
    require_ok(fast ? mf_cpu_create(&(struct mf_cpu_options){.threads = 2}, &backend, &error)
                    : mf_cpu_reference_create(&backend, &error),
               &error);
    return backend;
}

static struct mf_backend *oracle(void) {
    return create(false);
}

static struct mf_backend *fast(void) {
    return create(true);
}

static struct mf_backend *cuda(void) {
    struct mf_backend *backend;
    struct mf_error error;
    require_ok(mf_cuda_create(0, &backend, &error), &error);
    return backend;
}

/* ---- the oracle's kernels in memory of their own, as a device has it ---- */

static int pinned; /* regions of host memory that are allocated */

static enum mf_status apart_allocate(struct mf_backend *backend, size_t bytes, void **address,
                                     struct mf_error *error) {
    (void)backend;
    (void)error;
    *address = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(*address);
    return MF_OK;
}
static void apart_release(struct mf_backend *backend, void *address) {
    (void)backend;
    free(address);
}
static enum mf_status apart_allocate_host(struct mf_backend *backend, size_t bytes, void **address,
                                          struct mf_error *error) {
    pinned++;
    return apart_allocate(backend, bytes, address, error);
}
static void apart_release_host(struct mf_backend *backend, void *address) {
    pinned--;
    apart_release(backend, address);
}
static enum mf_status apart_copy(struct mf_backend *backend, void *to, const void *from, size_t bytes,
                                 struct mf_error *error) {
    (void)backend;
    (void)error;
    memcpy(to, from, bytes);
    return MF_OK;
}
static enum mf_status apart_write_rows(struct mf_backend *backend, void *to, size_t to_row, const void *from,
                                       size_t bytes, size_t rows, struct mf_error *error) {
    for (size_t i = 0; i < rows; i++)
        (void)apart_copy(backend, (char *)to + i * to_row, (const char *)from + i * bytes, bytes, error);
    return MF_OK;
}
static enum mf_status apart_fill(struct mf_backend *backend, void *to, uint8_t byte, size_t bytes,
                                 struct mf_error *error) {
    (void)backend;
    (void)error;
    memset(to, byte, bytes);
    return MF_OK;
}
static enum mf_status apart_begin(struct mf_backend *backend, const struct mf_step *step,
                                  struct mf_error *error) {
    (void)backend;
    (void)step;
    (void)error;
    return MF_OK;
}
static enum mf_status apart_finish(struct mf_backend *backend, struct mf_error *error) {
    (void)backend;
    (void)error;
    return MF_OK;
}

static struct mf_backend *apart(void) {
    static const struct mf_backend_memory memory = {.allocate = apart_allocate,
                                                    .release = apart_release,
                                                    .allocate_host = apart_allocate_host,
                                                    .release_host = apart_release_host,
                                                    .write = apart_copy,
                                                    .write_rows = apart_write_rows,
                                                    .read = apart_copy,
                                                    .fill = apart_fill,
                                                    .begin = apart_begin,
                                                    .finish = apart_finish};
    static struct mf_backend backend;
    backend = *oracle();
    backend.memory = &memory;
    backend.bytes_per_host_byte = 50;
    return &backend;
}

/* The same with copies that take as long as they may: none is made before an AWAIT. What is read too early is
 * still poisoned then, and what gives way too early is copied with what took its place. */
static struct {
    void *to;
    const void *from;
    size_t bytes;
} queued[64];
static int queue;

static enum mf_status copy_later(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *x = &call->in[0];
    (void)error;
    assert_true(queue < (int)(sizeof queued / sizeof *queued));
    queued[queue].to = call->out[0].data;
    queued[queue].from = x->data;
    queued[queue++].bytes = (size_t)mf_array_elements(x) * mf_dtype_bytes((enum mf_dtype)x->dtype);
    return MF_OK;
}
static enum mf_status copy_now(const struct mf_kernel_call *call, struct mf_error *error) {
    (void)call;
    (void)error;
    for (int i = 0; i < queue; i++)
        memcpy(queued[i].to, queued[i].from, queued[i].bytes);
    queue = 0;
    return MF_OK;
}
static const struct mf_kernel *late_find(const struct mf_backend *backend, enum mf_op op,
                                         enum mf_dtype dtype) {
    static const struct mf_kernel later = {.function = copy_later}, now = {.function = copy_now};
    (void)backend;
    if (op == MF_OP_AWAIT)
        return &now;
    return op == MF_OP_OFFLOAD || op == MF_OP_FETCH ? &later : oracle()->find(oracle(), op, dtype);
}
static enum mf_status late_finish(struct mf_backend *backend, struct mf_error *error) {
    (void)backend;
    (void)error;
    assert_int_equal(queue, 0);
    return MF_OK;
}

static struct mf_backend *late(void) {
    static struct mf_backend backend;
    static struct mf_backend_memory memory;
    backend = *apart();
    memory = *backend.memory;
    memory.finish = late_finish;
    backend.memory = &memory;
    backend.find = late_find;
    return &backend;
}

typedef struct mf_backend *backend_maker(void);

static void no_choice_changes_a_bit(backend_maker *open, enum trained trained) {
    static struct result plain, passed;
    for (int dtype = MF_F32; dtype <= MF_BF16; dtype++) {
        struct mf_backend *backend = open();
        const bool rows_alone = backend->rows_alone;
        train(backend, (enum mf_dtype)dtype, trained, choices[0], &plain);
        for (size_t i = 1; i < CHOICES; i++) {
            if (choices[i].chunk && !rows_alone)
                continue;
            train(open(), (enum mf_dtype)dtype, trained, choices[i], &passed);
            assert_int_equal(pinned, 0);
            assert_memory_equal(plain.loss, passed.loss, sizeof plain.loss);
            assert_memory_equal(plain.gradient, passed.gradient, plain.elements * sizeof *plain.gradient);
            assert_string_equal(plain.sha256, passed.sha256);
        }
    }
}

static void test_no_choice_changes_a_bit(void **state) {
    no_choice_changes_a_bit(*(backend_maker **)*state, ADAPTERS);
}

static void test_no_choice_changes_a_bit_of_whole_weights(void **state) {
    no_choice_changes_a_bit(*(backend_maker **)*state, WHOLE);
}

static void test_each_takes_less_and_costs_more(void **state) {
    static struct result last, next;
    (void)state;
    train(create(false), MF_F32, ADAPTERS, choices[0], &last);
    for (size_t i = 1; i < CHOICES_IN_PLACE; i++, last = next) {
        train(create(false), MF_F32, ADAPTERS, choices[i], &next);
        assert_true(next.program_bytes < last.program_bytes);
        assert_true(next.cost > last.cost);
    }
}

/* What is offloaded leaves the arena and is counted in the host region, which is part of what is managed only
 * where host memory is the programs' own. */
static void test_offload_is_planned(void **state) {
    static struct result plain, moved;
    (void)state;
    for (size_t i = CHOICES_IN_PLACE; i < CHOICES; i++) {
        struct mf_memory_choice kept = choices[i];
        kept.offload = false;
        train(create(false), MF_F32, ADAPTERS, kept, &plain);
        train(create(false), MF_F32, ADAPTERS, choices[i], &moved);
        assert_int_equal(plain.host_bytes, 0);
        assert_true(moved.host_bytes > 0);
        assert_true(moved.program_bytes < plain.program_bytes);
        assert_int_equal(moved.managed_bytes - moved.fixed_bytes, moved.program_bytes + moved.host_bytes);
        struct mf_backend other = *create(false); /* a device with memory of its own */
        other.bytes_per_host_byte = 50;
        train(&other, MF_F32, ADAPTERS, choices[i], &moved);
        assert_int_equal(moved.managed_bytes - moved.fixed_bytes, moved.program_bytes);
        assert_true(moved.cost > plain.cost);
    }
}

#define BITS(maker) cmocka_unit_test_prestate(test_no_choice_changes_a_bit, (void *)&(backend_maker *){maker})
#define WHOLE_BITS(maker)                                                    \
    cmocka_unit_test_prestate(test_no_choice_changes_a_bit_of_whole_weights, \
                              (void *)&(backend_maker *){maker})

int main(void) {
    const struct CMUnitTest tests[] = {BITS(oracle),
                                       BITS(fast),
                                       BITS(apart),
                                       BITS(late),
                                       WHOLE_BITS(oracle),
                                       WHOLE_BITS(fast),
                                       WHOLE_BITS(apart),
                                       WHOLE_BITS(late),
                                       cmocka_unit_test(test_each_takes_less_and_costs_more),
                                       cmocka_unit_test(test_offload_is_planned)};
    const struct CMUnitTest on_gpu[] = {BITS(cuda), WHOLE_BITS(cuda)};
    int failed = cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
    if (mf_cuda_device_count(NULL) > 0)
        failed += cmocka_run_group_tests_name("cuda", on_gpu, NULL, NULL);
    return failed;
}
