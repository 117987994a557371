/* Where a partition starts, and whether what comes first there is what was taken last (40-reliability.md,
 * rules 1 and 2). Pure decisions: no Kafka, no PostgreSQL. */
#ifndef MF_WORKER_PARTITION_H
#define MF_WORKER_PARTITION_H

#include "sql/store.h"

#include <stdbool.h>
#include <stdint.h>

enum mf_position_kind {
    MF_POSITION_BEGINNING, /* nothing was ever taken: from the low watermark */
    MF_POSITION_ANCHOR,    /* fetch the anchor, verify it, drop it, go on */
    MF_POSITION_NEXT,      /* the anchor has been deleted by retention, the record after it not yet */
    MF_POSITION_HALT
};

struct mf_position {
    enum mf_position_kind kind;
    int64_t fetch;    /* offset to fetch from; for BEGINNING the low watermark */
    int64_t expected; /* next_offset in PostgreSQL, MF_OFFSET_NONE when there is no row */
    struct mf_ingest_offset known;
    const char *halt_kind; /* HALT: of ingest_gaps; NULL when PostgreSQL says that it is halted already */
    int64_t halt_found;
};

/* `known` is NULL when PostgreSQL has no row. low and high are the partition's watermarks. */
struct mf_position mf_position_decide(const struct mf_ingest_offset *known, int64_t low, int64_t high);

/* Whether a record is the anchor: same offset, timestamp and key. MF_ERROR_OUT_OF_MEMORY. */
enum mf_status mf_position_verify(const struct mf_ingest_offset *known, int64_t offset, int64_t timestamp,
                                  const void *key, size_t key_size, bool *same, struct mf_error *error);

#endif
