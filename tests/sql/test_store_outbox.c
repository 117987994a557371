/* The outbox: order per job, one holder a shard, delivered rows leave, parked rows stay. */
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

enum { JOBS = 40, THREADS = 4 };

/* A thread that does jobs as one worker until there is none left. */
struct runner {
    const char *worker_id;
    int64_t done;
};

static void *run_jobs(void *context) {
    struct runner *runner = context;
    struct mf_error error;
    struct mf_database *database = connect_worker();
    struct mf_claim claim;
    while (claim_one(database, runner->worker_id, &claim)) {
        const struct mf_finish finish = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{}"};
        runner->done += mf_store_finish(database, runner->worker_id, &claim.lease, &finish, &at_once, NULL,
                                        &error) == MF_OK;
        mf_claim_free(&claim);
    }
    mf_database_close(database);
    return NULL;
}

static int shard_of(const char *job_id) {
    char digit[2] = {job_id[35], 0};
    return (int)strtol(digit, NULL, 16);
}

struct seen {
    char job_id[MF_UUID_TEXT_BYTES];
    int64_t sequence;
};

/* Reads a shard in pages of 3; events must come as 1, 2, 3 a job. Gives how many. */
static int drain_shard(struct mf_database *database, int shard, struct seen *seen, size_t *seen_count) {
    static const char *const types[] = {"queued", "running", "succeeded"};
    struct mf_error error;
    struct mf_outbox_rows rows;
    int64_t after = 0, ids[3];
    int total = 0;
    do {
        assert_fine(mf_store_outbox_fetch(database, shard, MF_OUTBOX_EVENT, after, 3, &rows, &error));
        for (size_t i = 0; i < rows.count; i++) {
            const struct mf_outbox_row *row = &rows.row[i];
            size_t job = 0;
            assert_int_equal(row->kind, MF_OUTBOX_EVENT);
            assert_int_equal(shard_of(row->job_id), shard);
            assert_true(row->id > after);
            while (job < *seen_count && strcmp(seen[job].job_id, row->job_id) != 0)
                job++;
            if (job == *seen_count)
                memcpy(seen[(*seen_count)++].job_id, row->job_id, MF_UUID_TEXT_BYTES);
            assert_int_equal(row->sequence, ++seen[job].sequence);
            assert_string_equal(row->type, types[row->sequence - 1]);
            assert_string_equal(row->tenant, "team");
            assert_int_equal(strlen(row->event_id), 36);
            assert_int_equal(row->attempt, row->sequence == 1 ? MF_COUNT_NONE : 1);
            assert_int_equal(row->step, MF_COUNT_NONE);
            assert_int_equal(row->detail[0], '{');
            ids[i] = after = row->id;
            total++;
        }
        assert_fine(mf_store_outbox_delivered(database, ids, rows.count, &error));
        assert_fine(mf_store_outbox_delivered(database, ids, rows.count, &error)); /* a repeat */
        bool more = rows.count == 3;
        mf_outbox_rows_free(&rows);
        if (!more)
            return total;
    } while (true);
}

static void test_events_of_a_job_come_in_order(void **unused) {
    struct runner runners[THREADS] = {{"w0", 0}, {"w1", 0}, {"w2", 0}, {"w3", 0}};
    struct mf_error error;
    pthread_t threads[THREADS];
    struct mf_database *database = connect_worker();
    struct seen seen[JOBS] = {0};
    size_t seen_count = 0;
    char name[16];
    int total = 0;
    int64_t finished = 0;
    int64_t waiting, parked;
    (void)unused;
    for (int i = 0; i < JOBS; i++) {
        snprintf(name, sizeof name, "job-%d", i);
        add_job(database, "team", name, NULL, NULL);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_jobs, &runners[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        finished += runners[i].done;
    }
    assert_int_equal(finished, JOBS);
    assert_fine(mf_store_outbox_depth(database, &waiting, &parked, &error));
    assert_int_equal(waiting, 3 * JOBS);
    for (int shard = 0; shard < MF_OUTBOX_SHARDS; shard++)
        total += drain_shard(database, shard, seen, &seen_count);
    assert_int_equal(total, 3 * JOBS);
    assert_int_equal(seen_count, JOBS);
    assert_fine(mf_store_outbox_depth(database, &waiting, &parked, &error));
    assert_int_equal(waiting, 0);
    assert_int_equal(ask_number("SELECT count(*) FROM job_events"), 3 * JOBS);
    mf_database_close(database);
}

static void test_one_holder_a_shard(void **unused) {
    struct mf_error error;
    struct mf_database *first = connect_worker(), *second = connect_worker();
    bool held = false;
    (void)unused;
    assert_fine(mf_store_outbox_lock(first, 5, &held, &error));
    assert_true(held);
    assert_fine(mf_store_outbox_lock(second, 5, &held, &error));
    assert_false(held);
    assert_fine(mf_store_outbox_lock(second, 6, &held, &error));
    assert_true(held);
    assert_fine(mf_store_outbox_unlock(first, 5, &error));
    assert_fine(mf_store_outbox_lock(second, 5, &held, &error));
    assert_true(held);
    /* A session that ends lets go. */
    assert_fine(mf_database_reconnect(second, &error));
    assert_fine(mf_store_outbox_lock(first, 5, &held, &error));
    assert_true(held);
    mf_database_close(first);
    mf_database_close(second);
}

static void test_parked_rows_stay_and_are_not_sent(void **unused) {
    struct mf_error error;
    struct mf_outbox_rows rows;
    char job_id[MF_UUID_TEXT_BYTES];
    int64_t waiting, parked;
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "job", NULL, job_id);
    assert_fine(mf_store_outbox_fetch(database, shard_of(job_id), MF_OUTBOX_EVENT, 0, 10, &rows, &error));
    assert_int_equal(rows.count, 1);
    assert_fine(mf_store_outbox_park(database, rows.row[0].id, "message too large", &error));
    mf_outbox_rows_free(&rows);
    assert_fine(mf_store_outbox_fetch(database, shard_of(job_id), MF_OUTBOX_EVENT, 0, 10, &rows, &error));
    assert_int_equal(rows.count, 0);
    mf_outbox_rows_free(&rows);
    assert_fine(mf_store_outbox_depth(database, &waiting, &parked, &error));
    assert_int_equal(waiting, 0);
    assert_int_equal(parked, 1);
    assert_string_equal(ask("SELECT parked_reason FROM outbox_parked"), "message too large");
    mf_database_close(database);
}

static void test_a_reject_carries_the_original_bytes(void **unused) {
    struct mf_error error;
    struct mf_outbox_rows rows;
    bool applied;
    struct mf_database *database = connect_worker();
    struct mf_ingest_record record = {.kind = MF_INGEST_REJECT,
                                      .offset = 77,
                                      .timestamp = MF_TIME_NONE,
                                      .key = "k\0y",
                                      .key_size = 3,
                                      .value = "\0v",
                                      .value_size = 2,
                                      .reject_status = MF_ERROR_BAD_AVRO,
                                      .reject_reason = "cut short"};
    struct mf_ingest_batch batch = {.cluster_id = "c",
                                    .topic = "modelforge.requests",
                                    .partition = 18,
                                    .expected = MF_OFFSET_NONE,
                                    .next = 78,
                                    .records = &record,
                                    .count = 1};
    (void)unused;
    assert_fine(mf_store_ingest_batch(database, &batch, &applied, &error));
    assert_fine(
        mf_store_outbox_fetch(database, 18 % MF_OUTBOX_SHARDS, MF_OUTBOX_DEAD_LETTER, 0, 10, &rows, &error));
    assert_int_equal(rows.count, 1);
    const struct mf_outbox_row *row = &rows.row[0];
    assert_int_equal(row->kind, MF_OUTBOX_DEAD_LETTER);
    assert_string_equal(row->code, "bad_avro");
    assert_string_equal(row->reason, "cut short");
    assert_string_equal(row->source_topic, "modelforge.requests");
    assert_int_equal(row->source_partition, 18);
    assert_int_equal(row->source_offset, 77);
    assert_int_equal(row->key_size, 3);
    assert_memory_equal(row->key, "k\0y", 3);
    assert_int_equal(row->value_size, 2);
    assert_memory_equal(row->value, "\0v", 2);
    mf_outbox_rows_free(&rows);
    mf_database_close(database);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_events_of_a_job_come_in_order),
        ON_NEW_DATABASE(test_one_holder_a_shard),
        ON_NEW_DATABASE(test_parked_rows_stay_and_are_not_sent),
        ON_NEW_DATABASE(test_a_reject_carries_the_original_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
