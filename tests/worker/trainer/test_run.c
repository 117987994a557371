/* The program as a worker runs it: requests in, protocol lines out, commands obeyed, nothing half-written. */
#include "common/clock.h"
#include "common/files.h"
#include "common/process.h"
#include "worker/trainer/protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000 };

static char folder[] = "/tmp/modelforge-run-XXXXXX";

/* A trainer under test and the ends of its pipes. */
struct trainer {
    struct mf_process process;
    struct mf_protocol_reader reader;
    struct mf_protocol_writer writer;
    int events, commands;
    char output[256];
};

static int make_folder(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    struct mf_error error;
    return mf_tree_remove(folder, &error) != MF_OK;
}

static void must(enum mf_status status, const struct mf_error *error) {
    if (status != MF_OK)
        fail_msg("%s", error->message);
}

static void write_text(const char *name, const char *text) {
    char path[512];
    struct mf_error error;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    must(mf_file_write_atomic(path, text, strlen(text), 0644, &error), &error);
}

static void write_rows(void) {
    char text[8192] = "";
    size_t used = 0;
    for (int i = 0; i < 24; i++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "{\"input\":\"What is %d?\",\"output\":\"A %s number.\"}\n", i,
                                 i % 2 ? "odd" : "even");
    write_text("rows.jsonl", text);
}

/* What the next start() resumes from ("": nothing), and how many threads it computes with. */
static char resume_from[512];
static const char *threads = "OMP_NUM_THREADS=1";

/* Starts `modelforge-trainer run` on a request of the usual fields and `more` (", \"name\": value ..."). */
static void start(struct trainer *trainer, const char *name, const char *model, const char *more) {
    char request[4096], path[512], resume[600] = "null", *working = realpath(".", NULL);
    struct mf_error error;
    int events[2], commands[2];
    write_rows();
    *trainer = (struct trainer){0};
    snprintf(trainer->output, sizeof trainer->output, "%s/%s", folder, name);
    if (*resume_from)
        snprintf(resume, sizeof resume, "\"%s\"", resume_from);
    snprintf(request, sizeof request,
             "{\"task\":\"text-generation\",\"model_name\":\"%s%s%s\",\"dataset\":\"%s/"
             "rows.jsonl\",\"learning_rate\":0.002,"
             "\"run\":{\"job_id\":\"j\",\"attempt\":1,\"attempt_id\":\"a\",\"output_dir\":\"%s\","
             "\"checkpoint_dir\":\"%s-checkpoints\","
             "\"resume_from\":%s,\"created_at\":\"2026-01-02T03:04:05Z\"}%s}",
             *model == '/' ? "" : working, *model == '/' ? "" : "/", model, folder, trainer->output,
             trainer->output, resume, more);
    free(working);
    write_text("request.json", request);
    snprintf(path, sizeof path, "%s/request.json", folder);
    assert_int_equal(pipe2(events, O_CLOEXEC), 0);
    assert_int_equal(pipe2(commands, O_CLOEXEC), 0);
    const char *const argv[] = {MF_TEST_TRAINER, "run", path, NULL};
    const char *const environment[] = {threads, "OMP_WAIT_POLICY=PASSIVE", NULL};
    const struct mf_process_descriptor descriptors[] = {{events[1], MF_PROTOCOL_EVENT_FD},
                                                        {commands[0], MF_PROTOCOL_COMMAND_FD}};
    const struct mf_process_options options = {.argv = argv,
                                               .environment = environment,
                                               .descriptors = descriptors,
                                               .descriptor_count = 2,
                                               .death_signal = SIGKILL};
    must(mf_process_spawn(&options, &trainer->process, &error), &error);
    close(events[1]);
    close(commands[0]);
    trainer->events = events[0];
    trainer->commands = commands[1];
    must(mf_protocol_reader_init(&trainer->reader, trainer->events, &error), &error);
    mf_protocol_writer_init(&trainer->writer, trainer->commands);
}

/* The next event, which the caller destroys. Fails when none comes in time. */
static void next_event(struct trainer *trainer, struct mf_event *event) {
    struct mf_error error;
    size_t length;
    const int64_t end_ms = mf_clock_monotonic_ms() + PATIENCE_MS;
    for (;;) {
        const char *line = mf_protocol_reader_next(&trainer->reader, &length);
        if (line) {
            must(mf_event_decode(line, length, event, &error), &error);
            return;
        }
        struct pollfd ready = {.fd = trainer->events, .events = POLLIN};
        if (poll(&ready, 1, (int)(end_ms - mf_clock_monotonic_ms())) <= 0)
            fail_msg("no event in %d ms", PATIENCE_MS);
        if (mf_protocol_reader_fill(&trainer->reader, &error) != MF_READ_DATA)
            fail_msg("the trainer's events ended");
    }
}

/* Reads on to the next event of a type; the caller destroys it. A terminal one of another type fails. */
static void await(struct trainer *trainer, enum mf_event_type type, struct mf_event *event) {
    for (;;) {
        next_event(trainer, event);
        if (event->type == type)
            return;
        if (event->type == MF_EVENT_ERROR)
            fail_msg("%s: %s", event->error.code, event->error.message);
        if (mf_event_is_terminal(event->type))
            fail_msg("ended with %s", mf_event_type_name(event->type));
        mf_event_destroy(event);
    }
}

static void command(struct trainer *trainer, enum mf_trainer_command_type type, int64_t number) {
    struct mf_error error;
    must(mf_protocol_send_command(&trainer->writer, &(struct mf_trainer_command){type, number}, &error),
         &error);
}

static void finish(struct trainer *trainer, int code) {
    struct mf_error error;
    struct mf_process_exit end;
    must(mf_process_wait(&trainer->process, PATIENCE_MS, &end, &error), &error);
    assert_true(end.finished);
    assert_int_equal(end.signal, 0);
    assert_int_equal(end.code, code);
    mf_protocol_reader_destroy(&trainer->reader);
    mf_protocol_writer_destroy(&trainer->writer);
    close(trainer->events);
    if (trainer->commands >= 0)
        close(trainer->commands);
}

static bool output_has(const struct trainer *trainer, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", trainer->output, name);
    return mf_path_exists(path);
}

static const char tiny[] = "tests/golden/models/tied-gqa";

/* Runs to the end; returns the sha256 of the adapter's weights. */
static void run_to_the_end(const char *name, const char *more, char digest[MF_SHA256_TEXT_BYTES]) {
    struct trainer trainer;
    struct mf_event event;
    struct mf_error error;
    char path[512];
    int64_t steps = 0, evaluations = 0, artifacts = 0, total = 0;
    double first = 0, last = 0;
    start(&trainer, name, tiny, more);
    next_event(&trainer, &event);
    assert_int_equal(event.type, MF_EVENT_HELLO);
    assert_int_equal(event.hello.protocol, MF_PROTOCOL_VERSION);
    assert_true(event.hello.device_count >= 1); /* the CPU, and before it the GPU where there is one */
    assert_string_equal(event.hello.device[event.hello.device_count - 1].name, "cpu");
    assert_true(event.hello.device[0].memory_bytes > 0);
    for (bool done = false; !done;) {
        mf_event_destroy(&event);
        next_event(&trainer, &event);
        if (event.type == MF_EVENT_PLAN) {
            total = event.plan.total_steps;
            assert_int_equal(event.plan.train_rows, 18); /* 24 less ceil(.25 * 24) */
            assert_int_equal(event.plan.eval_rows, 6);
            assert_true(event.plan.managed_bytes > 0);
            assert_int_equal(strlen(event.plan.numeric_plan_sha256), 64);
        } else if (event.type == MF_EVENT_STEP) {
            assert_int_equal(event.step.step, ++steps);
            first = steps == 1 ? event.step.loss : first;
            last = event.step.loss;
        } else if (event.type == MF_EVENT_EVAL) {
            evaluations++;
        } else if (event.type == MF_EVENT_ARTIFACT) {
            artifacts++;
            assert_true(event.artifact.size_bytes > 0);
            assert_memory_equal(event.artifact.path, trainer.output, strlen(trainer.output));
        } else if (event.type == MF_EVENT_DONE) {
            assert_int_equal(event.done.steps, total);
            assert_true(event.done.eval_loss > 0 && event.done.perplexity > 1);
            done = true;
        } else if (mf_event_is_terminal(event.type)) {
            fail_msg("ended with %s: %s", mf_event_type_name(event.type),
                     event.type == MF_EVENT_ERROR ? event.error.message : "");
        }
    }
    mf_event_destroy(&event);
    finish(&trainer, MF_TRAINER_EXIT_DONE);
    assert_int_equal(total, 15); /* 3 epochs of ceil(18 / 4) */
    assert_int_equal(steps, total);
    assert_int_equal(evaluations, 3); /* after 6, 12 and at the end */
    assert_int_equal(artifacts, 2);
    assert_true(last < first - 0.3);
    assert_true(output_has(&trainer, "training.json"));
    assert_true(output_has(&trainer, "adapter/adapter_config.json"));
    assert_false(output_has(&trainer, "adapter.partial"));
    snprintf(path, sizeof path, "%s/adapter/adapter_model.safetensors", trainer.output);
    must(mf_file_sha256(path, digest, NULL, &error), &error);
}

static const char usual[] = ",\"num_train_epochs\":3,\"eval_steps\":6,\"eval_split\":0.25";

static void test_whole_run_twice_gives_the_same_bits(void **state) {
    (void)state;
    char first[MF_SHA256_TEXT_BYTES], second[MF_SHA256_TEXT_BYTES], other[MF_SHA256_TEXT_BYTES], more[256];
    run_to_the_end("first", usual, first);
    run_to_the_end("second", usual, second);
    assert_string_equal(first, second);
    snprintf(more, sizeof more, "%s,\"seed\":43", usual);
    run_to_the_end("other", more, other);
    assert_string_not_equal(first, other);
}

/* Each setting of quantised weights changes the adapter, says so in training.json, and is the same every
 * time; sft on 4-bit weights is qlora. */
static void test_quantised_runs(void **state) {
    (void)state;
    static const struct {
        const char *more, *type;
        bool nested;
        const char *kept_dtype;
    } runs[] = {
        {",\"bf16\":false", NULL, false, NULL},
        {",\"bf16\":false,\"use_8bit\":true", "int8", false, "f32"},
        {",\"bf16\":false,\"strategy\":\"qlora\"", "nf4", false, "f32"},
        {",\"bf16\":false,\"strategy\":\"qlora\",\"bnb_4bit_quant_type\":\"fp4\"", "fp4", false, "f32"},
        {",\"bf16\":false,\"strategy\":\"qlora\",\"use_nested_quant\":true", "nf4", true, "f32"},
        {",\"strategy\":\"qlora\",\"bnb_4bit_compute_dtype\":\"bfloat16\"", "nf4", false, "bf16"},
        {",\"use_4bit\":true,\"bnb_4bit_compute_dtype\":\"float32\"", "nf4", false, "f32"},
    };
    enum { RUNS = sizeof runs / sizeof *runs };
    char digest[RUNS][MF_SHA256_TEXT_BYTES], more[512], name[32], path[512];
    for (size_t i = 0; i < RUNS; i++) {
        snprintf(more, sizeof more, "%s%s", usual, runs[i].more);
        snprintf(name, sizeof name, "quantised%zu", i);
        run_to_the_end(name, more, digest[i]);
        snprintf(path, sizeof path, "%s/%s/training.json", folder, name);
        json_t *record = json_load_file(path, 0, NULL);
        const json_t *said = json_object_get(record, "quantization");
        const json_t *planned = json_object_get(json_object_get(record, "numeric_plan"), "quantized_weights");
        if (!runs[i].type) {
            assert_true(json_is_null(said));
            assert_null(planned);
        } else {
            assert_string_equal(json_string_value(json_object_get(said, "type")), runs[i].type);
            assert_int_equal(json_is_true(json_object_get(said, "nested")), runs[i].nested);
            assert_string_equal(json_string_value(json_object_get(said, "kept")), "dequantized");
            assert_string_equal(json_string_value(json_object_get(said, "kept_dtype")), runs[i].kept_dtype);
            assert_int_equal(json_object_size(planned), 1);
        }
        json_decref(record);
        for (size_t k = 0; k < i && i + 1 < RUNS; k++)
            assert_string_not_equal(digest[k], digest[i]);
    }
    assert_string_equal(digest[RUNS - 1], digest[2]);
}

/* A run long enough to be interrupted: 18 rows, one a step, a great many steps. */
static const char endless[] = ",\"max_steps\":1000000,\"gradient_accumulation_steps\":1,\"eval_split\":0.25";

static void test_commands(void **state) {
    (void)state;
    struct trainer trainer;
    struct mf_event event;
    start(&trainer, "cancelled", tiny, endless);
    await(&trainer, MF_EVENT_STEP, &event);
    mf_event_destroy(&event);
    command(&trainer, MF_TRAINER_PING, 1);
    await(&trainer, MF_EVENT_PONG, &event);
    assert_int_equal(event.number, 1);
    mf_event_destroy(&event);
    command(&trainer, MF_TRAINER_CHECKPOINT, 2);
    await(&trainer, MF_EVENT_ACK, &event);
    assert_int_equal(event.number, 2);
    mf_event_destroy(&event);
    await(&trainer, MF_EVENT_CHECKPOINT, &event);
    assert_true(event.checkpoint.step > 0);
    assert_true(mf_path_exists(event.checkpoint.path));
    mf_event_destroy(&event);
    await(&trainer, MF_EVENT_STEP, &event); /* it goes on */
    mf_event_destroy(&event);
    command(&trainer, MF_TRAINER_CANCEL, 3);
    await(&trainer, MF_EVENT_ACK, &event);
    assert_int_equal(event.number, 3);
    mf_event_destroy(&event);
    await(&trainer, MF_EVENT_CANCELLED, &event);
    mf_event_destroy(&event);
    finish(&trainer, MF_TRAINER_EXIT_CANCELLED);
    assert_false(output_has(&trainer, "adapter"));
    assert_false(output_has(&trainer, "training.json"));
}

static void test_sigterm_cancels(void **state) {
    (void)state;
    struct trainer trainer;
    struct mf_event event;
    start(&trainer, "terminated", tiny, endless);
    await(&trainer, MF_EVENT_STEP, &event);
    mf_event_destroy(&event);
    kill(trainer.process.pid, SIGTERM);
    await(&trainer, MF_EVENT_CANCELLED, &event);
    mf_event_destroy(&event);
    finish(&trainer, MF_TRAINER_EXIT_CANCELLED);
}

static void test_lost_worker_ends_the_run(void **state) {
    (void)state;
    struct trainer trainer;
    struct mf_event event;
    start(&trainer, "orphan", tiny, endless);
    await(&trainer, MF_EVENT_STEP, &event);
    mf_event_destroy(&event);
    close(trainer.commands);
    trainer.commands = -1;
    await(&trainer, MF_EVENT_CANCELLED, &event);
    mf_event_destroy(&event);
    finish(&trainer, MF_TRAINER_EXIT_CANCELLED);
}

static void expect_error(const char *name, const char *model, const char *more, const char *code,
                         const char *words) {
    struct trainer trainer;
    struct mf_event event;
    start(&trainer, name, model, more);
    do {
        next_event(&trainer, &event);
        if (event.type != MF_EVENT_ERROR)
            mf_event_destroy(&event);
    } while (event.type != MF_EVENT_ERROR);
    assert_string_equal(event.error.code, code);
    if (!strstr(event.error.message, words))
        fail_msg("'%s' does not say '%s'", event.error.message, words);
    mf_event_destroy(&event);
    finish(&trainer, MF_TRAINER_EXIT_ERROR);
    assert_false(output_has(&trainer, "adapter"));
}

/* ---- checkpoints ---- */

static uint64_t random_state = 20260102;

static int64_t random_below(int64_t bound) { /* splitmix64: the same places to kill at every time */
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (int64_t)((z ^ (z >> 31)) % (uint64_t)bound);
}

static bool checkpoint_path(const char *name, int64_t step) {
    snprintf(resume_from, sizeof resume_from, "%s/%s-checkpoints/step-%08lld", folder, name, (long long)step);
    return mf_path_exists(resume_from);
}

/* Sets resume_from to the newest whole checkpoint of a run, "" without one; returns its step. */
static int64_t newest_checkpoint(const char *name) {
    int64_t step = 15;
    while (step > 0 && !checkpoint_path(name, step))
        step--;
    if (step == 0)
        *resume_from = 0;
    return step;
}

static void kill_trainer(struct trainer *trainer) {
    struct mf_error error;
    struct mf_process_exit end;
    kill(trainer->process.pid, SIGKILL);
    must(mf_process_wait(&trainer->process, PATIENCE_MS, &end, &error), &error);
    if (end.signal != SIGKILL) /* it was over before the signal came */
        assert_int_equal(end.code, MF_TRAINER_EXIT_DONE);
    mf_protocol_reader_destroy(&trainer->reader);
    mf_protocol_writer_destroy(&trainer->writer);
    close(trainer->events);
    close(trainer->commands);
}

/* Resumes the run from its newest checkpoint. Kills it when it reports step `at`, with the checkpoint of that
 * step being written, or once that checkpoint is said to be whole; false when it ended before. */
static bool run_until(const char *name, const char *more, int64_t at, bool whole) {
    struct trainer trainer;
    struct mf_event event = {0};
    int64_t step = newest_checkpoint(name);
    start(&trainer, name, tiny, more);
    *resume_from = 0;
    while (event.type != MF_EVENT_DONE) {
        next_event(&trainer, &event);
        if (event.type == MF_EVENT_STEP)
            assert_int_equal(event.step.step,
                             ++step); /* goes on where the checkpoint was, and skips nothing */
        const bool here = whole ? event.type == MF_EVENT_CHECKPOINT && event.checkpoint.step == at
                                : event.type == MF_EVENT_STEP && event.step.step == at;
        if (event.type == MF_EVENT_ERROR)
            fail_msg("%s", event.error.message);
        mf_event_destroy(&event);
        if (here) {
            kill_trainer(&trainer);
            return true;
        }
    }
    assert_int_equal(step, 15);
    finish(&trainer, MF_TRAINER_EXIT_DONE);
    return false;
}

static void digest_of(const char *name, char digest[MF_SHA256_TEXT_BYTES]) {
    char path[512];
    struct mf_error error;
    snprintf(path, sizeof path, "%s/%s/adapter/adapter_model.safetensors", folder, name);
    if (!mf_path_exists(path)) /* every weight was trained */
        snprintf(path, sizeof path, "%s/%s/model/model.safetensors", folder, name);
    must(mf_file_sha256(path, digest, NULL, &error), &error);
}

/* The loss of all steps of a run, which says more of its bits than weights that are rounded when they are
 * written. */
static double train_loss(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/training.json", folder, name);
    json_t *record = json_load_file(path, 0, NULL);
    const double loss = json_real_value(json_object_get(json_object_get(record, "results"), "train_loss"));
    assert_true(loss > 0);
    json_decref(record);
    return loss;
}

/* The step whose state a run has written. */
static int64_t kept_step(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/training.json", folder, name);
    json_t *record = json_load_file(path, 0, NULL);
    const int64_t step = json_integer_value(json_object_get(json_object_get(record, "results"), "kept_step"));
    json_decref(record);
    return step;
}

static void test_killed_anywhere_it_ends_with_the_same_bits(void **state) {
    (void)state;
    /* the second is evaluated on other words, which what it learns harms sooner or later: the best state is
     * from before most of the kills; and its moments have 8 bits. The third trains every weight, which bf16
     * programs read rounded */
    static const char every[] = ",\"finetuning\":\"full\",\"bf16\":true,\"max_steps\":15,\"eval_steps\":6,"
                                "\"eval_split\":0.25,\"optim\":\"adamw_8bit\"";
    char second[512];
    enum { ALL = 3 };
    const char *const kinds[ALL] = {usual, second, every};
    snprintf(second, sizeof second,
             ",\"num_train_epochs\":3,\"per_device_train_batch_size\":1,\"max_steps\":15,\"eval_steps\":2,"
             "\"lora_r\":128,\"lora_alpha\":2560,\"optim\":\"paged_adamw_8bit\",\"lr_scheduler_type\":"
             "\"constant\",\"warmup_ratio\":0,"
             "\"validation_dataset\":\"%s/other.jsonl\",\"load_best_model_at_end\":true",
             folder);
    write_text("other.jsonl", "{\"input\":\"Sing 1\",\"output\":\"La, 1 la!\"}\n"
                              "{\"input\":\"Sing 2\",\"output\":\"La, 2 la!\"}\n");
    char uninterrupted[ALL][MF_SHA256_TEXT_BYTES], resumed[MF_SHA256_TEXT_BYTES], more[700], name[32];
    double losses[ALL];
    int kills = 0;
    for (int kind = 0; kind < ALL; kind++) {
        snprintf(name, sizeof name, "uninterrupted-%d", kind);
        if (kind == 0)
            run_to_the_end(name, kinds[kind], uninterrupted[kind]);
        else
            assert_false(run_until(name, kinds[kind], 16, false));
        digest_of(name, uninterrupted[kind]);
        losses[kind] = train_loss(name);
    }
    assert_in_range(kept_step("uninterrupted-1"), 1, 14);
    for (int run = 0; kills < 24; run++) {
        snprintf(name, sizeof name, "killed-%d", run);
        snprintf(more, sizeof more, "%s,\"save_steps\":%d", kinds[run % ALL], 1 + run / ALL % 3);
        for (int64_t at = 1 + random_below(4); at <= 15; at += 1 + random_below(5)) {
            const bool whole = random_below(2) && at % (1 + run / ALL % 3) == 0;
            if (newest_checkpoint(name) >= at) /* on a busy machine the last one had gone on before it died */
                continue;
            if (!run_until(name, more, at, whole))
                fail_msg("run %d ended before step %lld", run, (long long)at);
            kills++;
        }
        assert_false(run_until(name, more, 16, false));
        digest_of(name, resumed);
        assert_string_equal(uninterrupted[run % ALL], resumed);
        assert_true(losses[run % ALL] == train_loss(name));
    }
}

static void test_pause_and_resume(void **state) {
    (void)state;
    struct trainer trainer;
    struct mf_event event;
    char uninterrupted[MF_SHA256_TEXT_BYTES], resumed[MF_SHA256_TEXT_BYTES];
    int64_t step;
    run_to_the_end("unpaused", usual, uninterrupted);
    start(&trainer, "paused", tiny, usual);
    await(&trainer, MF_EVENT_STEP, &event);
    mf_event_destroy(&event);
    command(&trainer, MF_TRAINER_PAUSE, 1);
    await(&trainer, MF_EVENT_CHECKPOINT, &event);
    step = event.checkpoint.step;
    mf_event_destroy(&event);
    await(&trainer, MF_EVENT_PAUSED, &event);
    mf_event_destroy(&event);
    finish(&trainer, MF_TRAINER_EXIT_PAUSED);
    assert_false(output_has(&trainer, "adapter"));
    assert_int_equal(newest_checkpoint("paused"), step);
    assert_false(run_until("paused", usual, 16, false));
    digest_of("paused", resumed);
    assert_string_equal(uninterrupted, resumed);
}

/* Writes a file of the checkpoint again, with one byte changed, or without its second half. */
static void damage(const char *name, bool cut) {
    char path[1024], *data;
    struct mf_error error;
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s", resume_from, name);
    must(mf_file_read(path, 1 << 24, &data, &bytes, &error), &error);
    if (cut)
        bytes /= 2;
    else
        data[bytes - 2] ^= 1;
    must(mf_file_write_atomic(path, data, bytes, 0644, &error), &error);
    free(data);
}

static void test_checkpoints_that_cannot_be_resumed(void **state) {
    (void)state;
    static const struct {
        const char *file, *words;
        bool cut;
    } damages[] = {{"state.safetensors", "the file is damaged", false},
                   {"state.safetensors", "the file is damaged", true},
                   {"checkpoint.json", "checkpoint.json", false},
                   {"checkpoint.json", "premature end of input", true}};
    char more[256], other[300], name[32];
    snprintf(more, sizeof more, "%s,\"save_steps\":1", usual);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        snprintf(name, sizeof name, "damaged-%zu", i);
        assert_true(run_until(name, more, 2, true));
        assert_true(checkpoint_path(name, 2));
        damage(damages[i].file, damages[i].cut);
        expect_error(name, tiny, more, "bad_checkpoint", damages[i].words);
    }
    snprintf(other, sizeof other, "%s,\"seed\":7", more);
    assert_true(checkpoint_path(name, 1));
    expect_error("foreign", tiny, other, "bad_checkpoint", "belongs to another request");
    threads = "OMP_NUM_THREADS=2";
    expect_error("threads", tiny, more, "checkpoint_plan", "thread count");
    threads = "OMP_NUM_THREADS=1";
    assert_false(checkpoint_path("nothing", 1));
    expect_error("nothing", tiny, more, "bad_checkpoint", "step-00000001");
    *resume_from = 0;
}

/* What training.json says of a run's bits: those of one that was never interrupted? */
static bool is_exact(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/training.json", folder, name);
    json_t *record = json_load_file(path, 0, NULL);
    const json_t *exact = json_object_get(json_object_get(record, "results"), "exact");
    assert_true(json_is_boolean(exact));
    const bool is = json_is_true(exact);
    json_decref(record);
    return is;
}

/* With another number of threads, where the request allows it; said by the plan line and by training.json,
 * and not forgotten by a checkpoint in between. */
static void test_resumed_though_not_exact(void **state) {
    (void)state;
    struct trainer trainer;
    struct mf_event event = {0};
    char more[256];
    snprintf(more, sizeof more, "%s,\"save_steps\":1,\"exact_resume\":false", usual);
    assert_true(run_until("inexact", more, 3, true));
    threads = "OMP_NUM_THREADS=2";
    assert_true(run_until("inexact", more, 6, true));
    assert_true(newest_checkpoint("inexact") >= 6);
    start(&trainer, "inexact", tiny, more);
    while (event.type != MF_EVENT_PLAN) {
        mf_event_destroy(&event);
        next_event(&trainer, &event);
        if (event.type == MF_EVENT_ERROR)
            fail_msg("%s", event.error.message);
    }
    assert_int_equal(strlen(event.plan.resumed_plan_sha256), 64);
    assert_string_not_equal(event.plan.resumed_plan_sha256, event.plan.numeric_plan_sha256);
    mf_event_destroy(&event);
    kill_trainer(&trainer);
    assert_false(run_until("inexact", more, 16, false));
    assert_false(is_exact("inexact"));
    threads = "OMP_NUM_THREADS=1";
    assert_true(is_exact("killed-0"));
    *resume_from = 0;
}

static void test_errors(void **state) {
    (void)state;
    expect_error("e1", "/nowhere/model", "", "model_not_found", "/nowhere/model");
    expect_error("e2", tiny, ",\"max_seq_length\":4096", "conflicting_fields", "max_seq_length: 4096");
    expect_error("e3", tiny, ",\"target_modules\":[\"query\"]", "invalid_field", "query");
    expect_error("e4", tiny, ",\"provider\":\"xyz\"", "unknown_provider",
                 "Unknown provider 'xyz'. Valid providers: huggingface, unsloth");
    expect_error("e5", tiny, ",\"learning_rat\":1", "unknown_field", "learning_rat");
    expect_error("e7", tiny, ",\"use_nested_quant\":true", "conflicting_fields", "use_nested_quant");
    expect_error("e6", tiny, ",\"max_seq_length\":8", "dataset_no_labels", "rows.jsonl");
}

/* A model one of whose weights is infinite. */
static void test_loss_that_is_not_finite(void **state) {
    (void)state;
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                        "model.safetensors"};
    char from[512], to[512], model[256], *data;
    struct mf_error error;
    size_t bytes;
    snprintf(model, sizeof model, "%s/broken", folder);
    must(mf_directory_create(model, 0755, &error), &error);
    for (size_t i = 0; i < 4; i++) {
        snprintf(from, sizeof from, "%s/%s", tiny, files[i]);
        snprintf(to, sizeof to, "%s/%s", model, files[i]);
        must(mf_file_read(from, 1 << 20, &data, &bytes, &error), &error);
        if (i == 3) {
            data[bytes - 1] = 0x7F; /* bf16 7F80: infinity */
            data[bytes - 2] = (char)0x80;
        }
        must(mf_file_write_atomic(to, data, bytes, 0644, &error), &error);
        free(data);
    }
    expect_error("nan", model, usual, "loss_not_finite", "step 1: the loss is");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_run_twice_gives_the_same_bits),
        cmocka_unit_test(test_quantised_runs),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_sigterm_cancels),
        cmocka_unit_test(test_lost_worker_ends_the_run),
        cmocka_unit_test(test_killed_anywhere_it_ends_with_the_same_bits),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_checkpoints_that_cannot_be_resumed),
        cmocka_unit_test(test_resumed_though_not_exact),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_loss_that_is_not_finite),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
