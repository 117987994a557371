/* The few calls that changed between oneDNN 2 (Debian 12) and oneDNN 3 (Ubuntu 24.04), behind one face.
 * Private to gemm.c. Every function returns oneDNN's status; outputs are valid only after dnnl_success. */
#ifndef MF_KERNELS_CPU_ONEDNN_H
#define MF_KERNELS_CPU_ONEDNN_H

#include <dnnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Sizes, type and order in memory of a matrix. A zeroed one is "none"; layout_destroy() takes any. */
struct layout {
    dnnl_memory_desc_t description; /* oneDNN 2: a value; oneDNN 3: a handle that is owned */
    bool set;
};

#if DNNL_VERSION_MAJOR >= 3
#    define LAYOUT(layout) ((layout)->set ? (layout)->description : NULL)
#else
#    define LAYOUT(layout) ((layout)->set ? &(layout)->description : NULL)
#endif

static inline dnnl_status_t layout_strided(struct layout *layout, const dnnl_dims_t sizes,
                                           dnnl_data_type_t type, const dnnl_dims_t strides) {
#if DNNL_VERSION_MAJOR >= 3
    dnnl_status_t status =
        dnnl_memory_desc_create_with_strides(&layout->description, 2, sizes, type, strides);
#else
    dnnl_status_t status = dnnl_memory_desc_init_by_strides(&layout->description, 2, sizes, type, strides);
#endif
    layout->set = status == dnnl_success;
    return status;
}

static inline dnnl_status_t layout_tagged(struct layout *layout, const dnnl_dims_t sizes,
                                          dnnl_data_type_t type, dnnl_format_tag_t tag) {
#if DNNL_VERSION_MAJOR >= 3
    dnnl_status_t status = dnnl_memory_desc_create_with_tag(&layout->description, 2, sizes, type, tag);
#else
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&layout->description, 2, sizes, type, tag);
#endif
    layout->set = status == dnnl_success;
    return status;
}

/* The layout that a product chose for its weights. */
static inline dnnl_status_t layout_of_weights(struct layout *layout, const_dnnl_primitive_desc_t product) {
#if DNNL_VERSION_MAJOR >= 3
    dnnl_status_t status = dnnl_memory_desc_clone(
        &layout->description, dnnl_primitive_desc_query_md(product, dnnl_query_weights_md, 0));
#else
    dnnl_status_t status = dnnl_success;
    layout->description = *dnnl_primitive_desc_query_md(product, dnnl_query_weights_md, 0);
#endif
    layout->set = status == dnnl_success;
    return status;
}

static inline void layout_destroy(struct layout *layout) {
#if DNNL_VERSION_MAJOR >= 3
    if (layout->set)
        dnnl_memory_desc_destroy(layout->description);
#endif
    memset(layout, 0, sizeof *layout);
}

/* c = a b + bias, `bias` may be none. */
static inline dnnl_status_t product_describe(dnnl_primitive_desc_t *product, dnnl_engine_t engine,
                                             const struct layout *a, const struct layout *b,
                                             const struct layout *bias, const struct layout *c,
                                             const_dnnl_primitive_attr_t attributes) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(product, engine, LAYOUT(a), LAYOUT(b), LAYOUT(bias), LAYOUT(c),
                                             attributes);
#else
    dnnl_matmul_desc_t operation;
    dnnl_status_t status = dnnl_matmul_desc_init(&operation, LAYOUT(a), LAYOUT(b), LAYOUT(bias), LAYOUT(c));
    return status == dnnl_success ? dnnl_primitive_desc_create(product, &operation, attributes, engine, NULL)
                                  : status;
#endif
}

/* Afterwards: times alpha, then (accumulate) plus what the destination held. */
static inline dnnl_status_t attributes_set(dnnl_primitive_attr_t attributes, dnnl_post_ops_t after,
                                           float alpha, bool accumulate) {
    dnnl_status_t status = dnnl_success;
#if DNNL_VERSION_MAJOR >= 3
    if (alpha != 1.0f)
        status = dnnl_post_ops_append_eltwise(after, dnnl_eltwise_linear, alpha, 0.0f);
    if (status == dnnl_success && accumulate)
        status = dnnl_post_ops_append_sum(after, 1.0f, 0, dnnl_data_type_undef);
#else
    if (alpha != 1.0f)
        status = dnnl_primitive_attr_set_output_scales(attributes, 1, 0, &alpha);
    if (status == dnnl_success && accumulate)
        status = dnnl_post_ops_append_sum(after, 1.0f);
#endif
    return status == dnnl_success ? dnnl_primitive_attr_set_post_ops(attributes, after) : status;
}

#endif
