/* A batch: many requests read from one place, sent together, followed together. */
#ifndef MF_PRODUCER_CLI_BATCH_H
#define MF_PRODUCER_CLI_BATCH_H

#include "producer/cli/settings.h"
#include "schemas/request.h"
#include "sql/store.h"

#include <jansson.h>

enum { MF_BATCH_ROWS = 100000 };

/* One request of a batch. Of 100,000 only what is needed later is kept. */
struct mf_batch_row {
    char *origin; /* "jobs.jsonl:12" or "folder/a.json" */
    char *tenant, *request_id;
    char *json; /* the checked request without its id: what differs from the defaults */
    char job_id[MF_UUID_TEXT_BYTES];
    bool named;    /* its request_id was made of the batch's id and its content */
    bool accepted; /* by Kafka, at: */
    int32_t partition;
    int64_t offset;
    bool faulty;
    char *fault; /* faulty: the text for people; NULL when there was no memory for it */
};
struct mf_batch {
    struct mf_batch_row *row; /* freed with mf_batch_free */
    size_t rows;
    char *batch_id; /* of the first row that has no fault */
};

/* Makes a request of a row's JSON value: flags, configuration, checks; batch_id must be set. */
typedef enum mf_status mf_batch_make(void *context, json_t *value, struct mf_request *request,
                                     struct mf_error *error);

/* Reads the rows of a JSONL file, of standard input ("-"), or of a folder's *.json files in the order of
 * their names, and checks each. What is wrong with a single row is its `fault`; the call fails when the
 * source itself cannot be read, is empty, or has more than MF_BATCH_ROWS rows. Free *batch whatever is
 * returned. */
enum mf_status mf_batch_read(const char *path, mf_batch_make *make, void *context, struct mf_batch *batch,
                             struct mf_error *error);
void mf_batch_free(struct mf_batch *batch);

/* Gives every request without a request_id one made of the batch's id and the request's content
 * ("nightly-3f9a0c12b7d4e865", the second of equal ones "...-2"): sending the same batch again makes no new
 * job. Two rows that name the same request_id are a fault of the second. Rows with faults are left out, the
 * others know their job's id. */
enum mf_status mf_batch_name_requests(struct mf_batch *batch, struct mf_error *error);

/* The request of a row without fault, as it is sent. Free *request whatever is returned. */
enum mf_status mf_batch_request(const struct mf_batch_row *row, struct mf_request *request,
                                struct mf_error *error);
void mf_batch_row_fail(struct mf_batch_row *row, const struct mf_error *error);

/* Follows what was sent until every record was taken in and every job has ended; then prints what did not
 * succeed. Returns an enum mf_exit: failed when a job failed or a request was rejected, else cancelled when
 * one was cancelled. `timeout_s` 0: no limit. */
int mf_batch_follow(struct mf_settings *settings, struct mf_sent_batch *sent, const char *batch_id,
                    bool quiet, int64_t timeout_s);

#endif
