#include "producer/cli/job.h"

#include "common/clock.h"
#include "common/digest.h"
#include "common/text.h"
#include "producer/cli/pace.h"
#include "producer/cli/table.h"

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    POLL_MS = 250,
    HINT_MS = 15000,
    BAR_CELLS = 20,
    SHORT_BAR_CELLS = 8,
    WIDE_COLUMNS = 100,
    RESULT_INDENT = 13
};

enum mf_status mf_job_find(struct mf_settings *settings, struct mf_database *database, const char *name,
                           struct mf_job_status *job, struct mf_error *error) {
    const char *own = mf_config_string(settings->config, "tenant");
    struct mf_uuid uuid;
    if (mf_uuid_parse(name, &uuid)) {
        char text[MF_UUID_TEXT_BYTES];
        enum mf_status status = mf_store_job_by_id(database, mf_uuid_format(uuid, text), job, error);
        /* A request id may be a UUID too. */
        return status == MF_ERROR_NOT_FOUND ? mf_store_job_by_request(database, own, name, job, error)
                                            : status;
    }
    const char *slash = strchr(name, '/');
    if (!slash)
        return mf_store_job_by_request(database, own, name, job, error);
    char tenant[65];
    size_t length = (size_t)(slash - name);
    if (length >= sizeof tenant)
        return mf_error_set(error, MF_ERROR_NOT_FOUND,
                            "no job '%s': a tenant's name has at most 64 characters", name);
    memcpy(tenant, name, length);
    tenant[length] = 0;
    return mf_store_job_by_request(database, tenant, slash + 1, job, error);
}

enum mf_status mf_job_name(struct mf_settings *settings, const char *name, char **tenant, char **request_id,
                           int64_t *generation, struct mf_error *error) {
    struct mf_uuid uuid;
    const char *slash = strchr(name, '/');
    *generation = 0;
    if (mf_uuid_parse(name, &uuid)) {
        struct mf_database *database;
        struct mf_job_status job = {0};
        enum mf_status status = mf_settings_database(settings, false, &database, error);
        if (!status)
            status = mf_job_find(settings, database, name, &job, error);
        if (!status) {
            *tenant = job.tenant ? strdup(job.tenant) : NULL;
            *request_id = job.request_id ? strdup(job.request_id) : NULL;
            *generation = job.generation;
        }
        mf_job_status_free(&job);
        if (status)
            return status;
    } else {
        enum mf_status status = mf_settings_load(settings, error);
        if (status)
            return status;
        *tenant = slash ? strndup(name, (size_t)(slash - name))
                        : strdup(mf_config_string(settings->config, "tenant"));
        *request_id = strdup(slash ? slash + 1 : name);
    }
    if (*tenant && *request_id)
        return MF_OK;
    free(*tenant);
    free(*request_id);
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a job's name");
}

char *mf_duration(int64_t seconds, char text[32]) {
    if (seconds < 0)
        seconds = 0;
    if (seconds >= 3600)
        snprintf(text, 32, "%lld:%02d:%02d", (long long)(seconds / 3600), (int)(seconds / 60 % 60),
                 (int)(seconds % 60));
    else
        snprintf(text, 32, "%d:%02d", (int)(seconds / 60), (int)(seconds % 60));
    return text;
}

static bool terminal(const char *state) {
    enum mf_job_state parsed = mf_job_state_parse(state);
    return parsed != MF_JOB_STATE_COUNT && mf_job_terminal(parsed);
}

static void append_steps(char *line, size_t bytes, const struct mf_job_status *job) {
    size_t used = strlen(line);
    double done = job->step != MF_COUNT_NONE && job->total_steps > 0
                      ? (double)job->step / (double)job->total_steps
                      : NAN;
    if (!isnan(done)) {
        char bar[BAR_CELLS * 3 + 1], *end = bar; /* a cell has 3 bytes */
        const int columns = mf_terminal_columns(stdout);
        const int length = columns && columns < WIDE_COLUMNS ? SHORT_BAR_CELLS : BAR_CELLS;
        for (int i = 0; i < length; i++)
            end = stpncpy(end, i < (int)(done * length + 0.5) ? "█" : "░", 3);
        *end = 0;
        used += (size_t)snprintf(line + used, bytes - used, "  %s %3.0f%%  step %lld/%lld", bar, done * 100,
                                 (long long)job->step, (long long)job->total_steps);
    }
    if (!isnan(job->loss) && used < bytes)
        used += (size_t)snprintf(line + used, bytes - used, "  loss %.4f", job->loss);
    if (!isnan(job->tokens_per_second) && used < bytes)
        used += (size_t)snprintf(line + used, bytes - used, "  %.0f tokens/s", job->tokens_per_second);
    if (job->estimated_finish > 0 && used < bytes) {
        char left[32];
        snprintf(line + used, bytes - used, "  ETA %s",
                 mf_duration((job->estimated_finish - mf_clock_realtime_ms()) / 1000, left));
    }
}

static void describe(char *line, size_t bytes, const struct mf_job_status *job) {
    snprintf(line, bytes, "%s", job->state);
    if (!strcmp(job->state, "queued") && job->waiting_reason)
        snprintf(line, bytes, "queued: %s", job->waiting_reason);
    else if (!strcmp(job->state, "running")) {
        bool training = !job->phase || !strcmp(job->phase, "train");
        snprintf(line, bytes, "%s", job->phase ? job->phase : "starting");
        if (training)
            append_steps(line, bytes, job);
        else if (!isnan(job->fraction))
            snprintf(line + strlen(line), bytes - strlen(line), "  %3.0f%%", job->fraction * 100);
    }
}

/* {"steps": 60, "eval_loss": 4.820445829316189} to "steps 60, eval_loss 4.8204". */
static void result_text(const char *result, struct mf_text *text) {
    json_t *object = json_loads(result, 0, NULL), *value;
    const char *name;
    json_object_foreach(object, name, value) {
        mf_text_printf(text, "%s%s ", text->length ? ", " : "", name);
        if (json_is_real(value)) {
            mf_text_printf(text, "%.5g", json_real_value(value));
        } else {
            char *plain = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
            mf_text_puts(text, plain ? plain : "");
            free(plain);
        }
    }
    json_decref(object);
}

void mf_job_print_result(const char *result, int used, int indent) {
    struct mf_text text = {0};
    result_text(result, &text);
    mf_print_wrapped(stdout, mf_text_string(&text), used, indent);
    mf_text_free(&text);
}

/* What it left to load: "adapter       file:///...". */
static void print_artifacts(struct mf_database *database, const char *job_id) {
    struct mf_text_table table;
    struct mf_error ignored;
    if (mf_store_artifacts(database, job_id, &table, &ignored))
        return;
    for (size_t row = 0; row < table.rows; row++) /* kind, uri */
        if (strcmp(table.cell[row * table.columns], "training_json") != 0)
            printf("%-12s %s\n", table.cell[row * table.columns], table.cell[row * table.columns + 1]);
    mf_text_table_free(&table);
}

static int report_end(struct mf_database *database, const struct mf_job_status *job, bool quiet) {
    bool succeeded = !strcmp(job->state, "succeeded"), cancelled = !strcmp(job->state, "cancelled");
    if (succeeded && !quiet) {
        char took[32];
        printf("%ssucceeded%s in %s\n", mf_colour(stdout, MF_GREEN), mf_colour(stdout, MF_RESET),
               mf_duration((job->finished_at - job->started_at) / 1000, took));
        if (job->result) {
            printf("%-12s ", "result");
            mf_job_print_result(job->result, RESULT_INDENT, RESULT_INDENT);
        }
        print_artifacts(database, job->job_id);
    } else if (!succeeded && job->error_message) {
        fprintf(stderr, "%s%s%s: %s\n", mf_colour(stderr, cancelled ? MF_YELLOW : MF_RED), job->state,
                mf_colour(stderr, MF_RESET), job->error_message);
    } else if (!quiet) {
        puts(job->state);
    }
    return succeeded ? MF_EXIT_OK : cancelled ? MF_EXIT_CANCELLED : MF_EXIT_FAILED;
}

struct follow {
    bool live, quiet, json;
    char shown[512]; /* what stands on the terminal or was printed last */
    int64_t started_ms;
    struct mf_pace pace; /* of lines that no terminal overwrites */
};

/* The words before the numbers: "train  ███ 40%  step 4/10" and "save   50%" are of phase train and save. */
static bool in_pace(struct follow *follow, const char *text) {
    char phase[sizeof follow->shown];
    snprintf(phase, sizeof phase, "%s", text);
    char *numbers = strstr(phase, "  ");
    if (numbers)
        *numbers = 0;
    return mf_pace_allows(&follow->pace, phase, mf_clock_monotonic_ms());
}

static void show(struct follow *follow, const char *text) {
    if (follow->quiet || !strcmp(follow->shown, text) || (!follow->live && !in_pace(follow, text)))
        return;
    snprintf(follow->shown, sizeof follow->shown, "%s", text);
    if (follow->live) {
        char line[512];
        snprintf(line, sizeof line, "%s", text);
        mf_text_fit(stdout, line);
        printf("\r\033[K%s", line);
    } else {
        puts(text);
    }
    fflush(stdout);
}

/* Whether the request was taken in; the status of a rejection when it was rejected. */
static enum mf_status look_for_record(struct mf_database *database, const struct mf_sent *sent,
                                      struct follow *follow, bool *taken, struct mf_error *error) {
    enum mf_status status =
        mf_store_record_fate(database, sent->topic, sent->partition, sent->offset, taken, error);
    if (status && *taken) {
        if (follow->live && follow->shown[0])
            putchar('\n');
        return mf_error_prefix(error, "the request was rejected");
    }
    if (!status && !*taken) {
        bool late = mf_clock_monotonic_ms() - follow->started_ms > HINT_MS;
        show(follow, late ? "accepted by Kafka, not taken in yet: is a worker running (modelforge doctor)?"
                          : "accepted, waiting for a worker to take it in");
    }
    return status;
}

/* One look at the job. *done is set when it is terminal; *result is then the exit status. */
static enum mf_status look(struct mf_database *database, const char *job_id, struct follow *follow,
                           bool *done, int *result, struct mf_error *error) {
    struct mf_job_status job = {0};
    char line[512];
    enum mf_status status = mf_store_job_by_id(database, job_id, &job, error);
    if (status == MF_ERROR_NOT_FOUND) {
        show(follow, "accepted, waiting for a worker to take it in");
        status = MF_OK;
    } else if (!status) {
        *done = terminal(job.state);
        if (*done) {
            if (follow->live && follow->shown[0])
                printf("\r\033[K");
            *result = report_end(database, &job, follow->quiet);
            if (follow->json)
                mf_json_print(mf_job_json(&job));
        } else {
            describe(line, sizeof line, &job);
            char *estimate = strstr(line, "  ETA ");
            if (estimate && !follow->live) /* or every second would be a line of its own */
                *estimate = 0;
            show(follow, line);
        }
    }
    mf_job_status_free(&job);
    return status;
}

int mf_job_follow(struct mf_settings *settings, const char *job_id, const struct mf_sent *sent, bool quiet,
                  int64_t timeout_s) {
    struct mf_error error;
    struct mf_database *database;
    struct follow follow = {.live = isatty(STDOUT_FILENO),
                            .quiet = quiet || settings->json,
                            .json = settings->json,
                            .started_ms = mf_clock_monotonic_ms()};
    if (mf_settings_database(settings, false, &database, &error))
        return mf_fail(&error);
    for (;;) {
        bool done = false, taken = !sent;
        int result = MF_EXIT_OK;
        enum mf_status status = MF_OK;
        if (sent)
            status = look_for_record(database, sent, &follow, &taken, &error);
        if (!status && taken) {
            sent = NULL;
            status = look(database, job_id, &follow, &done, &result, &error);
        }
        if (status == MF_ERROR_DATABASE) {
            show(&follow, "PostgreSQL does not answer; the job goes on, trying again");
            mf_database_reconnect(database, &error);
        } else if (status) {
            return mf_fail(&error);
        } else if (done) {
            return result;
        }
        if (timeout_s > 0 && mf_clock_monotonic_ms() - follow.started_ms > timeout_s * 1000) {
            if (follow.live && follow.shown[0])
                putchar('\n');
            fprintf(stderr, "modelforge: the job has not ended after %lld s; it goes on\n",
                    (long long)timeout_s);
            return MF_EXIT_TIMEOUT;
        }
        poll(NULL, 0, POLL_MS);
    }
}

static json_t *time_json(int64_t ms) {
    char text[MF_TIME_TEXT_BYTES];
    return ms > 0 ? json_string(mf_time_format(ms, text)) : json_null();
}

static json_t *count_json(int64_t value) {
    return value == MF_COUNT_NONE ? json_null() : json_integer(value);
}

static json_t *number_json(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *text_json(const char *text) {
    return text ? json_string(text) : json_null();
}

json_t *mf_job_json(const struct mf_job_status *job) {
    json_t *result = job->result ? json_loads(job->result, 0, NULL) : NULL;
    json_t *object = json_object();
    json_object_set_new(object, "job_id", json_string(job->job_id));
    json_object_set_new(object, "tenant", text_json(job->tenant));
    json_object_set_new(object, "request_id", text_json(job->request_id));
    json_object_set_new(object, "batch_id", text_json(job->batch_id));
    json_object_set_new(object, "generation", json_integer(job->generation));
    json_object_set_new(object, "state", text_json(job->state));
    json_object_set_new(object, "desired", text_json(job->desired));
    json_object_set_new(object, "waiting_reason", text_json(job->waiting_reason));
    json_object_set_new(object, "task", text_json(job->task));
    json_object_set_new(object, "strategy", text_json(job->strategy));
    json_object_set_new(object, "provider", text_json(job->provider));
    json_object_set_new(object, "model_name", text_json(job->model_name));
    json_object_set_new(object, "attempts", json_integer(job->attempts));
    json_object_set_new(object, "max_attempts", json_integer(job->max_attempts));
    json_object_set_new(object, "interruptions", json_integer(job->interruptions));
    json_object_set_new(object, "worker_id", text_json(job->worker_id));
    json_object_set_new(object, "phase", text_json(job->phase));
    json_object_set_new(object, "fraction", number_json(job->fraction));
    json_object_set_new(object, "step", count_json(job->step));
    json_object_set_new(object, "total_steps", count_json(job->total_steps));
    json_object_set_new(object, "loss", number_json(job->loss));
    json_object_set_new(object, "trained_tokens", count_json(job->trained_tokens));
    json_object_set_new(object, "tokens_per_second", number_json(job->tokens_per_second));
    json_object_set_new(object, "error_code", text_json(job->error_code));
    json_object_set_new(object, "error_message", text_json(job->error_message));
    json_object_set_new(object, "result", result ? result : json_null());
    json_object_set_new(object, "created_at", time_json(job->created_at));
    json_object_set_new(object, "started_at", time_json(job->started_at));
    json_object_set_new(object, "finished_at", time_json(job->finished_at));
    json_object_set_new(object, "estimated_finish", time_json(job->estimated_finish));
    return object;
}
