/* What a training job reported and PostgreSQL has not yet taken: a first-in first-out line of byte records,
 * in memory first, then in a file of the attempt's folder, bounded. So a job trains on through a database
 * outage (40-reliability.md, rule 8). The spool holds detail only: losing it loses curves, never a terminal
 * fact.
 *
 * Any number of threads may append and one may take. */
#ifndef MF_WORKER_SPOOL_H
#define MF_WORKER_SPOOL_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mf_spool;

enum { MF_SPOOL_RECORD_BYTES = 16384 }; /* the largest record */

/* Whether a record may be thinned out when the spool is nearly full. */
enum mf_spool_class { MF_SPOOL_KEEP, MF_SPOOL_THIN };

struct mf_spool_limits {
    size_t memory_bytes; /* records beyond go to the file */
    int64_t
        file_bytes; /* from half of it on only every 16th MF_SPOOL_THIN record is kept, beyond it none is */
};

/* The file is made (0600) only when memory is full, at `path`, and removed by mf_spool_close(). */
enum mf_status mf_spool_open(const char *path, const struct mf_spool_limits *limits, struct mf_spool **spool,
                             struct mf_error *error);
void mf_spool_close(struct mf_spool *spool); /* NULL is allowed */

/* Adds a record of at most MF_SPOOL_RECORD_BYTES. A record that does not fit the limits, or whose write
 * fails, is dropped and counted; the job goes on. */
void mf_spool_append(struct mf_spool *spool, enum mf_spool_class class_, const void *record, size_t bytes);

/* Hands at most `max_records` of the oldest records to `visit`, in order, without removing them; returns how
 * many. `visit` must not call the spool. A file that cannot be read back drops and counts what it held. */
size_t mf_spool_peek(struct mf_spool *spool, size_t max_records,
                     void (*visit)(void *context, const void *record, size_t bytes), void *context);

/* Removes the oldest `records` records: those that a peek handed out and the database has taken. */
void mf_spool_remove(struct mf_spool *spool, size_t records);

size_t mf_spool_depth(struct mf_spool *spool); /* records that wait */

/* How many records were dropped since the last call. */
int64_t mf_spool_take_dropped(struct mf_spool *spool);

#endif
