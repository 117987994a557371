/* Claims: each job once, tenants in turn, order within a tenant, what fits; and the reaper. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

/* Many jobs in batches, tenants in turn by `weights`. */
static void add_many(struct mf_database *database, int count, const char *const *tenants, int tenant_count) {
    enum { BATCH = 100 };
    struct mf_error error;
    struct test_record *texts = calloc(BATCH, sizeof *texts);
    struct mf_ingest_record *records = calloc(BATCH, sizeof *records);
    bool applied;
    char name[32];
    for (int done = 0; done < count; done += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            snprintf(name, sizeof name, "job-%d", done + i);
            records[i] = request_record(&texts[i], tenants[(done + i) % tenant_count], name, done + i);
        }
        struct mf_ingest_batch batch = {.cluster_id = "c",
                                        .topic = "many",
                                        .expected = done ? done : MF_OFFSET_NONE,
                                        .next = done + BATCH,
                                        .records = records,
                                        .count = BATCH};
        assert_fine(mf_store_ingest_batch(database, &batch, &applied, &error));
        assert_true(applied);
    }
    free(texts);
    free(records);
}

enum { JOBS = 500, THREADS = 8 };

struct claimer {
    pthread_t thread;
    char name[16];
    int claimed;
    bool failed;
};

/* Claims and finishes until nothing is left. */
static void *claim_all(void *context) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface"), ON_ALL("unsloth")};
    struct claimer *claimer = context;
    struct mf_error error;
    struct mf_database *database = connect_worker();
    const struct mf_claim_offer offer = cpu_offer(claimer->name, providers, 2);
    for (;;) {
        struct mf_claim claims[3];
        size_t count = 0;
        enum mf_status status = mf_store_claim(database, &offer, 3, claims, &count, &error);
        for (size_t i = 0; i < count; i++) {
            const struct mf_finish finish = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{}"};
            claimer->claimed++;
            if (mf_store_finish(database, claimer->name, &claims[i].lease, &finish, &at_once, NULL, &error))
                claimer->failed = true;
            mf_claim_free(&claims[i]);
        }
        if (status)
            claimer->failed = true;
        if (status || !count)
            break;
    }
    if (claimer->failed)
        fprintf(stderr, "%s: %s\n", claimer->name, error.message);
    mf_database_close(database);
    return NULL;
}

static void test_each_job_is_claimed_once(void **unused) {
    static const char *const tenants[] = {"a", "b", "c"};
    struct claimer claimers[THREADS] = {0};
    struct mf_database *database = connect_worker();
    int total = 0;
    (void)unused;
    add_many(database, JOBS, tenants, 3);
    for (int i = 0; i < THREADS; i++) {
        snprintf(claimers[i].name, sizeof claimers[i].name, "worker-%d", i);
        assert_int_equal(pthread_create(&claimers[i].thread, NULL, claim_all, &claimers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(claimers[i].thread, NULL);
        assert_false(claimers[i].failed);
        total += claimers[i].claimed;
    }
    assert_int_equal(total, JOBS);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs WHERE state = 'succeeded' AND lease_epoch = 1"),
                     JOBS);
    assert_int_equal(ask_number("SELECT count(*) FROM job_attempts WHERE outcome = 'succeeded'"), JOBS);
    assert_int_equal(ask_number("SELECT count(*) FROM job_leases"), 0);
    assert_int_equal(ask_number("SELECT sum(ready) + sum(running) FROM tenant_load"), 0);
    assert_int_equal(ask_number("SELECT count(*) FROM job_events"), 3 * JOBS);
    assert_int_equal(ask_number("SELECT count(*) FROM jobs WHERE NOT audit_chain_whole(id)"), 0);
    mf_database_close(database);
}

/* Claims and keeps until nothing more may run. */
static void *claim_and_keep(void *context) {
    struct claimer *claimer = context;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    while (claim_one(database, claimer->name, &claim)) {
        claimer->claimed++;
        mf_claim_free(&claim);
    }
    mf_database_close(database);
    return NULL;
}

static void test_a_cap_holds_against_all_workers(void **unused) {
    static const char *const tenants[] = {"capped"};
    struct claimer claimers[THREADS] = {0};
    struct mf_database *database = connect_worker();
    int total = 0;
    (void)unused;
    add_many(database, 100, tenants, 1);
    run_sql("UPDATE tenant_queues SET cap = 5");
    for (int i = 0; i < THREADS; i++) {
        snprintf(claimers[i].name, sizeof claimers[i].name, "worker-%d", i);
        assert_int_equal(pthread_create(&claimers[i].thread, NULL, claim_and_keep, &claimers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(claimers[i].thread, NULL);
        total += claimers[i].claimed;
    }
    assert_int_equal(total, 5);
    assert_int_equal(ask_number("SELECT running FROM tenant_load"), 5);
    mf_database_close(database);
}

enum { CAPPED_JOBS = 200, CAP = 5 };
static atomic_int capped_left;

/* Claims some at a time and ends them at once, until all jobs have ended. */
static void *work_below_a_cap(void *context) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    struct claimer *claimer = context;
    const struct mf_claim_offer offer = cpu_offer(claimer->name, providers, 1);
    const struct mf_finish finish = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{}"};
    struct mf_database *database = connect_worker();
    struct mf_error error;
    while (atomic_load(&capped_left) > 0 && !claimer->failed) {
        struct mf_claim claims[3];
        struct mf_ending endings[3];
        size_t count = 0;
        claimer->failed = mf_store_claim(database, &offer, 3, claims, &count, &error) != MF_OK;
        for (size_t i = 0; i < count; i++)
            endings[i] = (struct mf_ending){.lease = &claims[i].lease, .finish = finish};
        if (mf_store_finish_all(database, claimer->name, endings, count, &at_once, &error))
            claimer->failed = true;
        for (size_t i = 0; i < count; i++)
            mf_claim_free(&claims[i]);
        atomic_fetch_sub(&capped_left, (int)count);
    }
    mf_database_close(database);
    return NULL;
}

static void test_a_cap_is_never_exceeded_while_jobs_come_and_go(void **unused) {
    static const char *const tenants[] = {"capped"};
    struct claimer claimers[THREADS] = {0};
    struct mf_database *database = connect_worker();
    long most = 0;
    (void)unused;
    add_many(database, CAPPED_JOBS, tenants, 1);
    run_sql("UPDATE tenant_queues SET cap = %d", CAP);
    atomic_store(&capped_left, CAPPED_JOBS);
    for (int i = 0; i < THREADS; i++) {
        snprintf(claimers[i].name, sizeof claimers[i].name, "worker-%d", i);
        assert_int_equal(pthread_create(&claimers[i].thread, NULL, work_below_a_cap, &claimers[i]), 0);
    }
    while (atomic_load(&capped_left) > 0) {
        long held = ask_number("SELECT count(*) FROM job_leases");
        most = held > most ? held : most;
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(claimers[i].thread, NULL);
        assert_false(claimers[i].failed);
    }
    assert_in_range(most, 1, CAP);
    assert_int_equal(ask_number("SELECT running FROM tenant_load"), 0);
    mf_database_close(database);
}

/* A claim that saw no cap must have ended before there is one, else what it took would not be counted. */
static void test_a_cap_is_set_between_claims(void **unused) {
    const struct mf_queue_change change = {.cap_given = true, .cap = 1};
    struct mf_queue_limits limits;
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker(), *claiming = connect_worker(), *owner = connect_as(NULL);
    (void)unused;
    add_job(database, "team", "first", NULL, NULL);
    add_job(database, "team", "second", NULL, NULL);
    assert_fine(mf_database_execute(owner, "SET lock_timeout = 100", &error));
    assert_fine(mf_database_begin(claiming, &error));
    assert_fine(mf_database_execute(
        claiming,
        "SELECT claim_jobs('w', 1, '{huggingface}', '{t}', '{f}', '{f}', false, '{}', '{}', NULL, false)",
        &error));
    assert_status(mf_store_set_queue(owner, "huggingface", "team", &change, "root", &limits, &error),
                  MF_ERROR_DATABASE);
    assert_fine(mf_database_commit(claiming, &error));
    assert_fine(mf_store_set_queue(owner, "huggingface", "team", &change, "root", &limits, &error));
    assert_false(claim_one(database, "worker", &claim));
    mf_database_close(claiming);
    mf_database_close(owner);
    mf_database_close(database);
}

/* Rows of counts that were made beside each other become one again, and their sum stays. */
static void test_idle_counts_are_added_up(void **unused) {
    const struct mf_reap_options later = {.provider_grace_s = 3600};
    struct mf_error error;
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "a", NULL, NULL);
    run_sql("INSERT INTO queue_counts (queue, tenant, ready, running) VALUES ('huggingface', 'team', -3, 2), "
            "('huggingface', 'team', 4, 1), ('other', 'team', 7, 7)");
    assert_fine(mf_store_reap(database, &later, NULL, &error));
    assert_int_equal(ask_number("SELECT count(*) FROM queue_counts"), 4); /* they are in use */
    run_sql("UPDATE queue_counts SET used_at = now() - interval '1 minute'");
    assert_fine(mf_store_reap(database, &later, NULL, &error));
    assert_int_equal(ask_number("SELECT count(*) FROM queue_counts"), 2);
    assert_string_equal(ask("SELECT ready || ' ' || running FROM tenant_load WHERE queue = 'huggingface'"),
                        "2 3");
    mf_database_close(database);
}

#define READ_OF_READY \
    "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'ready_jobs'"

/* However many are ready, and whatever the statistics say of it. */
static void test_a_claim_reads_what_it_takes(void **unused) {
    static const char *const tenants[] = {"team"};
    struct mf_database *database = connect_worker();
    (void)unused;
    add_many(database, 1000, tenants, 1);
    run_sql("DELETE FROM ready_jobs; ANALYZE ready_jobs"); /* nearly none, they say */
    renew_ready_jobs();
    run_sql("BEGIN");
    long before = ask_number(READ_OF_READY);
    run_sql(
        "SELECT claim_jobs('w', 3, '{huggingface}', '{t}', '{f}', '{f}', false, '{}', '{}', NULL, false)");
    assert_in_range(ask_number(READ_OF_READY) - before, 3, 30);
    run_sql("ROLLBACK");
    mf_database_close(database);
}

/* A set is what claims one by one would take, whatever the jobs need. */
static void test_a_set_is_in_the_order_of_claims(void **unused) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    static const char *const expected[] = {"a", "b", "c", "d", "f"};
    const struct mf_claim_offer offer = cpu_offer("worker", providers, 1);
    struct mf_error error;
    struct mf_claim claims[8];
    size_t count = 0;
    struct mf_database *database = connect_worker();
    (void)unused;
    for (char name[2] = "a"; name[0] <= 'f'; name[0]++)
        add_job(database, "team", name, NULL, NULL);
    run_sql("UPDATE jobs SET needs = '{\"device\": \"cpu\"}' WHERE request_id IN ('b', 'd')");
    run_sql("UPDATE jobs SET needs = '{\"device\": \"cuda\"}' WHERE request_id = 'e'");
    renew_ready_jobs();
    assert_fine(mf_store_claim(database, &offer, 3, claims, &count, &error));
    assert_int_equal(count, 3);
    assert_fine(mf_store_claim(database, &offer, 5, claims + 3, &count, &error));
    assert_int_equal(count, 2);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(claims[i].request_id, expected[i]);
        mf_claim_free(&claims[i]);
    }
    assert_string_equal(ask("SELECT ready || ' ' || running FROM tenant_load"), "1 5");
    mf_database_close(database);
}

/* One tenant with a hundred jobs before the others came does not keep them waiting; weights share in
 * proportion. */
static void test_tenants_share_by_weight(void **unused) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    static const char *const first[] = {"greedy"}, *const later[] = {"small", "heavy"};
    struct mf_error error;
    struct mf_database *database = connect_worker();
    struct mf_claim claims[16];
    size_t count = 0;
    int greedy = 0, small = 0, heavy = 0;
    const struct mf_claim_offer offer = cpu_offer("worker", providers, 1);
    (void)unused;
    add_many(database, 100, first, 1);
    run_sql("DELETE FROM ingest_offsets");
    add_many(database, 100, later, 2);
    run_sql("UPDATE tenant_queues SET weight = 2 WHERE tenant = 'heavy'");
    assert_fine(mf_store_claim(database, &offer, 16, claims, &count, &error));
    assert_int_equal(count, 16);
    for (size_t i = 0; i < count; i++) {
        greedy += !strcmp(claims[i].tenant, "greedy");
        small += !strcmp(claims[i].tenant, "small");
        heavy += !strcmp(claims[i].tenant, "heavy");
        mf_claim_free(&claims[i]);
    }
    assert_int_equal(greedy, 4);
    assert_int_equal(small, 4);
    assert_int_equal(heavy, 8);
    /* A cap holds whatever the share. */
    run_sql("UPDATE tenant_queues AS share SET cap = running FROM tenant_load AS load "
            "WHERE load.tenant = share.tenant AND load.tenant <> 'greedy'");
    assert_fine(mf_store_claim(database, &offer, 8, claims, &count, &error));
    assert_int_equal(count, 8);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(claims[i].tenant, "greedy");
        mf_claim_free(&claims[i]);
    }
    mf_database_close(database);
}

static void urgent(struct mf_ingest_request *request) {
    request->priority = 5;
}
static void later_today(struct mf_ingest_request *request) {
    request->run_at = INT64_C(4102444800000); /* 2100 */
}
static void other_provider(struct mf_ingest_request *request) {
    request->provider = "xyz";
}
static void beyond_deadline(struct mf_ingest_request *request) {
    request->deadline = 1700000000000;
}

static void expect_claim(struct mf_database *database, const char *request_id) {
    struct mf_claim claim;
    assert_true(claim_one(database, "worker", &claim));
    assert_string_equal(claim.request_id, request_id);
    mf_claim_free(&claim);
}

static void test_order_within_a_tenant(void **unused) {
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    (void)unused;
    add_job(database, "team", "waited six hours", NULL, NULL);
    run_sql("UPDATE jobs SET claim_order = claim_order - interval '6 hours'");
    renew_ready_jobs();
    add_job(database, "team", "first", NULL, NULL);
    add_job(database, "team", "second", NULL, NULL);
    add_job(database, "team", "urgent", urgent, NULL);
    add_job(database, "team", "next century", later_today, NULL);
    add_job(database, "team", "xyz", other_provider, NULL);
    expect_claim(database, "waited six hours"); /* five levels of priority are worth five hours */
    expect_claim(database, "urgent");
    expect_claim(database, "first");
    expect_claim(database, "second");
    assert_false(claim_one(database, "worker", &claim));
    mf_database_close(database);
}

static void test_a_claim_carries_what_a_trainer_needs(void **unused) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    struct mf_error error;
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    const struct mf_worker_row worker = {.worker_id = "worker",
                                         .alive_s = 60,
                                         .host = "box-7",
                                         .boot_id = "boot",
                                         .version = "0.1.0",
                                         .providers = providers,
                                         .provider_count = 1,
                                         .slots = 1};
    (void)unused;
    assert_fine(mf_store_register_worker(database, &worker, &error));
    add_job(database, "team", "whole", NULL, NULL);
    assert_true(claim_one(database, "worker", &claim));
    assert_string_equal(claim.tenant, "team");
    assert_string_equal(claim.lease.job_id, ask("SELECT id FROM jobs"));
    assert_string_equal(claim.lease.incarnation, ask("SELECT incarnation FROM incarnation"));
    assert_int_equal(claim.lease.epoch, 1);
    assert_int_equal(claim.attempt, 1);
    assert_non_null(strstr(claim.config, "\"model_name\": \"tiny\""));
    assert_null(claim.checkpoint_uri);
    assert_int_equal(claim.deadline, MF_TIME_NONE);
    assert_true(claim.created_at > INT64_C(1700000000000));
    assert_string_equal(claim.attempt_id, ask("SELECT attempt_id FROM job_attempts WHERE host = 'box-7'"));
    assert_string_equal(ask("SELECT state || ' ' || (started_at IS NOT NULL) FROM jobs"), "running true");
    assert_string_equal(ask("SELECT ready || ' ' || running FROM tenant_load"), "0 1");
    assert_string_equal(
        ask("SELECT type || ' ' || actor || ' ' || attempt FROM job_events ORDER BY sequence DESC"),
        "running worker 1");
    mf_claim_free(&claim);
    mf_database_close(database);
}

/* ---- the reaper ---- */

static struct mf_reap_report reap(struct mf_database *database, int grace_s) {
    struct mf_error error;
    struct mf_reap_report report;
    const struct mf_reap_options options = {.provider_grace_s = grace_s};
    assert_fine(mf_store_reap(database, &options, &report, &error));
    return report;
}

static void register_worker(struct mf_database *database, const char *name,
                            const struct mf_worker_provider *providers, size_t count) {
    struct mf_error error;
    const struct mf_worker_row worker = {.worker_id = name,
                                         .alive_s = 60,
                                         .host = "h",
                                         .boot_id = "b",
                                         .version = "v",
                                         .providers = providers,
                                         .provider_count = count,
                                         .slots = 1};
    assert_fine(mf_store_register_worker(database, &worker, &error));
}

static void test_run_at_makes_ready_when_it_passes(void **unused) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    struct mf_claim claim;
    struct mf_database *database = connect_worker();
    (void)unused;
    register_worker(database, "w", providers, 1);
    add_job(database, "team", "later", later_today, NULL);
    assert_int_equal(reap(database, 3600).readied, 0);
    run_sql("UPDATE jobs SET not_before = now() - interval '1 second'");
    assert_int_equal(reap(database, 3600).readied, 1);
    assert_int_equal(reap(database, 3600).readied, 0);
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), 1);
    assert_true(claim_one(database, "w", &claim));
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_unknown_provider_fails_after_the_grace_time(void **unused) {
    static const struct mf_worker_provider two[] = {ON_ALL("unsloth"), ON_ALL("huggingface")},
                                           gone[] = {ON_ALL("legacy")};
    struct mf_error error;
    struct mf_database *database = connect_worker();
    (void)unused;
    register_worker(database, "w1", two, 2);
    register_worker(database, "w2", gone, 1);
    assert_fine(mf_store_unregister_worker(database, "w2", &error));
    add_job(database, "team", "mistyped", other_provider, NULL);
    assert_int_equal(reap(database, 3600).failed_provider, 0);
    assert_string_equal(ask("SELECT waiting_reason FROM job_overview"),
                        "no live worker offers provider 'xyz'");
    assert_int_equal(reap(database, 0).failed_provider, 1);
    assert_string_equal(ask("SELECT state || ' ' || error_code || ' ' || error_message FROM job_overview"),
                        "failed unknown_provider ProviderError: Unknown provider 'xyz'. Valid providers: "
                        "huggingface, unsloth");
    assert_string_equal(ask("SELECT detail ->> 'code' FROM job_events ORDER BY sequence DESC LIMIT 1"),
                        "unknown_provider");
    assert_int_equal(ask_number("SELECT ready FROM tenant_load"), 0);

    add_job(database, "team", "stopped", NULL, NULL);
    run_sql("UPDATE jobs SET queue = 'legacy' WHERE request_id = 'stopped'");
    run_sql("INSERT INTO tenant_queues (queue, tenant) VALUES ('legacy', 'team'); "
            "UPDATE queue_counts SET queue = 'legacy' WHERE queue = 'huggingface'");
    renew_ready_jobs();
    reap(database, 3600);
    reap(database, 0);
    assert_string_equal(ask("SELECT error_code FROM jobs WHERE request_id = 'stopped'"),
                        "provider_unavailable");
    mf_database_close(database);
}

static void test_deadline_of_unleased_jobs(void **unused) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    struct mf_error error;
    struct mf_claim claim;
    struct mf_beat beat;
    struct mf_database *database = connect_worker();
    enum mf_job_state state;
    (void)unused;
    register_worker(database, "w", providers, 1);
    add_job(database, "team", "expired", beyond_deadline, NULL);
    assert_int_equal(reap(database, 3600).failed_deadline, 1);
    assert_string_equal(ask("SELECT state || ' ' || error_code FROM jobs"), "failed deadline_exceeded");
    assert_non_null(strstr(ask("SELECT error_message FROM jobs"), "2023-11-14T22:13:20Z"));

    /* A running one ends through its worker, which hears of it with its beat. */
    add_job(database, "team", "running", NULL, NULL);
    assert_true(claim_one(database, "w", &claim));
    run_sql("UPDATE jobs SET deadline = now() - interval '1 second' WHERE request_id = 'running'");
    assert_int_equal(reap(database, 3600).failed_deadline, 0);
    assert_fine(mf_store_heartbeat(database, "w", &claim.lease, 1, &beat, &error));
    assert_true(beat.held);
    assert_true(beat.deadline_passed);
    assert_int_equal(beat.desired, MF_DESIRED_CANCEL);
    const struct mf_finish finish = {.outcome = MF_OUTCOME_CANCELLED};
    assert_fine(mf_store_finish(database, "w", &claim.lease, &finish, &at_once, &state, &error));
    assert_int_equal(state, MF_JOB_FAILED);
    assert_fine(
        mf_store_finish(database, "w", &claim.lease, &finish, &at_once, &state, &error)); /* a repeat */
    assert_string_equal(ask("SELECT error_code FROM jobs WHERE request_id = 'running'"), "deadline_exceeded");
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_leases_of_another_boot_are_told_apart(void **unused) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    struct mf_error error;
    bool same = false;
    struct mf_database *database = connect_worker();
    (void)unused;
    assert_fine(mf_store_worker_of_boot(database, "w", "boot-1", &same, &error));
    assert_true(same);                            /* nobody was here */
    register_worker(database, "w", providers, 1); /* boot "b" */
    assert_fine(mf_store_worker_of_boot(database, "w", "b", &same, &error));
    assert_true(same);
    assert_fine(mf_store_worker_of_boot(database, "w", "boot-1", &same, &error));
    assert_false(same);
    mf_database_close(database);
}

/* Asks the reaper; gives the request id of who is to give way, "(null)" for nobody. */
static const char *gives_way(struct mf_database *database, int32_t preempt_s) {
    const struct mf_reap_options options = {.provider_grace_s = 3600, .preempt_s = preempt_s};
    struct mf_error error;
    struct mf_reap_report report;
    assert_fine(mf_store_reap(database, &options, &report, &error));
    const char *who = ask(
        "SELECT string_agg(request_id, ' ' ORDER BY request_id) FROM jobs WHERE preempted_at IS NOT NULL");
    assert_int_equal(report.preempted, strcmp(who, "(null)") != 0);
    run_sql("UPDATE jobs SET preempted_at = NULL");
    return who;
}

static void low_preemptible(struct mf_ingest_request *request) {
    request->config = "{\"preemptible\":true}";
}
static void high(struct mf_ingest_request *request) {
    request->priority = 5;
}

static void test_who_gives_way_to_whom(void **unused) {
    static const struct mf_worker_provider providers[] = {ON_ALL("huggingface")};
    struct mf_worker_row worker = {.worker_id = "worker",
                                   .alive_s = 60,
                                   .host = "h",
                                   .boot_id = "b",
                                   .version = "1",
                                   .providers = providers,
                                   .provider_count = 1,
                                   .slots = 3};
    struct mf_database *database = connect_worker();
    struct mf_claim claims[4];
    struct mf_beat beat;
    struct mf_error error;
    char moved[MF_UUID_TEXT_BYTES];
    (void)unused;
    assert_fine(mf_store_register_worker(database, &worker, &error));
    add_job(database, "team", "firm", NULL, NULL);
    add_job(database, "team", "older", low_preemptible, NULL);
    add_job(database, "team", "younger", low_preemptible, moved);
    for (int i = 0; i < 3; i++)
        assert_true(claim_one(database, "worker", &claims[i]));
    assert_string_equal(gives_way(database, 0), "(null)"); /* nobody waits */
    add_job(database, "team", "equal", NULL, NULL);
    assert_string_equal(gives_way(database, 0), "(null)"); /* no higher priority */
    add_job(database, "other", "foreign", high, NULL);
    assert_string_equal(gives_way(database, 0), "(null)"); /* not for another tenant */
    add_job(database, "team", "urgent", high, NULL);
    assert_string_equal(gives_way(database, 3600), "(null)"); /* not yet */
    assert_string_equal(gives_way(database, 0), "(null)");    /* the slot would go to the other tenant */
    run_sql("UPDATE tenant_queues SET cap = 0 WHERE tenant = 'other'");
    assert_string_equal(gives_way(database, 0), "younger");
    worker.slots = 4;
    assert_fine(mf_store_register_worker(database, &worker, &error));
    assert_string_equal(gives_way(database, 0), "(null)"); /* a slot is free */
    run_sql("UPDATE tenant_queues SET cap = 3 WHERE tenant = 'team'");
    assert_string_equal(gives_way(database, 0), "younger"); /* but the tenant may not use it */
    run_sql("UPDATE jobs SET claim_order = claim_order - interval '10 hours' WHERE preemptible");
    assert_string_equal(gives_way(database, 0),
                        "(null)"); /* they waited so long that they would be first again */
    run_sql("UPDATE jobs SET claim_order = claim_order + interval '10 hours' WHERE preemptible");

    /* The worker hears of it, gives the job back uncharged, and the place goes to the one that waited. */
    run_sql("UPDATE jobs SET preempted_at = now() WHERE id = '%s'", moved);
    assert_string_equal(claims[2].request_id, "younger");
    assert_fine(mf_store_heartbeat(database, "worker", &claims[2].lease, 1, &beat, &error));
    assert_true(beat.held && beat.preempted);
    assert_int_equal(beat.desired, MF_DESIRED_RUN);
    assert_fine(
        mf_store_release(database, "worker", &claims[2].lease, MF_RELEASE_PREEMPTED, &at_once, &error));
    assert_string_equal(
        ask("SELECT concat_ws(' ', state, interruptions, drains, attempts, ready_at IS NOT NULL, "
            "preempted_at IS NULL) FROM jobs WHERE id = '%s'",
            moved),
        "queued 0 0 0 t t");
    assert_true(claim_one(database, "worker", &claims[3]));
    assert_string_equal(claims[3].request_id, "urgent");
    for (int i = 0; i < 4; i++)
        mf_claim_free(&claims[i]);
    mf_database_close(database);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_each_job_is_claimed_once),
        ON_NEW_DATABASE(test_a_cap_holds_against_all_workers),
        ON_NEW_DATABASE(test_a_cap_is_never_exceeded_while_jobs_come_and_go),
        ON_NEW_DATABASE(test_a_cap_is_set_between_claims),
        ON_NEW_DATABASE(test_idle_counts_are_added_up),
        ON_NEW_DATABASE(test_a_set_is_in_the_order_of_claims),
        ON_NEW_DATABASE(test_a_claim_reads_what_it_takes),
        ON_NEW_DATABASE(test_tenants_share_by_weight),
        ON_NEW_DATABASE(test_order_within_a_tenant),
        ON_NEW_DATABASE(test_a_claim_carries_what_a_trainer_needs),
        ON_NEW_DATABASE(test_run_at_makes_ready_when_it_passes),
        ON_NEW_DATABASE(test_unknown_provider_fails_after_the_grace_time),
        ON_NEW_DATABASE(test_deadline_of_unleased_jobs),
        ON_NEW_DATABASE(test_leases_of_another_boot_are_told_apart),
        ON_NEW_DATABASE(test_who_gives_way_to_whom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
