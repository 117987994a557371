/* modelforge-trainer check: runs a provider's program through the trainer protocol on a tiny model and says
 * what it breaks. */
#include "common/clock.h"
#include "common/files.h"
#include "worker/trainer/commands.h"
#include "worker/trainer/external_input.h"
#include "worker/trainer/external_session.h"
#include "worker/trainer/tiny_model.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 6, MANY_STEPS = 400, TURN_MS = 20 };
/* In the time that a program has for its first word (external.h): for an order, and for a whole run. */
enum { OBEY_TIMES = 2, RUN_TIMES = 10 };

struct check {
    const char *name;
    char *folder; /* of everything that it writes */
    struct mf_external *program;
    json_t *answer; /* capabilities */
    int broken;
};

static enum mf_status no_memory(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a check");
}

/* ---- what one run did ---- */

struct artifact {
    char kind[64], *path;
};

struct witness {
    struct mf_session *session;
    struct mf_job *job;
    enum mf_trainer_command_type order; /* sent at the first step */
    bool ordered;
    int64_t order_ms, first_step, steps, plan_steps;
    int evals;
    bool acknowledged;
    char *checkpoint;
    struct artifact artifact[MF_ORDER_ARTIFACTS];
    int artifacts;
    struct mf_event last;
    char problem[1000]; /* the first that was seen; "" for none */
};

static void blame(struct witness *witness, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void blame(struct witness *witness, const char *format, ...) {
    va_list arguments;
    if (*witness->problem)
        return;
    va_start(arguments, format);
    vsnprintf(witness->problem, sizeof witness->problem, format, arguments);
    va_end(arguments);
}

static void see_plan(struct witness *witness, const struct mf_event *event) {
    witness->plan_steps = event->plan.total_steps;
    if (event->plan.train_rows != (int64_t)witness->job->split.train_count ||
        event->plan.eval_rows != (int64_t)witness->job->split.eval_count)
        blame(witness, "plan: %lld rows train and %lld evaluate, but it was given %zu and %zu",
              (long long)event->plan.train_rows, (long long)event->plan.eval_rows,
              witness->job->split.train_count, witness->job->split.eval_count);
}

static void see_step(struct witness *witness, const struct mf_event *event) {
    const int64_t step = event->step.step;
    if (!isfinite(event->step.loss) || !isfinite(event->step.learning_rate) || event->step.tokens <= 0)
        blame(witness, "step %lld: loss %g, learning_rate %g, tokens %lld: not all are numbers above 0",
              (long long)step, event->step.loss, event->step.learning_rate, (long long)event->step.tokens);
    if (!witness->steps)
        witness->first_step = step;
    witness->steps = step;
}

static void see_artifact(struct witness *witness, const struct mf_event *event) {
    struct artifact *artifact = &witness->artifact[witness->artifacts++];
    snprintf(artifact->kind, sizeof artifact->kind, "%s", event->artifact.kind);
    artifact->path = strdup(event->artifact.path);
}

static void see(void *context, const struct mf_event *event) {
    struct witness *witness = context;
    switch (event->type) {
    case MF_EVENT_PLAN:
        see_plan(witness, event);
        break;
    case MF_EVENT_STEP:
        see_step(witness, event);
        break;
    case MF_EVENT_EVAL:
        witness->evals++;
        if (!isfinite(event->eval.loss))
            blame(witness, "eval: loss %g is not a number", event->eval.loss);
        break;
    case MF_EVENT_ARTIFACT:
        see_artifact(witness, event);
        break;
    case MF_EVENT_CHECKPOINT:
        free(witness->checkpoint);
        witness->checkpoint = strdup(event->checkpoint.path);
        break;
    case MF_EVENT_ACK:
    case MF_EVENT_PONG:
        witness->acknowledged = true;
        break;
    default:
        if (mf_event_is_terminal(event->type)) {
            witness->last = *event;
            json_incref(event->storage);
        }
    }
}

/* ---- one run ---- */

struct run {
    const char *title, *model; /* model: a folder's name below check->folder */
    int steps;
    enum mf_trainer_command_type order;
    const char *resume; /* a checkpoint, or NULL */
    enum mf_event_type expected;
};

static enum mf_status write_request(const struct check *check, const struct run *run, char **path,
                                    struct mf_error *error) {
    char *model = mf_path_join(check->folder, run->model), *rows = mf_path_join(check->folder, "rows.jsonl");
    json_t *request = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:s}", "task", "text-generation",
                                "model_name", model ? model : "", "dataset", rows ? rows : "", "provider",
                                check->name, "max_steps", run->steps, "eval_steps", run->steps / 2,
                                "max_seq_length", 48, "gradient_accumulation_steps", 2, "device", "cpu");
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    *path = mf_path_join(check->folder, "request.json");
    enum mf_status status = text && *path
                                ? mf_file_write_atomic(*path, text, strlen(text), 0600, error)
                                : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a request");
    free(text);
    json_decref(request);
    free(model);
    free(rows);
    return status;
}

/* Sends the order once there is a first step (a ping at once), and gives up on a program that does not obey.
 */
static void drive(struct mf_session *session, struct witness *witness) {
    const int64_t patience_ms = mf_external_patience_ms();
    while (!session->exit.finished) {
        mf_session_turn(session, TURN_MS);
        const int64_t now = mf_clock_monotonic_ms();
        const bool over = now - session->started_ms > RUN_TIMES * patience_ms;
        if (!witness->ordered && session->order.hello &&
            (witness->order == MF_TRAINER_PING || witness->steps)) {
            witness->ordered = true;
            witness->order_ms = now;
            (void)mf_session_command(session, witness->order);
        }
        if (witness->ordered && now - witness->order_ms > OBEY_TIMES * patience_ms && !witness->acknowledged)
            blame(witness, "%s was not acknowledged within %lld s", mf_trainer_command_name(witness->order),
                  (long long)(OBEY_TIMES * patience_ms / 1000));
        else if (over)
            blame(witness, "it did not end within %lld s", (long long)(RUN_TIMES * patience_ms / 1000));
        else
            continue;
        mf_session_kill(session);
    }
}

static void judge(const struct run *run, struct mf_session *session, struct witness *witness) {
    struct mf_error error;
    const char *last = mf_event_type_name(witness->last.type);
    const char *code = witness->last.type == MF_EVENT_ERROR ? witness->last.error.code : "";
    if (mf_session_judge(session, &error) != MF_OK)
        blame(witness, "%s", error.message);
    if (witness->last.type == MF_EVENT_ERROR && run->expected != MF_EVENT_ERROR)
        blame(witness, "error %s: %.800s", code, witness->last.error.message);
    if (witness->last.type != run->expected)
        blame(witness, "it ended with %s instead of %s", last, mf_event_type_name(run->expected));
    if (run->expected == MF_EVENT_ERROR &&
        (!*code || code[strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789_")]))
        blame(witness, "error: the code '%.60s' is not of the form [a-z0-9_]+", code);
    if (witness->ordered && !witness->acknowledged &&
        run->expected != MF_EVENT_ERROR) /* else it was quicker */
        blame(witness, "%s was not acknowledged", mf_trainer_command_name(witness->order));
}

/* A whole run has trained what was asked, measured it, and left an adapter that can be read. */
static void judge_done(const struct run *run, struct witness *witness) {
    struct mf_adapter_file *adapter = NULL;
    struct mf_error error;
    const char *folder = NULL;
    if (witness->plan_steps != run->steps || witness->steps != run->steps ||
        witness->last.done.steps != run->steps)
        blame(witness, "max_steps is %d, but plan says %lld steps, the last step is %lld, and done says %lld",
              run->steps, (long long)witness->plan_steps, (long long)witness->steps,
              (long long)witness->last.done.steps);
    if (!witness->evals || !isfinite(witness->last.done.eval_loss))
        blame(witness, "eval_samples were given, but there was no eval, or done has no eval_loss");
    for (int i = 0; i < witness->artifacts; i++)
        if (!strcmp(witness->artifact[i].kind, "adapter"))
            folder = witness->artifact[i].path;
    if (!folder)
        blame(witness, "output is adapter, but no artifact of that kind was named");
    else if (mf_adapter_open(folder, &adapter, &error) != MF_OK)
        blame(witness, "the adapter cannot be read: %s", error.message);
    mf_adapter_close(adapter);
}

static void report(struct check *check, const char *title, const char *problem, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void report(struct check *check, const char *title, const char *problem, const char *format, ...) {
    va_list arguments;
    printf("%-7s %s: ", *problem ? "BROKEN" : "ok", title);
    va_start(arguments, format);
    if (*problem)
        printf("%s", problem);
    else
        vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
    check->broken += *problem != 0;
}

/* *checkpoint (may be NULL) is the last that was named, freed by the caller. */
static void try_run(struct check *check, const struct run *run, char **checkpoint) {
    struct mf_session session = {.event_fd = -1, .command_fd = -1, .text_fd = -1};
    struct mf_external_input input = {0};
    struct mf_job job = {0};
    struct witness witness = {.session = &session, .job = &job, .order = run->order};
    struct mf_error error;
    char *request = NULL, *output = mf_path_join(check->folder, "output");
    const int64_t started_ms = mf_clock_monotonic_ms();
    bool opened = false;
    enum mf_status status = output ? mf_tree_remove(output, &error) : no_memory(&error);
    if (status == MF_OK)
        status = write_request(check, run, &request, &error);
    if (status == MF_OK)
        opened = (status = mf_job_open(request, output, run->resume, NULL, &job, &error)) == MF_OK;
    if (status == MF_OK)
        status = mf_external_input_make(&job, check->program, check->answer, &input, &error);
    const struct mf_session_options options = {.program = check->program,
                                               .request_path = input.request_path,
                                               .directory = input.work_folder,
                                               .output_folder = job.output_dir,
                                               .checkpoint_folder = job.checkpoint_dir,
                                               .environment = input.environment,
                                               .hello_ms = mf_external_patience_ms(),
                                               .on_event = see,
                                               .context = &witness};
    if (status == MF_OK)
        status = mf_session_start(&options, &session, &error);
    if (status == MF_OK) {
        drive(&session, &witness);
        judge(run, &session, &witness);
        if (run->expected == MF_EVENT_DONE && !*witness.problem)
            judge_done(run, &witness);
        if (run->expected == MF_EVENT_PAUSED && !witness.checkpoint)
            blame(&witness, "it paused without a checkpoint: the work is lost");
        if (run->resume && witness.first_step == 1)
            blame(&witness, "it was to go on from a checkpoint, but began at step 1");
    } else {
        blame(&witness, "%s", error.message);
    }
    report(check, run->title, witness.problem, "%s after %lld steps, %d evaluations, %d artifacts, in %.1f s",
           mf_event_type_name(witness.last.type), (long long)witness.steps, witness.evals, witness.artifacts,
           (double)(mf_clock_monotonic_ms() - started_ms) / 1000);
    if (checkpoint && !*witness.problem) {
        *checkpoint = witness.checkpoint;
        witness.checkpoint = NULL;
    }
    mf_session_close(&session);
    mf_external_input_close(&input);
    if (opened)
        mf_job_close(&job);
    mf_event_destroy(&witness.last);
    for (int i = 0; i < witness.artifacts; i++)
        free(witness.artifact[i].path);
    free(witness.checkpoint);
    free(request);
    free(output);
}

/* ---- all of them ---- */

/* The checkpoint moves out of the way of the next run's output. */
static char *keep_checkpoint(const struct check *check, const char *checkpoint, struct mf_error *error) {
    char *kept = mf_path_join(check->folder, "kept");
    enum mf_status status = kept ? mf_tree_remove(kept, error) : no_memory(error);
    if (status == MF_OK && rename(checkpoint, kept) != 0)
        status = mf_error_errno(error, errno, "the checkpoint %s cannot be kept for it", checkpoint);
    if (status == MF_OK)
        return kept;
    free(kept);
    return NULL;
}

static void try_resume(struct check *check, const struct run *paused, const char *checkpoint) {
    struct run resume = *paused; /* the same request */
    struct mf_error error;
    resume.title = "going on from the checkpoint";
    resume.order = MF_TRAINER_PING;
    resume.expected = MF_EVENT_DONE;
    char *kept = checkpoint ? keep_checkpoint(check, checkpoint, &error) : NULL;
    resume.resume = kept;
    if (kept)
        try_run(check, &resume, NULL);
    else if (checkpoint)
        report(check, resume.title, error.message, "%s", "");
    else
        printf("%-7s %s: pause left no checkpoint to go on from\n", "not run", resume.title);
    free(kept);
}

static void try_all(struct check *check) {
    static const struct run whole = {"a whole run", "model", STEPS, MF_TRAINER_PING, NULL, MF_EVENT_DONE},
                            cancel = {"cancel",          "model", MANY_STEPS,
                                      MF_TRAINER_CANCEL, NULL,    MF_EVENT_CANCELLED},
                            pause = {"pause", "model", MANY_STEPS, MF_TRAINER_PAUSE, NULL, MF_EVENT_PAUSED},
                            damaged = {"a damaged model", "damaged", STEPS,
                                       MF_TRAINER_PING,   NULL,      MF_EVENT_ERROR};
    char *checkpoint = NULL;
    try_run(check, &whole, NULL);
    if (check->broken) /* what follows would say the same again */
        return;
    try_run(check, &cancel, NULL);
    try_run(check, &pause, &checkpoint);
    try_resume(check, &pause, checkpoint);
    try_run(check, &damaged, NULL);
    free(checkpoint);
}

/* model, damaged (its weights end early) and rows.jsonl. */
static enum mf_status write_inputs(const struct check *check, struct mf_error *error) {
    static const char *const names[] = {"model", "damaged"};
    char *rows = mf_path_join(check->folder, "rows.jsonl");
    enum mf_status status = rows ? mf_tiny_rows_write(rows, error) : no_memory(error);
    free(rows);
    for (size_t i = 0; i < 2 && status == MF_OK; i++) {
        char *folder = mf_path_join(check->folder, names[i]);
        char *weights = folder ? mf_path_join(folder, "model.safetensors") : NULL;
        status = weights ? mf_tiny_model_write(folder, error) : no_memory(error);
        if (status == MF_OK && weights && i && truncate(weights, 3000) != 0)
            status = mf_error_set(error, MF_ERROR_IO, "%s cannot be cut", weights);
        free(weights);
        free(folder);
    }
    return status;
}

static enum mf_status ask(struct check *check, struct mf_error *error) {
    const int64_t started_ms = mf_clock_monotonic_ms();
    enum mf_status status = mf_external_find(check->name, &check->program, error);
    if (status == MF_OK && !check->program)
        return mf_error_set(error, MF_ERROR_UNKNOWN_PROVIDER,
                            "there is no %s.conf in the folder for providers (providers.folder)",
                            check->name);
    if (status == MF_OK)
        status = mf_external_ask(check->program, &check->answer, error);
    if (status == MF_OK)
        status = mf_external_require(check->program, check->answer, "llama", "text-generation", "sft", error);
    if (status == MF_OK)
        report(check, "capabilities", "", "%s, %zu rows, in %.1f s",
               json_string_value(json_object_get(check->answer, "version")),
               json_array_size(json_object_get(check->answer, "capabilities")),
               (double)(mf_clock_monotonic_ms() - started_ms) / 1000);
    return status;
}

/* Everything but the folder, which is there and is the caller's. Returns the exit status. */
static int check_all(struct check *check) {
    struct mf_error error;
    enum mf_status status = ask(check, &error);
    if (status == MF_OK && check->program->switches && chmod(check->folder, 0711) != 0)
        status = mf_error_errno(&error, errno, "%s", check->folder);
    if (status == MF_OK)
        status = write_inputs(check, &error);
    if (status == MF_OK)
        try_all(check);
    else if (check->answer)
        printf("%s cannot be used here: %s\n", check->name, error.message);
    else
        report(check, "capabilities", error.message, "%s", "");
    if (check->broken)
        printf(
            "%s breaks the contract of external programs (worker/trainer/protocol.h) in %d of its checks\n",
            check->name, check->broken);
    json_decref(check->answer);
    mf_external_free(check->program);
    return status != MF_OK || check->broken ? 1 : 0;
}

/* In a child, so that the folder goes however the check ends: by Ctrl-C, by a signal, by a fault of its own.
 * What the program started is gone before, too: orphans of the child become ours. */
static int check_in_child(struct check *check) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct mf_error error;
    int how = 0, ended_by = 0;
    sigset_t blocked, before;
    sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&blocked, signals[i]);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    fflush(stdout);
    const pid_t parent = getpid(), child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigprocmask(SIG_SETMASK, &before, NULL);
        const int status = getppid() == parent ? check_all(check) : 1;
        fflush(stdout);
        _exit(status);
    }
    if (child < 0)
        return mf_command_failed((mf_error_errno(&error, errno, "a process for the check"), &error));
    while (waitpid(child, &how, WNOHANG) == 0) {
        const int signal = sigwaitinfo(&blocked, NULL);
        if (signal > 0 && signal != SIGCHLD) {
            ended_by = signal;
            kill(child, SIGKILL);
        }
    }
    while (waitpid(-1, NULL, 0) > 0) { /* the program's guard, and those that it ends */
    }
    (void)mf_tree_remove(check->folder, &error);
    if (!ended_by && WIFEXITED(how))
        return WEXITSTATUS(how);
    signal(ended_by ? ended_by : WTERMSIG(how), SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    raise(ended_by ? ended_by : WTERMSIG(how));
    return 1;
}

int mf_command_check(int argc, char **argv) {
    static const struct option options[] = {{"trust", no_argument, NULL, 't'}, {0}};
    struct check check = {0};
    struct mf_error error;
    char *folder = NULL;
    const char *temporary = getenv("TMPDIR");
    bool trust = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option != 't')
            return mf_command_usage("check", "unknown option", NULL);
        trust = true;
    }
    if (argc - optind != 1)
        return mf_command_usage("check", "one NAME is needed", NULL);
    check.name = argv[optind];
    signal(SIGPIPE, SIG_IGN); /* a program that is gone reads no command */
    if (trust && setenv("MODELFORGE_TRAINER_PROVIDERS_TRUSTED", check.name, 1))
        return 1;
    if (asprintf(&folder, "%s/modelforge-check.XXXXXX", temporary && *temporary ? temporary : "/tmp") < 0)
        return mf_command_failed((no_memory(&error), &error));
    if (!(check.folder = mkdtemp(folder))) {
        mf_error_errno(&error, errno, "%s", folder);
        free(folder);
        return mf_command_failed(&error);
    }
    const int status = check_in_child(&check);
    free(folder);
    return status;
}
