/* Rates of the queue in PostgreSQL, by the calls that the worker makes: requests taken in, claims with their
 * ends at a growing history, step rows by COPY. On a database of its own that it makes and drops.
 *
 *     queue_bench SUPERUSER_URL [HISTORY]...  e.g. 1000 100000 1000000: ended jobs made before claims are
 * measured. What earlier measurements left is there as well: each line says how many ended jobs there were in
 * all. */
#include "common/clock.h"
#include "sql/migrate.h"
#include "sql/store.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    INGESTED = 20000,
    INGEST_BATCH = 500,
    INGEST_THREADS = 4,
    CLAIMED = 4000,
    CLAIMED_ALONE = 2000, /* at least what a turn of ingest takes in */
    CLAIMED_IN_SETS = 20000,
    CLAIM_THREADS = 32,
    SET_THREADS = 4,
    CLAIM_BATCH = 64,
    METRIC_ROWS = 1000,
    METRIC_BATCHES = 100,
    METRIC_THREADS = 2
};

static char database_url[1024];

static void check(enum mf_status status, const struct mf_error *error, const char *what) {
    if (!status)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, mf_status_code(status), error->message);
    exit(EXIT_FAILURE);
}

static struct mf_database *connect_to(const char *url) {
    struct mf_database_options options = {
        .url = url, .application_name = "queue bench", .statement_timeout_ms = 600000};
    struct mf_database *database;
    struct mf_error error;
    check(mf_database_open(&options, &database, &error), &error, "connecting");
    return database;
}

/* As the worker's role, so that every right and trigger is in it. */
static struct mf_database *connect_worker(void) {
    struct mf_database *database = connect_to(database_url);
    struct mf_error error;
    check(mf_database_execute(database, "SET ROLE modelforge_worker", &error), &error, "SET ROLE");
    return database;
}

static void execute(struct mf_database *database, const char *sql) {
    struct mf_error error;
    check(mf_database_execute(database, sql, &error), &error, sql);
}

/* Runs the function in `count` threads, each with its number; gives the seconds that all took. */
static double in_threads(int count, void *(*function)(void *)) {
    static int number[CLAIM_THREADS];
    pthread_t thread[CLAIM_THREADS];
    int64_t began_ms = mf_clock_monotonic_ms();
    for (int i = 0; i < count; i++) {
        number[i] = i;
        if (pthread_create(&thread[i], NULL, function, &number[i]))
            exit(EXIT_FAILURE);
    }
    for (int i = 0; i < count; i++)
        pthread_join(thread[i], NULL);
    return (double)(mf_clock_monotonic_ms() - began_ms) / 1000;
}

/* Seconds of processor time that the server's ended processes took, when it runs on this machine; else 0.
 * What a busy machine does to a rate it does not do to this. */
static double server_seconds(void) {
    static long pid = -1;
    char path[64], line[512];
    enum { CHILDREN_USER = 16, CHILDREN_SYSTEM = 17 }; /* fields of /proc/PID/stat */
    unsigned long ticks = 0;
    if (pid < 0) {
        struct mf_database *owner = connect_to(database_url);
        PGresult *row =
            PQexec(mf_database_handle(owner), "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)");
        pid = PQresultStatus(row) == PGRES_TUPLES_OK ? strtol(PQgetvalue(row, 0, 0), NULL, 10) : 0;
        PQclear(row);
        mf_database_close(owner);
    }
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    char *rest = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    for (int field = 3; rest && field <= CHILDREN_SYSTEM; field++) {
        rest = strchr(rest + 1, ' ');
        if (rest && field >= CHILDREN_USER)
            ticks += strtoul(rest, NULL, 10);
    }
    fclose(file);
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* ---- ingest ---- */

static int ingest_count; /* of each thread's partition */
static int ingest_round;
static const char *ingest_batch_id; /* of all of them; NULL: none */

static void fill(struct mf_ingest_record *record, char name[64], int partition, int64_t offset) {
    static const char config[] = "{\"task\": \"text-generation\", \"model_name\": \"/models/llama\", "
                                 "\"dataset\": \"/data/rows.jsonl\", "
                                 "\"strategy\": \"sft\", \"lora_r\": 16, \"learning_rate\": 0.0002, "
                                 "\"num_train_epochs\": 1, \"seed\": 42}";
    struct mf_error error;
    snprintf(name, 64, "bench-%d-%d-%lld", ingest_round, partition, (long long)offset);
    *record = (struct mf_ingest_record){.kind = MF_INGEST_REQUEST,
                                        .offset = offset,
                                        .timestamp = 1700000000000,
                                        .key = name,
                                        .key_size = strlen(name),
                                        .value = config,
                                        .value_size = sizeof config - 1,
                                        .request = {.tenant = "bench",
                                                    .request_id = name,
                                                    .config = config,
                                                    .provider = "huggingface",
                                                    .run_at = MF_TIME_NONE,
                                                    .deadline = MF_TIME_NONE,
                                                    .batch_id = ingest_batch_id,
                                                    .devices = 1,
                                                    .max_attempts = 3,
                                                    .schema_id = 1}};
    check(mf_job_id("bench", name, 1, record->request.job_id, &error), &error, "an id");
    snprintf(record->request.request_hash, sizeof record->request.request_hash, "%064llx",
             (unsigned long long)offset);
}

static void *ingest_partition(void *argument) {
    int partition = *(const int *)argument;
    struct mf_database *database = connect_worker();
    struct mf_ingest_record *records = calloc(INGEST_BATCH, sizeof *records);
    char(*names)[64] = calloc(INGEST_BATCH, sizeof *names);
    char topic[32];
    struct mf_error error;
    snprintf(topic, sizeof topic, "bench-%d", ingest_round);
    for (int done = 0; done < ingest_count; done += INGEST_BATCH) {
        bool applied = false;
        for (int i = 0; i < INGEST_BATCH; i++)
            fill(&records[i], names[i], partition, done + i);
        struct mf_ingest_batch batch = {.cluster_id = "bench",
                                        .topic = topic,
                                        .partition = partition,
                                        .expected = done ? done : MF_OFFSET_NONE,
                                        .next = done + INGEST_BATCH,
                                        .records = records,
                                        .count = INGEST_BATCH};
        check(mf_store_ingest_batch(database, &batch, &applied, &error), &error, "ingest");
        if (!applied)
            exit(EXIT_FAILURE);
    }
    free(names);
    free(records);
    mf_database_close(database);
    return NULL;
}

static double ingest(int count) {
    ingest_round++;
    ingest_count = count / INGEST_THREADS;
    return in_threads(INGEST_THREADS, ingest_partition);
}

/* ---- claim and finish ---- */

static size_t claim_limit;
static atomic_int claimed;

static const struct mf_worker_provider providers[] = {{.name = "huggingface", .on_cpu = true}};

static struct mf_claim_offer offer_of(const char *name) {
    return (struct mf_claim_offer){.worker_id = name, .providers = providers, .provider_count = 1};
}

static void *claim_and_finish(void *argument) {
    const struct mf_finish finish = {.outcome = MF_OUTCOME_SUCCEEDED,
                                     .result = "{\"steps\": 125, \"train_loss\": 1.5}"};
    const struct mf_retry_policy policy = {0};
    struct mf_database *database = connect_worker();
    struct mf_claim claims[CLAIM_BATCH];
    struct mf_ending endings[CLAIM_BATCH];
    struct mf_error error;
    char name[32];
    size_t count = 1;
    snprintf(name, sizeof name, "worker-%d", *(const int *)argument);
    const struct mf_claim_offer offer = offer_of(name);
    while (count) {
        check(mf_store_claim(database, &offer, claim_limit, claims, &count, &error), &error, "claim");
        for (size_t i = 0; i < count; i++)
            endings[i] = (struct mf_ending){.lease = &claims[i].lease, .finish = finish};
        check(mf_store_finish_all(database, name, endings, count, &policy, &error), &error, "finish");
        for (size_t i = 0; i < count; i++) {
            check(endings[i].status, &error, "a lease");
            mf_claim_free(&claims[i]);
        }
        atomic_fetch_add(&claimed, (int)count);
    }
    mf_database_close(database);
    return NULL;
}

static long measured; /* jobs of earlier measurements, ended by now */

static void measure_claims(const char *what, long history, int threads, size_t limit, int jobs) {
    (void)ingest(jobs);
    claim_limit = limit;
    atomic_store(&claimed, 0);
    double before = server_seconds(), seconds = in_threads(threads, claim_and_finish);
    if (atomic_load(&claimed) != jobs)
        fprintf(stderr, "%d jobs instead of %d\n", atomic_load(&claimed), jobs);
    printf("claim + finish %-24s ended before %8ld  %8.0f jobs/s  %5.0f us of the server's processor time a "
           "job\n",
           what, measured + history, jobs / seconds, (server_seconds() - before) * 1e6 / jobs);
    fflush(stdout);
    measured += jobs;
}

/* Ended jobs with all that belongs to them but their audit rows' triggers, which would take hours. */
static void grow_history(long from, long to) {
    struct mf_database *owner = connect_to(database_url);
    char sql[4096];
    execute(owner, "SET session_replication_role = replica");
    snprintf(
        sql, sizeof sql,
        "WITH made AS (INSERT INTO jobs (id, tenant, request_id, queue, priority, devices, state, "
        "claim_order, "
        "max_attempts, lease_epoch, created_at, started_at, finished_at) SELECT gen_random_uuid(), 'old', "
        "'old-' || n, "
        "'huggingface', 0, 1, 'succeeded', now() - interval '1 day', 3, 1, now() - interval '1 day', now() - "
        "interval "
        "'1 day', now() - interval '1 day' FROM generate_series(%ld, %ld) AS n RETURNING id, request_id), "
        "configs AS "
        "(INSERT INTO job_configs (job_id, config, source_topic, source_partition, source_offset, schema_id, "
        "request_sha256) SELECT id, '{\"task\": \"text-generation\"}', 't', 0, 0, 1, '\\x00' FROM made), "
        "keys AS (INSERT "
        "INTO request_keys (tenant, request_id, request_hash, job_id) SELECT 'old', request_id, '\\x00', id "
        "FROM made), "
        "attempts AS (INSERT INTO job_attempts (job_id, epoch, worker_id, ended_at, outcome) SELECT id, 1, "
        "'w', now(), "
        "'succeeded' FROM made) INSERT INTO job_events (job_id, sequence, event_id, type, state, actor, "
        "previous_hash, "
        "hash) SELECT id, s, gen_random_uuid(), 'succeeded', 'succeeded', 'w', '\\x00', '\\x00' FROM made, "
        "generate_series(1, 3) AS s",
        from + 1, to);
    if (to > from)
        execute(owner, sql);
    execute(owner, "VACUUM ANALYZE jobs");
    execute(owner, "VACUUM ANALYZE job_events");
    execute(owner, "ANALYZE");
    mf_database_close(owner);
}

/* ---- metrics ---- */

static void *write_metrics(void *argument) {
    static const struct mf_worker_provider provider = {.name = "huggingface", .on_cpu = true};
    struct mf_database *database = connect_worker();
    struct mf_step_metric *steps = calloc(METRIC_ROWS, sizeof *steps);
    struct mf_claim claim;
    struct mf_error error;
    size_t count = 0;
    bool repeat;
    char name[32];
    snprintf(name, sizeof name, "metrics-%d", *(const int *)argument);
    const struct mf_claim_offer offer = {.worker_id = name, .providers = &provider, .provider_count = 1};
    check(mf_store_claim(database, &offer, 1, &claim, &count, &error), &error, "claim");
    for (int64_t batch = 1; batch <= METRIC_BATCHES; batch++) {
        for (int64_t i = 0; i < METRIC_ROWS; i++) {
            int64_t step = (batch - 1) * METRIC_ROWS + i + 1;
            steps[i] = (struct mf_step_metric){step,  (double)step / 1e5, 2.5 / (double)step, 2e-4, 0.7, 940,
                                               20000, (double)step};
        }
        const struct mf_metrics_batch write = {.number = batch, .steps = steps, .step_count = METRIC_ROWS};
        check(mf_store_write_metrics(database, name, &claim.lease, &write, &repeat, &error), &error,
              "metrics");
    }
    mf_claim_free(&claim);
    free(steps);
    mf_database_close(database);
    return NULL;
}

int main(int argc, char **argv) {
    char name[64], sql[256];
    struct mf_error error;
    struct mf_migrate_report report;
    if (argc < 2) {
        fprintf(stderr, "usage: queue_bench SUPERUSER_URL [HISTORY]...\n");
        return EXIT_FAILURE;
    }
    struct mf_database *administrator = connect_to(argv[1]);
    snprintf(name, sizeof name, "mf_bench_%d", (int)getpid());
    snprintf(sql, sizeof sql, "CREATE DATABASE %s", name);
    execute(administrator, sql);
    const char *end = strrchr(argv[1], '/');
    snprintf(database_url, sizeof database_url, "%.*s/%s", (int)(end - argv[1]), argv[1], name);
    struct mf_database *owner = connect_to(database_url);
    check(mf_migrate(owner, &(struct mf_migrate_options){0}, &report, &error), &error, "migrating");
    mf_database_close(owner);
    struct mf_database *worker = connect_worker();
    check(mf_store_maintain_partitions(worker, &error), &error, "partitions");
    mf_database_close(worker);

    double seconds = 0;
    static const char *const batch_ids[] = {NULL, "nightly"};
    for (size_t i = 0; i < 2; i++) {
        ingest_batch_id = batch_ids[i];
        seconds = ingest(INGESTED);
        printf("ingest, %d connections, sets of %d%s: %.0f requests/s\n", INGEST_THREADS, INGEST_BATCH,
               ingest_batch_id ? ", all of one batch" : "", INGESTED / seconds);
        fflush(stdout);
    }
    ingest_batch_id = NULL;
    owner = connect_to(database_url);
    execute(owner, "UPDATE jobs SET state = 'succeeded', ready_at = NULL, finished_at = now()");
    execute(owner, "UPDATE queue_counts SET ready = 0");
    execute(owner, "DELETE FROM ready_jobs");
    execute(owner, "VACUUM ANALYZE");
    mf_database_close(owner);

    (void)ingest(INGEST_THREADS * INGEST_BATCH);
    seconds = in_threads(METRIC_THREADS, write_metrics);
    printf("metrics, %d connections, COPY of %d: %.0f step rows/s\n", METRIC_THREADS, METRIC_ROWS,
           (double)METRIC_ROWS * METRIC_BATCHES * METRIC_THREADS / seconds);
    fflush(stdout);
    owner = connect_to(database_url);
    execute(owner, "UPDATE jobs SET state = 'succeeded', ready_at = NULL, finished_at = now() WHERE "
                   "finished_at IS NULL");
    execute(owner, "UPDATE queue_counts SET ready = 0, running = 0");
    execute(owner, "DELETE FROM ready_jobs");
    execute(owner, "DELETE FROM job_leases");
    mf_database_close(owner);

    long before = 0;
    measured = 2 * INGESTED + INGEST_THREADS * INGEST_BATCH;
    for (int i = 2; i < argc; i++) {
        long history = strtol(argv[i], NULL, 10);
        grow_history(before, history);
        before = history;
        measure_claims("one by one, 1 connection", history, 1, 1, CLAIMED_ALONE);
        measure_claims("one by one, 16", history, CLAIM_THREADS / 2, 1, CLAIMED);
        measure_claims("one by one, 32", history, CLAIM_THREADS, 1, CLAIMED);
        measure_claims("64 at a call, 4", history, SET_THREADS, CLAIM_BATCH, CLAIMED_IN_SETS);
    }
    snprintf(sql, sizeof sql, "DROP DATABASE %s WITH (FORCE)", name);
    execute(administrator, sql);
    mf_database_close(administrator);
    return EXIT_SUCCESS;
}
