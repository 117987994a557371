/* The trainer protocol: what one side writes the other side reads, and nothing else is accepted. */
#include "worker/trainer/protocol.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct pipes {
    int fd[2];
    struct mf_protocol_writer writer;
    struct mf_protocol_reader reader;
};

static int set_up(void **state) {
    static struct pipes pipes;
    struct mf_error error;
    assert_int_equal(pipe(pipes.fd), 0);
    mf_protocol_writer_init(&pipes.writer, pipes.fd[1]);
    assert_int_equal(mf_protocol_reader_init(&pipes.reader, pipes.fd[0], &error), MF_OK);
    *state = &pipes;
    return 0;
}

static int tear_down(void **state) {
    struct pipes *pipes = *state;
    mf_protocol_writer_destroy(&pipes->writer);
    mf_protocol_reader_destroy(&pipes->reader);
    close(pipes->fd[0]);
    if (pipes->fd[1] >= 0)
        close(pipes->fd[1]);
    return 0;
}

/* Sends *sent through the pipe and decodes it into *got. */
static void travel(struct pipes *pipes, const struct mf_event *sent, struct mf_event *got) {
    struct mf_error error = {0};
    size_t length = 0;
    assert_int_equal(mf_protocol_send_event(&pipes->writer, sent, &error), MF_OK);
    assert_int_equal(mf_protocol_reader_fill(&pipes->reader, &error), MF_READ_DATA);
    const char *line = mf_protocol_reader_next(&pipes->reader, &length);
    assert_non_null(line);
    if (mf_event_decode(line, length, got, &error))
        fail_msg("%s: %s", line, error.message);
    assert_int_equal(got->type, sent->type);
    assert_null(mf_protocol_reader_next(&pipes->reader, &length));
}

static void every_member_of_every_event_travels(void **state) {
    struct pipes *pipes = *state;
    struct mf_event got;
    char sha[65];
    memset(sha, 'a', 64);
    sha[64] = 0;

    struct mf_event hello = {.type = MF_EVENT_HELLO, .hello = {.version = "0.1.0", .device_count = 2}};
    hello.hello.device[0] = (struct mf_event_device){"cpu", "AMD EPYC", "", 1LL << 34};
    hello.hello.device[1] = (struct mf_event_device){"cuda:0", "H100", "GPU-1", 85899345920};
    travel(pipes, &hello, &got);
    assert_int_equal(got.hello.protocol, MF_PROTOCOL_VERSION);
    assert_string_equal(got.hello.version, "0.1.0");
    assert_int_equal(got.hello.device_count, 2);
    assert_string_equal(got.hello.device[1].name, "cuda:0");
    assert_string_equal(got.hello.device[1].uuid, "GPU-1");
    assert_string_equal(got.hello.device[0].description, "AMD EPYC");
    assert_int_equal(got.hello.device[1].memory_bytes, 85899345920);
    mf_event_destroy(&got);

    travel(pipes,
           &(struct mf_event){.type = MF_EVENT_PLAN, .plan = {1, 2, 3, 4, 5, 6, 7, sha, NULL, NULL, sha}},
           &got);
    assert_int_equal(got.plan.managed_bytes, 1);
    assert_int_equal(got.plan.total_steps, 2);
    assert_int_equal(got.plan.train_rows, 3);
    assert_int_equal(got.plan.eval_rows, 4);
    assert_int_equal(got.plan.train_tokens, 5);
    assert_int_equal(got.plan.truncated_rows, 6);
    assert_int_equal(got.plan.dropped_rows, 7);
    assert_string_equal(got.plan.numeric_plan_sha256, sha);
    assert_string_equal(got.plan.resumed_plan_sha256, sha);
    assert_string_equal(got.plan.base_revision, "");
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_PROGRESS, .progress = {MF_PHASE_EVALUATE, 0.25}}, &got);
    assert_int_equal(got.progress.phase, MF_PHASE_EVALUATE);
    assert_true(got.progress.fraction == 0.25);
    mf_event_destroy(&got);

    travel(pipes,
           &(struct mf_event){.type = MF_EVENT_STEP, .step = {9, 0.5, 2.25, 1e-4, 0.75, 321, 1234.5, 17.125}},
           &got);
    assert_int_equal(got.step.step, 9);
    assert_true(got.step.epoch == 0.5 && got.step.loss == 2.25 && got.step.learning_rate == 1e-4);
    assert_true(got.step.gradient_norm == 0.75 && got.step.tokens_per_second == 1234.5);
    assert_true(got.step.elapsed_seconds == 17.125);
    assert_int_equal(got.step.tokens, 321);
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_EVAL, .eval = {3, 1.5, 4.5}}, &got);
    assert_int_equal(got.eval.step, 3);
    assert_true(got.eval.loss == 1.5 && got.eval.perplexity == 4.5);
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_CHECKPOINT, .checkpoint = {40, "checkpoint-40"}}, &got);
    assert_int_equal(got.checkpoint.step, 40);
    assert_string_equal(got.checkpoint.path, "checkpoint-40");
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_ARTIFACT, .artifact = {"adapter", "adapter", 77}},
           &got);
    assert_string_equal(got.artifact.kind, "adapter");
    assert_string_equal(got.artifact.path, "adapter");
    assert_int_equal(got.artifact.size_bytes, 77);
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_LOG, .log = {"warning", "line\n\"two\""}}, &got);
    assert_string_equal(got.log.level, "warning");
    assert_string_equal(got.log.message, "line\n\"two\"");
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_ACK, .number = 12}, &got);
    assert_int_equal(got.number, 12);
    mf_event_destroy(&got);
    travel(pipes, &(struct mf_event){.type = MF_EVENT_PONG, .number = 13}, &got);
    assert_int_equal(got.number, 13);
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_DONE, .done = {90, 1.25, 1.5, 4.5, 98765}}, &got);
    assert_int_equal(got.done.steps, 90);
    assert_true(got.done.train_loss == 1.25 && got.done.eval_loss == 1.5 && got.done.perplexity == 4.5);
    assert_int_equal(got.done.trained_tokens, 98765);
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_ERROR, .error = {"bad_weights", "offset 9 > 8"}}, &got);
    assert_string_equal(got.error.code, "bad_weights");
    assert_string_equal(got.error.message, "offset 9 > 8");
    mf_event_destroy(&got);

    travel(pipes, &(struct mf_event){.type = MF_EVENT_PAUSED}, &got);
    mf_event_destroy(&got);
    travel(pipes, &(struct mf_event){.type = MF_EVENT_CANCELLED}, &got);
    mf_event_destroy(&got);
}

static void numbers_that_are_not_finite_travel_as_null(void **state) {
    struct mf_event got;
    travel(*state, &(struct mf_event){.type = MF_EVENT_EVAL, .eval = {1, (double)NAN, (double)INFINITY}},
           &got);
    assert_true(isnan(got.eval.loss));
    assert_true(isnan(got.eval.perplexity));
    mf_event_destroy(&got);
}

static void dirty_and_long_texts_are_made_fit(void **state) {
    struct mf_event got;
    static char text[3 * MF_PROTOCOL_MAX_TEXT];
    travel(*state, &(struct mf_event){.type = MF_EVENT_LOG, .log = {"info", "a\xff\xed\xa0\x80 \xc3\xa4"}},
           &got);
    assert_string_equal(got.log.message, "a???? \xc3\xa4");
    mf_event_destroy(&got);
    text[0] = 'x'; /* so that the cut falls inside a character */
    for (size_t i = 1; i + 2 < sizeof text; i += 2)
        text[i] = (char)0xc3, text[i + 1] = (char)0xa4;
    travel(*state, &(struct mf_event){.type = MF_EVENT_LOG, .log = {"info", text}}, &got);
    assert_int_equal(strlen(got.log.message), MF_PROTOCOL_MAX_TEXT - 1);
    mf_event_destroy(&got);
}

static void commands_travel(void **state) {
    struct pipes *pipes = *state;
    struct mf_error error;
    struct mf_trainer_command got;
    size_t length = 0;
    for (int i = 0; i < MF_TRAINER_COUNT; i++) {
        struct mf_trainer_command sent = {(enum mf_trainer_command_type)i, i + 1};
        assert_int_equal(mf_protocol_send_command(&pipes->writer, &sent, &error), MF_OK);
    }
    assert_int_equal(mf_protocol_reader_fill(&pipes->reader, &error), MF_READ_DATA);
    for (int i = 0; i < MF_TRAINER_COUNT; i++) {
        const char *line = mf_protocol_reader_next(&pipes->reader, &length);
        assert_non_null(line);
        assert_int_equal(mf_trainer_command_decode(line, length, &got, &error), MF_OK);
        assert_int_equal(got.type, i);
        assert_int_equal(got.number, i + 1);
    }
    const char *bad[] = {"{\"type\":\"explode\",\"number\":1}", "{\"type\":\"ping\"}",
                         "{\"type\":\"ping\",\"number\":0}", "[]", "ping"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(mf_trainer_command_decode(bad[i], strlen(bad[i]), &got, &error),
                         MF_ERROR_PROVIDER_PROTOCOL);
}

static void bad_lines_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *line, *message;
    } cases[] = {
        {"garbage",
         "trainer protocol: a line is not a JSON object: '[' or '{' expected near 'garbage' at byte 7"},
        {"[1]", "trainer protocol: a line has no \"type\""},
        {"{}", "trainer protocol: a line has no \"type\""},
        {"{\"type\":\"eval\",\"step\":1,\"loss\":1.5}",
         "trainer protocol: eval: member 'perplexity' is missing"},
        {"{\"type\":\"eval\",\"step\":-1,\"loss\":1.5,\"perplexity\":2}",
         "trainer protocol: eval: member 'step' is not a whole number from 0"},
        {"{\"type\":\"eval\",\"step\":1,\"loss\":\"1\",\"perplexity\":2}",
         "trainer protocol: eval: member 'loss' is not a number"},
        {"{\"type\":\"progress\",\"phase\":\"sleep\",\"fraction\":0}",
         "trainer protocol: progress: member 'phase' is no phase"},
        {"{\"type\":\"log\",\"level\":\"info\",\"message\":7}",
         "trainer protocol: log: member 'message' is not a string of at most 4096 bytes"},
        {"{\"type\":\"hello\",\"protocol\":1,\"version\":\"x\",\"devices\":[{\"name\":7}]}",
         "trainer protocol: hello: member 'devices' is not an array of at most 64 devices"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mf_error error = {0};
        struct mf_event event;
        assert_int_equal(mf_event_decode(cases[i].line, strlen(cases[i].line), &event, &error),
                         MF_ERROR_PROVIDER_PROTOCOL);
        assert_string_equal(error.message, cases[i].message);
    }
    struct mf_event event;
    struct mf_error error;
    static const char twice[] = "{\"type\":\"ack\",\"number\":1,\"number\":2}";
    assert_int_equal(mf_event_decode(twice, strlen(twice), &event, &error), MF_ERROR_PROVIDER_PROTOCOL);
    static const char newer[] = "{\"type\":\"sparkle\",\"glitter\":1}";
    assert_int_equal(mf_event_decode(newer, strlen(newer), &event, &error), MF_OK);
    assert_int_equal(event.type, MF_EVENT_UNKNOWN);
    mf_event_destroy(&event);
    static const char wider[] = "{\"type\":\"ack\",\"number\":1,\"more\":{}}";
    assert_int_equal(mf_event_decode(wider, strlen(wider), &event, &error), MF_OK);
    assert_int_equal(event.number, 1);
    mf_event_destroy(&event);
}

static void lines_are_cut_wherever_the_bytes_are_split(void **state) {
    struct pipes *pipes = *state;
    struct mf_error error;
    size_t length = 0;
    static const char stream[] = "one\n\ntwo\nthree";
    static const char *const expected[] = {"one", "", "two"};
    size_t lines = 0;
    for (size_t i = 0; i < strlen(stream); i++) {
        assert_int_equal(write(pipes->fd[1], stream + i, 1), 1);
        assert_int_equal(mf_protocol_reader_fill(&pipes->reader, &error), MF_READ_DATA);
        for (const char *line; (line = mf_protocol_reader_next(&pipes->reader, &length));) {
            if (lines >= 3) {
                fail_msg("a fourth line: %s", line);
                break;
            }
            assert_string_equal(line, expected[lines]);
            assert_int_equal(length, strlen(expected[lines]));
            lines++;
        }
    }
    assert_int_equal(lines, 3);
    assert_int_equal(fcntl(pipes->fd[0], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(mf_protocol_reader_fill(&pipes->reader, &error), MF_READ_AGAIN);
    close(pipes->fd[1]);
    pipes->fd[1] = -1;
    assert_int_equal(mf_protocol_reader_fill(&pipes->reader, &error), MF_READ_END);
    assert_null(mf_protocol_reader_next(&pipes->reader, &length)); /* "three" never ended */
}

static void an_endless_line_is_an_error_not_memory(void **state) {
    struct pipes *pipes = *state;
    struct mf_error error = {0};
    static char block[4096];
    size_t length = 0;
    memset(block, 'x', sizeof block);
    enum mf_read_result result = MF_READ_DATA;
    for (int i = 0; i <= MF_PROTOCOL_LINE_BYTES / 4096 && result == MF_READ_DATA; i++) {
        assert_int_equal(write(pipes->fd[1], block, sizeof block), (ssize_t)sizeof block);
        result = mf_protocol_reader_fill(&pipes->reader, &error);
        assert_null(mf_protocol_reader_next(&pipes->reader, &length));
    }
    assert_int_equal(result, MF_READ_FAILED);
    assert_int_equal(error.status, MF_ERROR_PROVIDER_PROTOCOL);
}

static void standalone_unless_both_descriptors_are_streams(void **state) {
    (void)state;
    int saved[2] = {dup(MF_PROTOCOL_EVENT_FD), dup(MF_PROTOCOL_COMMAND_FD)}, fd[2];
    assert_int_equal(pipe(fd), 0);
    int read_end = fcntl(fd[0], F_DUPFD, 10), write_end = fcntl(fd[1], F_DUPFD, 10);
    int null = open("/dev/null", O_RDWR);
    int file = fcntl(null, F_DUPFD, 10);
    dup2(write_end, MF_PROTOCOL_EVENT_FD);
    dup2(read_end, MF_PROTOCOL_COMMAND_FD);
    bool pipes_in_order = mf_protocol_attached();
    dup2(read_end, MF_PROTOCOL_EVENT_FD);
    bool wrong_direction = mf_protocol_attached();
    dup2(file, MF_PROTOCOL_EVENT_FD);
    bool a_file = mf_protocol_attached();
    close(MF_PROTOCOL_EVENT_FD);
    bool closed = mf_protocol_attached();
    close(MF_PROTOCOL_COMMAND_FD);
    for (int i = 0; i < 2; i++)
        if (saved[i] >= 0) {
            dup2(saved[i], MF_PROTOCOL_EVENT_FD + i);
            close(saved[i]);
        }
    close(read_end);
    close(write_end);
    close(file);
    assert_true(pipes_in_order);
    assert_false(wrong_direction);
    assert_false(a_file);
    assert_false(closed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_member_of_every_event_travels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(numbers_that_are_not_finite_travel_as_null, set_up, tear_down),
        cmocka_unit_test_setup_teardown(dirty_and_long_texts_are_made_fit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(commands_travel, set_up, tear_down),
        cmocka_unit_test(bad_lines_are_refused_by_name),
        cmocka_unit_test_setup_teardown(lines_are_cut_wherever_the_bytes_are_split, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_endless_line_is_an_error_not_memory, set_up, tear_down),
        cmocka_unit_test(standalone_unless_both_descriptors_are_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
