#include "kernels/cpu/gemm.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/threads.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_SLOTS = 1024 }; /* a power of two; when half full the cache starts again */

/* What a primitive depends on. All of one width, so that there is no padding: compared as bytes. */
struct shape {
    int64_t M, K, N, a_row, a_column, c_row, k_stride, n_stride;
    int64_t threads, alpha_bits, bf16, c_bf16, packed, accumulate, bias;
};

struct entry {
    struct shape shape;
    dnnl_primitive_t primitive;  /* NULL: free */
    dnnl_memory_t a, b, bias, c; /* without storage: the data handle is set at each call */
};

/* What a packed weight takes: a model has few shapes, and asking oneDNN takes long. */
struct packed_size {
    int64_t K, N;
    bool bf16;
    size_t bytes;
};
enum { PACKED_SIZES = 64 };

struct mf_gemm {
    struct packed_size size[PACKED_SIZES];
    int32_t sizes;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int32_t used;
    struct entry entry[CACHE_SLOTS];
};

static enum mf_status check(dnnl_status_t status, const char *what, struct mf_error *error) {
    if (status == dnnl_success)
        return MF_OK;
    if (status == dnnl_out_of_memory)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "oneDNN: no memory to %s", what);
    return mf_error_set(error, MF_ERROR_INTERNAL, "oneDNN: cannot %s (status %d)", what, (int)status);
}

/* oneDNN takes all addresses as writable; it writes only to its destinations. */
static void *writable(const void *address) {
    union {
        const void *given;
        void *taken;
    } both = {address};
    return both.taken;
}

static dnnl_data_type_t data_type(bool bf16) {
    return bf16 ? dnnl_bf16 : dnnl_f32;
}

enum mf_status mf_gemm_create(struct mf_gemm **gemm, struct mf_error *error) {
    *gemm = NULL;
    struct mf_gemm *made = calloc(1, sizeof *made);
    if (!made)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the matrix product cache");
    enum mf_status status = check(dnnl_engine_create(&made->engine, dnnl_cpu, 0), "create an engine", error);
    if (status == MF_OK)
        status = check(dnnl_stream_create(&made->stream, made->engine, dnnl_stream_default_flags),
                       "create a stream", error);
    if (status != MF_OK) {
        mf_gemm_destroy(made);
        return status;
    }
    *gemm = made;
    return MF_OK;
}

static void entry_destroy(struct entry *entry) {
    dnnl_memory_t memory[] = {entry->a, entry->b, entry->bias, entry->c};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        if (memory[i])
            dnnl_memory_destroy(memory[i]);
    if (entry->primitive)
        dnnl_primitive_destroy(entry->primitive);
    memset(entry, 0, sizeof *entry);
}

static void cache_clear(struct mf_gemm *gemm) {
    for (size_t i = 0; i < CACHE_SLOTS; i++)
        if (gemm->entry[i].primitive)
            entry_destroy(&gemm->entry[i]);
    gemm->used = 0;
}

void mf_gemm_destroy(struct mf_gemm *gemm) {
    if (!gemm)
        return;
    cache_clear(gemm);
    if (gemm->stream)
        dnnl_stream_destroy(gemm->stream);
    if (gemm->engine)
        dnnl_engine_destroy(gemm->engine);
    free(gemm);
}

const char *mf_gemm_library(void) {
    static char name[32];
    const dnnl_version_t *version = dnnl_version();
    (void)snprintf(name, sizeof name, "onednn %d.%d.%d", version->major, version->minor, version->patch);
    return name;
}

/* oneDNN numbers its instruction sets as bit masks: each includes those that it builds on. */
static bool has(dnnl_cpu_isa_t wanted) {
    return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)wanted) == (unsigned)wanted;
}

bool mf_gemm_bf16_is_fast(void) {
    return has(dnnl_cpu_isa_avx512_core_bf16);
}

bool mf_gemm_plain_is_as_packed(void) {
    return has(dnnl_cpu_isa_avx512_core);
}

static enum mf_status strided(struct layout *layout, int64_t rows, int64_t columns, int64_t row_stride,
                              int64_t column_stride, bool bf16, struct mf_error *error) {
    dnnl_dims_t sizes = {rows, columns}, strides = {row_stride, column_stride};
    return check(layout_strided(layout, sizes, data_type(bf16), strides), "describe a matrix", error);
}

/* The layout in which oneDNN wants a constant (K, N). It is asked at one M and used for all: what brgemm
 * prefers depends on K, N and the type (a test looks at other M). */
static enum mf_status packed_layout(struct mf_gemm *gemm, int64_t K, int64_t N, bool bf16,
                                    struct layout *layout, struct mf_error *error) {
    enum { TYPICAL_M = 256 };
    struct layout a = {0}, b = {0}, c = {0}, none = {0};
    dnnl_dims_t a_sizes = {TYPICAL_M, K}, b_sizes = {K, N}, c_sizes = {TYPICAL_M, N};
    dnnl_primitive_desc_t description = NULL;
    dnnl_status_t status = layout_tagged(&a, a_sizes, data_type(bf16), dnnl_ab);
    if (status == dnnl_success)
        status = layout_tagged(&b, b_sizes, data_type(bf16), dnnl_format_tag_any);
    if (status == dnnl_success)
        status = layout_tagged(&c, c_sizes, data_type(bf16), dnnl_ab);
    if (status == dnnl_success)
        status = product_describe(&description, gemm->engine, &a, &b, &none, &c, NULL);
    if (status == dnnl_success) {
        status = layout_of_weights(layout, description);
        dnnl_primitive_desc_destroy(description);
    }
    layout_destroy(&a);
    layout_destroy(&b);
    layout_destroy(&c);
    return check(status, "choose a layout for a weight", error);
}

size_t mf_gemm_packed_bytes(struct mf_gemm *gemm, int64_t K, int64_t N, bool bf16) {
    struct layout layout = {0};
    for (int32_t i = 0; i < gemm->sizes; i++)
        if (gemm->size[i].K == K && gemm->size[i].N == N && gemm->size[i].bf16 == bf16)
            return gemm->size[i].bytes;
    size_t bytes = packed_layout(gemm, K, N, bf16, &layout, NULL) == MF_OK
                       ? dnnl_memory_desc_get_size(LAYOUT(&layout))
                       : 0;
    layout_destroy(&layout);
    if (bytes && gemm->sizes < PACKED_SIZES)
        gemm->size[gemm->sizes++] = (struct packed_size){K, N, bf16, bytes};
    return bytes;
}

enum mf_status mf_gemm_pack(struct mf_gemm *gemm, const struct mf_operand *from, bool bf16, void *memory,
                            struct mf_operand *to, struct mf_error *error) {
    struct layout plain = {0}, layout = {0};
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t source = NULL, destination = NULL;
    enum mf_status status = packed_layout(gemm, from->K, from->N, bf16, &layout, error);
    if (status == MF_OK)
        status = strided(&plain, from->K, from->N, from->k_stride, from->n_stride, from->bf16, error);
    if (status != MF_OK)
        goto done;
    dnnl_status_t made = dnnl_memory_create(&source, LAYOUT(&plain), gemm->engine, writable(from->data));
    if (made == dnnl_success)
        made = dnnl_memory_create(&destination, LAYOUT(&layout), gemm->engine, memory);
    if (made == dnnl_success)
        made = dnnl_reorder_primitive_desc_create(&description, LAYOUT(&plain), gemm->engine, LAYOUT(&layout),
                                                  gemm->engine, NULL);
    if (made == dnnl_success)
        made = dnnl_primitive_create(&reorder, description);
    if (made == dnnl_success) {
        dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, destination}};
        made = dnnl_primitive_execute(reorder, gemm->stream, 2, arguments);
    }
    if (made == dnnl_success)
        made = dnnl_stream_wait(gemm->stream);
    *to = (struct mf_operand){.data = memory, .K = from->K, .N = from->N, .bf16 = bf16, .packed = true};
    status = check(made, "pack a weight", error);
done:
    if (reorder)
        dnnl_primitive_destroy(reorder);
    if (description)
        dnnl_primitive_desc_destroy(description);
    if (destination)
        dnnl_memory_destroy(destination);
    if (source)
        dnnl_memory_destroy(source);
    layout_destroy(&plain);
    layout_destroy(&layout);
    return status;
}

static float alpha_of(const struct shape *shape) {
    uint32_t bits = (uint32_t)shape->alpha_bits;
    float alpha;
    memcpy(&alpha, &bits, sizeof alpha);
    return alpha;
}

static enum mf_status attributes_create(const struct shape *shape, dnnl_primitive_attr_t *attributes,
                                        struct mf_error *error) {
    dnnl_post_ops_t after = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(attributes);
    if (status == dnnl_success)
        status = dnnl_post_ops_create(&after);
    if (status == dnnl_success)
        status = attributes_set(*attributes, after, alpha_of(shape), shape->accumulate != 0);
    if (after)
        dnnl_post_ops_destroy(after);
    return check(status, "set up a product", error);
}

/* The operands' layouts. */
struct layouts {
    struct layout a, b, bias, c;
};

static enum mf_status layouts_of(struct mf_gemm *gemm, const struct shape *shape, struct layouts *layouts,
                                 struct mf_error *error) {
    enum mf_status status =
        strided(&layouts->a, shape->M, shape->K, shape->a_row, shape->a_column, shape->bf16, error);
    if (status == MF_OK)
        status = strided(&layouts->c, shape->M, shape->N, shape->c_row, 1, shape->c_bf16, error);
    if (status == MF_OK && shape->bias)
        status = strided(&layouts->bias, 1, shape->N, shape->N, 1, false, error);
    if (status == MF_OK)
        status = shape->packed ? packed_layout(gemm, shape->K, shape->N, shape->bf16, &layouts->b, error)
                               : strided(&layouts->b, shape->K, shape->N, shape->k_stride, shape->n_stride,
                                         shape->bf16, error);
    return status;
}

static enum mf_status entry_create(struct mf_gemm *gemm, const struct shape *shape, struct entry *entry,
                                   struct mf_error *error) {
    struct layouts layouts = {0};
    struct entry made = {.shape = *shape};
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t description = NULL;
    enum mf_status status = layouts_of(gemm, shape, &layouts, error);
    if (status == MF_OK)
        status = attributes_create(shape, &attributes, error);
    if (status != MF_OK)
        goto done;
    dnnl_status_t result = product_describe(&description, gemm->engine, &layouts.a, &layouts.b, &layouts.bias,
                                            &layouts.c, attributes);
    if (result == dnnl_success)
        result = dnnl_memory_create(&made.a, LAYOUT(&layouts.a), gemm->engine, DNNL_MEMORY_NONE);
    if (result == dnnl_success)
        result = dnnl_memory_create(&made.b, LAYOUT(&layouts.b), gemm->engine, DNNL_MEMORY_NONE);
    if (result == dnnl_success && shape->bias)
        result = dnnl_memory_create(&made.bias, LAYOUT(&layouts.bias), gemm->engine, DNNL_MEMORY_NONE);
    if (result == dnnl_success)
        result = dnnl_memory_create(&made.c, LAYOUT(&layouts.c), gemm->engine, DNNL_MEMORY_NONE);
    if (result == dnnl_success)
        result = dnnl_primitive_create(&made.primitive, description);
    status = check(result, "create a product", error);
    if (status == MF_OK)
        *entry = made;
    else
        entry_destroy(&made);
done:
    if (description)
        dnnl_primitive_desc_destroy(description);
    if (attributes)
        dnnl_primitive_attr_destroy(attributes);
    layout_destroy(&layouts.a);
    layout_destroy(&layouts.b);
    layout_destroy(&layouts.bias);
    layout_destroy(&layouts.c);
    return status;
}

/* FNV-1a over the words of the shape. */
static size_t slot_of(const struct shape *shape) {
    uint64_t word[sizeof *shape / sizeof(uint64_t)], hash = 14695981039346656037u;
    memcpy(word, shape, sizeof word);
    for (size_t i = 0; i < sizeof word / sizeof word[0]; i++)
        hash = (hash ^ word[i]) * 1099511628211u;
    return (size_t)(hash ^ hash >> 32) & (CACHE_SLOTS - 1);
}

static enum mf_status find(struct mf_gemm *gemm, const struct shape *shape, struct entry **found,
                           struct mf_error *error) {
    if (gemm->used >= CACHE_SLOTS / 2)
        cache_clear(gemm);
    size_t slot = slot_of(shape);
    while (gemm->entry[slot].primitive) {
        if (memcmp(&gemm->entry[slot].shape, shape, sizeof *shape) == 0) {
            *found = &gemm->entry[slot];
            return MF_OK;
        }
        slot = (slot + 1) & (CACHE_SLOTS - 1);
    }
    enum mf_status status = entry_create(gemm, shape, &gemm->entry[slot], error);
    if (status == MF_OK) {
        gemm->used++;
        *found = &gemm->entry[slot];
    }
    return status;
}

enum mf_status mf_gemm_run(struct mf_gemm *gemm, const struct mf_product *product, struct mf_error *error) {
    const struct mf_operand *b = product->b;
    if (product->M == 0)
        return MF_OK;
    uint32_t alpha_bits;
    memcpy(&alpha_bits, &product->alpha, sizeof alpha_bits);
    bool row = product->M == 1; /* one row is dense, whatever its stride says */
    struct shape shape = {.M = product->M,
                          .K = b->K,
                          .N = b->N,
                          .a_row = row && product->a_column == 1 ? b->K : product->a_row,
                          .a_column = product->a_column,
                          .c_row = row ? b->N : product->c_row,
                          .k_stride = b->packed ? 0 : b->k_stride,
                          .n_stride = b->packed ? 0 : b->n_stride,
                          .threads = mf_threads(),
                          .alpha_bits = alpha_bits,
                          .bf16 = b->bf16,
                          .c_bf16 = product->c_bf16,
                          .packed = b->packed,
                          .accumulate = product->accumulate,
                          .bias = product->bias != NULL};
    struct entry *entry;
    enum mf_status status = find(gemm, &shape, &entry, error);
    if (status != MF_OK)
        return status;
    dnnl_memory_set_data_handle(entry->a, writable(product->a));
    dnnl_memory_set_data_handle(entry->b, writable(b->data));
    dnnl_memory_set_data_handle(entry->c, product->c);
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, entry->a},
                                   {DNNL_ARG_WEIGHTS, entry->b},
                                   {DNNL_ARG_DST, entry->c},
                                   {DNNL_ARG_BIAS, entry->bias}};
    if (entry->bias)
        dnnl_memory_set_data_handle(entry->bias, writable(product->bias));
    dnnl_status_t result =
        dnnl_primitive_execute(entry->primitive, gemm->stream, entry->bias ? 4 : 3, arguments);
    if (result == dnnl_success)
        result = dnnl_stream_wait(gemm->stream);
    return check(result, "multiply", error);
}
