#include "tests/kernels/kernel_bench.h"

#include "kernels/cpu/array.h"
#include "kernels/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

void bench_begin(struct bench *bench, enum mf_op op) {
    memset(bench, 0, sizeof *bench);
    bench->node.op = (uint16_t)op;
    bench->call.node = &bench->node;
    bench->call.step = &bench->step;
    struct mf_array *all[] = {bench->call.in, bench->call.out, bench->call.workspace};
    const int count[] = {MF_NODE_INPUTS, MF_NODE_OUTPUTS, MF_NODE_WORKSPACES};
    for (int kind = 0; kind < 3; kind++)
        for (int i = 0; i < count[kind]; i++) {
            all[kind][i].tensor = -1;
            for (int axis = 0; axis < MF_RANK; axis++)
                all[kind][i].dim[axis] = 1;
        }
    /* Of the name, not of the number: another op in the table changes no case. */
    bench->random = 88172645463325252u + mf_random_stream(mf_op_name(op));
}

void bench_end(struct bench *bench) {
    while (bench->memories > 0)
        free(bench->memory[--bench->memories]);
}

float bench_random(struct bench *bench) {
    bench->random ^= bench->random << 13;
    bench->random ^= bench->random >> 7;
    bench->random ^= bench->random << 17;
    return (float)(bench->random >> 40) * 0x1p-23f - 1.0f;
}

/* `bytes` aligned to 64, ending where they end: malloc'ed rooms may be larger than asked for, these are not.
 */
static void *room(struct bench *bench, size_t bytes) {
    assert_true(bench->memories < (int)(sizeof bench->memory / sizeof bench->memory[0]));
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, 64, bytes ? bytes : 1), 0);
    bench->memory[bench->memories++] = memory;
    return memory;
}

static size_t array_bytes(const struct mf_array *array) {
    int64_t last = 0;
    for (int axis = 0; axis < array->rank; axis++) {
        if (array->dim[axis] == 0)
            return 0;
        last += (array->dim[axis] - 1) * array->stride[axis];
    }
    return (size_t)(last + 1) * mf_dtype_bytes(array->dtype);
}

static void make(struct bench *bench, struct mf_array *array, enum mf_dtype dtype, int rank,
                 const int64_t *dim, int64_t padding) {
    array->dtype = (uint8_t)dtype;
    array->rank = (uint8_t)rank;
    int64_t stride = 1;
    for (int axis = rank - 1; axis >= 0; axis--) {
        array->dim[axis] = dim[axis];
        array->stride[axis] = stride;
        stride *= dim[axis];
        if (axis == 1)
            stride += padding;
    }
    array->data = room(bench, array_bytes(array));
    array->tensor = bench->memories; /* a number of its own */
}

/* Runs `each` over the places of all elements. */
static int64_t place(const struct mf_array *array, int64_t i) {
    int64_t at = 0;
    for (int axis = array->rank - 1; axis >= 0; axis--) {
        at += i % array->dim[axis] * array->stride[axis];
        i /= array->dim[axis];
    }
    return at;
}

static void poison(const struct mf_array *array) {
    if (!array->data || !mf_dtype_is_float(array->dtype))
        return;
    for (int64_t i = 0; i < mf_array_elements(array); i++)
        mf_array_set(array, place(array, i), NAN);
}

struct mf_array *bench_input(struct bench *bench, int index, enum mf_dtype dtype, int rank,
                             const int64_t *dim, int64_t padding) {
    struct mf_array *array = &bench->call.in[index];
    make(bench, array, dtype, rank, dim, padding);
    for (int64_t i = 0; i < mf_array_elements(array); i++)
        mf_array_set(array, place(array, i), bench_random(bench));
    return array;
}

struct mf_array *bench_bytes(struct bench *bench, int index, const uint8_t *value, int64_t count) {
    struct mf_array *array = &bench->call.in[index];
    make(bench, array, MF_U8, 1, &count, 0);
    memcpy(array->data, value, (size_t)count);
    return array;
}

struct mf_array *bench_integers(struct bench *bench, int index, const int32_t *value, int64_t count) {
    struct mf_array *array = &bench->call.in[index];
    make(bench, array, MF_I32, 1, &count, 0);
    memcpy(array->data, value, (size_t)count * sizeof *value);
    return array;
}

struct mf_array *bench_output(struct bench *bench, int index, enum mf_dtype dtype, int rank,
                              const int64_t *dim, int64_t padding) {
    struct mf_array *array = &bench->call.out[index];
    make(bench, array, dtype, rank, dim, padding);
    poison(array);
    return array;
}

void bench_workspace(struct bench *bench, int rank, const int64_t *dim) {
    make(bench, &bench->call.workspace[0], MF_F32, rank, dim, 0);
    poison(&bench->call.workspace[0]);
}

void bench_in_place(struct bench *bench, int output, int index) {
    bench->call.out[output] = bench->call.in[index];
}

static void copy_array(struct bench *to, struct mf_array *array) {
    if (!array->data)
        return;
    size_t bytes = array_bytes(array);
    void *copy = room(to, bytes);
    memcpy(copy, array->data, bytes);
    array->data = copy;
}

void bench_copy(struct bench *from, struct bench *to) {
    *to = *from;
    to->memories = 0;
    to->call.node = &to->node;
    to->call.step = &to->step;
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        copy_array(to, &to->call.in[i]);
    for (int i = 0; i < MF_NODE_WORKSPACES; i++)
        copy_array(to, &to->call.workspace[i]);
    for (int o = 0; o < MF_NODE_OUTPUTS; o++) {
        bool in_place = false;
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            if (from->call.out[o].data && from->call.out[o].data == from->call.in[i].data) {
                to->call.out[o] = to->call.in[i];
                in_place = true;
            }
        if (!in_place)
            copy_array(to, &to->call.out[o]);
    }
}

/* A call whose arrays lie in the memory of a backend of its own: copies on the way there and back. */
struct visit {
    struct mf_array *array[MF_NODE_INPUTS + MF_NODE_OUTPUTS + MF_NODE_WORKSPACES];
    void *host[MF_NODE_INPUTS + MF_NODE_OUTPUTS + MF_NODE_WORKSPACES];
    int arrays;
};

static void send(struct visit *visit, struct mf_backend *backend, struct mf_array *array, int count) {
    struct mf_error error;
    for (int i = 0; i < count; i++) {
        if (!array[i].data)
            continue;
        const int at = visit->arrays++;
        visit->array[at] = &array[i];
        visit->host[at] = array[i].data;
        void *device = NULL;
        for (int j = 0; j < at; j++)
            if (visit->host[j] == visit->host[at])
                device = visit->array[j]->data;
        const size_t bytes = array_bytes(&array[i]);
        if (!device && backend->memory->allocate(backend, bytes ? bytes : 1, &device, &error) != MF_OK)
            fail_msg("%s", error.message);
        if (bytes && backend->memory->write(backend, device, array[i].data, bytes, &error) != MF_OK)
            fail_msg("%s", error.message);
        array[i].data = device;
    }
}

static void fetch(struct visit *visit, struct mf_backend *backend) {
    struct mf_error error;
    for (int i = 0; i < visit->arrays; i++) {
        void *device = visit->array[i]->data;
        const size_t bytes = array_bytes(visit->array[i]);
        if (bytes && backend->memory->read(backend, visit->host[i], device, bytes, &error) != MF_OK)
            fail_msg("%s", error.message);
    }
    for (int i = 0; i < visit->arrays; i++) {
        void *device = visit->array[i]->data;
        bool last = true;
        for (int j = i + 1; j < visit->arrays; j++)
            last = last && visit->array[j]->data != device;
        if (last)
            backend->memory->release(backend, device);
        visit->array[i]->data = visit->host[i];
    }
}

static enum mf_status run(struct bench *bench, struct mf_backend *backend, const struct mf_kernel *kernel,
                          struct mf_error *error) {
    struct visit visit = {.arrays = 0};
    if (!backend->memory)
        return kernel->function(&bench->call, error);
    send(&visit, backend, bench->call.in, MF_NODE_INPUTS);
    send(&visit, backend, bench->call.out, MF_NODE_OUTPUTS);
    send(&visit, backend, bench->call.workspace, MF_NODE_WORKSPACES);
    enum mf_status status = backend->memory->begin(backend, &bench->step, error);
    if (status == MF_OK)
        status = kernel->function(&bench->call, error);
    if (status == MF_OK)
        status = backend->memory->finish(backend, error);
    fetch(&visit, backend);
    return status;
}

enum mf_status bench_try(struct bench *bench, struct mf_backend *backend, enum mf_dtype dtype,
                         struct mf_error *error) {
    const struct mf_kernel *kernel = backend->find(backend, (enum mf_op)bench->node.op, dtype);
    assert_non_null(kernel);
    bench->call.backend = backend;
    if (backend->prepare && !bench->trainable) {
        size_t bytes = 0;
        enum mf_status status = backend->prepare(backend, &bench->call, &bytes, error);
        if (status != MF_OK)
            return status;
    }
    int64_t bytes = kernel->workspace_bytes ? (int64_t)kernel->workspace_bytes(&bench->call) : 0;
    if (bytes > 0) {
        make(bench, &bench->call.workspace[1], MF_U8, 1, &bytes, 0);
        memset(bench->call.workspace[1].data, 0xff, (size_t)bytes); /* NaN in every float dtype */
    }
    return run(bench, backend, kernel, error);
}

void bench_run(struct bench *bench, struct mf_backend *backend, enum mf_dtype dtype) {
    struct mf_error error = {.message = ""};
    if (bench_try(bench, backend, dtype, &error) != MF_OK)
        fail_msg("%s: %s", mf_op_name((enum mf_op)bench->node.op), error.message);
}

static double value_at(const struct mf_array *array, int64_t i) {
    if (array->dtype == MF_U8)
        return ((const uint8_t *)array->data)[place(array, i)];
    return array->dtype == MF_I32 ? (double)mf_array_integer(array, place(array, i))
                                  : (double)mf_array_get(array, place(array, i));
}

double bench_distance(const struct mf_array *a, const struct mf_array *b) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < mf_array_elements(b); i++) {
        double left = value_at(a, i), right = value_at(b, i);
        if (left == right) /* infinities of one sign too */
            left = right = isinf(right) ? 0 : right;
        difference += (left - right) * (left - right);
        norm += right * right;
    }
    if (isnan(difference))
        return INFINITY;
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

double bench_greatest_difference(const struct mf_array *a, const struct mf_array *b) {
    double greatest = 0;
    for (int64_t i = 0; i < mf_array_elements(b); i++) {
        double difference = fabs(value_at(a, i) - value_at(b, i));
        if (isnan(difference))
            return INFINITY;
        greatest = fmax(greatest, difference);
    }
    return greatest;
}

bool bench_identical(const struct mf_array *a, const struct mf_array *b) {
    size_t width = mf_dtype_bytes(a->dtype);
    for (int64_t i = 0; i < mf_array_elements(b); i++)
        if (memcmp((const char *)a->data + (size_t)place(a, i) * width,
                   (const char *)b->data + (size_t)place(b, i) * width, width) != 0)
            return false;
    return true;
}
