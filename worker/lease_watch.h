/* When may a lease be taken from its holder? A lease is a counter, not a time (40-reliability.md, rule 6):
 * only after this process saw the same (epoch, beat) for the whole lease time on its own CLOCK_BOOTTIME, in
 * one unbroken database session, with at least 10 quick polls. */
#ifndef MF_WORKER_LEASE_WATCH_H
#define MF_WORKER_LEASE_WATCH_H

#include "sql/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_LEASE_WATCH_POLLS = 10 };

struct mf_lease_watch;

/* `stall_ms`: two polls further apart than this, or a poll that took longer, start every count again. */
enum mf_status mf_lease_watch_new(int64_t lease_ms, int64_t stall_ms, struct mf_lease_watch **watch,
                                  struct mf_error *error);
void mf_lease_watch_free(struct mf_lease_watch *watch); /* NULL is allowed */

/* Takes one poll's rows: asked at `asked_ms`, answered at `answered_ms` (CLOCK_BOOTTIME), in session
 * `session`. due[i] becomes true when rows[i] may be rescued now. One thread. MF_ERROR_OUT_OF_MEMORY: nothing
 * is due. */
enum mf_status mf_lease_watch_poll(struct mf_lease_watch *watch, uint64_t session, int64_t asked_ms,
                                   int64_t answered_ms, const struct mf_lease_row *rows, size_t count,
                                   bool *due, struct mf_error *error);

#endif
