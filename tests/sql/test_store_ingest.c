/* Ingest: exactly once whatever happens in between, conflicts, bisecting, commands, offsets. */
#include "support.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mf_ingest_batch batch_of(struct mf_ingest_record *records, size_t count, int64_t expected) {
    return (struct mf_ingest_batch){.cluster_id = "cluster",
                                    .topic = "requests",
                                    .partition = 3,
                                    .expected = expected,
                                    .next = count ? records[count - 1].offset + 1 : expected,
                                    .records = records,
                                    .count = count};
}

static void ingest(struct mf_database *database, struct mf_ingest_batch batch, bool expect_applied) {
    struct mf_error error;
    bool applied = !expect_applied;
    assert_fine(mf_store_ingest_batch(database, &batch, &applied, &error));
    assert_int_equal(applied, expect_applied);
}

static void test_a_batch_writes_everything_once(void **unused) {
    struct test_record texts[3];
    struct mf_database *database = connect_worker();
    (void)unused;
    struct mf_ingest_record records[3] = {request_record(&texts[0], "team", "one", 10),
                                          request_record(&texts[1], "team", "two", 12),
                                          request_record(&texts[2], "other", "one", 13)};
    ingest(database, batch_of(records, 3, MF_OFFSET_NONE), true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(records[i].fate, MF_FATE_ACCEPTED);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs WHERE state = 'queued' AND ready_at IS NOT NULL"),
                     3);
    assert_int_equal(ask_number("SELECT count(*) FROM job_configs WHERE source_topic = 'requests' AND "
                                "source_partition = 3 AND schema_id = 7 AND request_sha256 = "
                                "sha256(convert_to('value of ' || (config ->> 'request_id'), 'UTF8'))"),
                     3);
    assert_int_equal(ask_number("SELECT count(*) FROM request_keys"), 3);
    assert_int_equal(ask_number("SELECT count(*) FROM job_events WHERE type = 'queued' AND sequence = 1"), 3);
    assert_int_equal(ask_number("SELECT count(*) FROM outbox"), 3);
    assert_int_equal(ask_number("SELECT ready FROM tenant_load WHERE tenant = 'team'"), 2);
    assert_int_equal(ask_number("SELECT next_offset FROM ingest_offsets"), 14);

    /* The same batch again, by a process that did not see the first succeed. */
    ingest(database, batch_of(records, 3, MF_OFFSET_NONE), false);
    ingest(database, batch_of(records, 3, 10), false);
    assert_int_equal(records[0].fate, MF_FATE_NONE);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs"), 3);

    /* The same requests sent again: other offsets, nothing new. */
    for (int i = 0; i < 3; i++)
        records[i].offset += 10;
    ingest(database, batch_of(records, 3, 14), true);
    assert_int_equal(records[1].fate, MF_FATE_DUPLICATE);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs"), 3);
    assert_int_equal(ask_number("SELECT count(*) FROM outbox"), 3);
    assert_int_equal(ask_number("SELECT next_offset FROM ingest_offsets"), 24);
    mf_database_close(database);
}

/* A process is killed after its statements and before its COMMIT; another takes the batch over. */
static void test_crash_before_commit(void **unused) {
    struct mf_error error;
    struct test_record texts;
    struct mf_database *first = connect_worker(), *second = connect_worker();
    bool applied = true;
    (void)unused;
    struct mf_ingest_record record = request_record(&texts, "team", "crash", 0);
    kill_at_commit("jobs", "INSERT", "true");
    assert_fine(mf_database_execute(first, "SET application_name = 'victim'", &error));
    struct mf_ingest_batch batch = batch_of(&record, 1, MF_OFFSET_NONE);
    assert_status(mf_store_ingest_batch(first, &batch, &applied, &error), MF_ERROR_COMMIT_UNKNOWN);
    assert_false(applied);
    assert_int_equal(record.fate, MF_FATE_NONE);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs"), 0);

    struct mf_ingest_offset *offsets = NULL;
    size_t count = 7;
    assert_fine(mf_store_read_offsets(second, "cluster", "requests", &offsets, &count, &error));
    assert_int_equal(count, 0);
    ingest(second, batch_of(&record, 1, MF_OFFSET_NONE), true);
    assert_int_equal(record.fate, MF_FATE_ACCEPTED);
    /* The first comes back and tries its batch again. */
    assert_fine(mf_database_reconnect(first, &error));
    ingest(first, batch_of(&record, 1, MF_OFFSET_NONE), false);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs"), 1);
    assert_int_equal(ask_number("SELECT count(*) FROM job_events"), 1);
    mf_database_close(first);
    mf_database_close(second);
}

static void test_conflict_and_duplicate_in_one_batch(void **unused) {
    struct test_record texts[4];
    struct mf_database *database = connect_worker();
    (void)unused;
    struct mf_ingest_record records[4] = {
        request_record(&texts[0], "team", "same", 0), request_record(&texts[1], "team", "same", 1),
        request_record(&texts[2], "team", "same", 2), request_record(&texts[3], "team", "other", 3)};
    change_content(&records[2]);
    ingest(database, batch_of(records, 4, MF_OFFSET_NONE), true);
    assert_int_equal(records[0].fate, MF_FATE_ACCEPTED);
    assert_int_equal(records[1].fate, MF_FATE_DUPLICATE);
    assert_int_equal(records[2].fate, MF_FATE_REJECTED);
    assert_int_equal(records[2].code, MF_ERROR_REQUEST_CONFLICT);
    assert_int_equal(records[3].fate, MF_FATE_ACCEPTED);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs"), 2);
    assert_string_equal(
        ask("SELECT code || ' ' || record_offset || ' ' || convert_from(record_value, 'UTF8') "
            "FROM ingest_rejects"),
        "request_conflict 2 value of same");
    assert_non_null(strstr(ask("SELECT reason FROM ingest_rejects"), "'same'"));
    assert_int_equal(ask_number("SELECT count(*) FROM outbox WHERE reject_id IS NOT NULL AND shard = 3"), 1);
    mf_database_close(database);
}

static void test_bisect_rejects_only_what_cannot_be_stored(void **unused) {
    enum { COUNT = 9, BAD_JSON = 4, BAD_COLUMN = 7 };
    struct test_record texts[COUNT];
    struct mf_ingest_record records[COUNT];
    struct mf_database *database = connect_worker();
    char name[32];
    (void)unused;
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "request-%d", i);
        records[i] = request_record(&texts[i], "team", name, 100 + 2 * i);
    }
    records[BAD_JSON].request.config = "{\"text\":\"\\u0000\"}"; /* 22P05 */
    records[BAD_COLUMN].request.devices = 0;                     /* 23514 */
    struct mf_ingest_batch batch = batch_of(records, COUNT, MF_OFFSET_NONE);
    batch.next = 500; /* the rest of the fetch was a gap */
    ingest(database, batch, true);
    for (int i = 0; i < COUNT; i++) {
        bool bad = i == BAD_JSON || i == BAD_COLUMN;
        assert_int_equal(records[i].fate, bad ? MF_FATE_REJECTED : MF_FATE_ACCEPTED);
        assert_int_equal(records[i].code, bad ? MF_ERROR_UNSTORABLE : MF_OK);
    }
    assert_int_equal(ask_number("SELECT count(*) FROM jobs"), COUNT - 2);
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), COUNT - 2);
    assert_string_equal(ask("SELECT string_agg(code || record_offset, ',' ORDER BY id) FROM ingest_rejects"),
                        "unstorable108,unstorable114");
    assert_int_equal(ask_number("SELECT next_offset FROM ingest_offsets"), 500);
    mf_database_close(database);
}

/* The process dies in the second half of a bisected batch: the offset stands right behind the first half. */
static void test_crash_within_a_bisected_batch(void **unused) {
    struct mf_error error;
    struct test_record texts[4];
    struct mf_ingest_record records[4];
    struct mf_database *database = connect_worker();
    char name[32];
    bool applied = true;
    (void)unused;
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "request-%d", i);
        records[i] = request_record(&texts[i], "team", name, i);
    }
    records[0].request.devices = 0;
    kill_at_commit("jobs", "INSERT", "NEW.request_id = 'request-3'");
    assert_fine(mf_database_execute(database, "SET application_name = 'victim'", &error));
    struct mf_ingest_batch batch = batch_of(records, 4, MF_OFFSET_NONE);
    assert_status(mf_store_ingest_batch(database, &batch, &applied, &error), MF_ERROR_COMMIT_UNKNOWN);
    assert_false(applied);
    assert_int_equal(ask_number("SELECT next_offset FROM ingest_offsets"), 2);
    assert_int_equal(records[0].fate, MF_FATE_REJECTED);
    assert_int_equal(records[1].fate, MF_FATE_ACCEPTED);
    assert_int_equal(records[2].fate, MF_FATE_NONE);
    assert_fine(mf_database_reconnect(database, &error));
    ingest(database, batch_of(records + 2, 2, 2), true);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs"), 3);
    assert_int_equal(ask_number("SELECT next_offset FROM ingest_offsets"), 4);
    mf_database_close(database);
}

/* What `modelforge submit --wait` asks: not yet, taken in, or rejected and why. */
static void test_the_fate_of_a_record_can_be_asked(void **unused) {
    struct mf_error error;
    struct test_record texts[2];
    struct mf_database *database = connect_worker(), *reader = connect_as("modelforge_reader");
    bool taken = true;
    (void)unused;
    struct mf_ingest_record records[2] = {request_record(&texts[0], "team", "one", 10),
                                          request_record(&texts[1], "team", "one", 11)};
    change_content(&records[1]);
    assert_fine(mf_store_record_fate(reader, "requests", 3, 10, &taken, &error));
    assert_false(taken);
    ingest(database, batch_of(records, 2, MF_OFFSET_NONE), true);
    assert_fine(mf_store_record_fate(reader, "requests", 3, 10, &taken, &error));
    assert_true(taken);
    assert_status(mf_store_record_fate(reader, "requests", 3, 11, &taken, &error), MF_ERROR_REQUEST_CONFLICT);
    assert_true(taken);
    assert_non_null(strstr(error.message, "request_id 'one' of tenant 'team' was used before"));
    assert_fine(mf_store_record_fate(reader, "requests", 3, 12, &taken, &error));
    assert_false(taken);
    assert_fine(mf_store_record_fate(reader, "requests", 4, 11, &taken, &error));
    assert_false(taken);
    mf_database_close(reader);
    mf_database_close(database);
}

/* After months without a worker no partition of the audit holds today. That is no fault of the message. */
static void test_a_missing_partition_rejects_nothing(void **unused) {
    struct mf_error error;
    struct test_record texts;
    struct mf_database *database = connect_worker();
    bool applied = true;
    (void)unused;
    struct mf_ingest_record record = request_record(&texts, "team", "late", 4);
    struct mf_ingest_batch batch = batch_of(&record, 1, MF_OFFSET_NONE);
    run_sql(
        "DO $$ DECLARE name text; BEGIN FOR name IN SELECT inhrelid::regclass::text FROM pg_inherits "
        "WHERE inhparent = 'modelforge.job_events'::regclass LOOP EXECUTE 'DROP TABLE ' || name; END LOOP; "
        "END $$");
    assert_status(mf_store_ingest_batch(database, &batch, &applied, &error), MF_ERROR_DATABASE);
    assert_false(applied);
    assert_int_equal(ask_number("SELECT count(*) FROM ingest_rejects"), 0);
    assert_int_equal(ask_number("SELECT count(*) FROM ingest_offsets"), 0);
    assert_fine(mf_store_maintain_partitions(database, &error));
    ingest(database, batch, true);
    assert_int_equal(record.fate, MF_FATE_ACCEPTED);
    mf_database_close(database);
}

static void test_large_reject_keeps_its_id_only(void **unused) {
    struct mf_error error;
    size_t size = MF_REJECT_INLINE_BYTES + 1;
    char *value = calloc(1, size);
    struct mf_database *database = connect_worker();
    struct mf_outbox_rows rows;
    (void)unused;
    struct mf_ingest_record record = {.kind = MF_INGEST_REJECT,
                                      .timestamp = MF_TIME_NONE,
                                      .value = value,
                                      .value_size = size,
                                      .reject_status = MF_ERROR_MESSAGE_TOO_LARGE,
                                      .reject_reason = "too large"};
    ingest(database, batch_of(&record, 1, MF_OFFSET_NONE), true);
    assert_string_equal(
        ask("SELECT value_bytes || ' ' || (record_value IS NULL) || ' ' || length(value_sha256) "
            "FROM ingest_rejects"),
        "921601 true 32");
    assert_fine(mf_store_outbox_fetch(database, 3, MF_OUTBOX_DEAD_LETTER, 0, 10, &rows, &error));
    assert_int_equal(rows.count, 1);
    assert_int_equal(rows.row[0].kind, MF_OUTBOX_DEAD_LETTER);
    assert_null(rows.row[0].value);
    assert_true(rows.row[0].reject_id > 0);
    mf_outbox_rows_free(&rows);
    mf_database_close(database);
    free(value);
}

static void test_offsets_anchor_and_halt(void **unused) {
    struct mf_error error;
    struct test_record texts;
    struct mf_database *database = connect_worker();
    struct mf_ingest_offset *offsets = NULL;
    unsigned char hash[MF_SHA256_BYTES];
    size_t count = 0;
    (void)unused;
    struct mf_ingest_record record = request_record(&texts, "team", "anchor", 41);
    ingest(database, batch_of(&record, 1, MF_OFFSET_NONE), true);
    struct mf_ingest_batch gap = batch_of(NULL, 0, 42);
    gap.next = 50;
    ingest(database, gap, true);
    gap.expected = 50;
    gap.next = 49; /* never back */
    ingest(database, gap, false);
    assert_fine(mf_store_read_offsets(database, "cluster", "requests", &offsets, &count, &error));
    assert_int_equal(count, 1);
    assert_int_equal(offsets[0].partition, 3);
    assert_int_equal(offsets[0].next, 50);
    assert_int_equal(offsets[0].anchor_offset, 41);
    assert_int_equal(offsets[0].anchor_timestamp, 1700000000041);
    assert_fine(mf_store_key_hash("anchor", 6, hash, &error));
    assert_memory_equal(offsets[0].anchor_key_hash, hash, sizeof hash);
    assert_false(offsets[0].halted);
    free(offsets);

    for (int i = 0; i < 2; i++)
        assert_fine(mf_store_halt_partition(database, "cluster", "requests", 3, "anchor_mismatch", 41, 44,
                                            "another key", &error));
    assert_fine(
        mf_store_halt_partition(database, "cluster", "requests", 8, "out_of_range", 5, 9, "", &error));
    assert_int_equal(ask_number("SELECT count(*) FROM ingest_gaps"), 2);
    assert_fine(mf_store_read_offsets(database, "cluster", "requests", &offsets, &count, &error));
    assert_int_equal(count, 2);
    assert_true(offsets[0].halted);
    assert_int_equal(offsets[1].partition, 8);
    assert_true(offsets[1].halted);
    assert_int_equal(offsets[1].next, MF_OFFSET_NONE);
    free(offsets);
    assert_fine(mf_store_read_offsets(database, "another cluster", "requests", &offsets, &count, &error));
    assert_int_equal(count, 0);
    /* A worker must not be able to end a halt. */
    assert_int_not_equal(mf_store_reset_partition(database, "cluster", "requests", 3, 44, "w", &error),
                         MF_OK);
    mf_database_close(database);
    database = connect_as("modelforge_owner");
    assert_fine(mf_store_reset_partition(database, "cluster", "requests", 3, 44, "ann", &error));
    assert_fine(mf_store_reset_partition(database, "cluster", "requests", 8, 0, "ann", &error));
    assert_int_equal(mf_store_reset_partition(database, "cluster", "requests", 3, 44, "ann", &error),
                     MF_ERROR_NOT_FOUND);
    assert_fine(mf_store_read_offsets(database, "cluster", "requests", &offsets, &count, &error));
    assert_int_equal(count, 2);
    assert_false(offsets[0].halted || offsets[1].halted);
    assert_int_equal(offsets[0].next, 44); /* back, from 50 */
    assert_int_equal(offsets[0].anchor_offset, MF_OFFSET_NONE);
    assert_int_equal(offsets[1].next, 0);
    free(offsets);
    assert_int_equal(ask_number("SELECT count(*) FROM ingest_gap_log WHERE closed_by = 'ann' AND "
                                "resumed_offset IN (44, 0)"),
                     2);
    mf_database_close(database);
}

#define COMMAND(n) "00000000-0000-0000-0000-00000000000" n

static void test_cancel_of_a_queued_job(void **unused) {
    char job_id[MF_UUID_TEXT_BYTES];
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "goner", NULL, job_id);
    assert_int_equal(send_command(database, "team", "goner", COMMAND("1"), MF_COMMAND_CANCEL),
                     MF_FATE_ACCEPTED);
    assert_string_equal(ask("SELECT state || ' ' || desired || ' ' || (finished_at IS NOT NULL) FROM jobs"),
                        "cancelled cancel true");
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), 0);
    assert_string_equal(ask("SELECT outcome FROM commands"), "applied");
    assert_string_equal(ask("SELECT string_agg(type, ',' ORDER BY sequence) FROM job_events"),
                        "queued,cancelled");
    /* Twice the same message, and another one that is too late. */
    assert_int_equal(send_command(database, "team", "goner", COMMAND("1"), MF_COMMAND_CANCEL),
                     MF_FATE_DUPLICATE);
    assert_int_equal(send_command(database, "team", "goner", COMMAND("2"), MF_COMMAND_CANCEL),
                     MF_FATE_IGNORED);
    assert_string_equal(ask("SELECT type FROM job_events ORDER BY sequence DESC LIMIT 1"), "command_ignored");
    struct mf_claim claim;
    assert_false(claim_one(database, "worker", &claim));
    mf_database_close(database);
}

static void test_cancel_of_a_running_job_reaches_its_worker(void **unused) {
    struct mf_error error;
    struct mf_claim claim;
    struct mf_beat beat;
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "busy", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    assert_fine(mf_store_heartbeat(database, "worker", &claim.lease, 1, &beat, &error));
    assert_int_equal(beat.desired, MF_DESIRED_RUN);
    assert_int_equal(send_command(database, "team", "busy", COMMAND("1"), MF_COMMAND_CANCEL),
                     MF_FATE_ACCEPTED);
    assert_fine(mf_store_heartbeat(database, "worker", &claim.lease, 1, &beat, &error));
    assert_true(beat.held);
    assert_false(beat.deadline_passed);
    assert_int_equal(beat.desired, MF_DESIRED_CANCEL);
    assert_string_equal(ask("SELECT state FROM jobs"), "running");
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_cancel_before_its_request(void **unused) {
    struct mf_error error;
    char job_id[MF_UUID_TEXT_BYTES];
    struct mf_database *database = connect_worker();
    (void)unused;
    assert_int_equal(send_command(database, "team", "early", COMMAND("1"), MF_COMMAND_CANCEL),
                     MF_FATE_ACCEPTED);
    assert_string_equal(ask("SELECT outcome FROM commands"), "waiting");
    add_job(database, "team", "early", NULL, job_id);
    assert_string_equal(ask("SELECT state FROM jobs"), "cancelled");
    assert_string_equal(ask("SELECT outcome || ' ' || job_id FROM commands"),
                        ask("SELECT 'applied ' || id FROM jobs"));
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), 0);

    /* Command and request crossed in flight: neither transaction saw the other; the reaper puts them
     * together. */
    add_job(database, "team", "crossed", NULL, job_id);
    run_sql("INSERT INTO commands (command_id, tenant, request_id, action, outcome, expires_at) VALUES "
            "('" COMMAND("2") "', 'team', 'crossed', 'cancel', 'waiting', now() + interval '1 hour')");
    /* One that has expired does nothing. */
    add_job(database, "team", "late", NULL, job_id);
    run_sql("INSERT INTO commands (command_id, tenant, request_id, action, outcome, expires_at) VALUES "
            "('" COMMAND("3") "', 'team', 'late', 'cancel', 'waiting', now() - interval '1 second')");
    const struct mf_reap_options options = {.provider_grace_s = 3600};
    assert_fine(mf_store_reap(database, &options, NULL, &error));
    assert_string_equal(ask("SELECT state FROM jobs WHERE request_id = 'crossed'"), "cancelled");
    assert_string_equal(ask("SELECT state FROM jobs WHERE request_id = 'late'"), "queued");
    mf_database_close(database);
}

static void test_waiting_commands_are_bounded(void **unused) {
    struct mf_database *database = connect_worker();
    (void)unused;
    run_sql("INSERT INTO commands (command_id, tenant, request_id, action, outcome, expires_at) "
            "SELECT gen_random_uuid(), 'team', 'x' || n, 'cancel', 'waiting', now() + interval '1 hour' "
            "FROM generate_series(1, 1000) AS n");
    assert_int_equal(send_command(database, "team", "one more", COMMAND("1"), MF_COMMAND_CANCEL),
                     MF_FATE_REJECTED);
    assert_int_equal(send_command(database, "other", "fine", COMMAND("2"), MF_COMMAND_CANCEL),
                     MF_FATE_ACCEPTED);
    assert_int_equal(
        ask_number("SELECT count(*) FROM commands WHERE tenant = 'team' AND outcome = 'waiting'"), 1000);
    mf_database_close(database);
}

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_a_batch_writes_everything_once),
        ON_NEW_DATABASE(test_crash_before_commit),
        ON_NEW_DATABASE(test_conflict_and_duplicate_in_one_batch),
        ON_NEW_DATABASE(test_bisect_rejects_only_what_cannot_be_stored),
        ON_NEW_DATABASE(test_crash_within_a_bisected_batch),
        ON_NEW_DATABASE(test_a_missing_partition_rejects_nothing),
        ON_NEW_DATABASE(test_the_fate_of_a_record_can_be_asked),
        ON_NEW_DATABASE(test_large_reject_keeps_its_id_only),
        ON_NEW_DATABASE(test_offsets_anchor_and_halt),
        ON_NEW_DATABASE(test_cancel_of_a_queued_job),
        ON_NEW_DATABASE(test_cancel_of_a_running_job_reaches_its_worker),
        ON_NEW_DATABASE(test_cancel_before_its_request),
        ON_NEW_DATABASE(test_waiting_commands_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
