/* Waiting for a batch. */
#include "common/clock.h"
#include "producer/cli/batch.h"
#include "producer/cli/pace.h"
#include "producer/cli/table.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { POLL_MS = 1000, QUICK_POLLS = 8, QUICK_POLL_MS = 150 };

/* What stands on the terminal, or was printed last. */
struct display {
    bool live, quiet;
    char shown[256];
    struct mf_pace pace;
};

static void show(struct display *display, const char *text) {
    if (display->quiet || !strcmp(display->shown, text))
        return;
    if (!display->live && !mf_pace_allows(&display->pace, "", mf_clock_monotonic_ms()))
        return;
    snprintf(display->shown, sizeof display->shown, "%s", text);
    if (display->live) {
        char line[sizeof display->shown];
        snprintf(line, sizeof line, "%s", text);
        mf_text_fit(stdout, line);
        printf("\r\033[K%s", line);
    } else {
        puts(text);
    }
    fflush(stdout);
}

static void end_line(struct display *display) {
    if (display->live && display->shown[0])
        putchar('\n');
    display->shown[0] = 0;
}

static int64_t ended(const struct mf_batch_progress *progress) {
    int64_t count = 0;
    for (enum mf_job_state state = 0; state < MF_JOB_STATE_COUNT; state++)
        if (mf_job_terminal(state))
            count += progress->jobs[state];
    return count;
}

static int64_t known(const struct mf_batch_progress *progress) {
    int64_t count = 0;
    for (enum mf_job_state state = 0; state < MF_JOB_STATE_COUNT; state++)
        count += progress->jobs[state];
    return count;
}

static void describe(char *line, size_t bytes, const struct mf_sent_batch *sent, const char *batch_id,
                     const struct mf_batch_progress *progress) {
    int64_t done = ended(progress);
    size_t used = (size_t)snprintf(line, bytes, "batch %.80s  %lld of %zu ended", batch_id, (long long)done,
                                   sent->count);
    if (progress->taken < sent->count && used < bytes)
        used += (size_t)snprintf(line + used, bytes - used, ", %zu not taken in yet",
                                 sent->count - progress->taken);
    for (enum mf_job_state state = 0; state < MF_JOB_STATE_COUNT && used < bytes; state++)
        if (progress->jobs[state])
            used += (size_t)snprintf(line + used, bytes - used, "  %lld %s", (long long)progress->jobs[state],
                                     mf_job_state_name(state));
}

static int report(struct mf_settings *settings, struct mf_database *database, struct mf_sent_batch *sent,
                  const char *batch_id, const struct mf_batch_progress *progress, bool quiet) {
    struct mf_error error;
    struct mf_text_table table;
    if (mf_store_batch_ends(database, sent, &table, &error))
        return mf_fail(&error);
    int64_t rejected = (int64_t)sent->count - known(progress);
    if (settings->json) {
        json_t *object = json_object();
        json_object_set_new(object, "batch_id", json_string(batch_id));
        for (enum mf_job_state state = 0; state < MF_JOB_STATE_COUNT; state++)
            json_object_set_new(object, mf_job_state_name(state), json_integer(progress->jobs[state]));
        json_object_set_new(object, "rejected", json_integer(rejected));
        json_object_set_new(object, "not_succeeded", mf_table_json(&table));
        mf_json_print(object);
    } else if (table.rows) {
        mf_table_print(&table, NULL);
    }
    mf_text_table_free(&table);
    bool failed = progress->jobs[MF_JOB_FAILED] || rejected > 0, cancelled = progress->jobs[MF_JOB_CANCELLED];
    if (!quiet && !settings->json)
        printf("%s%lld of %zu succeeded%s\n",
               mf_colour(stdout, failed      ? MF_RED
                                 : cancelled ? MF_YELLOW
                                             : MF_GREEN),
               (long long)progress->jobs[MF_JOB_SUCCEEDED], sent->count, mf_colour(stdout, MF_RESET));
    return failed ? MF_EXIT_FAILED : cancelled ? MF_EXIT_CANCELLED : MF_EXIT_OK;
}

int mf_batch_follow(struct mf_settings *settings, struct mf_sent_batch *sent, const char *batch_id,
                    bool quiet, int64_t timeout_s) {
    struct mf_error error;
    struct mf_database *database;
    struct display display = {.live = isatty(STDOUT_FILENO), .quiet = quiet || settings->json};
    const int64_t started_ms = mf_clock_monotonic_ms();
    if (mf_settings_database(settings, false, &database, &error))
        return mf_fail(&error);
    for (int polls = 0;; polls++) {
        struct mf_batch_progress progress;
        char line[256];
        enum mf_status status = mf_store_batch_progress(database, sent, &progress, &error);
        if (status == MF_ERROR_DATABASE) {
            show(&display, "PostgreSQL does not answer; the jobs go on, trying again");
            mf_database_reconnect(database, &error);
        } else if (status) {
            end_line(&display);
            return mf_fail(&error);
        } else {
            describe(line, sizeof line, sent, batch_id, &progress);
            show(&display, line);
            if (progress.taken == sent->count && ended(&progress) == known(&progress)) {
                end_line(&display);
                return report(settings, database, sent, batch_id, &progress, quiet);
            }
        }
        if (timeout_s > 0 && mf_clock_monotonic_ms() - started_ms > timeout_s * 1000) {
            end_line(&display);
            fprintf(stderr, "modelforge: the batch has not ended after %lld s; it goes on\n",
                    (long long)timeout_s);
            return MF_EXIT_TIMEOUT;
        }
        poll(NULL, 0, polls < QUICK_POLLS ? QUICK_POLL_MS : POLL_MS);
    }
}
