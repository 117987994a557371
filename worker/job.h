/* A job that this worker holds: shared by its supervisor thread, the heartbeat and the recorder. */
#ifndef MF_WORKER_JOB_H
#define MF_WORKER_JOB_H

#include "common/last_words.h"
#include "common/process.h"
#include "sql/store.h"
#include "worker/gpus.h"
#include "worker/spool.h"
#include "worker/storage.h"
#include "worker/trainer/event_order.h"
#include "worker/worker.h"

#include <pthread.h>

/* Why a trainer is stopped; a higher one replaces a lower one. */
enum mf_stop_reason {
    MF_STOP_NONE,
    MF_STOP_PREEMPT,   /* a job of higher priority needs the place */
    MF_STOP_DRAIN,     /* this worker shuts down */
    MF_STOP_PAUSE,     /* the user wants it; a resume may follow at once, on another worker */
    MF_STOP_BLIND,     /* PostgreSQL was away for longer than lease.blind_limit */
    MF_STOP_CANCEL,    /* the user wants it */
    MF_STOP_DEADLINE,  /* the job's deadline passed */
    MF_STOP_LEASE_LOST /* another worker owns the job: kill it and write nothing */
};

/* What a trainer's life came to, before it is judged. */
struct mf_trainer_story {
    enum mf_stop_reason stop;
    enum mf_event_type terminal; /* MF_EVENT_UNKNOWN: it said none */
    int64_t steps, trained_tokens;
    double train_loss, eval_loss, perplexity; /* of done */
    struct mf_error said;                     /* of error: status of its code, and its message */
    char said_code[64];
    struct mf_error broke; /* status not MF_OK: it could not be started, or broke the protocol */
    int64_t silent_ms;     /* > 0: the watchdog stopped it after this silence */
    struct mf_process_exit exit;
    enum mf_phase phase;
    int64_t step; /* the last it reported */
    struct mf_last_words last_words;
    size_t artifact_count; /* that it named */
};

enum mf_end_kind {
    MF_END_FINISH,  /* mf_store_finish() */
    MF_END_RELEASE, /* mf_store_release() */
    MF_END_ABANDON  /* the lease is lost: nothing may be written */
};

/* How an attempt is to be recorded. */
struct mf_job_end {
    enum mf_end_kind kind;
    enum mf_outcome outcome;        /* FINISH */
    struct mf_error error;          /* FINISH with MF_OUTCOME_FAILED */
    char trainer_code[64];          /* "" unless the trainer's code is not in the table */
    char *result;                   /* FINISH with MF_OUTCOME_SUCCEEDED: JSON object */
    enum mf_release_reason release; /* RELEASE */
    char note[MF_ERROR_TEXT_BYTES]; /* a line for the job's log; "" for none */
};

/* Decides. Needs nothing but the story; *end is freed with mf_job_end_free(). */
void mf_job_judge(const struct mf_trainer_story *story, struct mf_job_end *end);
void mf_job_end_free(struct mf_job_end *end);

enum { MF_JOB_MAX_ARTIFACTS = 16 };

struct mf_job_artifact {
    char kind[32];
    struct mf_stored_artifact stored;
};

/* A checkpoint that is durable and not yet recorded. */
struct mf_job_checkpoint {
    struct mf_stored_artifact stored; /* uri NULL: there is none */
    int64_t step;
};

struct mf_job {
    struct mf_worker *worker;
    struct mf_claim claim;
    struct mf_gpu_lock *gpus; /* that it has; the locks are let go of when the trainer has them */
    size_t gpu_count;
    char *folder;            /* work.dir/runs/<attempt uuid> */
    bool dataset_in_s3;      /* the trainer needs the keys for it */
    bool limits_checkpoints; /* the request has a save_total_limit */
    struct mf_spool *spool;
    pthread_t thread;
    int wake_fd;          /* eventfd: something for the supervisor to look at */
    atomic_int stop;      /* enum mf_stop_reason */
    atomic_bool kill_now; /* the drain limit passed */
    atomic_bool ended;    /* the supervisor is done: `end` and `artifact` are complete */

    pthread_mutex_t lock; /* for what follows, up to the next blank line */
    char *device, *gpu_uuids, *versions, *numeric_plan_sha256, *dataset_sha256, *base_revision;
    struct mf_attempt_details details; /* its texts are the six above */
    bool details_changed;
    enum mf_phase phase;
    double fraction;
    bool phase_changed;
    struct mf_job_checkpoint checkpoint; /* the newest that waits for the recorder */

    struct mf_job_end end; /* written before `ended`, read after */
    struct mf_job_artifact artifact[MF_JOB_MAX_ARTIFACTS];
    size_t artifact_count;

    int64_t batch_number;    /* recorder only: of the last batch that PostgreSQL took */
    size_t batch_records;    /* recorder only: records of the batch whose fate is not known, */
    bool batch_open;         /* when there is one */
    size_t artifacts_stored; /* recorder only: rows written */
};

/* ---- records of a spool: one of these, with its texts after it --------------------------------------- */

enum mf_record_kind { MF_RECORD_STEP, MF_RECORD_EVAL, MF_RECORD_LOG };
struct mf_record {
    enum mf_record_kind kind;
    union {
        struct mf_step_metric step;
        struct mf_eval_metric eval;
        struct {
            int64_t time;
            char level[16];
        } log; /* the message follows the struct, with a NUL */
    };
};
void mf_job_log(struct mf_job *job, const char *level, const char *message); /* spools a log line */

/* ---- the table -------------------------------------------------------------------------------------- */

struct mf_job_table;
enum mf_status mf_job_table_new(struct mf_job_table **table, struct mf_error *error);
void mf_job_table_free(struct mf_job_table *table); /* must be empty; NULL is allowed */

/* Only the claim thread adds and only the recorder removes, so the recorder may use a job without the lock.
 */
void mf_job_table_add(struct mf_job_table *table, struct mf_job *job);
void mf_job_table_remove(struct mf_job_table *table, struct mf_job *job);
size_t mf_job_table_count(struct mf_job_table *table);
bool mf_job_table_has(struct mf_job_table *table, const char *job_id, int64_t epoch);
/* Copies at most `limit` pointers (recorder), or leases (others); returns how many. */
size_t mf_job_table_list(struct mf_job_table *table, struct mf_job **jobs, size_t limit);
size_t mf_job_table_leases(struct mf_job_table *table, struct mf_lease *leases, size_t limit);
/* Asks a job's supervisor to stop its trainer; does nothing for a job that is not there. */
void mf_job_table_stop(struct mf_job_table *table, const struct mf_lease *lease, enum mf_stop_reason reason);
void mf_job_table_stop_all(struct mf_job_table *table, enum mf_stop_reason reason);
void mf_job_table_kill_all(struct mf_job_table *table); /* the drain limit passed */

#endif
