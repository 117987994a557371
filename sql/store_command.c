/* Commands of users: cancel, pause, resume, retry. Everything here runs inside the caller's transaction. */
#include <stdio.h>
#include <string.h>

#include "sql/store_private.h"

enum { WAITING_COMMANDS_LIMIT = 1000, NOTE_BYTES = 160 }; /* commands without a request, a tenant */

/* What each action means to the state table, and what it makes a running job's `desired`. */
static const struct {
    enum mf_job_trigger event;
    enum mf_job_desired desired;
    const char *requested; /* audit type of a wish that a worker will see */
} meaning[] = {
    [MF_COMMAND_CANCEL] = {MF_EVENT_CANCEL, MF_DESIRED_CANCEL, "cancel_requested"},
    [MF_COMMAND_PAUSE] = {MF_EVENT_PAUSE, MF_DESIRED_PAUSE, "pause_requested"},
    [MF_COMMAND_RESUME] = {MF_EVENT_RESUME, MF_DESIRED_RUN, "resume_requested"},
    [MF_COMMAND_RETRY] = {MF_EVENT_RETRY, MF_DESIRED_RUN, NULL},
};

/* A command under way and the newest generation of its job, locked. */
struct acting {
    struct mf_database *database;
    const struct mf_ingest_command *command;
    struct mf_count_changes *changes;
    struct mf_unleased job;
    enum mf_job_desired desired;
    int32_t generation;
    bool applied;
    char note[NOTE_BYTES]; /* why it was ignored */
};

static json_t *detail_of(const struct acting *acting) {
    json_t *detail = json_object();
    json_object_set_new(detail, "command_id", json_string(acting->command->command_id));
    json_object_set_new(detail, "action", json_string(mf_command_action_name(acting->command->action)));
    if (acting->command->reason)
        json_object_set_new(detail, "reason", json_string(acting->command->reason));
    if (*acting->note)
        json_object_set_new(detail, "note", json_string(acting->note));
    return detail;
}

/* The audit row of what happened to the job, now in `state`. `detail` is consumed. */
static enum mf_status audit(const struct acting *acting, const char *type, enum mf_job_state state,
                            json_t *detail, struct mf_error *error) {
    return mf_audit_write(acting->database,
                          (struct mf_audit){.job_id = acting->job.job_id,
                                            .type = type,
                                            .state = mf_job_state_name(state),
                                            .actor = "producer",
                                            .attempt = acting->job.epoch ? acting->job.epoch : MF_COUNT_NONE,
                                            .step = MF_COUNT_NONE,
                                            .detail = detail},
                          error);
}

static enum mf_status ignore(struct acting *acting, struct mf_error *error) {
    acting->applied = false;
    return audit(acting, "command_ignored", acting->job.state, detail_of(acting), error);
}

/* Why the state table has nothing for it. */
static void explain(struct acting *acting) {
    const char *state = mf_job_state_name(acting->job.state);
    const char *desired = mf_job_desired_name(acting->desired);
    if (acting->command->action == MF_COMMAND_RETRY)
        snprintf(acting->note, sizeof acting->note,
                 "only a failed or cancelled job is tried again; this one is %s", state);
    else if (mf_job_terminal(acting->job.state))
        snprintf(acting->note, sizeof acting->note, "the job has ended: it is %s", state);
    else if (acting->job.state == MF_JOB_RUNNING)
        snprintf(acting->note, sizeof acting->note, "the job is running and %s is wanted already", desired);
    else
        snprintf(acting->note, sizeof acting->note, "the job is %s", state);
}

static enum mf_status pause_queued(struct acting *acting, struct mf_error *error) {
    const struct mf_parameter id = mf_parameter_text(acting->job.job_id);
    enum mf_status status = mf_database_query(acting->database, MF_QUERY_JOB_PAUSE, &id, 1, NULL, error);
    if (status)
        return status;
    mf_count_changes_add(acting->changes, acting->job.queue, acting->job.tenant, acting->job.ready ? -1 : 0,
                         0);
    return audit(acting, "paused", MF_JOB_PAUSED, detail_of(acting), error);
}

static enum mf_status resume_paused(struct acting *acting, struct mf_error *error) {
    const struct mf_parameter id = mf_parameter_text(acting->job.job_id);
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(acting->database, MF_QUERY_JOB_RESUME, &id, 1, &rows, error);
    bool ready = !status && mf_result_rows(rows) && mf_result_boolean(rows, 0, 0);
    mf_result_free(rows);
    if (status)
        return status;
    mf_count_changes_add(acting->changes, acting->job.queue, acting->job.tenant, ready, 0);
    return audit(acting, "resumed", MF_JOB_QUEUED, detail_of(acting), error);
}

static enum mf_status ask_worker(struct acting *acting, struct mf_error *error) {
    const enum mf_command_action action = acting->command->action;
    const struct mf_parameter parameters[] = {
        mf_parameter_text(acting->job.job_id),
        mf_parameter_text(mf_job_desired_name(meaning[action].desired))};
    enum mf_status status =
        mf_database_query(acting->database, MF_QUERY_JOB_DESIRE, parameters, 2, NULL, error);
    return status ? status
                  : audit(acting, meaning[action].requested, acting->job.state, detail_of(acting), error);
}

/* The next generation, which the command's row names from now on. */
static enum mf_status make_generation(struct acting *acting, char fresh_id[MF_UUID_TEXT_BYTES],
                                      struct mf_error *error) {
    struct pg_result *rows = NULL;
    enum mf_status status = mf_job_id(acting->command->tenant, acting->command->request_id,
                                      acting->generation + 1, fresh_id, error);
    if (status)
        return status;
    const struct mf_parameter ids[] = {mf_parameter_text(acting->job.job_id), mf_parameter_text(fresh_id)};
    status = mf_database_query(acting->database, MF_QUERY_JOB_RETRY, ids, 2, &rows, error);
    bool made = !status && mf_result_rows(rows) > 0, ready = made && mf_result_boolean(rows, 0, 0);
    mf_result_free(rows);
    if (status)
        return status;
    if (!made) {
        snprintf(acting->note, sizeof acting->note, "the job's deadline has passed: send a new request");
        return ignore(acting, error);
    }
    mf_count_changes_add(acting->changes, acting->job.queue, acting->job.tenant, ready, 0);
    json_t *detail = detail_of(acting);
    json_object_set_new(detail, "retried_as", json_string(fresh_id));
    status = audit(acting, "retried", acting->job.state, detail, error);
    if (status)
        return status;
    detail = detail_of(acting);
    json_object_set_new(detail, "retry_of", json_string(acting->job.job_id));
    json_object_set_new(detail, "generation", json_integer(acting->generation + 1));
    return mf_audit_write(acting->database,
                          (struct mf_audit){.job_id = fresh_id,
                                            .type = "queued",
                                            .state = mf_job_state_name(MF_JOB_QUEUED),
                                            .actor = "producer",
                                            .attempt = MF_COUNT_NONE,
                                            .step = MF_COUNT_NONE,
                                            .detail = detail},
                          error);
}

/* Does what the state table says; `job_id` gets the job that the command concerns from now on. */
static enum mf_status act(struct acting *acting, char job_id[MF_UUID_TEXT_BYTES], struct mf_error *error) {
    const struct mf_ingest_command *command = acting->command;
    snprintf(job_id, MF_UUID_TEXT_BYTES, "%s", acting->job.job_id);
    if (command->expected_generation && command->expected_generation != acting->generation) {
        snprintf(acting->note, sizeof acting->note, "the job's generation is %d, the command names %d",
                 acting->generation, command->expected_generation);
        return ignore(acting, error);
    }
    enum mf_job_state next = mf_job_next(acting->job.state, meaning[command->action].event, acting->desired);
    acting->applied = true;
    if (next == MF_JOB_STATE_COUNT) {
        explain(acting);
        return ignore(acting, error);
    }
    if (command->action == MF_COMMAND_RETRY) {
        char fresh_id[MF_UUID_TEXT_BYTES];
        enum mf_status status = make_generation(acting, fresh_id, error);
        if (!status && acting->applied)
            memcpy(job_id, fresh_id, sizeof fresh_id);
        return status;
    }
    if (next == MF_JOB_CANCELLED)
        return mf_close_unleased(acting->database, &acting->job, next, NULL, NULL, "producer",
                                 detail_of(acting), acting->changes, error);
    if (next == MF_JOB_PAUSED)
        return pause_queued(acting, error);
    if (next == MF_JOB_QUEUED)
        return resume_paused(acting, error);
    return ask_worker(acting, error);
}

static enum mf_status decide(struct mf_database *database, const char *command_id, bool applied,
                             const char *job_id, const char *note, struct mf_error *error) {
    const struct mf_parameter parameters[] = {
        mf_parameter_text(command_id), mf_parameter_text(applied ? "applied" : "ignored"),
        mf_parameter_text(job_id), mf_parameter_text(note && *note ? note : NULL)};
    return mf_database_query(database, MF_QUERY_COMMAND_OUTCOME, parameters, MF_COUNT(parameters), NULL,
                             error);
}

/* Acts on the job as it is now and writes the outcome. *found false: there is no such request yet. */
static enum mf_status carry_out(struct mf_database *database, const struct mf_ingest_command *command,
                                struct mf_count_changes *changes, bool *found, bool *applied,
                                struct mf_error *error) {
    struct pg_result *rows = NULL;
    char job_id[MF_UUID_TEXT_BYTES];
    const struct mf_parameter key[] = {mf_parameter_text(command->tenant),
                                       mf_parameter_text(command->request_id)};
    enum mf_status status = mf_database_query(database, MF_QUERY_COMMAND_JOB, key, 2, &rows, error);
    *found = !status && mf_result_rows(rows) > 0;
    *applied = false;
    if (*found) {
        struct acting acting = {.database = database,
                                .command = command,
                                .changes = changes,
                                .job = {.job_id = mf_result_text(rows, 0, 0),
                                        .state = mf_job_state_parse(mf_result_text(rows, 0, 2)),
                                        .queue = mf_result_text(rows, 0, 4),
                                        .tenant = mf_result_text(rows, 0, 5),
                                        .ready = mf_result_boolean(rows, 0, 6),
                                        .epoch = mf_result_integer(rows, 0, 7)},
                                .desired = mf_job_desired_parse(mf_result_text(rows, 0, 3)),
                                .generation = (int32_t)mf_result_integer(rows, 0, 1)};
        status = act(&acting, job_id, error);
        *applied = acting.applied;
        if (!status)
            status = decide(database, command->command_id, acting.applied, job_id, acting.note, error);
    }
    mf_result_free(rows);
    return status;
}

/* There is no such request yet: the command waits, unless too many of its tenant wait already. */
static enum mf_status wait_for_request(struct mf_database *database, const struct mf_ingest_command *command,
                                       struct mf_error *refusal, struct mf_error *error) {
    struct pg_result *rows = NULL;
    const struct mf_parameter parameters[] = {mf_parameter_text(command->tenant),
                                              mf_parameter_integer(WAITING_COMMANDS_LIMIT + 1)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_COMMAND_WAITING_COUNT, parameters, 2, &rows, error);
    bool full = !status && mf_result_integer(rows, 0, 0) > WAITING_COMMANDS_LIMIT;
    mf_result_free(rows);
    if (status || !full)
        return status;
    mf_error_set(refusal, MF_ERROR_NOT_FOUND,
                 "there is no request '%s', and %d commands of tenant '%s' already wait for their requests",
                 command->request_id, WAITING_COMMANDS_LIMIT, command->tenant);
    return decide(database, command->command_id, false, NULL, "too many commands wait for their requests",
                  error);
}

enum mf_status mf_command_take(struct mf_database *database, const struct mf_ingest_command *command,
                               struct mf_count_changes *changes, enum mf_ingest_fate *fate,
                               struct mf_error *refusal, struct mf_error *error) {
    struct pg_result *rows = NULL;
    bool found, applied;
    if (command->action == MF_COMMAND_RETRY && !command->expected_generation) {
        mf_error_set(refusal, MF_ERROR_INVALID_FIELD,
                     "expected_generation: a retry names the generation that it tries again");
        return MF_OK;
    }
    const struct mf_parameter parameters[] = {mf_parameter_text(command->command_id),
                                              mf_parameter_text(command->tenant),
                                              mf_parameter_text(command->request_id),
                                              mf_parameter_text(mf_command_action_name(command->action)),
                                              command->expected_generation
                                                  ? mf_parameter_integer(command->expected_generation)
                                                  : mf_parameter_null(),
                                              mf_parameter_text(command->reason),
                                              mf_parameter_text(command->requested_by)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_COMMAND_INSERT, parameters, MF_COUNT(parameters), &rows, error);
    bool fresh = !status && mf_result_rows(rows) > 0;
    mf_result_free(rows);
    if (status)
        return status;
    if (!fresh) {
        *fate = MF_FATE_DUPLICATE;
        return MF_OK;
    }
    status = carry_out(database, command, changes, &found, &applied, error);
    *fate = found && !applied ? MF_FATE_IGNORED : MF_FATE_ACCEPTED;
    if (!status && !found)
        status = wait_for_request(database, command, refusal, error);
    return status;
}

enum mf_status mf_apply_waiting_commands(struct mf_database *database, const struct mf_parameter *job_ids,
                                         struct mf_count_changes *changes, struct mf_error *error) {
    struct pg_result *rows = NULL;
    enum mf_status status =
        mf_database_query(database, MF_QUERY_INGEST_WAITING_COMMANDS, job_ids, 1, &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++) {
        struct mf_ingest_command command = {
            .tenant = mf_result_text(rows, row, 3),
            .request_id = mf_result_text(rows, row, 4),
            .expected_generation = (int32_t)mf_result_integer(rows, row, 2),
            .reason = mf_result_null(rows, row, 5) ? NULL : mf_result_text(rows, row, 5)};
        bool found, applied;
        snprintf(command.command_id, sizeof command.command_id, "%s", mf_result_text(rows, row, 0));
        if (!mf_command_action_parse(mf_result_text(rows, row, 1), &command.action))
            status = mf_error_set(error, MF_ERROR_INTERNAL, "a waiting command has an unknown action");
        if (!status)
            status = carry_out(database, &command, changes, &found, &applied, error);
    }
    mf_result_free(rows);
    return status;
}
