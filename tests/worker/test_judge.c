/* From what a trainer did to what is recorded of its attempt. */
#include "worker/job.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct mf_job_end end;

static struct mf_trainer_story story(enum mf_event_type terminal, int code, enum mf_stop_reason stop) {
    return (struct mf_trainer_story){.stop = stop,
                                     .terminal = terminal,
                                     .steps = 9,
                                     .trained_tokens = 360,
                                     .train_loss = 0.5,
                                     .eval_loss = (double)NAN,
                                     .perplexity = (double)NAN,
                                     .exit = {.finished = true, .code = code},
                                     .phase = MF_PHASE_TRAIN,
                                     .step = 9,
                                     .artifact_count = 1};
}

static void judge(struct mf_trainer_story told) {
    mf_job_judge(&told, &end);
}

static void is_failure(enum mf_status status, const char *message) {
    assert_int_equal(end.kind, MF_END_FINISH);
    assert_int_equal(end.outcome, MF_OUTCOME_FAILED);
    assert_int_equal(end.error.status, status);
    assert_string_equal(end.error.message, message);
}

static void is_release(enum mf_release_reason reason) {
    assert_int_equal(end.kind, MF_END_RELEASE);
    assert_int_equal(end.release, reason);
}

static void is_cancelled(void) {
    assert_int_equal(end.kind, MF_END_FINISH);
    assert_int_equal(end.outcome, MF_OUTCOME_CANCELLED);
}

static void is_success(void) {
    assert_int_equal(end.kind, MF_END_FINISH);
    assert_int_equal(end.outcome, MF_OUTCOME_SUCCEEDED);
    assert_string_equal(
        end.result,
        "{\"eval_loss\":null,\"perplexity\":null,\"steps\":9,\"train_loss\":0.5,\"trained_tokens\":360}");
    mf_job_end_free(&end);
}

static void done_succeeds_and_beats_a_late_stop(void **state) {
    (void)state;
    static const enum mf_stop_reason stops[] = {MF_STOP_NONE,    MF_STOP_PREEMPT, MF_STOP_DRAIN,
                                                MF_STOP_PAUSE,   MF_STOP_BLIND,   MF_STOP_CANCEL,
                                                MF_STOP_DEADLINE};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        judge(story(MF_EVENT_DONE, 0, stops[i]));
        is_success();
    }
}

static void a_lost_lease_beats_everything(void **state) {
    (void)state;
    judge(story(MF_EVENT_DONE, 0, MF_STOP_LEASE_LOST));
    assert_int_equal(end.kind, MF_END_ABANDON);
    assert_null(end.result);
}

static void a_stopped_trainer_ends_as_what_stopped_it(void **state) {
    (void)state;
    /* whether it obeyed (exit 4) or had to be killed */
    for (int killed = 0; killed < 2; killed++) {
        struct mf_trainer_story told = story(MF_EVENT_CANCELLED, MF_TRAINER_EXIT_CANCELLED, MF_STOP_CANCEL);
        if (killed) {
            told.terminal = MF_EVENT_UNKNOWN;
            told.exit = (struct mf_process_exit){.finished = true, .signal = SIGKILL};
        }
        judge(told);
        is_cancelled();
        told.stop = MF_STOP_DRAIN;
        judge(told);
        is_release(MF_RELEASE_DRAIN);
        told.stop = MF_STOP_PREEMPT;
        judge(told);
        is_release(MF_RELEASE_PREEMPTED);
        told.stop = MF_STOP_PAUSE;
        judge(told);
        assert_int_equal(end.kind, MF_END_FINISH);
        assert_int_equal(end.outcome, MF_OUTCOME_PAUSED);
        told.stop = MF_STOP_BLIND;
        judge(told);
        is_release(MF_RELEASE_WATCHDOG);
        assert_true(*end.note);
        told.stop = MF_STOP_DEADLINE;
        judge(told);
        is_failure(MF_ERROR_DEADLINE_EXCEEDED, "the job was not done by its deadline (step 9)");
    }
}

static void an_error_keeps_its_code_and_text(void **state) {
    (void)state;
    struct mf_trainer_story told = story(MF_EVENT_ERROR, MF_TRAINER_EXIT_ERROR, MF_STOP_NONE);
    strcpy(told.said_code, "bad_weights");
    mf_error_set(&told.said, MF_ERROR_BAD_WEIGHTS, "shard 2 is cut");
    judge(told);
    is_failure(MF_ERROR_BAD_WEIGHTS, "shard 2 is cut");
    assert_string_equal(end.trainer_code, "");
    strcpy(told.said_code, "my_own");
    mf_error_set(&told.said, MF_ERROR_INTERNAL, "whatever");
    judge(told);
    is_failure(MF_ERROR_INTERNAL, "whatever");
    assert_string_equal(end.trainer_code, "my_own");
    strcpy(told.said_code, "not a code; DROP");
    judge(told);
    assert_string_equal(end.trainer_code, "");
}

static void a_checkpoint_of_another_kind_of_host_charges_no_attempt(void **state) {
    (void)state;
    struct mf_trainer_story told = story(MF_EVENT_ERROR, MF_TRAINER_EXIT_ERROR, MF_STOP_NONE);
    strcpy(told.said_code, "checkpoint_plan");
    mf_error_set(&told.said, MF_ERROR_CHECKPOINT_PLAN, "two threads here, one there");
    judge(told);
    is_release(MF_RELEASE_WATCHDOG);
    assert_string_equal(end.note, "given back: checkpoint_plan: two threads here, one there");
}

static void what_is_out_of_order_is_told_apart(void **state) {
    (void)state;
    judge(story(MF_EVENT_DONE, 5, MF_STOP_NONE));
    is_failure(MF_ERROR_TRAINER_CRASHED, "the trainer said done but then ended with exit code 5");
    judge(story(MF_EVENT_CANCELLED, MF_TRAINER_EXIT_CANCELLED, MF_STOP_NONE));
    is_failure(MF_ERROR_PROVIDER_PROTOCOL, "the trainer said cancelled without being asked to");
    judge(story(MF_EVENT_PAUSED, MF_TRAINER_EXIT_PAUSED, MF_STOP_NONE));
    is_failure(MF_ERROR_PROVIDER_PROTOCOL, "the trainer said paused without being asked to");
    struct mf_trainer_story told = story(MF_EVENT_DONE, 0, MF_STOP_NONE);
    told.artifact_count = 0;
    judge(told);
    is_failure(MF_ERROR_PROVIDER_PROTOCOL, "the trainer said done but named no artifact");
    told = story(MF_EVENT_UNKNOWN, 0, MF_STOP_NONE);
    mf_last_words_add(&told.last_words, "Bus error", 9);
    told.exit = (struct mf_process_exit){.finished = true, .signal = SIGBUS};
    judge(told);
    is_failure(MF_ERROR_TRAINER_CRASHED,
               "the trainer ended without saying why: killed by signal 7 (Bus error) in "
               "phase train after step 9; it wrote: Bus error");
}

static void silence_is_an_interruption_and_says_so(void **state) {
    (void)state;
    struct mf_trainer_story told = story(MF_EVENT_UNKNOWN, 0, MF_STOP_NONE);
    told.silent_ms = 61000;
    told.exit = (struct mf_process_exit){.finished = true, .signal = SIGTERM};
    judge(told);
    is_release(MF_RELEASE_WATCHDOG);
    assert_string_equal(
        end.note, "trainer_timeout: nothing was heard from the trainer for 61 s in phase train after step 9");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(done_succeeds_and_beats_a_late_stop),
        cmocka_unit_test(a_lost_lease_beats_everything),
        cmocka_unit_test(a_stopped_trainer_ends_as_what_stopped_it),
        cmocka_unit_test(an_error_keeps_its_code_and_text),
        cmocka_unit_test(a_checkpoint_of_another_kind_of_host_charges_no_attempt),
        cmocka_unit_test(what_is_out_of_order_is_told_apart),
        cmocka_unit_test(silence_is_an_interruption_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
