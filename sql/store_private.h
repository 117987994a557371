/* What the parts of the store share. Everything here runs inside the caller's transaction. */
#ifndef MF_SQL_STORE_PRIVATE_H
#define MF_SQL_STORE_PRIVATE_H

#include <jansson.h>

#include "sql/store.h"

#define MF_COUNT(array) (sizeof(array) / sizeof *(array))

/* MF_COUNT_NONE is SQL NULL, both ways. */
struct mf_parameter mf_optional_count(int64_t value);
int64_t mf_count_or_none(const struct pg_result *rows, int row, int column);

/* One audit row; its trigger chains it and puts it into the outbox. `detail` (may be NULL) is consumed. */
struct mf_audit {
    const char *job_id, *type, *state, *actor;
    int64_t attempt, step; /* MF_COUNT_NONE: none */
    json_t *detail;
};
enum mf_status mf_audit_write(struct mf_database *database, struct mf_audit audit, struct mf_error *error);

/* Changes of tenant_queues, gathered over a transaction and written at its end, rows in one order. */
struct mf_count_changes {
    struct mf_array queue, tenant, ready, running;
    bool any;
};
void mf_count_changes_add(struct mf_count_changes *changes, const char *queue, const char *tenant, int ready,
                          int running);
/* Writes what was added. */
enum mf_status mf_count_changes_write(struct mf_database *database, struct mf_count_changes *changes,
                                      struct mf_error *error);
void mf_count_changes_free(struct mf_count_changes *changes);

/* An unleased job as a statement found it, locked. */
struct mf_unleased {
    const char *job_id, *queue, *tenant;
    enum mf_job_state state;
    bool ready;
    int64_t epoch;
};
/* queued or paused -> `next` (cancelled or failed), with audit and counts. error_code and error_message:
 * failed. */
enum mf_status mf_close_unleased(struct mf_database *database, const struct mf_unleased *job,
                                 enum mf_job_state next, const char *error_code, const char *error_message,
                                 const char *actor, json_t *detail, struct mf_count_changes *changes,
                                 struct mf_error *error);

/* One command within its batch's transaction (store_command.c). A command that cannot stand at all gives
 * *refusal a status and a text, and MF_OK: the caller rejects its record. */
enum mf_status mf_command_take(struct mf_database *database, const struct mf_ingest_command *command,
                               struct mf_count_changes *changes, enum mf_ingest_fate *fate,
                               struct mf_error *refusal, struct mf_error *error);
/* Carries out commands that came before their request: of these jobs (a uuid array), or all (NULL). */
enum mf_status mf_apply_waiting_commands(struct mf_database *database, const struct mf_parameter *job_ids,
                                         struct mf_count_changes *changes, struct mf_error *error);

/* Writes batch_finished for batches that have had nothing left to do for `settle_s` (store_batch.c). */
enum mf_status mf_batches_finish(struct mf_database *database, int32_t settle_s, int64_t *finished,
                                 struct mf_error *error);

/* A leased job under its lock (lease_lock.sql, rescue_lock.sql). */
struct mf_leased {
    enum mf_job_state state;
    enum mf_job_desired desired;
    int32_t attempts, max_attempts, interruptions, drains;
    bool deadline_passed;
};
/* MF_ERROR_LEASE_LOST when this lease is not the job's any more. */
enum mf_status mf_lease_lock(struct mf_database *database, const char *worker_id,
                             const struct mf_lease *lease, struct mf_leased *job, struct mf_error *error);
/* A row of lease_lock.sql, leases_lock.sql or rescue_lock.sql. */
struct mf_leased mf_leased_read(const struct pg_result *rows, int row);

/* Running -> next: job, lease, attempt, counts and audit. */
struct mf_attempt_end {
    const struct mf_lease *lease; /* of a job that is locked */
    enum mf_job_state next;
    const char *outcome;    /* of the attempt */
    const char *event_type; /* of the audit row */
    const char *actor;
    int64_t delay_ms;                    /* next queued: back-off */
    int attempts, interruptions, drains; /* to add */
    const char *error_code, *error_message, *result;
    json_t *detail; /* consumed */
};
/* The attempts of `count` jobs, in one statement. Their details are consumed. */
enum mf_status mf_attempts_end(struct mf_database *database, struct mf_attempt_end *ends, size_t count,
                               struct mf_error *error);

/* Runs a query and keeps its rows as text. */
enum mf_status mf_read_table(struct mf_database *database, enum mf_query query,
                             const struct mf_parameter *parameters, size_t count, struct mf_text_table *table,
                             struct mf_error *error);

/* A malloc'ed copy of `text` in which bytes that are not UTF-8 are '?'; NULL: no memory. */
char *mf_clean_text(const char *text);

/* base doubled for each earlier time, at most the limit, ± 20 %. `times` counts from 1. */
int64_t mf_backoff_ms(const struct mf_retry_policy *policy, int32_t times);

#endif
