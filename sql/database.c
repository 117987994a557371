#include "sql/database.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"

enum {
    PARAMETER_LIMIT = 32,
    RETRY_LIMIT = 10,
    STATEMENT_MS = 30000,
    SILENCE_MS = 5000 /* beyond the time that the server has for a statement: it hangs, or its host does */
};

struct mf_database {
    PGconn *connection;
    struct mf_database_options options; /* its texts are ours */
    uint64_t session;
    bool hung; /* it was cut, for the server gave no answer */
    enum mf_database_failure failure;
    bool prepared[MF_QUERY_COUNT];
};

enum mf_database_failure mf_database_classify(const char *sqlstate) {
    static const struct {
        const char *prefix;
        enum mf_database_failure failure;
    } classes[] = {
        {"22", MF_DATABASE_MESSAGE},
        {"23", MF_DATABASE_MESSAGE},
        {"54", MF_DATABASE_MESSAGE},
        {"40", MF_DATABASE_RETRY},
        {"08", MF_DATABASE_INFRASTRUCTURE},
        {"53", MF_DATABASE_INFRASTRUCTURE},
        {"57", MF_DATABASE_INFRASTRUCTURE},
        {"58", MF_DATABASE_INFRASTRUCTURE},
        {"55P03", MF_DATABASE_INFRASTRUCTURE},
        {"25P03", MF_DATABASE_INFRASTRUCTURE}, /* idle-in-transaction limit */
        {"25006", MF_DATABASE_INFRASTRUCTURE}, /* a standby: read only */
    };
    if (!sqlstate || !*sqlstate)
        return MF_DATABASE_INFRASTRUCTURE;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (!strncmp(sqlstate, classes[i].prefix, strlen(classes[i].prefix)))
            return classes[i].failure;
    return MF_DATABASE_DEFECT;
}

static enum mf_status failure_status(enum mf_database_failure failure) {
    switch (failure) {
    case MF_DATABASE_MESSAGE:
        return MF_ERROR_UNSTORABLE;
    case MF_DATABASE_DEFECT:
        return MF_ERROR_INTERNAL;
    case MF_DATABASE_FINE:
    case MF_DATABASE_INFRASTRUCTURE:
    case MF_DATABASE_RETRY:
        break;
    }
    return MF_ERROR_DATABASE;
}

/* One line of libpq's text, without its newline. */
static void first_line(const char *text, char *line, size_t bytes) {
    snprintf(line, bytes, "%.*s", (int)strcspn(text, "\n"), text);
}

/* A row for which a table has no partition is reported as a check that failed, but one without a name. The
 * next mf_store_maintain_partitions() makes the partition: the row is fine. */
static bool partition_is_missing(const PGresult *result, const char *sqlstate) {
    return sqlstate && !strcmp(sqlstate, "23514") && !PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
}

static int or_default(int value, int otherwise) {
    return value > 0 ? value : otherwise;
}

static int64_t answer_limit_ms(const struct mf_database *database) {
    return or_default(database->options.statement_timeout_ms, STATEMENT_MS) + SILENCE_MS;
}

static enum mf_status fail(struct mf_database *database, const PGresult *result, const char *what,
                           struct mf_error *error) {
    const char *sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *primary = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    char line[512];
    if (database->hung)
        snprintf(line, sizeof line, "no answer within %lld ms", (long long)answer_limit_ms(database));
    else
        first_line(primary ? primary : PQerrorMessage(database->connection), line, sizeof line);
    bool may_be_the_message =
        PQstatus(database->connection) == CONNECTION_OK && !partition_is_missing(result, sqlstate);
    database->failure = may_be_the_message ? mf_database_classify(sqlstate) : MF_DATABASE_INFRASTRUCTURE;
    return mf_error_set(error, failure_status(database->failure), "PostgreSQL: %s: %s%s%s%s", what,
                        *line ? line : "the connection was lost", sqlstate ? " (SQLSTATE " : "",
                        sqlstate ? sqlstate : "", sqlstate ? ")" : "");
}

static void ignore_notice(void *context, const PGresult *result) {
    (void)context;
    (void)result;
}

/* Whether what libpq made of a connection string can be meant: a password with "/", ":" or "@" in it that is
 * not percent-encoded ends up in host, port or dbname, which libpq's messages name. */
static bool options_are_plausible(const PQconninfoOption *option) {
    for (; option->keyword; option++) {
        const char *value = option->val ? option->val : "";
        if ((!strcmp(option->keyword, "host") || !strcmp(option->keyword, "dbname")) && strchr(value, '@') &&
            *value != '@') /* "@name" is an abstract socket */
            return false;
        if (!strcmp(option->keyword, "port") && value[strspn(value, "0123456789,")])
            return false;
    }
    return true;
}

/* libpq's own messages about a connection string quote it, the password too: a wrong one is refused here. */
static enum mf_status check_url(const char *url, struct mf_error *error) {
    bool fine = true;
    if (!strncmp(url, "postgresql://", 13) || !strncmp(url, "postgres://", 11) || strchr(url, '=')) {
        char *reason = NULL;
        PQconninfoOption *options = PQconninfoParse(url, &reason);
        fine = options && options_are_plausible(options);
        PQconninfoFree(options);
        PQfreemem(reason);
    }
    return fine ? MF_OK
                : mf_error_set(
                      error, MF_ERROR_CONFIGURATION,
                      "database.url is no valid libpq URI (postgresql://user:password@host:port/name); "
                      "in a password write %%25 for %%, %%2F for /, %%3A for : and %%40 for @");
}

static enum mf_status connect_now(struct mf_database *database, struct mf_error *error) {
    const struct mf_database_options *options = &database->options;
    char connect_timeout[16], tcp_user_timeout[16], limits[400];
    snprintf(connect_timeout, sizeof connect_timeout, "%d", or_default(options->connect_timeout_s, 10));
    snprintf(tcp_user_timeout, sizeof tcp_user_timeout, "%d",
             or_default(options->tcp_user_timeout_ms, 15000));
    /* What the URL says wins over what stands before it; application_name and client_encoding are ours. */
    const char *const keywords[] = {"connect_timeout",  "tcp_user_timeout", "dbname",
                                    "application_name", "client_encoding",  NULL};
    const char *const values[] = {
        connect_timeout, tcp_user_timeout,
        options->url,    options->application_name ? options->application_name : "modelforge",
        "UTF8",          NULL};
    PQfinish(database->connection);
    memset(database->prepared, 0, sizeof database->prepared);
    database->session++;
    database->hung = false;
    database->connection = PQconnectdbParams(keywords, values, 1);
    if (!database->connection)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "PostgreSQL: no memory for a connection");
    if (PQstatus(database->connection) != CONNECTION_OK)
        return fail(database, NULL, "connect", error);
    PQsetNoticeReceiver(database->connection, ignore_notice, NULL);
    snprintf(
        limits, sizeof limits,
        "SET statement_timeout = %d; SET lock_timeout = %d; SET idle_in_transaction_session_timeout = %d; "
        "SET search_path = modelforge, public; SET TimeZone = 'UTC'; SET client_min_messages = warning",
        or_default(options->statement_timeout_ms, STATEMENT_MS), or_default(options->lock_timeout_ms, 10000),
        or_default(options->idle_in_transaction_timeout_ms, 60000));
    return mf_database_execute(database, limits, error);
}

enum mf_status mf_database_open(const struct mf_database_options *options, struct mf_database **database,
                                struct mf_error *error) {
    *database = NULL;
    if (!options->url || !*options->url)
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "database.url is not set: give a libpq URI");
    enum mf_status status = check_url(options->url, error);
    if (status)
        return status;
    struct mf_database *made = calloc(1, sizeof *made);
    if (!made)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "PostgreSQL: no memory for a connection");
    made->options = *options;
    made->options.url = strdup(options->url);
    made->options.application_name = options->application_name ? strdup(options->application_name) : NULL;
    status = made->options.url && (made->options.application_name || !options->application_name)
                 ? connect_now(made, error)
                 : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "PostgreSQL: no memory for a connection");
    if (status) {
        mf_database_close(made);
        return status;
    }
    *database = made;
    return MF_OK;
}

void mf_database_close(struct mf_database *database) {
    if (!database)
        return;
    PQfinish(database->connection);
    free((char *)database->options.url);
    free((char *)database->options.application_name);
    free(database);
}

enum mf_status mf_database_reconnect(struct mf_database *database, struct mf_error *error) {
    return connect_now(database, error);
}

bool mf_database_connected(const struct mf_database *database) {
    return PQstatus(database->connection) == CONNECTION_OK;
}

uint64_t mf_database_session(const struct mf_database *database) {
    return database->session;
}

enum mf_database_failure mf_database_failure(const struct mf_database *database) {
    return database->failure;
}

struct pg_conn *mf_database_handle(struct mf_database *database) {
    return database->connection;
}

/* Until a result is there, or libpq knows that the connection is broken. */
static void await_input(struct mf_database *database, int64_t until_ms) {
    PGconn *connection = database->connection;
    struct pollfd readable = {.fd = PQsocket(connection), .events = POLLIN};
    while (PQisBusy(connection)) {
        const int64_t left_ms = until_ms - mf_clock_monotonic_ms();
        const int ready = poll(&readable, 1, left_ms > 0 ? (int)left_ms : 0);
        if (!ready && left_ms <= 0) {
            database->hung = true;
            shutdown(PQsocket(connection), SHUT_RDWR);
        }
        if ((ready < 0 && errno != EINTR) || database->hung || !PQconsumeInput(connection))
            return;
    }
}

/* The last result of what was sent (0: it could not be), or the one that begins a COPY; NULL: the connection
 * is broken. A server that hangs keeps no time limit, and its kernel goes on to acknowledge what it gets:
 * after the limit of a statement and a while more the connection is cut from here. */
static PGresult *answer(struct mf_database *database, int sent) {
    const int64_t until_ms = mf_clock_monotonic_ms() + answer_limit_ms(database);
    PGresult *last = NULL, *next;
    while (sent && (!last || PQresultStatus(last) != PGRES_COPY_IN)) {
        await_input(database, until_ms);
        if (!(next = PQgetResult(database->connection)))
            break;
        PQclear(last);
        last = next;
    }
    return last;
}

static PGresult *execute(struct mf_database *database, const char *sql) {
    return answer(database, PQsendQuery(database->connection, sql));
}

/* Takes the result: keeps it in *kept when it is a success and wanted, else clears it. */
static enum mf_status finish(struct mf_database *database, PGresult *result, const char *what,
                             PGresult **kept, struct mf_error *error) {
    ExecStatusType got = PQresultStatus(result);
    if (got != PGRES_COMMAND_OK && got != PGRES_TUPLES_OK) {
        enum mf_status status = fail(database, result, what, error);
        PQclear(result);
        return status;
    }
    database->failure = MF_DATABASE_FINE;
    if (kept)
        *kept = result;
    else
        PQclear(result);
    return MF_OK;
}

enum mf_status mf_database_query(struct mf_database *database, enum mf_query query,
                                 const struct mf_parameter *parameters, size_t count,
                                 struct pg_result **result, struct mf_error *error) {
    const char *name = mf_query_texts[query].name;
    const char *values[PARAMETER_LIMIT];
    int lengths[PARAMETER_LIMIT], formats[PARAMETER_LIMIT];
    if (result)
        *result = NULL;
    if (count > PARAMETER_LIMIT)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: %zu parameters, at most %d", name, count,
                            PARAMETER_LIMIT);
    for (size_t i = 0; i < count; i++) {
        const struct mf_parameter *parameter = &parameters[i];
        if (parameter->kind == MF_PARAMETER_NO_MEMORY)
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "%s: no memory for parameter %zu", name,
                                i + 1);
        values[i] = parameter->kind == MF_PARAMETER_DATA     ? parameter->data
                    : parameter->kind == MF_PARAMETER_NUMBER ? parameter->number
                                                             : NULL;
        lengths[i] = parameter->size;
        formats[i] = parameter->binary;
    }
    if (!database->prepared[query]) {
        enum mf_status status = finish(
            database,
            answer(database, PQsendPrepare(database->connection, name, mf_query_texts[query].sql, 0, NULL)),
            name, NULL, error);
        if (status)
            return status;
        database->prepared[query] = true;
    }
    return finish(database,
                  answer(database, PQsendQueryPrepared(database->connection, name, (int)count, values,
                                                       lengths, formats, 0)),
                  name, result, error);
}

enum mf_status mf_database_execute(struct mf_database *database, const char *sql, struct mf_error *error) {
    return finish(database, execute(database, sql), "statement", NULL, error);
}

enum mf_status mf_database_copy(struct mf_database *database, enum mf_query query, const char *rows,
                                size_t length, struct mf_error *error) {
    const char *name = mf_query_texts[query].name;
    PGconn *connection = database->connection;
    PGresult *result = execute(database, mf_query_texts[query].sql);
    if (PQresultStatus(result) != PGRES_COPY_IN)
        return finish(database, result, name, NULL, error);
    PQclear(result);
    enum { CHUNK_BYTES = 1 << 20 };
    bool sent = true;
    for (size_t at = 0; sent && at < length; at += CHUNK_BYTES) {
        size_t left = length - at;
        sent = PQputCopyData(connection, rows + at, (int)(left < CHUNK_BYTES ? left : CHUNK_BYTES)) == 1;
    }
    if (!sent || PQputCopyEnd(connection, NULL) != 1)
        return fail(database, NULL, name, error);
    return finish(database, answer(database, 1), name, NULL, error);
}

enum mf_status mf_database_begin(struct mf_database *database, struct mf_error *error) {
    return finish(database, execute(database, "BEGIN"), "BEGIN", NULL, error);
}

enum mf_status mf_database_commit(struct mf_database *database, struct mf_error *error) {
    PGresult *result = execute(database, "COMMIT");
    if (PQresultStatus(result) == PGRES_COMMAND_OK && strcmp(PQcmdStatus(result), "COMMIT") != 0) {
        /* A transaction that had failed: the server rolled it back. */
        PQclear(result);
        database->failure = MF_DATABASE_DEFECT;
        return mf_error_set(error, MF_ERROR_INTERNAL, "COMMIT of a failed transaction: it was rolled back");
    }
    enum mf_status status = finish(database, result, "COMMIT", NULL, error);
    if (status && database->failure == MF_DATABASE_INFRASTRUCTURE) {
        if (error)
            error->status = MF_ERROR_COMMIT_UNKNOWN;
        return MF_ERROR_COMMIT_UNKNOWN;
    }
    return status;
}

void mf_database_rollback(struct mf_database *database) {
    PGTransactionStatusType state = PQtransactionStatus(database->connection);
    if (state == PQTRANS_INTRANS || state == PQTRANS_INERROR)
        PQclear(execute(database, "ROLLBACK"));
}

enum mf_status mf_database_transaction(struct mf_database *database,
                                       enum mf_status (*work)(struct mf_database *, void *context,
                                                              struct mf_error *),
                                       void *context, struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (int attempt = 0; attempt < RETRY_LIMIT; attempt++) {
        status = mf_database_begin(database, error);
        if (status)
            return status;
        status = work(database, context, error);
        if (!status)
            status = mf_database_commit(database, error);
        if (!status)
            return MF_OK;
        enum mf_database_failure failure = database->failure;
        mf_database_rollback(database);
        database->failure = failure;
        if (status != MF_ERROR_DATABASE || failure != MF_DATABASE_RETRY)
            return status;
    }
    return status;
}

enum mf_status mf_database_listen(struct mf_database *database, const char *channel, struct mf_error *error) {
    char statement[128];
    snprintf(statement, sizeof statement, "LISTEN %s", channel);
    return mf_database_execute(database, statement, error);
}

enum mf_status mf_database_notify(struct mf_database *database, const char *channel, struct mf_error *error) {
    char statement[128];
    snprintf(statement, sizeof statement, "NOTIFY %s", channel);
    return mf_database_execute(database, statement, error);
}

static bool take_notifications(PGconn *connection) {
    bool any = false;
    PGnotify *notification;
    while ((notification = PQnotifies(connection))) {
        any = true;
        PQfreemem(notification);
    }
    return any;
}

enum mf_status mf_database_wait(struct mf_database *database, int timeout_ms, int wake_fd, bool *notified,
                                struct mf_error *error) {
    int64_t until = mf_clock_monotonic_ms() + timeout_ms;
    bool woken = false;
    for (;;) {
        if (!PQconsumeInput(database->connection)) {
            *notified = false;
            return fail(database, NULL, "wait for a notification", error);
        }
        *notified = take_notifications(database->connection);
        int64_t left = until - mf_clock_monotonic_ms();
        if (*notified || woken || left <= 0)
            return MF_OK;
        struct pollfd fds[2] = {{.fd = PQsocket(database->connection), .events = POLLIN},
                                {.fd = wake_fd, .events = POLLIN}};
        if (poll(fds, 2, (int)left) < 0 && errno != EINTR)
            return mf_error_errno(error, errno, "wait for a notification");
        woken = fds[1].revents != 0;
    }
}
