#include "worker/trainer/report.h"

#include "common/clock.h"
#include "kernels/cuda/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct mf_report {
    struct mf_protocol_writer writer;
    struct mf_protocol_reader reader;
    pthread_t thread;
    int wake[2]; /* closing [1] ends the thread */
    bool attached, terminal, bar;
    atomic_bool cancelled, pause_wanted, checkpoint_wanted;
    int64_t total_steps, bar_ms;
    struct mf_event last_step;
};

static volatile sig_atomic_t signalled;

static void on_signal(int number) {
    signalled = number;
}

/* ---- commands: the thread
 * ---------------------------------------------------------------------------------- */

static void send(struct mf_report *report, const struct mf_event *event) {
    struct mf_error error;
    if (mf_protocol_send_event(&report->writer, event, &error) != MF_OK)
        atomic_store(&report->cancelled, true);
}

/* Acknowledged before it is obeyed: nothing may come behind the terminal line that it leads to. */
static void obey(struct mf_report *report, const struct mf_trainer_command *command) {
    const bool ping = command->type == MF_TRAINER_PING;
    send(report, &(struct mf_event){.type = ping ? MF_EVENT_PONG : MF_EVENT_ACK, .number = command->number});
    switch (command->type) {
    case MF_TRAINER_CANCEL:
        atomic_store(&report->cancelled, true);
        break;
    case MF_TRAINER_CHECKPOINT:
        atomic_store(&report->checkpoint_wanted, true);
        break;
    case MF_TRAINER_PAUSE:
        atomic_store(&report->pause_wanted, true);
        break;
    case MF_TRAINER_PING:
    case MF_TRAINER_COUNT:
        break;
    }
}

static void *serve_commands(void *argument) {
    struct mf_report *report = argument;
    struct mf_error error;
    for (;;) {
        struct pollfd poll_fd[2] = {{.fd = report->reader.fd, .events = POLLIN},
                                    {.fd = report->wake[0], .events = POLLIN}};
        if (poll(poll_fd, 2, -1) < 0 && errno != EINTR)
            break;
        if (poll_fd[1].revents)
            return NULL;
        if (!poll_fd[0].revents)
            continue;
        enum mf_read_result result = mf_protocol_reader_fill(&report->reader, &error);
        if (result == MF_READ_AGAIN)
            continue;
        if (result != MF_READ_DATA)
            break;
        size_t length;
        for (const char *line; (line = mf_protocol_reader_next(&report->reader, &length)) != NULL;) {
            struct mf_trainer_command command;
            if (mf_trainer_command_decode(line, length, &command, &error) == MF_OK)
                obey(report, &command);
            else
                send(report, &(struct mf_event){.type = MF_EVENT_LOG, .log = {"warning", error.message}});
        }
    }
    atomic_store(&report->cancelled, true); /* the worker is gone */
    return NULL;
}

/* ---- opening and closing
 * ----------------------------------------------------------------------------------- */

/* The processor's name, from /proc/cpuinfo. */
static void describe_processor(char *text, size_t bytes) {
    snprintf(text, bytes, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[512];
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        colon[1 + strcspn(colon + 1, "\n")] = 0;
        snprintf(text, bytes, "%s", colon + 1 + strspn(colon + 1, " \t"));
        break;
    }
    if (file)
        fclose(file);
}

static void send_hello(struct mf_report *report, bool on_cuda) {
    char description[512];
    struct mf_cuda_device gpu;
    struct mf_error error;
    describe_processor(description, sizeof description);
    struct mf_event hello = {.type = MF_EVENT_HELLO,
                             .hello = {.protocol = MF_PROTOCOL_VERSION, .version = MF_VERSION}};
    if (on_cuda && mf_cuda_device_describe(0, &gpu, &error) == MF_OK)
        hello.hello.device[hello.hello.device_count++] =
            (struct mf_event_device){.name = "cuda:0",
                                     .description = gpu.name,
                                     .uuid = gpu.uuid,
                                     .memory_bytes = (int64_t)gpu.memory_bytes};
    hello.hello.device[hello.hello.device_count++] =
        (struct mf_event_device){.name = "cpu",
                                 .description = description,
                                 .uuid = "",
                                 .memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)};
    send(report, &hello);
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

static enum mf_status start_commands(struct mf_report *report, struct mf_error *error) {
    if (pipe2(report->wake, O_CLOEXEC) != 0)
        return mf_error_errno(error, errno, "trainer: cannot make a pipe");
    enum mf_status status = mf_protocol_reader_init(&report->reader, MF_PROTOCOL_COMMAND_FD, error);
    if (status == MF_OK) {
        int failure = pthread_create(&report->thread, NULL, serve_commands, report);
        if (!failure)
            return MF_OK;
        status = mf_error_errno(error, failure, "trainer: cannot start the thread that reads commands");
        mf_protocol_reader_destroy(&report->reader);
    }
    close(report->wake[0]);
    close(report->wake[1]);
    return status;
}

enum mf_status mf_report_open(bool on_cuda, struct mf_report **out, struct mf_error *error) {
    struct mf_report *report = calloc(1, sizeof *report);
    if (!report)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    catch_signals();
    report->attached = mf_protocol_attached();
    report->terminal = !report->attached && isatty(STDOUT_FILENO);
    if (report->attached) {
        mf_protocol_writer_init(&report->writer, MF_PROTOCOL_EVENT_FD);
        send_hello(report, on_cuda);
        enum mf_status status = start_commands(report, error);
        if (status != MF_OK) {
            mf_protocol_writer_destroy(&report->writer);
            free(report);
            return status;
        }
    }
    *out = report;
    return MF_OK;
}

void mf_report_close(struct mf_report *report) {
    if (!report)
        return;
    if (report->attached) {
        close(report->wake[1]);
        pthread_join(report->thread, NULL);
        close(report->wake[0]);
        mf_protocol_reader_destroy(&report->reader);
        mf_protocol_writer_destroy(&report->writer);
    }
    free(report);
}

bool mf_report_attached(const struct mf_report *report) {
    return report->attached;
}

bool mf_report_cancelled(void *argument) {
    struct mf_report *report = argument;
    return report && (signalled || atomic_load(&report->cancelled));
}

bool mf_report_pause_wanted(struct mf_report *report) {
    return report && atomic_load(&report->pause_wanted);
}

bool mf_report_take_checkpoint(struct mf_report *report) {
    return report && atomic_exchange(&report->checkpoint_wanted, false);
}

enum mf_status mf_report_check(struct mf_report *report, struct mf_error *error) {
    if (!mf_report_cancelled(report))
        return MF_OK;
    return mf_error_set(error, MF_ERROR_CANCELLED, "the run was cancelled");
}

/* ---- text for a person
 * ------------------------------------------------------------------------------------- */

/* "1:05" or "2:03:09". */
static void format_seconds(double seconds, char *text, size_t bytes) {
    long long whole = seconds > 0 && seconds < 1e9 ? (long long)(seconds + 0.5) : 0;
    if (whole >= 3600)
        snprintf(text, bytes, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(text, bytes, "%lld:%02lld", whole / 60, whole % 60);
}

static void clear_bar(struct mf_report *report) {
    if (report->bar)
        fputs("\r\033[K", stdout);
    report->bar = false;
}

static void draw_bar(struct mf_report *report, const char *phase, double fraction, const char *text) {
    enum { CELLS = 24 };
    char bar[CELLS * 3 + 1];
    const int full = (int)(fraction * CELLS);
    for (int i = 0; i < CELLS; i++)
        memcpy(bar + 3 * (size_t)i, i < full ? "█" : "░", 3);
    bar[CELLS * 3] = 0;
    struct winsize size = {0};
    int columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    int room = columns - CELLS - 18;
    printf("\r\033[K%-8s %s %3.0f%% %.*s", phase, bar, 100 * fraction, room > 0 ? room : 0, text);
    fflush(stdout);
    report->bar = true;
}

static void show_step(struct mf_report *report, const struct mf_event *event) {
    const double left = (double)(report->total_steps - event->step.step);
    const double seconds =
        event->step.step ? event->step.elapsed_seconds / (double)event->step.step * left : 0;
    char eta[32], text[256];
    format_seconds(seconds, eta, sizeof eta);
    report->last_step = *event;
    if (!report->terminal) {
        printf("step %lld/%lld  epoch %.2f  loss %.4f  rate %.3g  norm %.3f  %.0f tokens/s  eta %s\n",
               (long long)event->step.step, (long long)report->total_steps, event->step.epoch,
               event->step.loss, event->step.learning_rate, event->step.gradient_norm,
               event->step.tokens_per_second, eta);
        fflush(stdout);
        return;
    }
    if (mf_clock_monotonic_ms() - report->bar_ms < 50 && left > 0)
        return;
    report->bar_ms = mf_clock_monotonic_ms();
    snprintf(text, sizeof text, "%lld/%lld  loss %.4f  %.0f tokens/s  eta %s", (long long)event->step.step,
             (long long)report->total_steps, event->step.loss, event->step.tokens_per_second, eta);
    draw_bar(report, "train",
             report->total_steps ? (double)event->step.step / (double)report->total_steps : 0, text);
}

static void show_plan(const struct mf_event *event) {
    printf(
        "plan: %lld steps over %lld rows (%lld tokens), %lld rows to evaluate, %lld truncated, %lld dropped; "
        "%.1f MiB managed\n",
        (long long)event->plan.total_steps, (long long)event->plan.train_rows,
        (long long)event->plan.train_tokens, (long long)event->plan.eval_rows,
        (long long)event->plan.truncated_rows, (long long)event->plan.dropped_rows,
        (double)event->plan.managed_bytes / 1048576.0);
}

static void show(struct mf_report *report, const struct mf_event *event) {
    if (event->type == MF_EVENT_STEP) {
        show_step(report, event);
        return;
    }
    if (event->type == MF_EVENT_PROGRESS) {
        if (report->terminal && event->progress.phase != MF_PHASE_TRAIN)
            draw_bar(report, mf_phase_name(event->progress.phase), event->progress.fraction, "");
        return;
    }
    clear_bar(report);
    if (event->type == MF_EVENT_PLAN)
        show_plan(event);
    else if (event->type == MF_EVENT_EVAL)
        printf("evaluation at step %lld: loss %.4f, perplexity %.3f\n", (long long)event->eval.step,
               event->eval.loss, event->eval.perplexity);
    else if (event->type == MF_EVENT_CHECKPOINT)
        printf("checkpoint of step %lld: %s\n", (long long)event->checkpoint.step, event->checkpoint.path);
    else if (event->type == MF_EVENT_ARTIFACT)
        printf("%s: %s (%lld bytes)\n", event->artifact.kind, event->artifact.path,
               (long long)event->artifact.size_bytes);
    fflush(stdout);
    if (event->type == MF_EVENT_LOG)
        fprintf(stderr, "%s: %s\n", event->log.level, event->log.message);
}

/* ---- telling
 * ----------------------------------------------------------------------------------------------- */

void mf_report_event(struct mf_report *report, const struct mf_event *event) {
    if (!report)
        return;
    if (event->type == MF_EVENT_PLAN)
        report->total_steps = event->plan.total_steps;
    if (report->attached)
        send(report, event);
    else
        show(report, event);
}

void mf_report_progress(struct mf_report *report, enum mf_phase phase, double fraction) {
    mf_report_event(report, &(struct mf_event){.type = MF_EVENT_PROGRESS, .progress = {phase, fraction}});
}

void mf_report_log(struct mf_report *report, const char *level, const char *format, ...) {
    char text[MF_PROTOCOL_MAX_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mf_report_event(report, &(struct mf_event){.type = MF_EVENT_LOG, .log = {level, text}});
}

static int end_attached(struct mf_report *report, enum mf_status status, const struct mf_event *done,
                        const struct mf_error *error) {
    if (status == MF_OK) {
        send(report, done);
        return done->type == MF_EVENT_PAUSED ? MF_TRAINER_EXIT_PAUSED : MF_TRAINER_EXIT_DONE;
    }
    if (status == MF_ERROR_CANCELLED) {
        send(report, &(struct mf_event){.type = MF_EVENT_CANCELLED});
        return MF_TRAINER_EXIT_CANCELLED;
    }
    send(report,
         &(struct mf_event){.type = MF_EVENT_ERROR, .error = {mf_status_code(status), error->message}});
    return MF_TRAINER_EXIT_ERROR;
}

int mf_report_end(struct mf_report *report, enum mf_status status, const struct mf_event *done,
                  const struct mf_error *error) {
    if (report->attached)
        return end_attached(report, status, done, error);
    clear_bar(report);
    if (status == MF_OK) {
        char time[32];
        format_seconds(report->last_step.step.elapsed_seconds, time, sizeof time);
        printf("done: %lld steps, %lld tokens in %s, training loss %.4f", (long long)done->done.steps,
               (long long)done->done.trained_tokens, time, done->done.train_loss);
        if (!isnan(done->done.eval_loss))
            printf(", evaluation loss %.4f, perplexity %.3f", done->done.eval_loss, done->done.perplexity);
        printf("\n");
        fflush(stdout);
        return MF_TRAINER_EXIT_DONE;
    }
    fflush(stdout);
    char text[MF_ERROR_TEXT_BYTES + 64];
    fprintf(stderr, "%s\n", mf_error_format(error, text, sizeof text));
    return status == MF_ERROR_CANCELLED ? MF_TRAINER_EXIT_CANCELLED : MF_TRAINER_EXIT_ERROR;
}

int mf_report_end_as(struct mf_report *report, const struct mf_event *terminal) {
    struct mf_error error;
    if (terminal->type == MF_EVENT_DONE || terminal->type == MF_EVENT_PAUSED)
        return mf_report_end(report, MF_OK, terminal, NULL);
    if (terminal->type == MF_EVENT_CANCELLED)
        return mf_report_end(report, mf_error_set(&error, MF_ERROR_CANCELLED, "cancelled"), terminal, &error);
    if (report->attached) { /* its own code, be it in the table or not */
        send(report, terminal);
        return MF_TRAINER_EXIT_ERROR;
    }
    enum mf_status status = mf_status_from_code(terminal->error.code);
    mf_error_set(&error, status ? status : MF_ERROR_INTERNAL, "%s", terminal->error.message);
    return mf_report_end(report, error.status, terminal, &error);
}
