/* Private to kernels/: making rows of a graph. */
#ifndef MF_KERNELS_GRAPH_ROWS_H
#define MF_KERNELS_GRAPH_ROWS_H

#include "kernels/graph.h"

/* Room for one more element of `size` bytes in *array, which holds `count` of *capacity. */
enum mf_status mf_rows_reserve(void **array, int32_t count, int32_t *capacity, size_t size,
                               struct mf_error *error);

/* Appends *tensor (id, and the strides of an owner, are set here; the name is copied). Fails on a planned
 * graph. */
enum mf_status mf_graph_append_tensor(struct mf_graph *graph, const struct mf_tensor *tensor, int32_t *id,
                                      struct mf_error *error);
/* Appends *node to a program. */
enum mf_status mf_program_append(struct mf_graph *graph, int32_t program, const struct mf_node *node,
                                 struct mf_error *error);
/* Appends a segment. */
enum mf_status mf_graph_append_segment(struct mf_graph *graph, const struct mf_segment *segment,
                                       struct mf_error *error);
/* sha256 over a program's nodes with shapes and attributes, without names. */
enum mf_status mf_program_fingerprint(const struct mf_graph *graph, int32_t program, uint8_t result[32],
                                      struct mf_error *error);

#endif
