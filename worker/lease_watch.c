#include "worker/lease_watch.h"

#include <stdlib.h>
#include <string.h>

struct sighting {
    char job_id[MF_UUID_TEXT_BYTES];
    int64_t epoch, beat;
    int64_t first_ms; /* answer of the first poll that showed this beat */
    int polls;
};

struct mf_lease_watch {
    int64_t lease_ms, stall_ms, last_ms;
    uint64_t session;
    bool polled;
    struct sighting *sighting; /* sorted by job id */
    size_t count;
};

enum mf_status mf_lease_watch_new(int64_t lease_ms, int64_t stall_ms, struct mf_lease_watch **watch,
                                  struct mf_error *error) {
    *watch = calloc(1, sizeof **watch);
    if (!*watch)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to watch leases");
    (*watch)->lease_ms = lease_ms;
    (*watch)->stall_ms = stall_ms;
    return MF_OK;
}

void mf_lease_watch_free(struct mf_lease_watch *watch) {
    if (watch)
        free(watch->sighting);
    free(watch);
}

static int by_job(const void *a, const void *b) {
    return strcmp(((const struct sighting *)a)->job_id, ((const struct sighting *)b)->job_id);
}

enum mf_status mf_lease_watch_poll(struct mf_lease_watch *watch, uint64_t session, int64_t asked_ms,
                                   int64_t answered_ms, const struct mf_lease_row *rows, size_t count,
                                   bool *due, struct mf_error *error) {
    bool unbroken = watch->polled && session == watch->session && answered_ms - asked_ms <= watch->stall_ms &&
                    asked_ms - watch->last_ms <= watch->stall_ms;
    memset(due, 0, count * sizeof *due);
    struct sighting *now = calloc(count + 1, sizeof *now);
    if (!now) {
        watch->polled = false; /* what was seen before no longer counts */
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to watch leases");
    }
    for (size_t i = 0; i < count; i++) {
        struct sighting *seen = &now[i];
        memcpy(seen->job_id, rows[i].lease.job_id, sizeof seen->job_id);
        seen->epoch = rows[i].lease.epoch;
        seen->beat = rows[i].beat;
        seen->first_ms = answered_ms;
        seen->polls = 1;
        const struct sighting *before =
            unbroken ? bsearch(seen, watch->sighting, watch->count, sizeof *now, by_job) : NULL;
        if (before && before->epoch == seen->epoch && before->beat == seen->beat) {
            seen->first_ms = before->first_ms;
            seen->polls = before->polls + 1;
        }
        due[i] = seen->polls >= MF_LEASE_WATCH_POLLS && asked_ms - seen->first_ms >= watch->lease_ms;
    }
    qsort(now, count, sizeof *now, by_job);
    free(watch->sighting);
    watch->sighting = now;
    watch->count = count;
    watch->session = session;
    watch->last_ms = answered_ms;
    watch->polled = true;
    return MF_OK;
}
