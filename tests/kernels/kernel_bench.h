/* A bench for single kernels: arrays with known contents, one call, and the distance between two outcomes.
 * Outputs and workspaces are full of NaN before a call, arrays end where their memory ends (so that a
 * sanitizer sees a step beyond), and strides may be wider than rows. */
#ifndef MF_TESTS_KERNEL_BENCH_H
#define MF_TESTS_KERNEL_BENCH_H

#include "kernels/cpu/backend.h"

struct bench {
    struct mf_node node;
    struct mf_step step;
    struct mf_kernel_call call;
    void *memory[64];
    int memories;
    uint64_t random;
    bool trainable; /* the weight: it is not prepared */
};

void bench_begin(struct bench *bench, enum mf_op op);
void bench_end(struct bench *bench);

/* Uniform in [-1, 1), the same sequence for each seed. */
float bench_random(struct bench *bench);

/* Makes in[index]: random values, rounded to dtype; rows `padding` elements apart beyond their width. */
struct mf_array *bench_input(struct bench *bench, int index, enum mf_dtype dtype, int rank,
                             const int64_t *dim, int64_t padding);
struct mf_array *bench_integers(struct bench *bench, int index, const int32_t *value, int64_t count);
struct mf_array *bench_bytes(struct bench *bench, int index, const uint8_t *value, int64_t count);
struct mf_array *bench_output(struct bench *bench, int index, enum mf_dtype dtype, int rank,
                              const int64_t *dim, int64_t padding);
/* workspace[0]. */
void bench_workspace(struct bench *bench, int rank, const int64_t *dim);
/* out[0] becomes a view of in[index] (in place, or the next version of state). */
void bench_in_place(struct bench *bench, int output, int index);

/* A second call on copies of everything that is written: what the first call wrote stays readable in the
 * first. */
void bench_copy(struct bench *from, struct bench *to);

/* Prepares, asks for workspace[1], poisons, and runs the backend's kernel. Fails the test on any error. */
void bench_run(struct bench *bench, struct mf_backend *backend, enum mf_dtype dtype);
/* The same, giving the kernel's status. */
enum mf_status bench_try(struct bench *bench, struct mf_backend *backend, enum mf_dtype dtype,
                         struct mf_error *error);

/* ‖a - b‖ / ‖b‖ over all elements of two arrays of one shape; NaN in `a` gives infinity. b = 0: ‖a‖. */
double bench_distance(const struct mf_array *a, const struct mf_array *b);
/* The greatest |a - b|. */
double bench_greatest_difference(const struct mf_array *a, const struct mf_array *b);
/* Bytes of all elements equal. */
bool bench_identical(const struct mf_array *a, const struct mf_array *b);

#endif
