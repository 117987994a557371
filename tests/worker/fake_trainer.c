/* A training program that speaks the trainer protocol and misbehaves on demand: what it does is the request
 * id up to the first '-'. Only for what a real trainer cannot be made to do; see the table in main(). */
#include "worker/trainer/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct mf_protocol_writer writer;
static struct mf_protocol_reader commands;
static struct mf_error error;
static char output[4096];

static void say(const struct mf_event *event) {
    if (mf_protocol_send_event(&writer, event, &error))
        _exit(99);
}

static void hello(void) {
    struct mf_event event = {.type = MF_EVENT_HELLO, .hello = {.version = "fake", .device_count = 1}};
    const char *gpus = getenv("CUDA_VISIBLE_DEVICES");
    event.hello.device[0] = (struct mf_event_device){"cpu", "a fake processor", "", 1 << 30};
    if (gpus && *gpus)
        event.hello.device[0] = (struct mf_event_device){"cuda", gpus, "", 1 << 30};
    say(&event);
}

static void plan(int64_t steps) {
    char sha256[65];
    memset(sha256, 'e', 64);
    sha256[64] = 0;
    say(&(struct mf_event){.type = MF_EVENT_PROGRESS, .progress = {MF_PHASE_LOAD, 1}});
    say(&(struct mf_event){.type = MF_EVENT_PLAN,
                           .plan = {1 << 20, steps, 90, 10, 4000, 1, 2, sha256, NULL, NULL, NULL}});
}

static void step(int64_t number, int64_t of) {
    say(&(struct mf_event){.type = MF_EVENT_STEP,
                           .step = {number, (double)number / (double)of, 4.0 / (double)number, 2e-4, 1.5, 40,
                                    400.0, 0.1 * (double)number}});
}

static bool pause_asked;

/* Answers waiting commands; true when a cancel or a pause is among them. */
static bool cancelled(int wait_ms) {
    struct pollfd ready = {.fd = MF_PROTOCOL_COMMAND_FD, .events = POLLIN};
    bool cancel = false;
    if (poll(&ready, 1, wait_ms) <= 0)
        return false;
    if (mf_protocol_reader_fill(&commands, &error) == MF_READ_END)
        _exit(98); /* the worker is gone */
    size_t length;
    for (const char *line; (line = mf_protocol_reader_next(&commands, &length));) {
        struct mf_trainer_command command;
        if (mf_trainer_command_decode(line, length, &command, &error))
            continue;
        say(&(struct mf_event){.type = command.type == MF_TRAINER_PING ? MF_EVENT_PONG : MF_EVENT_ACK,
                               .number = command.number});
        cancel |= command.type == MF_TRAINER_CANCEL || command.type == MF_TRAINER_PAUSE;
        pause_asked |= command.type == MF_TRAINER_PAUSE;
    }
    return cancel;
}

static void write_file(const char *folder, const char *name, const char *text) {
    char path[16384];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file))
        _exit(97);
}

static void make_output(void) {
    char folder[8192];
    if (mkdir(output, 0700) && errno != EEXIST)
        _exit(96);
    snprintf(folder, sizeof folder, "%s/adapter", output);
    if (mkdir(folder, 0700) && errno != EEXIST)
        _exit(95);
    write_file(folder, "adapter_config.json", "{\"peft_type\": \"LORA\"}\n");
    write_file(folder, "adapter_model.safetensors", "weights\n");
    write_file(output, "training.json", "{}\n");
}

static int done(int64_t steps, const char *adapter, int64_t bytes) {
    say(&(struct mf_event){.type = MF_EVENT_PROGRESS, .progress = {MF_PHASE_SAVE, 0.5}});
    say(&(struct mf_event){.type = MF_EVENT_ARTIFACT, .artifact = {"adapter", adapter, bytes}});
    say(&(struct mf_event){.type = MF_EVENT_DONE, .done = {steps, 0.2, 0.3, 1.35, 40 * steps}});
    return MF_TRAINER_EXIT_DONE;
}

/* The last word of a trainer that was asked to stop. */
static int stopped(void) {
    say(&(struct mf_event){.type = pause_asked ? MF_EVENT_PAUSED : MF_EVENT_CANCELLED});
    return pause_asked ? MF_TRAINER_EXIT_PAUSED : MF_TRAINER_EXIT_CANCELLED;
}

/* ---- what it can do --------------------------------------------------------------------------------- */

static int train(int64_t steps, int pause_ms) {
    hello();
    plan(steps);
    for (int64_t i = 1; i <= steps; i++) {
        if (cancelled(pause_ms))
            return stopped();
        step(i, steps);
    }
    say(&(struct mf_event){.type = MF_EVENT_EVAL, .eval = {steps, 0.3, 1.35}});
    say(&(struct mf_event){.type = MF_EVENT_LOG, .log = {"info", "trained"}});
    make_output();
    return done(steps, "output/adapter", 30);
}

static int good(void) {
    return train(20, 0);
}
/* Trains for a moment on GPUs that nobody else may use meanwhile: TMPDIR holds a file for each that is used.
 */
static int alone(void) {
    const char *gpus = getenv("CUDA_VISIBLE_DEVICES"), *folder = getenv("TMPDIR");
    char list[4096], *rest = list, *gpu, path[8192];
    snprintf(list, sizeof list, "%s", gpus ? gpus : "");
    hello();
    plan(9);
    for (int pass = 0; pass < 2; pass++, rest = list) {
        snprintf(list, sizeof list, "%s", gpus ? gpus : "");
        while ((gpu = strsep(&rest, ","))) {
            snprintf(path, sizeof path, "%s/used-%s", folder ? folder : "/tmp", gpu);
            if (pass ? unlink(path) : close(open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600)))
                return 55;
        }
        if (!pass && cancelled(200))
            return stopped();
    }
    make_output();
    return done(9, "output/adapter", 30);
}

static int slow(void) {
    return train(3000, 20);
}
static int timed(void) {
    return train(300, 20);
}

static int lasting(void) {
    return train(4000, 20);
}

static int crash(void) {
    hello();
    plan(9);
    step(1, 9);
    fprintf(stderr, "matrix is on fire\n");
    signal(SIGSEGV, SIG_DFL); /* a sanitizer would catch it and exit */
    raise(SIGSEGV);
    return 0;
}

static int leave(void) {
    hello();
    return 7;
}

static int silent(void) {
    hello();
    plan(9);
    say(&(struct mf_event){.type = MF_EVENT_PROGRESS, .progress = {MF_PHASE_TRAIN, 0}});
    while (getppid() != 1) /* its side thread still answers */
        (void)cancelled(1000);
    return 0;
}

static int deaf(void) {
    signal(SIGTERM, SIG_IGN);
    hello();
    plan(9);
    for (int64_t i = 1; getppid() != 1; i++) {
        struct timespec pause = {0, 20000000};
        step(i, 1000000);
        nanosleep(&pause, NULL);
    }
    return 0;
}

static int garbage(void) {
    static const char line[] = "Traceback (most recent call last):\n";
    hello();
    return write(MF_PROTOCOL_EVENT_FD, line, strlen(line)) < 0 || train(3000, 20);
}

static int longline(void) {
    char block[4096];
    memset(block, 'x', sizeof block);
    hello();
    for (;;)
        if (write(MF_PROTOCOL_EVENT_FD, block, sizeof block) < 0)
            return 1;
}

static int flood(void) {
    hello();
    plan(9);
    for (;;) {
        say(&(struct mf_event){.type = MF_EVENT_LOG, .log = {"info", "and another one"}});
        if (cancelled(0))
            return stopped();
    }
}

static int outside(void) {
    hello();
    plan(1);
    return done(1, "/etc", 1);
}

static int climbing(void) {
    hello();
    plan(1);
    make_output();
    return done(1, "output/../../../worker.lock", 1);
}

static int linked(void) {
    char folder[8192];
    hello();
    plan(1);
    make_output();
    snprintf(folder, sizeof folder, "%s/adapter/passwd", output);
    return symlink("/etc/passwd", folder) ? 1 : done(1, "output/adapter", 1);
}

static int missing(void) {
    hello();
    plan(1);
    return done(1, "output/nothing", 1);
}

static int empty(void) {
    hello();
    plan(1);
    say(&(struct mf_event){.type = MF_EVENT_DONE, .done = {1, 0.2, 0.3, 1.35, 40}});
    return MF_TRAINER_EXIT_DONE;
}

static int lying(void) {
    hello();
    plan(1);
    make_output();
    (void)done(1, "output/adapter", 30);
    return 5;
}

static int rude(void) {
    plan(9);
    return 0;
}

static int unasked(void) {
    hello();
    say(&(struct mf_event){.type = MF_EVENT_CANCELLED});
    return MF_TRAINER_EXIT_CANCELLED;
}

static int backwards(void) {
    hello();
    plan(9);
    step(5, 9);
    step(4, 9);
    return MF_TRAINER_EXIT_DONE;
}

static int failing(void) {
    hello();
    say(&(struct mf_event){.type = MF_EVENT_ERROR,
                           .error = {"bad_weights", "model.safetensors: tensor 'w' ends at byte 9 of 8"}});
    return MF_TRAINER_EXIT_ERROR;
}

static int inventive(void) {
    hello();
    say(&(struct mf_event){.type = MF_EVENT_ERROR, .error = {"flux_inverted", "the flux is inverted"}});
    return MF_TRAINER_EXIT_ERROR;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*act)(void);
    } acts[] = {
        {"good", good},           {"slow", slow},       {"timed", timed},         {"crash", crash},
        {"leave", leave},         {"silent", silent},   {"deaf", deaf},           {"garbage", garbage},
        {"longline", longline},   {"flood", flood},     {"outside", outside},     {"climbing", climbing},
        {"linked", linked},       {"missing", missing}, {"empty", empty},         {"lying", lying},
        {"rude", rude},           {"unasked", unasked}, {"backwards", backwards}, {"failing", failing},
        {"inventive", inventive}, {"lasting", lasting}, {"alone", alone}};
    if (argc == 3 && !strcmp(argv[1], "providers")) {
        puts("{\"devices\": {\"cpu\": 1, \"cuda\": 8}, \"providers\": [{\"name\": \"huggingface\", "
             "\"available\": true,"
             " \"max_gpus\": 8,"
             " \"devices\": {\"cpu\": {\"available\": true}, \"cuda\": {\"available\": true}}},"
             " {\"name\": \"unsloth\", \"available\": false}]}");
        return 0;
    }
    if (argc != 3 || strcmp(argv[1], "run") != 0 || !mf_protocol_attached())
        return 2;
    signal(SIGPIPE, SIG_IGN);
    static json_t *request; /* kept until the process ends: `id` lies in it */
    request = json_load_file(argv[2], 0, NULL);
    const char *id = json_string_value(json_object_get(request, "request_id"));
    const char *folder = json_string_value(json_object_get(json_object_get(request, "run"), "output_dir"));
    if (!id || !folder)
        return 94;
    snprintf(output, sizeof output, "%s", folder);
    mf_protocol_writer_init(&writer, MF_PROTOCOL_EVENT_FD);
    if (mf_protocol_reader_init(&commands, MF_PROTOCOL_COMMAND_FD, &error))
        return 93;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (!strncmp(id, acts[i].name, strlen(acts[i].name)) && id[strlen(acts[i].name)] == '-')
            return acts[i].act();
    return 92;
}
