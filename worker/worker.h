/* What the threads of the daemon share.
 *
 *     main          signals, start and end of all others
 *     ingest        polls Kafka, decodes, hands over          ingest writer  puts batches into PostgreSQL
 *     resolver      asks the schema registry                  claim          takes jobs, starts supervisors
 *     heartbeat     beats leases, watches those of others     recorder       metrics and ends of jobs
 *     outbox        PostgreSQL to Kafka                       spawner        forks trainers
 *     supervisor    one a job                                 collector      the storage's upkeep
 *     GPU watch     looks at the health of GPUs
 *
 * A thread that needs PostgreSQL has a connection of its own (struct mf_link). */
#ifndef MF_WORKER_WORKER_H
#define MF_WORKER_WORKER_H

#include "common/error.h"
#include "sql/store.h"
#include "worker/counters.h"
#include "worker/settings.h"
#include "worker/wakeup.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct mf_gpus;
struct mf_job_table;
struct mf_spawner;
struct mf_storage;

struct mf_worker {
    const struct mf_settings *settings;
    struct mf_counters counters;
    struct mf_storage *storage;
    struct mf_spawner *spawner;
    struct mf_job_table *jobs;
    struct mf_gpus *gpus;                 /* NULL: this worker has none */
    struct mf_worker_provider *providers; /* that the trainer can run here */
    size_t provider_count;
    char *details;           /* JSON object shown in worker_status: what the trainer said of its providers */
    char boot_id[64];        /* of the kernel */
    bool same_boot;          /* leases under this worker's id are of this boot: their trainers died with us */
    atomic_bool draining;    /* take nothing new, end what runs */
    atomic_bool stopping;    /* every thread returns */
    atomic_bool outbox_idle; /* the last look found nothing to send */
    atomic_bool collect_checkpoints;   /* a job with a save_total_limit has another checkpoint */
    atomic_int_least64_t last_beat_ms; /* CLOCK_BOOTTIME of the last heartbeat that PostgreSQL took */
    struct mf_wakeup claim_wakeup, recorder_wakeup, heartbeat_wakeup, outbox_wakeup, writer_wakeup,
        collector_wakeup;
};

/* ---- a thread's connection to PostgreSQL ------------------------------------------------------------ */

struct mf_link {
    struct mf_worker *worker;
    const char *name; /* shown in pg_stat_activity */
    int statement_timeout_ms;
    struct mf_database *database; /* valid after mf_link_ready() */
    int failures;                 /* in a row */
    int64_t next_try_ms;          /* CLOCK_MONOTONIC */
};

void mf_link_init(struct mf_link *link, struct mf_worker *worker, const char *name, int statement_timeout_ms);
void mf_link_close(struct mf_link *link);

/* Whether the connection stands; connects when it does not, at most once in a back-off time that grows from
 * 100 ms to 2 s with jitter. */
bool mf_link_ready(struct mf_link *link);

/* How long the caller may sleep before mf_link_ready() would try again; 0 when it stands. */
int64_t mf_link_delay_ms(const struct mf_link *link);

/* Takes note of a call's status: MF_ERROR_DATABASE, MF_ERROR_COMMIT_UNKNOWN and MF_ERROR_INTERNAL break the
 * session, so that the next mf_link_ready() makes a new one, and log `what`. Returns `status`. */
enum mf_status mf_link_note(struct mf_link *link, enum mf_status status, const char *what,
                            struct mf_error *error);

#endif
