/* Finding the job that a command line names, and following one. */
#ifndef MF_PRODUCER_CLI_JOB_H
#define MF_PRODUCER_CLI_JOB_H

#include "producer/cli/settings.h"
#include "sql/store.h"

/* A job id, a request id of the option `tenant`, or TENANT/REQUEST_ID. The texts of *job are freed with
 * mf_job_status_free. MF_ERROR_NOT_FOUND says what was looked for. */
enum mf_status mf_job_find(struct mf_settings *settings, struct mf_database *database, const char *name,
                           struct mf_job_status *job, struct mf_error *error);
/* Splits such a name into tenant and request id (both malloc'ed); a job id is looked up in the database and
 * gives its generation too (0: the name says none). */
enum mf_status mf_job_name(struct mf_settings *settings, const char *name, char **tenant, char **request_id,
                           int64_t *generation, struct mf_error *error);

/* Where a request lies in Kafka. */
struct mf_sent {
    char topic[250];
    int32_t partition;
    int64_t offset;
};

/* Follows the job until it is terminal: a live line on a terminal, one line a change elsewhere (nothing when
 * `quiet`); with --json only the job as it ended, as a line. A job that is not in the database yet is waited
 * for. Survives a database outage. With `sent` (may be NULL) it first waits until that record was taken in,
 * and tells if it was rejected. `timeout_s` 0: no limit. Returns an enum mf_exit. */
int mf_job_follow(struct mf_settings *settings, const char *job_id, const struct mf_sent *sent, bool quiet,
                  int64_t timeout_s);

/* The job as a JSON object, as --json prints it. New reference; NULL when memory runs out. */
json_t *mf_job_json(const struct mf_job_status *job);

/* What a job says of its result (a JSON object) for people, "steps 60, eval_loss 4.8204", as
 * mf_print_wrapped() does. */
void mf_job_print_result(const char *result, int used, int indent);

/* "1:05", "2:03:09". */
char *mf_duration(int64_t seconds, char text[32]);

#endif
