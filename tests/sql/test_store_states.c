/* Every cell of the state table on a real server: a job is brought into each state and wish by the store's
 * own calls, every event is tried on it, and what PostgreSQL then holds is what the table says. */
#include "support.h"

#include <stdio.h>
#include <string.h>

/* One job under test, alone in a queue of its own. */
struct subject {
    struct mf_database *database;
    char queue[64];
    char job_id[MF_UUID_TEXT_BYTES];
    struct mf_claim claim; /* job_id empty: it was never claimed */
};

static int commands_sent;
static const char *queue_of_next_job;

static void into_queue(struct mf_ingest_request *request) {
    request->provider = queue_of_next_job;
}

static bool claim(struct subject *subject, struct mf_claim *claim_) {
    const struct mf_worker_provider providers[] = {ON_ALL(subject->queue)};
    struct mf_error error;
    size_t count = 0;
    const struct mf_claim_offer offer = cpu_offer("worker", providers, 1);
    assert_fine(mf_store_claim(subject->database, &offer, 1, claim_, &count, &error));
    return count == 1;
}

static enum mf_ingest_fate command(struct subject *subject, enum mf_command_action action) {
    char id[MF_UUID_TEXT_BYTES];
    snprintf(id, sizeof id, "00000000-0000-0000-0000-%012d", ++commands_sent);
    return send_command_of(subject->database, "team", subject->queue, id, action,
                           action == MF_COMMAND_RETRY ? 1 : 0);
}

static enum mf_status finish(struct subject *subject, struct mf_finish finish_) {
    struct mf_error error;
    return mf_store_finish(subject->database, "worker", &subject->claim.lease, &finish_, &at_once, NULL,
                           &error);
}

static const struct mf_finish done = {.outcome = MF_OUTCOME_SUCCEEDED, .result = "{}"};
static const struct mf_finish broken = {
    .outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_INVALID_FIELD, .error_message = "for good"};
static const struct mf_finish unlucky = {
    .outcome = MF_OUTCOME_FAILED, .error_status = MF_ERROR_TRAINER_CRASHED, .error_message = "again"};

static void expect_row(const struct subject *subject, enum mf_job_state state, const char *what) {
    const char *found = ask("SELECT state FROM jobs WHERE id = '%s'", subject->job_id);
    if (strcmp(found, mf_job_state_name(state)) != 0)
        fail_msg("%s: %s: the job is %s, not %s", subject->queue, what, found, mf_job_state_name(state));
}

static void bring_into(struct subject *subject, enum mf_job_state state, enum mf_job_desired desired) {
    queue_of_next_job = subject->queue;
    add_job(subject->database, "team", subject->queue, into_queue, subject->job_id);
    if (state == MF_JOB_PAUSED) {
        assert_int_equal(command(subject, MF_COMMAND_PAUSE), MF_FATE_ACCEPTED);
    } else if (state == MF_JOB_CANCELLED) {
        assert_int_equal(command(subject, MF_COMMAND_CANCEL), MF_FATE_ACCEPTED);
    } else if (state != MF_JOB_QUEUED) {
        assert_true(claim(subject, &subject->claim));
        if (desired != MF_DESIRED_RUN)
            assert_int_equal(
                command(subject, desired == MF_DESIRED_PAUSE ? MF_COMMAND_PAUSE : MF_COMMAND_CANCEL),
                MF_FATE_ACCEPTED);
        if (state == MF_JOB_SUCCEEDED)
            assert_int_equal(finish(subject, done), MF_OK);
        else if (state == MF_JOB_FAILED)
            assert_int_equal(finish(subject, broken), MF_OK);
    }
    expect_row(subject, state, "being brought there");
    assert_string_equal(ask("SELECT desired FROM jobs WHERE id = '%s'", subject->job_id),
                        mf_job_desired_name(desired));
}

/* Tries the event; true when the store says that it took effect. */
static bool fire(struct subject *subject, enum mf_job_state state, enum mf_job_trigger event) {
    static const enum mf_command_action actions[MF_JOB_EVENT_COUNT] = {[MF_EVENT_CANCEL] = MF_COMMAND_CANCEL,
                                                                       [MF_EVENT_PAUSE] = MF_COMMAND_PAUSE,
                                                                       [MF_EVENT_RESUME] = MF_COMMAND_RESUME,
                                                                       [MF_EVENT_RETRY] = MF_COMMAND_RETRY};
    static const struct mf_reap_options options = {.provider_grace_s = 3600};
    struct mf_error error;
    struct mf_claim other;
    struct mf_reap_report report;
    switch (event) {
    case MF_EVENT_CLAIM:
        if (!claim(subject, &other))
            return false;
        mf_claim_free(&other);
        return true;
    case MF_EVENT_SUCCEED: /* a lease of before it ended: a repeat of the same end is no event */
        return finish(subject, done) == MF_OK && state == MF_JOB_RUNNING;
    case MF_EVENT_FAIL_RETRIABLE:
        return finish(subject, unlucky) == MF_OK && state == MF_JOB_RUNNING;
    case MF_EVENT_FAIL:
        if (state == MF_JOB_RUNNING)
            return finish(subject, broken) == MF_OK;
        run_sql("UPDATE jobs SET deadline = now() - interval '1 second' WHERE id = '%s'", subject->job_id);
        assert_fine(mf_store_reap(subject->database, &options, &report, &error));
        return report.failed_deadline == 1;
    case MF_EVENT_TRAINER_PAUSED:
        return finish(subject, (struct mf_finish){.outcome = MF_OUTCOME_PAUSED}) == MF_OK;
    case MF_EVENT_TRAINER_CANCELLED:
        return finish(subject, (struct mf_finish){.outcome = MF_OUTCOME_CANCELLED}) == MF_OK &&
               state == MF_JOB_RUNNING;
    case MF_EVENT_INTERRUPT:
        return mf_store_release(subject->database, "worker", &subject->claim.lease, MF_RELEASE_WATCHDOG,
                                &at_once, &error) == MF_OK;
    default:
        return command(subject, actions[event]) == MF_FATE_ACCEPTED;
    }
}

static void check_cell(struct mf_database *database, enum mf_job_state state, enum mf_job_desired desired,
                       enum mf_job_trigger event) {
    struct subject subject = {.database = database};
    enum mf_job_state next = mf_job_next(state, event, desired);
    bool means = next != MF_JOB_STATE_COUNT;
    snprintf(subject.queue, sizeof subject.queue, "%s-%s-%s", mf_job_state_name(state),
             mf_job_desired_name(desired), mf_job_event_name(event));
    bring_into(&subject, state, desired);
    if (!*subject.claim.lease.job_id) { /* a worker's write with a lease that never was */
        memcpy(subject.claim.lease.job_id, subject.job_id, sizeof subject.job_id);
        snprintf(subject.claim.lease.incarnation, sizeof subject.claim.lease.incarnation, "%s",
                 ask("SELECT incarnation FROM incarnation"));
        subject.claim.lease.epoch = 1;
    }
    if (fire(&subject, state, event) != means)
        fail_msg("%s: the event %s effect", subject.queue, means ? "took no" : "took");
    expect_row(&subject, means ? next : state, "after the event");
    if (event == MF_EVENT_RETRY && means)
        assert_string_equal(
            ask("SELECT concat_ws(' ', generation, state, desired) FROM jobs WHERE retry_of = '%s'",
                subject.job_id),
            "2 queued run");
    assert_int_equal(
        ask_number("SELECT count(*) FROM jobs WHERE id = '%s' AND NOT audit_chain_whole(id)", subject.job_id),
        0);
    mf_claim_free(&subject.claim);
}

static void test_every_cell(void **unused) {
    struct mf_database *database = connect_worker();
    int cells = 0;
    (void)unused;
    for (int state = 0; state < MF_JOB_STATE_COUNT; state++)
        for (int desired = 0; desired < MF_DESIRED_COUNT; desired++)
            for (int event = 0; event < MF_JOB_EVENT_COUNT; event++)
                if (mf_job_reachable((enum mf_job_state)state, (enum mf_job_desired)desired)) {
                    check_cell(database, (enum mf_job_state)state, (enum mf_job_desired)desired,
                               (enum mf_job_trigger)event);
                    cells++;
                }
    assert_int_equal(cells, 12 * MF_JOB_EVENT_COUNT);
    /* The counts of every queue and what may be claimed are what its jobs say, and a lease stands for each
     * running job. */
    assert_int_equal(
        ask_number("SELECT count(*) FROM jobs FULL JOIN ready_jobs AS ready ON ready.job_id = jobs.id "
                   "AND (ready.queue, ready.tenant, ready.needs_hash, ready.claim_order) "
                   "= (jobs.queue, jobs.tenant, jobs.needs_hash, jobs.claim_order) "
                   "WHERE (jobs.ready_at IS NOT NULL) IS NOT TRUE <> (ready.job_id IS NULL)"),
        0);
    assert_int_equal(
        ask_number(
            "SELECT count(*) FROM tenant_load AS share WHERE "
            "share.ready <> (SELECT count(*) FROM jobs WHERE queue = share.queue AND ready_at IS NOT NULL) "
            "OR "
            "share.running <> (SELECT count(*) FROM jobs WHERE queue = share.queue AND state = 'running')"),
        0);
    assert_int_equal(
        ask_number("SELECT count(*) FROM jobs FULL JOIN job_leases AS lease ON lease.job_id = jobs.id "
                   "AND lease.epoch = jobs.lease_epoch "
                   "WHERE (jobs.state = 'running') <> (lease.job_id IS NOT NULL)"),
        0);
    mf_database_close(database);
}

/* What the table calls unreachable the database refuses. */
static void test_no_other_combination_can_be_written(void **unused) {
    struct mf_database *database = connect_worker();
    char job_id[MF_UUID_TEXT_BYTES], sql[256];
    struct mf_error error;
    (void)unused;
    add_job(database, "team", "fixed", NULL, job_id);
    for (int state = 0; state < MF_JOB_STATE_COUNT; state++)
        for (int desired = 0; desired < MF_DESIRED_COUNT; desired++) {
            bool ended = mf_job_terminal((enum mf_job_state)state);
            snprintf(sql, sizeof sql,
                     "UPDATE jobs SET state = '%s', desired = '%s', ready_at = NULL, finished_at = %s",
                     mf_job_state_name((enum mf_job_state)state),
                     mf_job_desired_name((enum mf_job_desired)desired), ended ? "now()" : "NULL");
            enum mf_status status = mf_database_execute(database, sql, &error);
            assert_int_equal(status, mf_job_reachable((enum mf_job_state)state, (enum mf_job_desired)desired)
                                         ? MF_OK
                                         : MF_ERROR_UNSTORABLE);
        }
    mf_database_close(database);
}

#define ON_NEW_DATABASE(test) cmocka_unit_test_setup_teardown(test, create_migrated, drop_database)

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {ON_NEW_DATABASE(test_every_cell),
                                       ON_NEW_DATABASE(test_no_other_combination_can_be_written)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
