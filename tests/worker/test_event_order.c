/* What a trainer may say when, told as lines of the protocol. */
#include "tests/common/unit.h"

#include <string.h>

#include "worker/trainer/event_order.h"

#define SHA "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
#define PLAN_WITH(sha)                                                                                   \
    "{\"type\":\"plan\",\"managed_bytes\":1,\"total_steps\":2,\"train_rows\":1,\"eval_rows\":1,\"train_" \
    "tokens\":1,\"truncated_rows\":0,\"dropped_rows\":0,\"numeric_plan_sha256\":\"" sha "\"}"
#define HELLO "{\"type\":\"hello\",\"protocol\":1,\"version\":\"x\",\"devices\":[]}"
#define PLAN  PLAN_WITH(SHA)
#define STEP(n)                                                                                            \
    "{\"type\":\"step\",\"step\":" #n ",\"epoch\":1,\"loss\":2,\"learning_rate\":0.1,\"gradient_norm\":1," \
    "\"tokens\":5,\"tokens_per_second\":5,\"elapsed_seconds\":1}"
#define EVAL(n)        "{\"type\":\"eval\",\"step\":" #n ",\"loss\":2,\"perplexity\":7}"
#define CHECKPOINT(n)  "{\"type\":\"checkpoint\",\"step\":" #n ",\"path\":\"c\"}"
#define ARTIFACT(k)    "{\"type\":\"artifact\",\"kind\":\"" k "\",\"path\":\"a\",\"size_bytes\":1}"
#define PROGRESS(p, f) "{\"type\":\"progress\",\"phase\":\"" p "\",\"fraction\":" #f "}"
#define DONE                                                                                            \
    "{\"type\":\"done\",\"steps\":2,\"train_loss\":2,\"eval_loss\":null,\"perplexity\":null,\"trained_" \
    "tokens\":9}"
#define PAUSED  "{\"type\":\"paused\"}"
#define NEWER   "{\"type\":\"rumour\",\"of\":\"a newer version\"}"
#define ACK(n)  "{\"type\":\"ack\",\"number\":" #n "}"
#define PONG(n) "{\"type\":\"pong\",\"number\":" #n "}"

static enum mf_status say(struct mf_event_order *order, const char *line, struct mf_error *error) {
    struct mf_event event;
    assert_int_equal(mf_event_decode(line, strlen(line), &event, error), MF_OK);
    const enum mf_status status = mf_event_order_take(order, &event, error);
    mf_event_destroy(&event);
    return status;
}

enum { MOST = 12 };

static void a_whole_run_is_in_order(void **state) {
    (void)state;
    static const char *const lines[] = {NEWER,
                                        HELLO,
                                        NEWER,
                                        PROGRESS("load", 0),
                                        PROGRESS("load", 1),
                                        PLAN,
                                        PROGRESS("train", 0.5),
                                        STEP(1),
                                        EVAL(1),
                                        PROGRESS("evaluate", 0.5),
                                        PROGRESS("evaluate", 0),
                                        CHECKPOINT(1),
                                        STEP(2),
                                        PROGRESS("train", 1),
                                        CHECKPOINT(2),
                                        PROGRESS("save", 0.5),
                                        PROGRESS("save", 0),
                                        ARTIFACT("adapter"),
                                        ARTIFACT("training_json"),
                                        DONE,
                                        NEWER};
    struct mf_event_order order = {.who = "program"};
    struct mf_error error;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_status(say(&order, lines[i], &error), MF_OK);
    assert_int_equal(order.terminal, MF_EVENT_DONE);
    assert_int_equal(order.step, 2);
}

static void what_is_out_of_order_is_named(void **state) {
    (void)state;
    static const struct {
        const char *line[MOST]; /* the last that there is breaks the order */
        const char *text;
    } cases[] = {
        {{PLAN}, "the program said plan before hello"},
        {{HELLO, HELLO}, "the program said hello again"},
        {{"{\"type\":\"hello\",\"protocol\":2,\"version\":\"x\",\"devices\":[]}"},
         "the program speaks protocol 2, this version 1"},
        {{HELLO, PLAN, PLAN}, "the program said plan twice"},
        {{HELLO, PLAN_WITH("abc")},
         "plan of the program: numeric_plan_sha256 is not a sha256 in 64 digits of 0 to 9 and a to f"},
        {{HELLO, STEP(1)}, "the program said step before plan"},
        {{HELLO, EVAL(1)}, "the program said eval before plan"},
        {{HELLO, CHECKPOINT(1)}, "the program said checkpoint before plan"},
        {{HELLO, ARTIFACT("adapter")}, "the program said artifact before plan"},
        {{HELLO, DONE}, "the program said done before plan"},
        {{HELLO, PLAN, STEP(0)}, "the program said step 0 after step 0"},
        {{HELLO, PLAN, STEP(5), STEP(4)}, "the program said step 4 after step 5"},
        {{HELLO, PLAN, CHECKPOINT(5), CHECKPOINT(5)}, "the program said checkpoint 5 after checkpoint 5"},
        {{HELLO, PLAN, ARTIFACT("soup")},
         "the program named an artifact of kind 'soup', which is none of adapter, model, merged_16bit, gguf, "
         "training_json"},
        {{HELLO, PLAN, ARTIFACT("gguf"), ARTIFACT("gguf")}, "the program named two artifacts of kind gguf"},
        {{HELLO, PROGRESS("train", 1.5)},
         "progress of the program: fraction 1.5 of phase train is not in [0, 1]"},
        {{HELLO, PROGRESS("train", 0.5), PROGRESS("train", 0.25)},
         "progress of the program: the fraction of phase train fell from 0.5 to 0.25"},
        {{HELLO, ACK(1)}, "the program said ack of command 1, which was not sent"},
        {{HELLO, PAUSED, PAUSED}, "the program said paused after paused"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct mf_event_order order = {.who = "program"};
        struct mf_error error;
        size_t last = 0;
        while (last + 1 < MOST && cases[c].line[last + 1])
            last++;
        for (size_t i = 0; i < last; i++)
            assert_status(say(&order, cases[c].line[i], &error), MF_OK);
        assert_status(say(&order, cases[c].line[last], &error), MF_ERROR_PROVIDER_PROTOCOL);
        assert_string_equal(error.message, cases[c].text);
    }
}

static void a_trainer_hands_over_once(void **state) {
    (void)state;
    struct mf_event_order order = {.who = "trainer", .hands_over = true};
    struct mf_error error;
    assert_status(say(&order, HELLO, &error), MF_OK);
    assert_status(say(&order, PROGRESS("load", 1), &error), MF_OK);
    assert_status(say(&order, HELLO, &error), MF_OK);
    assert_status(say(&order, PROGRESS("load", 0.1), &error), MF_OK); /* the program's */
    assert_status(say(&order, HELLO, &error), MF_ERROR_PROVIDER_PROTOCOL);
    order = (struct mf_event_order){.who = "trainer", .hands_over = true};
    assert_status(say(&order, HELLO, &error), MF_OK);
    assert_status(say(&order, PLAN, &error), MF_OK);
    assert_status(say(&order, HELLO, &error), MF_ERROR_PROVIDER_PROTOCOL);
    assert_string_equal(error.message, "the trainer said hello again");
}

static void each_command_is_answered_once_and_as_it_is_to_be(void **state) {
    (void)state;
    struct mf_event_order order = {.who = "program"};
    struct mf_error error;
    assert_status(say(&order, HELLO, &error), MF_OK);
    assert_int_equal(mf_event_order_command(&order, MF_TRAINER_PING), 1);
    assert_int_equal(mf_event_order_command(&order, MF_TRAINER_CANCEL), 2);
    assert_status(say(&order, ACK(1), &error), MF_ERROR_PROVIDER_PROTOCOL);
    assert_string_equal(error.message,
                        "the program said ack of command 1: pong answers a ping, ack every other command");
    assert_status(say(&order, ACK(2), &error), MF_OK);
    assert_status(say(&order, PONG(1), &error), MF_OK);
    assert_status(say(&order, ACK(2), &error), MF_ERROR_PROVIDER_PROTOCOL);
    assert_string_equal(error.message, "the program said ack of command 2, which it had answered");
    assert_status(say(&order, ACK(3), &error), MF_ERROR_PROVIDER_PROTOCOL);
    for (int i = 3; i <= 70; i++)
        assert_int_equal(mf_event_order_command(&order, MF_TRAINER_CHECKPOINT), i);
    assert_status(say(&order, ACK(70), &error), MF_OK);
    assert_status(say(&order, ACK(3), &error),
                  MF_OK); /* so old that nobody remembers whether it was answered */
    assert_status(say(&order, PONG(7), &error), MF_ERROR_PROVIDER_PROTOCOL);
    assert_status(say(&order, PAUSED, &error), MF_OK);
    assert_status(say(&order, ACK(69), &error), MF_OK); /* of a command that came when it had ended */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_run_is_in_order),
        cmocka_unit_test(what_is_out_of_order_is_named),
        cmocka_unit_test(a_trainer_hands_over_once),
        cmocka_unit_test(each_command_is_answered_once_and_as_it_is_to_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
