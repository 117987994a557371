/* One PostgreSQL connection, its error classes and the named queries of sql/queries/.
 *
 * A connection belongs to one thread at a time. Nothing here is global. An error says PostgreSQL's primary
 * message (not its detail, which quotes rows), the SQLSTATE and the query's name; never the URL. */
#ifndef MF_SQL_DATABASE_H
#define MF_SQL_DATABASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/text.h"
#include "sql/queries.h" /* generated: enum mf_query, one constant a named query */

struct pg_conn;
struct pg_result;
struct mf_database;

/* Zero or NULL takes the default in brackets. Every limit is set on the server for the whole session. */
struct mf_database_options {
    const char *url;                    /* libpq URI or key=value string */
    const char *application_name;       /* shown in pg_stat_activity ["modelforge"] */
    int connect_timeout_s;              /* [10] */
    int tcp_user_timeout_ms;            /* unacknowledged data closes the connection [15000] */
    int statement_timeout_ms;           /* [30000]; a server that gives no answer for 5 s longer is cut off */
    int lock_timeout_ms;                /* [10000] */
    int idle_in_transaction_timeout_ms; /* [60000] */
};

/* What an SQLSTATE means to the caller (40-reliability.md, rule 4). */
enum mf_database_failure {
    MF_DATABASE_FINE,
    MF_DATABASE_MESSAGE,        /* 22, 23, 54: the values are at fault; status MF_ERROR_UNSTORABLE */
    MF_DATABASE_INFRASTRUCTURE, /* 08, 53, 57, 58, 55P03, 25P03 and a lost connection; status
                                   MF_ERROR_DATABASE */
    MF_DATABASE_RETRY,          /* 40: try the transaction again at once; status MF_ERROR_DATABASE */
    MF_DATABASE_DEFECT          /* anything else (42: a wrong statement or grant); status MF_ERROR_INTERNAL */
};
enum mf_database_failure mf_database_classify(const char *sqlstate); /* NULL or "": infrastructure */

/* Opens, sets the limits and search_path = modelforge. MF_ERROR_DATABASE when it cannot be reached or
 * refuses. The caller closes it. */
enum mf_status mf_database_open(const struct mf_database_options *options, struct mf_database **database,
                                struct mf_error *error);
void mf_database_close(struct mf_database *database); /* NULL is allowed */
/* Drops the session (open transactions and advisory locks with it) and connects again with the same options.
 */
enum mf_status mf_database_reconnect(struct mf_database *database, struct mf_error *error);
/* False once libpq saw the connection break; only mf_database_reconnect() makes it true again. */
bool mf_database_connected(const struct mf_database *database);
/* Grows by one with every (re)connect: whoever counts something "in one unbroken session" compares it. */
uint64_t mf_database_session(const struct mf_database *database);
/* The class of the last failure on this connection; MF_DATABASE_FINE after a success. */
enum mf_database_failure mf_database_failure(const struct mf_database *database);
struct pg_conn *mf_database_handle(struct mf_database *database); /* for COPY; stays the database's */

/* ---- parameters: borrowed until the call returns ---- */
struct mf_parameter {
    const char *data;
    int size; /* bytes of a binary parameter */
    bool binary;
    char number[40]; /* text of a number, a time or a truth value, when `data` is not its own */
    enum { MF_PARAMETER_NULL, MF_PARAMETER_DATA, MF_PARAMETER_NUMBER, MF_PARAMETER_NO_MEMORY } kind;
};
struct mf_parameter mf_parameter_text(const char *text); /* NULL: SQL NULL; the query casts: $1::uuid */
struct mf_parameter mf_parameter_integer(int64_t value);
struct mf_parameter mf_parameter_number(double value); /* infinities and NaN are kept */
struct mf_parameter mf_parameter_boolean(bool value);
struct mf_parameter mf_parameter_bytes(const void *bytes, size_t size); /* bytea; NULL: SQL NULL */
/* Milliseconds since 1970 as a timestamptz; MF_TIME_NONE and times outside the years 1 to 9999: SQL NULL. */
struct mf_parameter mf_parameter_time(int64_t milliseconds);
bool mf_time_storable(int64_t milliseconds); /* within those years */
struct mf_parameter mf_parameter_null(void);
#define MF_TIME_NONE INT64_MIN

/* ---- arrays for statements that UNNEST a batch: a growing text literal the caller releases ---- */
struct mf_array {
    struct mf_text text; /* "{...}" once finished; when memory ran out the query that gets it says so */
    bool closed;
};
void mf_array_text(struct mf_array *array, const char *text); /* NULL: a NULL element */
void mf_array_integer(struct mf_array *array, int64_t value);
void mf_array_number(struct mf_array *array, double value);
void mf_array_boolean(struct mf_array *array, bool value);
void mf_array_time(struct mf_array *array, int64_t milliseconds); /* MF_TIME_NONE: a NULL element */
void mf_array_bytes(struct mf_array *array, const void *bytes, size_t size); /* NULL: a NULL element */
void mf_array_null(struct mf_array *array);
struct mf_parameter mf_array_parameter(
    struct mf_array *array); /* closes the literal; nothing may be added after */
void mf_array_free(struct mf_array *array);

/* ---- queries and transactions ---- */
/* Runs one named query, prepared on its first use in this session. *result (may be NULL when the rows do not
 * matter) is the caller's, text format, freed with mf_result_free(). */
enum mf_status mf_database_query(struct mf_database *database, enum mf_query query,
                                 const struct mf_parameter *parameters, size_t count,
                                 struct pg_result **result, struct mf_error *error);
/* Runs SQL text (several statements allowed, no parameters): migrations, tests and tools. */
enum mf_status mf_database_execute(struct mf_database *database, const char *sql, struct mf_error *error);

/* Runs a named COPY ... FROM STDIN with rows in text format (tabs, newlines). */
enum mf_status mf_database_copy(struct mf_database *database, enum mf_query query, const char *rows,
                                size_t length, struct mf_error *error);

enum mf_status mf_database_begin(struct mf_database *database, struct mf_error *error);
/* MF_ERROR_COMMIT_UNKNOWN when the connection broke while COMMIT was under way: the transaction may or may
 * not have happened, so reconnect and *read* before acting. Any other failure: it did not happen. */
enum mf_status mf_database_commit(struct mf_database *database, struct mf_error *error);
/* Ends the transaction, if any, whatever state it is in. Never fails: a dead connection has rolled back. */
void mf_database_rollback(struct mf_database *database);
/* begin, work(context), commit; rolls back when work fails and repeats at once (10 times at most) on
 * SQLSTATE class 40. `work` may so run several times and must not keep results of an earlier run. */
enum mf_status mf_database_transaction(struct mf_database *database,
                                       enum mf_status (*work)(struct mf_database *, void *context,
                                                              struct mf_error *),
                                       void *context, struct mf_error *error);

/* LISTEN on a channel (an identifier, not user text). NOTIFY runs alone, outside a transaction. */
enum mf_status mf_database_listen(struct mf_database *database, const char *channel, struct mf_error *error);
enum mf_status mf_database_notify(struct mf_database *database, const char *channel, struct mf_error *error);
/* Waits up to timeout_ms (0: only looks) for a notification on any channel listened to, or until the
 * descriptor `wake_fd` (-1: none) is readable; *notified says whether at least one notification came (all
 * waiting ones are consumed). MF_ERROR_DATABASE when the connection broke. */
enum mf_status mf_database_wait(struct mf_database *database, int timeout_ms, int wake_fd, bool *notified,
                                struct mf_error *error);

/* ---- reading results (text format) ---- */
void mf_result_free(struct pg_result *result); /* NULL is allowed */
int mf_result_rows(const struct pg_result *result);
bool mf_result_null(const struct pg_result *result, int row, int column);
const char *mf_result_text(const struct pg_result *result, int row,
                           int column); /* "" for NULL; the result's */
int64_t mf_result_integer(const struct pg_result *result, int row, int column); /* 0 for NULL */
double mf_result_number(const struct pg_result *result, int row, int column);   /* NaN for NULL */
bool mf_result_boolean(const struct pg_result *result, int row, int column);    /* false for NULL */
int64_t mf_result_time(const struct pg_result *result, int row,
                       int column); /* of a bigint of milliseconds; MF_TIME_NONE for NULL */
/* Decodes a bytea; *bytes is malloc'ed (NULL for SQL NULL), the caller frees. False: out of memory. */
bool mf_result_bytes(const struct pg_result *result, int row, int column, unsigned char **bytes,
                     size_t *size);
/* malloc'ed copy, NULL for SQL NULL (or when memory is out). */
char *mf_result_copy(const struct pg_result *result, int row, int column);

#endif
