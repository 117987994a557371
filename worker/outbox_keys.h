/* What rows of the outbox must not overtake each other: a job's events, the dead letters of one partition.
 * Remembers the keys that have rows under way and those whose deliveries fail, so that all others go on. One
 * thread. */
#ifndef MF_WORKER_OUTBOX_KEYS_H
#define MF_WORKER_OUTBOX_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MF_OUTBOX_KEYS = 32768, /* remembered at once; beyond that no new key may go */
    MF_OUTBOX_KEY_BYTES = 40
};

struct mf_outbox_key {
    char name[MF_OUTBOX_KEY_BYTES];
    int32_t under_way;
    int32_t next;               /* in its bucket, or in the list of free ones; -1: the last */
    int64_t delay_ms, retry_ms; /* after a failure: the back-off, 0: none; when the next may go */
};
struct mf_outbox_keys {
    struct mf_outbox_key key[MF_OUTBOX_KEYS];
    int32_t bucket[MF_OUTBOX_KEYS];
    int32_t free;    /* the first free one, -1: none */
    int32_t failing; /* keys that back off */
};

void mf_outbox_keys_clear(struct mf_outbox_keys *keys);
/* Whether one more row of this key may go at this monotonic time, `together` at most; when it may, it is
 * under way. Of a failing key a single one may, and only with `probe`. */
bool mf_outbox_keys_take(struct mf_outbox_keys *keys, const char *name, int32_t together, bool probe,
                         int64_t now_ms);
bool mf_outbox_keys_failing(struct mf_outbox_keys *keys, const char *name);
/* A row that was taken is back: delivered (or parked), or failed: its key waits, twice as long each time,
 * limit_ms at most.
 */
void mf_outbox_keys_give(struct mf_outbox_keys *keys, const char *name, bool delivered, int64_t now_ms,
                         int64_t limit_ms);
#endif
