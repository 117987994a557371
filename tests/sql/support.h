/* A database of the test's own, and short ways to fill and to ask it. */
#ifndef MF_TESTS_SQL_SUPPORT_H
#define MF_TESTS_SQL_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sql/migrate.h"
#include "sql/store.h"

/* Ends the program with 77 (skipped) when MF_TEST_DATABASE_URL is not set. */
void require_database(void);

/* cmocka group set-up and tear-down: a new empty database, dropped at the end with whatever is connected. */
int create_database(void **state);
int drop_database(void **state);
/* A new, migrated database. */
int create_migrated(void **state);

const char *test_database_name(void);
/* The URL as the superuser, of this database. `role` NULL: as it is; else after SET ROLE. */
struct mf_database *connect_as(const char *role);
/* With the rights a worker has. */
struct mf_database *connect_worker(void);
/* A connection string for another user of the same server and database. */
void other_user_url(const char *user, const char *database, char *url, size_t bytes);

/* Asserts success and shows the message otherwise. */
#define assert_fine(call)                                               \
    do {                                                                \
        error.message[0] = 0;                                           \
        enum mf_status status_ = (call);                                \
        if (status_)                                                    \
            fail_msg("%s: %s", mf_status_code(status_), error.message); \
    } while (0)
#define assert_status(call, expected)                                                           \
    do {                                                                                        \
        error.message[0] = 0;                                                                   \
        enum mf_status status_ = (call);                                                        \
        if (status_ != (expected))                                                              \
            fail_msg("%s instead of %s: %s", mf_status_code(status_), mf_status_code(expected), \
                     error.message);                                                            \
    } while (0)

/* The first cell of a statement's result, run as superuser; NULL cells give "(null)". Valid until the next
 * call. */
const char *ask(const char *format, ...) __attribute__((format(printf, 1, 2)));
long ask_number(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A statement run as superuser. */
void run_sql(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* After jobs were changed by hand: makes ready_jobs what they say. */
void renew_ready_jobs(void);

/* Whoever sets application_name = 'victim' loses its backend inside the COMMIT of a transaction that did
 * `event` (INSERT, UPDATE) on `table` to a row for which `condition` (on NEW) holds. */
void kill_at_commit(const char *table, const char *event, const char *condition);

/* ---- filling ---- */
enum { RECORD_TEXT_BYTES = 512 };
struct test_record {
    char request_id[64], tenant[64], config[RECORD_TEXT_BYTES], value[RECORD_TEXT_BYTES];
};
/* A request record at `offset`; `texts` keeps its strings. Provider huggingface, priority 0, 3 attempts. */
struct mf_ingest_record request_record(struct test_record *texts, const char *tenant, const char *request_id,
                                       int64_t offset);
/* Changes the content of a request record so that its hash differs. */
void change_content(struct mf_ingest_record *record);
/* Ingests one request with the next offset of topic "filled" and gives its job's id. `adjust` may be NULL. */
void add_job(struct mf_database *database, const char *tenant, const char *request_id,
             void (*adjust)(struct mf_ingest_request *), char job_id[MF_UUID_TEXT_BYTES]);
/* Claims one job of provider huggingface for `worker`; false: nothing was ready. */
bool claim_one(struct mf_database *database, const char *worker, struct mf_claim *claim);
/* A command by message, with the next offset of topic "commands"; gives the fate. */
enum mf_ingest_fate send_command(struct mf_database *database, const char *tenant, const char *request_id,
                                 const char *command_id, enum mf_command_action action);
/* The same for one generation. */
enum mf_ingest_fate send_command_of(struct mf_database *database, const char *tenant, const char *request_id,
                                    const char *command_id, enum mf_command_action action,
                                    int32_t generation);
extern const struct mf_retry_policy at_once; /* no back-off */

/* A provider of this name that runs on the CPU and on one or several GPUs. */
#define ON_ALL(NAME) \
    { .name = (NAME), .on_cpu = true, .on_gpu = true, .many_gpus = true }
/* What a worker without GPUs offers. */
struct mf_claim_offer cpu_offer(const char *worker_id, const struct mf_worker_provider *providers,
                                size_t count);

#endif
