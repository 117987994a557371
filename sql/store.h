/* Typed calls on the tables of sql/migrations/: everything that worker and client write to or read from
 * PostgreSQL.
 *
 * Every call is one transaction of its own unless it says otherwise, repeats itself on SQLSTATE class 40, and
 * is made on a connection that is not inside a transaction. Texts are UTF-8; JSON is passed as text. Times
 * are milliseconds since 1970 (UTC), MF_TIME_NONE for none; PostgreSQL's clock decides what has passed.
 *
 * Statuses of every call: MF_ERROR_DATABASE (cannot be used now: reconnect, try again),
 * MF_ERROR_COMMIT_UNKNOWN (broke at COMMIT: reconnect and call again where the call says "repeatable", else
 * read first), MF_ERROR_UNSTORABLE (PostgreSQL refuses the values), MF_ERROR_OUT_OF_MEMORY,
 * MF_ERROR_INTERNAL.
 *
 * Fencing: a worker's write names its lease {job, incarnation, epoch}. When that is not the job's lease any
 * more nothing is written and the status is MF_ERROR_LEASE_LOST: stop the trainer and write nothing. */
#ifndef MF_SQL_STORE_H
#define MF_SQL_STORE_H

#include "common/digest.h"
#include "schemas/command.h" /* enum mf_command_action */
#include "sql/database.h"
#include "sql/job_state.h"

enum {
    MF_OUTBOX_SHARDS = 16,
    MF_REJECT_INLINE_BYTES = 900 * 1024, /* larger messages go to the dead-letter topic as a reject id */
    MF_LOG_ROWS_PER_ATTEMPT = 10000,     /* later log lines of an attempt are counted, not kept */
    MF_DRAIN_LIMIT = 20,                 /* drains of a job without a new checkpoint */
    MF_MAX_GPUS = 64,                    /* of one worker */
    MF_INTERRUPTION_LIMIT = 5 /* interruptions without a new checkpoint: interrupted_without_progress */
};
#define MF_OFFSET_NONE (-1) /* no offset is known of this partition */
#define MF_CHANNEL_JOBS \
    "modelforge_jobs" /* notified when there may be something to claim; alone, in no transaction */

struct mf_text_table;

/* ================================================================ (a) ingest */

/* A validated request as the tables want it. All pointers are borrowed for the call. */
struct mf_ingest_request {
    char job_id[MF_UUID_TEXT_BYTES]; /* UUIDv5(tenant, request_id, generation 1) */
    const char *tenant, *request_id;
    char request_hash[MF_SHA256_TEXT_BYTES]; /* mf_request_hash(): the same request again, or another? */
    const char *config;                      /* the whole request as a JSON object */
    const char *provider;                    /* the queue: workers claim from the providers they advertise */
    const char *batch_id;                    /* NULL: none */
    const char *submitted_by;                /* NULL: not said; a claim of the producer, not authenticated */
    const char *trace_context;               /* W3C traceparent header, NULL: none */
    int64_t run_at, deadline;                /* MF_TIME_NONE: none */
    int32_t priority;                        /* higher first; one level is worth an hour of waiting */
    int32_t devices;                         /* devices needed at once, at least 1 */
    int32_t max_attempts;                    /* at least 1 */
    int32_t schema_id;                       /* of the Avro message */
};

struct mf_ingest_command {
    char command_id[MF_UUID_TEXT_BYTES];
    const char *tenant, *request_id;
    enum mf_command_action action;
    int32_t expected_generation;       /* 0: the newest; a retry must name the one it tries again */
    const char *reason, *requested_by; /* NULL: not said */
};

enum mf_ingest_kind { MF_INGEST_REQUEST, MF_INGEST_COMMAND, MF_INGEST_REJECT };

/* What became of a record. */
enum mf_ingest_fate {
    MF_FATE_NONE,      /* the batch was not applied */
    MF_FATE_ACCEPTED,  /* a new job, or a command that took effect (or waits for its request) */
    MF_FATE_DUPLICATE, /* the same request or command_id was there: ignored */
    MF_FATE_IGNORED,   /* a command that means nothing in the job's state: audited */
    MF_FATE_REJECTED   /* in ingest_rejects and on its way to the dead-letter topic; see `code` */
};

struct mf_ingest_record {
    enum mf_ingest_kind kind;
    int64_t offset, timestamp; /* of the Kafka record; the timestamp in milliseconds, MF_TIME_NONE: none */
    const void *key, *value;   /* the original bytes; NULL: none (a reject keeps them) */
    size_t key_size, value_size;
    struct mf_ingest_request request; /* kind REQUEST */
    struct mf_ingest_command command; /* kind COMMAND */
    enum mf_status reject_status;     /* kind REJECT: why */
    const char *reject_reason;        /* kind REJECT: the text for people, with no secret */
    /* out */
    enum mf_ingest_fate fate;
    enum mf_status code; /* REJECTED: why; else MF_OK */
};

/* Records of one partition in rising offset order. An empty batch (count 0) only moves the offset (a gap made
 * by transactions or compaction). */
struct mf_ingest_batch {
    const char *cluster_id, *topic;
    int32_t partition;
    int64_t expected; /* next_offset as this process last read or wrote it; MF_OFFSET_NONE: no row yet */
    int64_t next;     /* offset of the last record + 1 */
    struct mf_ingest_record *records;
    size_t count;
};

/* One transaction: jobs, configurations, keys, commands, rejects, audit, outbox and the offset with its
 * anchor (the last record). A request whose (tenant, request_id) is known with the same hash is a duplicate,
 * with another hash a reject `request_conflict`. On SQLSTATE 22 / 23 / 54 the batch is bisected (then each
 * part is a transaction that moves the offset) down to the record at fault, which is rejected as
 * `unstorable`. A command acts on its job at once, as the state table says: queued and paused jobs move,
 * running ones get another `desired`, a retry makes the next generation; one before its request waits for it
 * (a day, and at most 1000 a tenant). One that means nothing is audited on the job, with why.
 *
 * *applied false: next_offset in the database is not `expected` (another consumer, or a COMMIT that did
 * happen): nothing was written; read the offset again and go on from there. Repeatable after
 * MF_ERROR_COMMIT_UNKNOWN and MF_ERROR_DATABASE: read the offset first, drop the records below it. */
enum mf_status mf_store_ingest_batch(struct mf_database *database, struct mf_ingest_batch *batch,
                                     bool *applied, struct mf_error *error);

/* Where a partition stands. The anchor is the last record that was taken: verify it before going on. */
struct mf_ingest_offset {
    int32_t partition;
    int64_t next;
    int64_t anchor_offset;    /* MF_OFFSET_NONE: no record was taken yet */
    int64_t anchor_timestamp; /* milliseconds, MF_TIME_NONE: none */
    unsigned char
        anchor_key_hash[MF_SHA256_BYTES]; /* sha256 of the key's bytes (of nothing for a NULL key) */
    bool halted;                          /* an open row of ingest_gaps: do not consume until it is reset */
};
/* *offsets is malloc'ed (NULL when count is 0), the caller frees. Partitions without a row are not listed. */
enum mf_status mf_store_read_offsets(struct mf_database *database, const char *cluster_id, const char *topic,
                                     struct mf_ingest_offset **offsets, size_t *count,
                                     struct mf_error *error);
/* sha256 as the anchor holds it. MF_ERROR_OUT_OF_MEMORY. */
enum mf_status mf_store_key_hash(const void *key, size_t size, unsigned char hash[MF_SHA256_BYTES],
                                 struct mf_error *error);
/* Halts a partition: writes ingest_gaps (once while one is open). `kind`: anchor_mismatch, out_of_range or
 * low_watermark. */
enum mf_status mf_store_halt_partition(struct mf_database *database, const char *cluster_id,
                                       const char *topic, int32_t partition, const char *kind,
                                       int64_t expected, int64_t found, const char *detail,
                                       struct mf_error *error);

/* Lets a halted partition go on at `next`, whatever was there: closes the gap with who did it and forgets the
 * anchor. Needs the owner's rights. MF_ERROR_NOT_FOUND when the partition is not halted. */
enum mf_status mf_store_reset_partition(struct mf_database *database, const char *cluster_id,
                                        const char *topic, int32_t partition, int64_t next, const char *by,
                                        struct mf_error *error);

/* ================================================================ (h) workers */

/* A provider that a worker runs, and what it computes it on. */
struct mf_worker_provider {
    const char *name;
    bool on_cpu, on_gpu, many_gpus; /* many_gpus: a job may have several */
};

struct mf_worker_row {
    const char *worker_id; /* configured, stable over restarts */
    const char *host, *boot_id;
    const char *version;
    const struct mf_worker_provider *providers;
    size_t provider_count;
    int32_t slots;    /* jobs at once */
    int32_t alive_s;  /* without a call for so long it counts as gone, for all who ask */
    const char *gpus; /* JSON array of all GPUs: uuid, name, memory_bytes, used_bytes, fault; NULL: none */
    const int64_t *gpu_memory; /* bytes of each GPU that works, largest first */
    size_t gpu_count;
    const char *labels;  /* JSON object of strings; NULL: none */
    const char *details; /* JSON object, shown in worker_status: what the trainer said of its providers */
};
/* Inserts or updates the row and says "I live now". Call at start, when it changes, and at every beat (≤
 * lease / 3): a worker not heard for alive_s counts as gone. Repeatable. */
enum mf_status mf_store_register_worker(struct mf_database *database, const struct mf_worker_row *worker,
                                        struct mf_error *error);
/* *same: no row of this worker id, or one of this boot. Ask before mf_store_register_worker(): leases of this
 * id from another boot are not this process's to end at once. Repeatable. */
enum mf_status mf_store_worker_of_boot(struct mf_database *database, const char *worker_id,
                                       const char *boot_id, bool *same, struct mf_error *error);
/* A worker that stops says so: it advertises nothing any more. Repeatable. */
enum mf_status mf_store_unregister_worker(struct mf_database *database, const char *worker_id,
                                          struct mf_error *error);

/* ================================================================ (c) claim */

struct mf_lease {
    char job_id[MF_UUID_TEXT_BYTES];
    char incarnation[MF_UUID_TEXT_BYTES]; /* of the database: changes with a restore */
    int64_t epoch;                        /* the fencing token, names the attempt */
};

/* A claimed job. The texts are malloc'ed: mf_claim_free(). */
struct mf_claim {
    struct mf_lease lease;
    char attempt_id[MF_UUID_TEXT_BYTES];
    int32_t attempt; /* 1 for the first claim, counts every claim */
    char *tenant, *request_id;
    char *config; /* the request, JSON object */
    int64_t created_at, deadline;
    char *checkpoint_uri; /* the newest checkpoint to resume from; NULL: start at step 0 */
    int64_t checkpoint_step;
    char checkpoint_sha256[MF_SHA256_TEXT_BYTES]; /* as struct mf_stored_object has it */
    size_t gpu_count;                             /* GPUs that it takes; 0: it runs on the CPU */
    uint8_t gpu[MF_MAX_GPUS];                     /* which: indices into the offer's gpu_memory */
};
void mf_claim_free(struct mf_claim *claim);

/* What a worker has for new jobs now. */
struct mf_claim_offer {
    const char *worker_id;
    const struct mf_worker_provider *providers;
    size_t provider_count;
    const char *labels;        /* JSON object of strings; NULL: none */
    bool has_gpus;             /* free or not, working or not: jobs that leave the device open wait for one */
    const int64_t *gpu_memory; /* bytes of each free GPU, largest first */
    size_t gpu_count;          /* at most MF_MAX_GPUS */
};

/* Takes up to `limit` jobs, in one transaction (on a worker with GPUs: one each): among the tenants with
 * ready jobs for one of the providers and under their cap, the one with the least running / weight, its first
 * job that fits what is left of the offer and that no other claim holds, again and again; epoch + 1, lease,
 * attempt, state running, counts, audit, outbox. Waits for other claims only where a cap is set. A job takes
 * the smallest GPUs that are large enough. While a job of several GPUs is reserved for this worker, it gets
 * the GPUs before all others. *count jobs are in claims[0..*count); fewer than `limit` when nothing more is
 * ready. Jobs claimed before a failure are returned with the failure's status. Not repeatable: after
 * MF_ERROR_COMMIT_UNKNOWN compare mf_store_list_leases(worker_id) with the trainers running, and release what
 * has none. */
enum mf_status mf_store_claim(struct mf_database *database, const struct mf_claim_offer *offer, size_t limit,
                              struct mf_claim *claims, size_t *count, struct mf_error *error);

/* Puts ready what is due (run_at, back-off) and takes care of unleased jobs (a running job's deadline shows
 * in its worker's heartbeat). Every worker calls it about once a second; those that come second find nothing
 * to do. Repeatable. */
struct mf_reap_options {
    int32_t provider_grace_s; /* a ready job that no live worker could take fails after this long */
    int32_t reserve_s;        /* a job of several GPUs waits this long before a worker is kept free for it */
    int32_t preempt_s;        /* a job waits this long before a preemptible one of lower priority gives way */
    int32_t batch_settle_s;   /* a batch has ended once nothing of it was left to do for this long */
};
struct mf_reap_report {
    int64_t readied;         /* run_at or back-off passed */
    int64_t failed_deadline; /* queued or paused beyond the deadline: failed deadline_exceeded */
    int64_t preempted;       /* running jobs asked to give way to one of their tenant's of higher priority */
    int64_t failed_provider; /* grace passed: failed unknown_provider, provider_unavailable or unplaceable */
    int64_t reserved;        /* workers that are now kept free for a job of several GPUs */
    int64_t batches;         /* ended, each with an event batch_finished of the job that ended last */
};
enum mf_status mf_store_reap(struct mf_database *database, const struct mf_reap_options *options,
                             struct mf_reap_report *report, struct mf_error *error);

/* A tenant's queue of one provider: how many of its jobs may run at once, and its part of the places beside
 * other tenants with work. Jobs that run already are not stopped by a lower cap. */
#define MF_CAP_NONE (-1)
struct mf_queue_change {
    bool cap_given, weight_given; /* false: it stays as it is */
    int32_t cap;                  /* from 0 (nothing is started), or MF_CAP_NONE */
    double weight;                /* above 0 */
};
struct mf_queue_limits {
    int32_t cap; /* MF_CAP_NONE: none */
    double weight;
    bool offered; /* a worker offers the provider, or did */
};
/* Changes them, for jobs to come too, and logs who did it. Needs the owner's rights. Repeatable, but each
 * time is logged. */
enum mf_status mf_store_set_queue(struct mf_database *database, const char *provider, const char *tenant,
                                  const struct mf_queue_change *change, const char *by,
                                  struct mf_queue_limits *limits, struct mf_error *error);
/* Jobs of every provider and tenant (NULL: all tenants), with caps and weights; those with work first. */
enum mf_status mf_store_queues(struct mf_database *database, const char *tenant, struct mf_text_table *table,
                               struct mf_error *error);

/* ================================================================ (d) heartbeat, (e) rescue and release */

struct mf_beat {
    bool held;                   /* false: lease lost, stop the trainer and write nothing */
    enum mf_job_desired desired; /* what the user wants now */
    bool deadline_passed; /* then desired is cancel: stop with a last checkpoint, finish as deadline_exceeded
                           */
    bool preempted;       /* a job of higher priority needs the place: pause and give it back */
};
/* Adds 1 to `beat` of every lease in one statement. beats[i] belongs to leases[i]. Repeatable. */
enum mf_status mf_store_heartbeat(struct mf_database *database, const char *worker_id,
                                  const struct mf_lease *leases, size_t count, struct mf_beat *beats,
                                  struct mf_error *error);

/* A lease as a rescuer sees it. It may act only after it saw the same (epoch, beat) for the lease time on its
 * own CLOCK_BOOTTIME, in one unbroken session (mf_database_session), with at least 10 quick polls. */
struct mf_lease_row {
    struct mf_lease lease;
    int64_t beat;
    char worker_id[128];
};
/* All leases, or those of one worker (worker_id not NULL). *rows is malloc'ed, the caller frees. */
enum mf_status mf_store_list_leases(struct mf_database *database, const char *worker_id,
                                    struct mf_lease_row **rows, size_t *count, struct mf_error *error);

struct mf_retry_policy {
    int64_t base_ms; /* back-off of the first; doubles with each, ± 20 % */
    int64_t limit_ms;
};

/* Ends a lease whose beat still is `observed->beat`: the job goes back to the queue with a back-off
 * (interruptions
 * + 1), to paused or cancelled when that is desired, or to failed `interrupted_without_progress`. *rescued
 * false: it moved, nothing was done. */
enum mf_status mf_store_rescue(struct mf_database *database, const struct mf_lease_row *observed,
                               const char *rescuer_id, const struct mf_retry_policy *policy, bool *rescued,
                               struct mf_error *error);

enum mf_release_reason {
    MF_RELEASE_DRAIN,     /* SIGTERM: ready again at once, no attempt and no interruption charged (20 in a row
                             fail) */
    MF_RELEASE_RESTART,   /* the worker came back and has no trainer for it: ready at once, an interruption */
    MF_RELEASE_PREEMPTED, /* gave way to a job of higher priority: ready again at once, nothing charged */
    MF_RELEASE_WATCHDOG   /* stopped by its supervisor: an interruption, back-off */
};
/* Gives a job back, no attempt charged. desired pause / cancel wins as in rescue. Repeatable: a lease that
 * this worker gave back for the same reason is MF_OK. */
enum mf_status mf_store_release(struct mf_database *database, const char *worker_id,
                                const struct mf_lease *lease, enum mf_release_reason reason,
                                const struct mf_retry_policy *policy, struct mf_error *error);

/* ================================================================ (f) metrics */

struct mf_step_metric {
    int64_t step; /* optimiser step, from 1 */
    double epoch; /* pass over the data, as a fraction */
    double loss, learning_rate, gradient_norm;
    int64_t tokens; /* trained on in this step */
    double tokens_per_second, elapsed_seconds;
};
struct mf_eval_metric {
    int64_t step;
    double loss, perplexity;
};
struct mf_log_line {
    int64_t time;      /* milliseconds, the worker's clock */
    const char *level; /* debug, info, warning or error */
    const char *message;
};
struct mf_metrics_batch {
    int64_t number; /* from 1, + 1 a batch of this lease: a batch whose number was taken is a repeat */
    const struct mf_step_metric *steps;
    size_t step_count;
    const struct mf_eval_metric *evals;
    size_t eval_count;
    const struct mf_log_line *logs;
    size_t log_count;
    const char *phase; /* NULL: unchanged; load, plan, train, evaluate or save */
    double fraction;   /* of the phase, 0 to 1 */
};
/* Step rows go by COPY; the transaction takes the number under the lease first. *repeat true: this batch was
 * written before, nothing was done (MF_OK). A gap (number > last + 1) is MF_ERROR_INTERNAL. Repeatable: so
 * after MF_ERROR_COMMIT_UNKNOWN send the same batch again. */
enum mf_status mf_store_write_metrics(struct mf_database *database, const char *worker_id,
                                      const struct mf_lease *lease, const struct mf_metrics_batch *batch,
                                      bool *repeat, struct mf_error *error);

/* ================================================================ (g) attempt, artifacts, end */

/* What an attempt turned out to be (hello, plan). NULL, MF_COUNT_NONE: leave what the row has. */
#define MF_COUNT_NONE INT64_MIN
struct mf_attempt_details {
    const char *device;    /* "cpu: AMD EPYC ...", "cuda: NVIDIA H100 ..." */
    const char *gpu_uuids; /* JSON array of texts */
    const char *versions;  /* JSON object: trainer, driver, libraries */
    const char *numeric_plan_sha256, *dataset_sha256, *base_sha256; /* 64 hex digits */
    const char *base_revision;
    int64_t seed, managed_bytes, total_steps, train_rows, eval_rows, train_tokens, truncated_rows,
        dropped_rows;
    int64_t resumed_from_step; /* 0: from the start. Rows of earlier attempts beyond it leave loss_curve */
    int64_t exact; /* 0: it goes on from a checkpoint of another numeric plan; 1: it gives the bits that it
                      would give alone */
};
/* An initialised "nothing is known". */
struct mf_attempt_details mf_attempt_details_none(void);
/* Repeatable. */
enum mf_status mf_store_update_attempt(struct mf_database *database, const char *worker_id,
                                       const struct mf_lease *lease, const struct mf_attempt_details *details,
                                       struct mf_error *error);

/* An object that is durable in storage. */
struct mf_stored_object {
    const char *kind; /* artifact: adapter, model, merged_16bit, gguf, training_json */
    const char *uri;
    int64_t size_bytes;
    const char *sha256; /* 64 hex digits; of a folder: sha256 of its sorted "sha256  path" lines */
    int64_t step;       /* checkpoint: the step it holds */
};
/* A later row for the same (job, epoch, kind) replaces nothing: it is refused as MF_ERROR_INTERNAL unless
 * equal. Repeatable. */
enum mf_status mf_store_record_artifact(struct mf_database *database, const char *worker_id,
                                        const struct mf_lease *lease, const struct mf_stored_object *object,
                                        struct mf_error *error);
/* Adds the checkpoint and makes it the one to resume from; interruptions and drains count from 0 again.
 * Repeatable. */
enum mf_status mf_store_record_checkpoint(struct mf_database *database, const char *worker_id,
                                          const struct mf_lease *lease, const struct mf_stored_object *object,
                                          struct mf_error *error);

/* A trainer that says cancelled though nobody asked, beyond the job's deadline, counts as failed
 * deadline_exceeded. */
enum mf_outcome { MF_OUTCOME_SUCCEEDED, MF_OUTCOME_FAILED, MF_OUTCOME_CANCELLED, MF_OUTCOME_PAUSED };
struct mf_finish {
    enum mf_outcome outcome;
    const char
        *result; /* SUCCEEDED: JSON object (steps, train_loss, eval_loss, perplexity, trained_tokens) */
    enum mf_status error_status; /* FAILED: retriable ones are tried again while attempts are left */
    const char
        *error_message; /* FAILED: for people: "ProviderError: ..." is not repeated here, only the message */
    const char *trainer_code; /* FAILED: an external program's own code when the table lacks it; else NULL */
};
/* Ends the attempt: terminal state or, for a retriable failure with attempts left, queued with a back-off (or
 * what is desired). attempts + 1 for a failure. *state (may be NULL): what the job is now. Repeatable: the
 * same outcome of the same lease again is MF_OK; another is MF_ERROR_LEASE_LOST. */
enum mf_status mf_store_finish(struct mf_database *database, const char *worker_id,
                               const struct mf_lease *lease, const struct mf_finish *finish,
                               const struct mf_retry_policy *policy, enum mf_job_state *state,
                               struct mf_error *error);
/* The same for many attempts in one transaction: one wait for the disk instead of one each. MF_OK: each
 * ending says what became of it; anything else: nothing was written, and one end that PostgreSQL refuses
 * refuses all. */
struct mf_ending {
    const struct mf_lease *lease; /* each job once */
    struct mf_finish finish;
    /* out */
    enum mf_status status; /* MF_OK or MF_ERROR_LEASE_LOST */
    enum mf_job_state state;
};
enum mf_status mf_store_finish_all(struct mf_database *database, const char *worker_id,
                                   struct mf_ending *endings, size_t count,
                                   const struct mf_retry_policy *policy, struct mf_error *error);

/* ================================================================ (i) outbox */

enum mf_outbox_kind { MF_OUTBOX_EVENT, MF_OUTBOX_DEAD_LETTER, MF_OUTBOX_KINDS };
struct mf_outbox_row {
    int64_t id;
    enum mf_outbox_kind kind;
    /* EVENT */
    char event_id[MF_UUID_TEXT_BYTES], job_id[MF_UUID_TEXT_BYTES];
    char *tenant, *request_id, *type, *state; /* type: queued, running, checkpoint, succeeded, ... */
    int64_t sequence;                         /* per job, rising by 1 */
    int64_t attempt, step;                    /* MF_COUNT_NONE: none */
    char *detail;                             /* JSON object */
    int64_t occurred_at;
    /* DEAD_LETTER */
    int64_t reject_id;
    char *code, *reason, *source_topic;
    int32_t source_partition;
    int64_t source_offset;
    unsigned char *key, *value; /* value NULL: too large, send the headers and the reject id alone */
    size_t key_size, value_size;
};
struct mf_outbox_rows {
    struct mf_outbox_row *row;
    size_t count;
};
void mf_outbox_rows_free(struct mf_outbox_rows *rows); /* leaves it empty */

/* Tries to become the holder of a shard (session advisory lock). Not to be called twice for a shard in a
 * session. */
enum mf_status mf_store_outbox_lock(struct mf_database *database, int shard, bool *held,
                                    struct mf_error *error);
enum mf_status mf_store_outbox_unlock(struct mf_database *database, int shard, struct mf_error *error);
/* The first `limit` waiting rows of one kind of a shard this session holds, with id > after, in order: of one
 * job by sequence. A holder whose session ended (mf_database_session changed) must drop what it fetched. */
enum mf_status mf_store_outbox_fetch(struct mf_database *database, int shard, enum mf_outbox_kind kind,
                                     int64_t after, size_t limit, struct mf_outbox_rows *rows,
                                     struct mf_error *error);
/* Delivered rows leave the outbox (the event stays in job_events). Repeatable. */
enum mf_status mf_store_outbox_delivered(struct mf_database *database, const int64_t *ids, size_t count,
                                         struct mf_error *error);
/* A permanent error: the row stays, is not fetched again and shows in the outbox_parked view. Repeatable. */
enum mf_status mf_store_outbox_park(struct mf_database *database, int64_t id, const char *reason,
                                    struct mf_error *error);
/* For metrics: rows waiting and parked. */
enum mf_status mf_store_outbox_depth(struct mf_database *database, int64_t *waiting, int64_t *parked,
                                     struct mf_error *error);

/* ================================================================ (k) what the storage need not keep */

/* One collector at a time, by a lock of the session. */
enum mf_status mf_store_collect_lock(struct mf_database *database, bool *held, struct mf_error *error);
enum mf_status mf_store_collect_unlock(struct mf_database *database, struct mf_error *error);
/* Checkpoints that nothing will be resumed from: uri, size_bytes, reason. */
enum mf_status mf_store_superseded(struct mf_database *database, int64_t keep_s, struct mf_text_table *table,
                                   struct mf_error *error);
/* Marks them: no job is given a marked one any more. Repeatable. */
enum mf_status mf_store_collect_mark(struct mf_database *database, int64_t keep_s, struct mf_error *error);
/* Marked ones whose objects are not removed yet, at most 1,000: uri, size_bytes. */
enum mf_status mf_store_collect_marked(struct mf_database *database, struct mf_text_table *table,
                                       struct mf_error *error);
/* Their objects are gone. Uses up the array. Repeatable. */
enum mf_status mf_store_collect_removed(struct mf_database *database, struct mf_array *uris,
                                        struct mf_error *error);

/* Objects that the storage holds, in step; zero-initialise. */
struct mf_storage_entries {
    struct mf_array attempt_id, uri, size_bytes;
    size_t count;
};
void mf_storage_entries_add(struct mf_storage_entries *entries, const char *attempt_id, const char *uri,
                            int64_t size_bytes);
void mf_storage_entries_free(struct mf_storage_entries *entries); /* leaves it empty */
/* Which of them an attempt of this database, ended keep_s ago, left without a row: uri, size_bytes. */
enum mf_status mf_store_orphans(struct mf_database *database, struct mf_storage_entries *entries,
                                int64_t keep_s, struct mf_text_table *table, struct mf_error *error);

/* ================================================================ (j) reads and upkeep */

/* Texts are malloc'ed (NULL: none): mf_job_status_free(). */
struct mf_job_status {
    char job_id[MF_UUID_TEXT_BYTES];
    char *tenant, *request_id, *batch_id, *provider, *model_name, *task, *strategy;
    int32_t generation;
    char *state, *desired, *waiting_reason;
    int32_t attempts, max_attempts, interruptions;
    char *error_code, *error_message;
    char *worker_id, *phase;                   /* of the newest attempt */
    double fraction;                           /* of the phase; NaN: unknown */
    int64_t step, total_steps, trained_tokens; /* MF_COUNT_NONE: unknown */
    double loss, tokens_per_second;            /* of the newest step; NaN: none */
    char *result;                              /* JSON object of a succeeded job */
    int64_t created_at, started_at, finished_at, estimated_finish;
};
void mf_job_status_free(struct mf_job_status *status);
/* The newest generation of (tenant, request_id), or a job by its id. MF_ERROR_NOT_FOUND. */
enum mf_status mf_store_job_by_request(struct mf_database *database, const char *tenant,
                                       const char *request_id, struct mf_job_status *status,
                                       struct mf_error *error);
enum mf_status mf_store_job_by_id(struct mf_database *database, const char *job_id,
                                  struct mf_job_status *status, struct mf_error *error);

/* The loss_curve view of a job in step order, with step > after. *steps is malloc'ed, the caller frees. */
enum mf_status mf_store_loss_curve(struct mf_database *database, const char *job_id, int64_t after,
                                   struct mf_step_metric **steps, size_t *count, struct mf_error *error);
enum mf_status mf_store_eval_curve(struct mf_database *database, const char *job_id,
                                   struct mf_eval_metric **evals, size_t *count, struct mf_error *error);

/* What became of a record of Kafka: *taken false, not taken in yet. A record that was rejected is *taken, and
 * the call gives the code it was rejected with, with the reason as its message. */
enum mf_status mf_store_record_fate(struct mf_database *database, const char *topic, int32_t partition,
                                    int64_t offset, bool *taken, struct mf_error *error);

/* What a command came to. The texts are "" while nothing is known. */
struct mf_command_fate {
    char
        outcome[16]; /* waiting (its request has not come yet), applied, ignored, expired; "": not taken in */
    char note[256];  /* ignored: why */
    char job_id[MF_UUID_TEXT_BYTES]; /* that it concerned; of a retry: the new one */
    int32_t generation;
    char state[16]; /* of that job now */
};
enum mf_status mf_store_command_fate(struct mf_database *database, const char *command_id,
                                     struct mf_command_fate *fate, struct mf_error *error);

/* Rows as text for printing: column names and cells, row by row (NULL cells are NULL). */
struct mf_text_table {
    char **column;
    size_t columns;
    char **cell; /* rows x columns */
    size_t rows;
};
void mf_text_table_free(struct mf_text_table *table);
/* Jobs of a tenant (NULL: all) as they stand, newest first. */
enum mf_status mf_store_jobs(struct mf_database *database, const char *tenant, size_t limit,
                             struct mf_text_table *table, struct mf_error *error);
/* run_history of a tenant (NULL: all), newest first; audit_trail of a job, oldest first; its artifacts. */
enum mf_status mf_store_history(struct mf_database *database, const char *tenant, size_t limit,
                                struct mf_text_table *table, struct mf_error *error);
enum mf_status mf_store_events(struct mf_database *database, const char *job_id, struct mf_text_table *table,
                               struct mf_error *error);
enum mf_status mf_store_artifacts(struct mf_database *database, const char *job_id,
                                  struct mf_text_table *table, struct mf_error *error);
/* Live workers: worker_id, host, version, and as JSON what their trainers say of
 * providers. */
enum mf_status mf_store_live_workers(struct mf_database *database, struct mf_text_table *table,
                                     struct mf_error *error);
/* One row of what `modelforge doctor` looks at (the columns of sql/queries/read_health.sql). */
enum mf_status mf_store_health(struct mf_database *database, struct mf_text_table *table,
                               struct mf_error *error);
/* What this login may do: whether it is enough for a worker's statements, and more than those need. */
struct mf_worker_rights {
    char login[128];
    bool enough, more;
};
enum mf_status mf_store_worker_rights(struct mf_database *database, struct mf_worker_rights *rights,
                                      struct mf_error *error);
/* Where every partition stands, halted ones first. */
enum mf_status mf_store_ingest_status(struct mf_database *database, struct mf_text_table *table,
                                      struct mf_error *error);
enum mf_status mf_store_logs(struct mf_database *database, const char *job_id, size_t limit,
                             struct mf_text_table *table, struct mf_error *error);

/* Rejected records, newest first; topic and code NULL: all. */
enum mf_status mf_store_rejects(struct mf_database *database, const char *topic, const char *code,
                                size_t limit, struct mf_text_table *table, struct mf_error *error);
/* One of them with its bytes. Freed with mf_dead_letter_free. */
struct mf_dead_letter {
    int64_t reject_id;
    char *topic, *code, *reason;
    int32_t partition;
    int64_t offset, value_bytes;
    int64_t rejected_at, replayed_at; /* MF_TIME_NONE: not sent again yet */
    unsigned char *key, *value;       /* NULL: none */
    size_t key_size, value_size;
    bool kept; /* false: the value was too large to keep, value is NULL */
};
void mf_dead_letter_free(struct mf_dead_letter *letter);
/* These need the owner's rights. MF_ERROR_NOT_FOUND. */
enum mf_status mf_store_reject(struct mf_database *database, int64_t reject_id, struct mf_dead_letter *letter,
                               struct mf_error *error);
/* The oldest of one code with id > after that are kept and were not sent again. */
enum mf_status mf_store_rejects_to_replay(struct mf_database *database, const char *code, int64_t after,
                                          int64_t *ids, size_t limit, size_t *count, struct mf_error *error);
/* Writes down that the broker has it again. Repeatable. */
enum mf_status mf_store_reject_replayed(struct mf_database *database, int64_t reject_id, const char *topic,
                                        int32_t partition, int64_t offset, const char *by,
                                        struct mf_error *error);

/* What a client sent as one batch: where each record lies, and the job that it makes. */
struct mf_sent_batch {
    const char *topic;
    struct mf_array partition, offset, job_id; /* in step; freed with mf_sent_batch_free */
    size_t count;
};
void mf_sent_batch_add(struct mf_sent_batch *batch, int32_t partition, int64_t offset, const char *job_id);
void mf_sent_batch_free(struct mf_sent_batch *batch);
struct mf_batch_progress {
    size_t taken; /* records taken in, rejected ones too */
    int64_t
        jobs[MF_JOB_STATE_COUNT]; /* of the batch's jobs; one that was tried again by its newest generation */
};
/* Nothing may be added to the batch after the first of these calls. Both may be repeated. The table of ends:
 * request_id, state, error_code, error_message of what failed, was cancelled or (request_id NULL) rejected.
 */
enum mf_status mf_store_batch_progress(struct mf_database *database, struct mf_sent_batch *batch,
                                       struct mf_batch_progress *progress, struct mf_error *error);
enum mf_status mf_store_batch_ends(struct mf_database *database, struct mf_sent_batch *batch,
                                   struct mf_text_table *table, struct mf_error *error);

/* Jobs by state, for /metrics: the live ones, and those that ended in the last 24 hours. */
enum mf_status mf_store_job_counts(struct mf_database *database, int64_t counts[MF_JOB_STATE_COUNT],
                                   struct mf_error *error);
/* Makes the partitions of the coming weeks. Every worker calls it at start and once an hour. Repeatable. */
enum mf_status mf_store_maintain_partitions(struct mf_database *database, struct mf_error *error);

#endif
