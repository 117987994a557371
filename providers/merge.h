/* Merged weights, a few rows at a time. Private to providers/ (export.c and export_gguf.c call it). */
#ifndef MF_PROVIDERS_MERGE_H
#define MF_PROVIDERS_MERGE_H

#include "providers/export.h"
#include "providers/models/architecture.h"
#include "providers/weights/safetensors.h"

enum { MF_MERGE_BATCH_ELEMENTS = 1 << 18 };

struct mf_merge_weight {
    const char *name; /* that it is written under */
    const struct mf_stored_tensor *stored;
    const struct mf_weight_delta *delta; /* NULL: as it is */
    const float *value;                  /* (rows, columns) what was trained of it; NULL: as it is stored */
    int64_t rows, columns;               /* a vector is one row */
};

struct mf_merge {
    const struct mf_export_options *options;
    struct mf_architecture architecture;
    struct mf_safetensors *file;
    struct mf_merge_weight *weight; /* those that the model computes with, and what it carries, by name */
    size_t count;
    float *row; /* B A of one row */
    int64_t elements, done;
};

/* MF_ERROR_ADAPTER_MISMATCH when a delta has no weight of its shape. `text_only` leaves out what the model
 * carries (models/weight_names.h). `options` are borrowed. *merge is freed with mf_merge_close() whatever is
 * returned. */
enum mf_status mf_merge_open(const struct mf_export_options *options, bool text_only, struct mf_merge *merge,
                             struct mf_error *error);
void mf_merge_close(struct mf_merge *merge);

/* Does the head get a weight of its own that it had not? */
bool mf_merge_unties(const struct mf_merge *merge);

/* How many rows of this many columns make a batch. */
int64_t mf_merge_batch_rows(int64_t rows, int64_t columns);

/* Rows first .. first + rows - 1 of weight `index`, merged, as f32: value (rows, columns). */
void mf_merge_rows(struct mf_merge *merge, size_t index, int64_t first, int64_t rows, float *value);

/* After so many more elements: MF_OK or MF_ERROR_CANCELLED. */
enum mf_status mf_merge_proceed(struct mf_merge *merge, int64_t elements, struct mf_error *error);

#endif
