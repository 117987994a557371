/* status, watch, history, logs, events: what PostgreSQL says. */
#include "producer/cli/chart.h"
#include "producer/cli/job.h"
#include "producer/cli/table.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LIST_LIMIT = 20,
    LOG_LIMIT = 200,
    CHART_COLUMNS = 64,
    CHART_AXIS = 14,
    LABEL_CELLS = 13,
    CHART_ROWS = 13
};

/* What these commands take: one name, --tenant, --limit, --timeout. */
struct arguments {
    const char *name, *tenant;
    int64_t limit, timeout_s;
};

/* Returns -1 to go on, else an exit status. */
static int read_arguments(struct arguments *arguments, int argc, char **argv, const char *help) {
    int result = -1;
    for (int i = 1; i < argc && result < 0; i++) {
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--help")) {
            mf_print_help(stdout, help);
            return MF_EXIT_OK;
        }
        if (!strcmp(argv[i], "--tenant") && more)
            arguments->tenant = argv[++i];
        else if (!strcmp(argv[i], "--limit") && more)
            result = mf_read_number(argv[0], "--limit", argv[++i], 0, &arguments->limit);
        else if (!strcmp(argv[i], "--timeout") && more)
            result = mf_read_number(argv[0], "--timeout", argv[++i], 0, &arguments->timeout_s);
        else if (argv[i][0] == '-' || arguments->name)
            return mf_usage(argv[0], "unexpected '%s', or it lacks its value", argv[i]);
        else
            arguments->name = argv[i];
    }
    return result;
}

static void print_time(const char *label, int64_t ms) {
    char text[MF_TIME_TEXT_BYTES];
    if (ms > 0)
        printf("%-12s %s\n", label, mf_time_format(ms, text));
}

static void print_job(const struct mf_job_status *job) {
    struct mf_text training = {0};
    const char *colour = !strcmp(job->state, "succeeded") ? MF_GREEN
                         : !strcmp(job->state, "failed")  ? MF_RED
                                                          : MF_YELLOW;
    printf("%-12s %s\n", "job", job->job_id);
    printf("%-12s %s/%s", "request", job->tenant, job->request_id);
    if (job->generation > 1)
        printf(" (generation %d)", job->generation);
    printf("\n%-12s %s%s%s", "state", mf_colour(stdout, colour), job->state, mf_colour(stdout, MF_RESET));
    if (job->waiting_reason)
        printf(": %s", job->waiting_reason);
    if (strcmp(job->desired, "run") != 0 && !strcmp(job->state, "running"))
        printf(" (%s asked for)", job->desired);
    printf("\n%-12s ", "training");
    mf_text_printf(&training, "%s with %s on %s", job->strategy, job->provider, job->model_name);
    mf_print_wrapped(stdout, mf_text_string(&training), LABEL_CELLS, LABEL_CELLS);
    mf_text_free(&training);
    printf("%-12s %d failed of at most %d, %d interruption(s)\n", "attempts", job->attempts,
           job->max_attempts, job->interruptions);
    if (job->step != MF_COUNT_NONE)
        printf("%-12s %lld of %lld\n", "step", (long long)job->step, (long long)job->total_steps);
    if (!isnan(job->loss))
        printf("%-12s %.4f\n", "loss", job->loss);
    print_time("created", job->created_at);
    print_time("started", job->started_at);
    print_time("finished", job->finished_at);
    print_time("estimated", job->estimated_finish);
    if (job->result) {
        printf("%-12s ", "result");
        mf_job_print_result(job->result, LABEL_CELLS, LABEL_CELLS);
    }
    if (job->error_message) {
        const int code = printf("%-12s %s: ", "error", job->error_code ? job->error_code : "");
        mf_print_wrapped(stdout, job->error_message, code, LABEL_CELLS);
    }
}

static const char no_jobs[] = "no jobs yet; 'modelforge submit --help' says how to send one";

/* Whether the rows are of several tenants. */
static bool is_shared(const struct mf_text_table *table) {
    size_t c = 0;
    while (c < table->columns && strcmp(table->column[c], "tenant") != 0)
        c++;
    for (size_t row = 1; row < table->rows && c < table->columns; row++)
        if (strcmp(table->cell[row * table->columns + c], table->cell[c]) != 0)
            return true;
    return false;
}

static int list_jobs(struct mf_settings *settings, const struct arguments *arguments) {
    struct mf_error error;
    struct mf_database *database = NULL;
    struct mf_text_table table = {0};
    if (mf_settings_database(settings, false, &database, &error) ||
        mf_store_jobs(database, arguments->tenant, (size_t)arguments->limit, &table, &error))
        return mf_fail(&error);
    return mf_table_give(settings, &table,
                         is_shared(&table) ? "tenant,request_id,state,progress,loss,age,note"
                                           : "request_id,state,progress,loss,age,note",
                         no_jobs);
}

static int list_runs(struct mf_settings *settings, const struct arguments *arguments) {
    struct mf_error error;
    struct mf_database *database = NULL;
    struct mf_text_table table = {0};
    if (mf_settings_database(settings, false, &database, &error) ||
        mf_store_history(database, arguments->tenant, (size_t)arguments->limit, &table, &error))
        return mf_fail(&error);
    return mf_table_give(settings, &table,
                         is_shared(&table) ? "tenant,request_id,attempt,outcome,seconds,loss,age,error_code"
                                           : "request_id,attempt,outcome,seconds,loss,age,error_code",
                         no_jobs);
}

int mf_command_status(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct mf_database *database = NULL;
    struct mf_job_status job = {0};
    struct arguments arguments = {.limit = LIST_LIMIT};
    int result = read_arguments(&arguments, argc, argv,
                                "usage: modelforge status [JOB] [--tenant NAME] [--limit N]\n\n"
                                "One job as it stands now, or the newest jobs.");
    if (result >= 0)
        return result;
    if (!arguments.name)
        return list_jobs(settings, &arguments);
    if (mf_settings_database(settings, false, &database, &error) ||
        mf_job_find(settings, database, arguments.name, &job, &error))
        return mf_fail(&error);
    result = MF_EXIT_OK;
    if (settings->json)
        result = mf_json_print(mf_job_json(&job));
    else
        print_job(&job);
    mf_job_status_free(&job);
    return result;
}

/* Finds the job's id; returns -1, else an exit status. */
static int find_id(struct mf_settings *settings, const char *command, const char *name,
                   struct mf_database **database, char job_id[MF_UUID_TEXT_BYTES]) {
    struct mf_error error;
    struct mf_job_status job = {0};
    if (!name)
        return mf_usage(command, "which job?");
    if (mf_settings_database(settings, false, database, &error) ||
        mf_job_find(settings, *database, name, &job, &error))
        return mf_fail(&error);
    memcpy(job_id, job.job_id, MF_UUID_TEXT_BYTES);
    mf_job_status_free(&job);
    return -1;
}

int mf_command_watch(struct mf_settings *settings, int argc, char **argv) {
    struct mf_database *database = NULL;
    char job_id[MF_UUID_TEXT_BYTES];
    struct arguments arguments = {0};
    int result = read_arguments(&arguments, argc, argv,
                                "usage: modelforge watch JOB [--timeout SECONDS]\n\n"
                                "Follows a job until it ends; the exit status says how.");
    if (result < 0)
        result = find_id(settings, "watch", arguments.name, &database, job_id);
    return result < 0 ? mf_job_follow(settings, job_id, NULL, false, arguments.timeout_s) : result;
}

static int chart_columns(void) {
    const int columns = mf_terminal_columns(stdout) - CHART_AXIS;
    return columns < CHART_COLUMNS && columns > -CHART_AXIS ? columns : CHART_COLUMNS;
}

static json_t *curve_json(const struct mf_step_metric *steps, size_t step_count,
                          const struct mf_eval_metric *evals, size_t eval_count) {
    json_t *training = json_array(), *evaluation = json_array(), *object = json_object();
    for (size_t i = 0; i < step_count; i++)
        json_array_append_new(training,
                              json_pack("{s:I,s:f,s:f,s:f,s:f}", "step", (json_int_t)steps[i].step, "epoch",
                                        steps[i].epoch, "loss", steps[i].loss, "learning_rate",
                                        steps[i].learning_rate, "gradient_norm", steps[i].gradient_norm));
    for (size_t i = 0; i < eval_count; i++)
        json_array_append_new(evaluation,
                              json_pack("{s:I,s:f,s:f}", "step", (json_int_t)evals[i].step, "loss",
                                        evals[i].loss, "perplexity", evals[i].perplexity));
    json_object_set_new(object, "steps", training);
    json_object_set_new(object, "evaluations", evaluation);
    return object;
}

static int show_run(struct mf_settings *settings, struct mf_database *database, struct mf_job_status *job) {
    struct mf_error error;
    struct mf_step_metric *steps = NULL;
    struct mf_eval_metric *evals = NULL;
    struct mf_text_table artifacts = {0};
    size_t step_count = 0, eval_count = 0;
    int result = MF_EXIT_OK;
    if (mf_store_loss_curve(database, job->job_id, 0, &steps, &step_count, &error) ||
        mf_store_eval_curve(database, job->job_id, &evals, &eval_count, &error) ||
        mf_store_artifacts(database, job->job_id, &artifacts, &error)) {
        result = mf_fail(&error);
    } else if (settings->json) {
        json_t *object = mf_job_json(job);
        json_object_set_new(object, "loss_curve", curve_json(steps, step_count, evals, eval_count));
        json_object_set_new(object, "artifacts", mf_table_json(&artifacts));
        result = mf_json_print(object);
    } else {
        print_job(job);
        if (step_count) {
            putchar('\n');
            mf_chart_loss(stdout, steps, step_count, evals, eval_count, chart_columns(), CHART_ROWS);
        }
        if (artifacts.rows) {
            putchar('\n');
            mf_table_print(&artifacts, "kind,size_bytes,uri");
        }
    }
    free(steps);
    free(evals);
    mf_text_table_free(&artifacts);
    return result;
}

int mf_command_history(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct mf_database *database = NULL;
    struct mf_job_status job = {0};
    struct arguments arguments = {.limit = LIST_LIMIT};
    int result = read_arguments(
        &arguments, argc, argv,
        "usage: modelforge history [JOB] [--tenant NAME] [--limit N]\n\n"
        "Past runs, one an attempt, newest first; with a JOB its loss curve (from the loss_curve view) and\n"
        "its artifacts.");
    if (result >= 0)
        return result;
    if (!arguments.name)
        return list_runs(settings, &arguments);
    if (mf_settings_database(settings, false, &database, &error) ||
        mf_job_find(settings, database, arguments.name, &job, &error))
        return mf_fail(&error);
    result = show_run(settings, database, &job);
    mf_job_status_free(&job);
    return result;
}

int mf_command_logs(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct mf_database *database = NULL;
    struct mf_text_table table = {0};
    char job_id[MF_UUID_TEXT_BYTES];
    struct arguments arguments = {.limit = LOG_LIMIT};
    int result =
        read_arguments(&arguments, argc, argv,
                       "usage: modelforge logs JOB [--limit N]\n\nThe newest N lines that the job's trainer "
                       "logged.");
    if (result < 0)
        result = find_id(settings, "logs", arguments.name, &database, job_id);
    if (result >= 0)
        return result;
    if (mf_store_logs(database, job_id, (size_t)arguments.limit, &table, &error))
        return mf_fail(&error);
    return mf_table_give(settings, &table, "logged_at,level,message", "nothing was logged");
}

int mf_command_events(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct mf_database *database = NULL;
    struct mf_text_table table = {0};
    char job_id[MF_UUID_TEXT_BYTES];
    struct arguments arguments = {0};
    int result = read_arguments(&arguments, argc, argv,
                                "usage: modelforge events JOB\n\nThe job's audit trail, oldest first.");
    if (result < 0)
        result = find_id(settings, "events", arguments.name, &database, job_id);
    if (result >= 0)
        return result;
    if (mf_store_events(database, job_id, &table, &error))
        return mf_fail(&error);
    return mf_table_give(settings, &table, "recorded_at,type,attempt,step,actor,detail", "no events");
}
