#include "support.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/digest.h"

const struct mf_retry_policy at_once = {.base_ms = 0, .limit_ms = 0};

static char database_name[64];
static struct mf_database *superuser; /* of the test's database */

void require_database(void) {
    if (!getenv("MF_TEST_DATABASE_URL")) {
        fprintf(stderr, "skipped: MF_TEST_DATABASE_URL is not set\n");
        exit(77);
    }
}

const char *test_database_name(void) {
    return database_name;
}

/* The server's connection string with `database`, and `user` when given. */
static void server_url(const char *user, const char *database, char *url, size_t bytes) {
    PQconninfoOption *options = PQconninfoParse(getenv("MF_TEST_DATABASE_URL"), NULL);
    size_t used = 0;
    url[0] = 0;
    assert_non_null(options);
    for (PQconninfoOption *option = options; option->keyword; option++) {
        const char *value = option->val;
        if (!strcmp(option->keyword, "dbname"))
            value = database;
        if (user && !strcmp(option->keyword, "user"))
            value = user;
        if (user && !strcmp(option->keyword, "password"))
            value = "test-password";
        if (value && used < bytes)
            used += (size_t)snprintf(url + used, bytes - used, "%s='%s' ", option->keyword, value);
    }
    PQconninfoFree(options);
    assert_true(used < bytes);
}

void other_user_url(const char *user, const char *database, char *url, size_t bytes) {
    server_url(user, database, url, bytes);
}

static struct mf_database *open_url(const char *url) {
    struct mf_error error;
    struct mf_database *database = NULL;
    struct mf_database_options options = {.url = url, .application_name = "modelforge-test"};
    assert_fine(mf_database_open(&options, &database, &error));
    return database;
}

struct mf_database *connect_as(const char *role) {
    struct mf_error error;
    char url[1024], statement[128];
    server_url(NULL, database_name, url, sizeof url);
    struct mf_database *database = open_url(url);
    if (role) {
        snprintf(statement, sizeof statement, "SET ROLE %s", role);
        assert_fine(mf_database_execute(database, statement, &error));
    }
    return database;
}

struct mf_database *connect_worker(void) {
    return connect_as("modelforge_worker");
}

static void on_server(const char *sql) {
    struct mf_error error;
    struct mf_database *server = open_url(getenv("MF_TEST_DATABASE_URL"));
    assert_fine(mf_database_execute(server, sql, &error));
    mf_database_close(server);
}

int create_database(void **state) {
    static int serial;
    char statement[160];
    (void)state;
    snprintf(database_name, sizeof database_name, "mf_test_sql_%d_%d", (int)getpid(), ++serial);
    snprintf(statement, sizeof statement, "CREATE DATABASE %s TEMPLATE template0 ENCODING 'UTF8'",
             database_name);
    on_server(statement);
    superuser = connect_as(NULL);
    return 0;
}

int drop_database(void **state) {
    char statement[160];
    (void)state;
    mf_database_close(superuser);
    superuser = NULL;
    snprintf(statement, sizeof statement, "DROP DATABASE %s WITH (FORCE)", database_name);
    on_server(statement);
    return 0;
}

int create_migrated(void **state) {
    struct mf_error error;
    create_database(state);
    assert_fine(mf_migrate(superuser, NULL, NULL, &error));
    return 0;
}

static PGresult *execute(const char *format, va_list arguments) {
    char sql[4096];
    vsnprintf(sql, sizeof sql, format, arguments);
    PGresult *result = PQexec(mf_database_handle(superuser), sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        fail_msg("%s: %s", sql, PQresultErrorMessage(result));
    return result;
}

const char *ask(const char *format, ...) {
    static char cell[4096];
    va_list arguments;
    va_start(arguments, format);
    PGresult *result = execute(format, arguments);
    va_end(arguments);
    if (!PQntuples(result))
        snprintf(cell, sizeof cell, "(no row)");
    else
        snprintf(cell, sizeof cell, "%s", PQgetisnull(result, 0, 0) ? "(null)" : PQgetvalue(result, 0, 0));
    PQclear(result);
    return cell;
}

long ask_number(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PGresult *result = execute(format, arguments);
    va_end(arguments);
    assert_int_equal(PQntuples(result), 1);
    assert_false(PQgetisnull(result, 0, 0));
    long value = strtol(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    return value;
}

void run_sql(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PQclear(execute(format, arguments));
    va_end(arguments);
}

void kill_at_commit(const char *table, const char *event, const char *condition) {
    run_sql("CREATE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
            "IF current_setting('application_name') = 'victim' AND %s THEN "
            "PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER die AFTER %s ON %s DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION public.die()",
            condition, event, table);
}

/* ---- filling ---- */

static void job_id_of(const char *tenant, const char *request_id, char text[MF_UUID_TEXT_BYTES]) {
    struct mf_error error;
    struct mf_uuid space = {{0}}, id;
    char name[300];
    snprintf(name, sizeof name, "%s/%s", tenant, request_id);
    assert_fine(mf_uuid_v5(space, name, strlen(name), &id, &error));
    mf_uuid_format(id, text);
}

struct mf_ingest_record request_record(struct test_record *texts, const char *tenant, const char *request_id,
                                       int64_t offset) {
    struct mf_error error;
    struct mf_ingest_record record = {
        .kind = MF_INGEST_REQUEST, .offset = offset, .timestamp = 1700000000000 + offset};
    snprintf(texts->tenant, sizeof texts->tenant, "%s", tenant);
    snprintf(texts->request_id, sizeof texts->request_id, "%s", request_id);
    snprintf(
        texts->config, sizeof texts->config,
        "{\"model_name\":\"tiny\",\"task\":\"text-generation\",\"strategy\":\"sft\",\"request_id\":\"%s\"}",
        request_id);
    snprintf(texts->value, sizeof texts->value, "value of %s", request_id);
    record.key = texts->request_id;
    record.key_size = strlen(texts->request_id);
    record.value = texts->value;
    record.value_size = strlen(texts->value);
    record.request = (struct mf_ingest_request){.tenant = texts->tenant,
                                                .request_id = texts->request_id,
                                                .config = texts->config,
                                                .provider = "huggingface",
                                                .submitted_by = "somebody",
                                                .run_at = MF_TIME_NONE,
                                                .deadline = MF_TIME_NONE,
                                                .devices = 1,
                                                .max_attempts = 3,
                                                .schema_id = 7};
    job_id_of(tenant, request_id, record.request.job_id);
    assert_fine(mf_sha256_text(texts->config, strlen(texts->config), record.request.request_hash, &error));
    return record;
}

void change_content(struct mf_ingest_record *record) {
    record->request.request_hash[0] = record->request.request_hash[0] == 'a' ? 'b' : 'a';
}

/* Ingests one record with the next offset of a topic. */
static void ingest_next(struct mf_database *database, const char *topic, struct mf_ingest_record *record) {
    struct mf_error error;
    bool applied = false;
    long next = ask_number(
        "SELECT coalesce((SELECT next_offset FROM modelforge.ingest_offsets WHERE topic = '%s'), 0)", topic);
    record->offset = next;
    struct mf_ingest_batch batch = {.cluster_id = "cluster",
                                    .topic = topic,
                                    .expected = next ? next : MF_OFFSET_NONE,
                                    .next = next + 1,
                                    .records = record,
                                    .count = 1};
    assert_fine(mf_store_ingest_batch(database, &batch, &applied, &error));
    assert_true(applied);
}

void add_job(struct mf_database *database, const char *tenant, const char *request_id,
             void (*adjust)(struct mf_ingest_request *), char job_id[MF_UUID_TEXT_BYTES]) {
    struct test_record texts;
    struct mf_ingest_record record = request_record(&texts, tenant, request_id, 0);
    if (adjust)
        adjust(&record.request);
    ingest_next(database, "filled", &record);
    assert_int_equal(record.fate, MF_FATE_ACCEPTED);
    if (job_id)
        memcpy(job_id, record.request.job_id, MF_UUID_TEXT_BYTES);
}

void renew_ready_jobs(void) {
    run_sql("DELETE FROM ready_jobs; INSERT INTO ready_jobs (queue, tenant, needs_hash, claim_order, job_id, "
            "needs) "
            "SELECT queue, tenant, needs_hash, claim_order, id, needs FROM jobs WHERE ready_at IS NOT NULL");
}

bool claim_one(struct mf_database *database, const char *worker, struct mf_claim *claim) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    const struct mf_claim_offer offer = cpu_offer(worker, providers, 1);
    struct mf_error error;
    size_t count = 0;
    assert_fine(mf_store_claim(database, &offer, 1, claim, &count, &error));
    return count == 1;
}

struct mf_claim_offer cpu_offer(const char *worker_id, const struct mf_worker_provider *providers,
                                size_t count) {
    return (struct mf_claim_offer){.worker_id = worker_id, .providers = providers, .provider_count = count};
}

enum mf_ingest_fate send_command(struct mf_database *database, const char *tenant, const char *request_id,
                                 const char *command_id, enum mf_command_action action) {
    return send_command_of(database, tenant, request_id, command_id, action, 0);
}

enum mf_ingest_fate send_command_of(struct mf_database *database, const char *tenant, const char *request_id,
                                    const char *command_id, enum mf_command_action action,
                                    int32_t generation) {
    struct mf_ingest_record record = {
        .kind = MF_INGEST_COMMAND,
        .timestamp = MF_TIME_NONE,
        .value = "command",
        .value_size = 7,
        .command = {
            .tenant = tenant, .request_id = request_id, .action = action, .expected_generation = generation}};
    snprintf(record.command.command_id, sizeof record.command.command_id, "%s", command_id);
    ingest_next(database, "commands", &record);
    return record.fate;
}
