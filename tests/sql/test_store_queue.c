/* Caps and weights as `modelforge queues` sets them: who may, what claims make of them, and the log. */
#include "support.h"

#include <stdio.h>
#include <string.h>

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

static void set_queue(struct mf_database *owner, const char *tenant, const struct mf_queue_change *change) {
    struct mf_error error;
    struct mf_queue_limits limits;
    assert_fine(mf_store_set_queue(owner, "huggingface", tenant, change, "ann", &limits, &error));
    if (change->cap_given)
        assert_int_equal(limits.cap, change->cap);
    assert_false(limits.offered);
}

static void add_jobs(struct mf_database *worker, const char *tenant, int count) {
    char name[32], job_id[MF_UUID_TEXT_BYTES];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "job-%d", i);
        add_job(worker, tenant, name, NULL, job_id);
    }
}

/* Claims up to `limit` and says how many were of each of two tenants. */
static void claim_up_to(struct mf_database *worker, size_t limit, const char *const tenants[2], int got[2]) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    struct mf_claim claims[32];
    struct mf_error error;
    size_t count = 0;
    got[0] = got[1] = 0;
    assert_true(limit <= sizeof claims / sizeof *claims);
    const struct mf_claim_offer offer = cpu_offer("worker", providers, 1);
    assert_fine(mf_store_claim(worker, &offer, limit, claims, &count, &error));
    for (size_t i = 0; i < count; i++) {
        for (int t = 0; t < 2; t++)
            got[t] += !strcmp(claims[i].tenant, tenants[t]);
        mf_claim_free(&claims[i]);
    }
}

static void test_claims_heed_what_was_set(void **unused) {
    static const char *const tenants[] = {"plain", "heavy"};
    struct mf_database *owner = connect_as("modelforge_owner"), *worker = connect_worker();
    struct mf_error error;
    struct mf_text_table table;
    int got[2];
    (void)unused;
    /* Before the first job of the tenant, too. */
    set_queue(owner, "heavy", &(struct mf_queue_change){.weight_given = true, .weight = 3});
    set_queue(owner, "plain", &(struct mf_queue_change){.cap_given = true, .cap = 2});
    add_jobs(worker, "plain", 20);
    add_jobs(worker, "heavy", 20);
    claim_up_to(worker, 8, tenants, got);
    assert_int_equal(got[0], 2);
    assert_int_equal(got[1], 6);
    claim_up_to(worker, 4, tenants, got); /* plain is at its cap */
    assert_int_equal(got[0], 0);
    assert_int_equal(got[1], 4);
    set_queue(owner, "heavy", &(struct mf_queue_change){.cap_given = true, .cap = 0});
    claim_up_to(worker, 4, tenants, got); /* held: nobody has a place */
    assert_int_equal(got[0] + got[1], 0);
    assert_string_equal(ask("SELECT weight::text FROM tenant_load WHERE tenant = 'heavy'"), "3");
    set_queue(owner, "plain", &(struct mf_queue_change){.cap_given = true, .cap = MF_CAP_NONE});
    claim_up_to(worker, 4, tenants, got);
    assert_int_equal(got[0], 4);

    assert_fine(mf_store_queues(worker, "heavy", &table, &error));
    assert_int_equal(table.rows, 1);
    for (size_t c = 0; c < table.columns; c++) {
        const char *cell = table.cell[c];
        if (!strcmp(table.column[c], "running") || !strcmp(table.column[c], "waiting"))
            assert_string_equal(cell, "10");
        if (!strcmp(table.column[c], "share_percent"))
            assert_string_equal(cell, "75.0");
        if (!strcmp(table.column[c], "cap"))
            assert_string_equal(cell, "0");
    }
    mf_text_table_free(&table);
    assert_string_equal(
        ask("SELECT string_agg(concat_ws(' ', tenant, coalesce(cap::text, '-'), weight, changed_by), ', ' "
            "ORDER BY change_id) FROM queue_change_log"),
        "heavy - 3 ann, plain 2 1 ann, heavy 0 3 ann, plain - 1 ann");
    mf_database_close(worker);
    mf_database_close(owner);
}

/* A worker moves counts and nothing else; a reader reads. */
static void test_only_the_owner_sets(void **unused) {
    static const char *const roles[] = {"modelforge_worker", "modelforge_reader"};
    const struct mf_queue_change change = {.cap_given = true, .cap = 1};
    struct mf_error error;
    struct mf_queue_limits limits;
    struct mf_text_table table;
    (void)unused;
    run_sql("INSERT INTO tenant_queues (queue, tenant) VALUES ('huggingface', 'team')");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        struct mf_database *database = connect_as(roles[i]);
        assert_fine(mf_store_queues(database, NULL, &table, &error));
        assert_int_equal(table.rows, 1);
        mf_text_table_free(&table);
        assert_status(mf_store_set_queue(database, "huggingface", "team", &change, "eve", &limits, &error),
                      MF_ERROR_INTERNAL);
        assert_non_null(strstr(error.message, "permission denied"));
        assert_int_not_equal(mf_database_execute(database, "UPDATE tenant_queues SET cap = 1", &error),
                             MF_OK);
        assert_int_not_equal(mf_database_execute(database, "UPDATE tenant_queues SET weight = 9", &error),
                             MF_OK);
        assert_int_not_equal(
            mf_database_execute(
                database, "INSERT INTO tenant_queues (queue, tenant, cap) VALUES ('a', 'b', 1)", &error),
            MF_OK);
        mf_database_close(database);
    }
    assert_string_equal(ask("SELECT count(*) FILTER (WHERE cap IS NULL AND weight = 1) || ' ' || count(*) "
                            "FROM tenant_load"),
                        "1 1");
    assert_int_equal(ask_number("SELECT count(*) FROM queue_change_log"), 0);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_claims_heed_what_was_set),
        ON_NEW_DATABASE(test_only_the_owner_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
