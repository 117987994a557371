/* batch: many requests at once. */
#include "producer/cli/batch.h"
#include "producer/cli/form.h"
#include "producer/cli/table.h"

#include <stdlib.h>
#include <string.h>

enum { DELIVERY_WAIT_MS = 65000, BACK_PRESSURE_MS = 100, SHOWN_FAULTS = 10 };

static void print_help(void) {
    mf_print_help(
        stdout,
        "usage: modelforge batch FILE.jsonl | FOLDER | - [--batch-id ID] [--FIELD VALUE]... [--wait | "
        "--watch]\n"
        "                        [--timeout SECONDS] [--check]\n\n"
        "Sends many training requests: a JSONL file (or standard input) with one request a line, or a "
        "folder\n"
        "of .json files. --FIELD VALUE sets a field of every request. Nothing is sent unless every request "
        "is\n"
        "valid. A request without request_id gets one made of the batch's id and its content, so that "
        "sending\n"
        "the same batch again makes no new job.\n\n"
        "  --batch-id ID       names the batch (needed unless every request has a batch_id)\n"
        "  --wait              wait until every job has ended, printing only what did not succeed\n"
        "  --watch             the same with progress\n"
        "  --timeout SECONDS   give up waiting; the jobs go on (exit status 6)\n"
        "  --check             read and check the requests, print their ids, send nothing\n\n"
        "exit status: 0 all succeeded (without --wait: all accepted), 1 one failed or was rejected, 4 one "
        "was\n"
        "cancelled and none failed");
}

struct arguments {
    const char *path;
    const char **flag; /* name, value, ... ; freed by the caller */
    int flags;
    bool wait, watch, check;
    int64_t timeout_s;
};

/* Returns -1 to go on, else an exit status. */
static int read_arguments(struct arguments *arguments, int argc, char **argv) {
    arguments->flag = calloc((size_t)argc * 2, sizeof *arguments->flag);
    if (!arguments->flag)
        return mf_usage("batch", "out of memory");
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            print_help();
            return MF_EXIT_OK;
        }
        if (!strcmp(argv[i], "--wait"))
            arguments->wait = true;
        else if (!strcmp(argv[i], "--watch"))
            arguments->watch = true;
        else if (!strcmp(argv[i], "--check"))
            arguments->check = true;
        else if (!strncmp(argv[i], "--", 2) && argv[i][2]) {
            if (i + 1 == argc)
                return mf_usage("batch", "%s needs a value", argv[i]);
            if (!strcmp(argv[i], "--timeout")) {
                const int result = mf_read_number("batch", "--timeout", argv[++i], 0, &arguments->timeout_s);
                if (result >= 0)
                    return result;
                continue;
            }
            arguments->flag[arguments->flags++] = argv[i];
            arguments->flag[arguments->flags++] = argv[++i];
        } else if (arguments->path) {
            return mf_usage("batch", "one FILE or FOLDER, '%s' is a second", argv[i]);
        } else {
            arguments->path = argv[i];
        }
    }
    return arguments->path ? -1 : mf_usage("batch", "which FILE or FOLDER?");
}

struct maker {
    struct mf_settings *settings;
    const struct arguments *arguments;
};

/* Flags and configuration over one row. */
static enum mf_status make_request(void *context, json_t *value, struct mf_request *request,
                                   struct mf_error *error) {
    const struct maker *maker = context;
    const struct arguments *arguments = maker->arguments;
    enum mf_status status = MF_OK;
    for (int i = 0; i < arguments->flags && !status; i += 2)
        status = mf_form_flag(value, arguments->flag[i], arguments->flag[i + 1], error);
    if (!status)
        status = mf_form_request(maker->settings, value, request, error);
    if (!status && !request->batch_id)
        status =
            mf_error_set(error, MF_ERROR_MISSING_FIELD,
                         "batch_id: not given; name the batch with --batch-id ID (sending it again under "
                         "the same name makes no new jobs)");
    return status;
}

/* Prints the first faults. Returns how many rows have one. */
static size_t print_faults(const struct mf_batch *batch) {
    size_t faults = 0;
    for (size_t i = 0; i < batch->rows; i++)
        if (batch->row[i].faulty && ++faults <= SHOWN_FAULTS)
            fprintf(stderr, "%s%s: %s%s\n", mf_colour(stderr, MF_RED), batch->row[i].origin,
                    batch->row[i].fault ? batch->row[i].fault : "out of memory", mf_colour(stderr, MF_RESET));
    if (faults > SHOWN_FAULTS)
        fprintf(stderr, "... and %zu more\n", faults - SHOWN_FAULTS);
    return faults;
}

static int prepare(struct mf_settings *settings, const struct arguments *arguments, struct mf_batch *batch) {
    struct mf_error error;
    struct maker maker = {settings, arguments};
    if (mf_settings_load(settings, &error) ||
        mf_batch_read(arguments->path, make_request, &maker, batch, &error) ||
        mf_batch_name_requests(batch, &error))
        return mf_fail(&error);
    size_t faults = print_faults(batch);
    if (faults) {
        fprintf(stderr, "modelforge: %zu of %zu requests cannot be sent as they are; nothing was sent\n",
                faults, batch->rows);
        return MF_EXIT_USAGE;
    }
    return -1;
}

static void keep_delivery(const struct mf_delivery *delivery, void *user) {
    struct mf_batch_row *row = user;
    row->accepted = !delivery->status;
    row->partition = delivery->partition;
    row->offset = delivery->offset;
    if (delivery->status) {
        struct mf_error error;
        mf_error_set(&error, delivery->status, "not accepted by topic %s: %s", delivery->topic,
                     delivery->message);
        mf_batch_row_fail(row, &error);
    }
}

/* Sends every row; a full queue is waited for. */
static enum mf_status send_rows(struct mf_client *client, struct mf_batch *batch, struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (size_t i = 0; i < batch->rows && !status; i++) {
        struct mf_batch_row *row = &batch->row[i];
        struct mf_request request = {0};
        status = mf_batch_request(row, &request, error);
        while (!status && (status = mf_client_submit(client, &request, keep_delivery, row, row->job_id,
                                                     error)) == MF_ERROR_QUEUE_FULL) {
            mf_client_poll(client, BACK_PRESSURE_MS);
            status = MF_OK;
        }
        mf_request_free(&request);
        mf_client_poll(client, 0);
    }
    if (!status)
        status = mf_client_flush(client, DELIVERY_WAIT_MS, error);
    return status;
}

static int print_rows(const struct mf_settings *settings, const struct mf_batch *batch, bool sent) {
    if (!settings->json) {
        for (size_t i = 0; i < batch->rows; i++)
            printf("%s  %s\n", batch->row[i].job_id, batch->row[i].request_id);
        return MF_EXIT_OK;
    }
    json_t *rows = json_array();
    for (size_t i = 0; i < batch->rows; i++)
        json_array_append_new(rows, json_pack("{s:s,s:s,s:b}", "job_id", batch->row[i].job_id, "request_id",
                                              batch->row[i].request_id, "accepted",
                                              sent && batch->row[i].accepted));
    return mf_json_print(rows);
}

static int send_batch(struct mf_settings *settings, struct mf_batch *batch) {
    struct mf_error error;
    struct mf_client *client = NULL;
    enum mf_status status = mf_settings_client(settings, &client, &error);
    if (!status)
        status = send_rows(client, batch, &error);
    mf_client_destroy(client); /* the callbacks of all that was sent have run */
    size_t accepted = 0;
    for (size_t i = 0; i < batch->rows; i++)
        accepted += batch->row[i].accepted;
    if (!status && accepted == batch->rows)
        return MF_EXIT_OK;
    if (accepted)
        fprintf(stderr,
                "modelforge: %zu of %zu requests were accepted; send the same batch again for the rest\n",
                accepted, batch->rows);
    if (print_faults(batch) && !status)
        return MF_EXIT_UNAVAILABLE;
    return mf_fail(&error);
}

static int follow(struct mf_settings *settings, const struct mf_batch *batch,
                  const struct arguments *arguments) {
    struct mf_sent_batch sent = {0};
    char topic[MF_TOPIC_NAME_BYTES];
    sent.topic = mf_topic_of_list(mf_config_string(settings->config, "topics.requests"), 0, topic);
    for (size_t i = 0; i < batch->rows; i++)
        mf_sent_batch_add(&sent, batch->row[i].partition, batch->row[i].offset, batch->row[i].job_id);
    int result = mf_batch_follow(settings, &sent, batch->batch_id, !arguments->watch, arguments->timeout_s);
    mf_sent_batch_free(&sent);
    return result;
}

int mf_command_batch(struct mf_settings *settings, int argc, char **argv) {
    struct arguments arguments = {0};
    struct mf_batch batch = {0};
    struct mf_database *database;
    struct mf_error error;
    int result = read_arguments(&arguments, argc, argv);
    if (result >= 0)
        goto done;
    if ((result = prepare(settings, &arguments, &batch)) >= 0)
        goto done;
    if (arguments.check) {
        result = print_rows(settings, &batch, false);
        goto done;
    }
    /* What cannot be followed is not sent. */
    if ((arguments.wait || arguments.watch) && mf_settings_database(settings, false, &database, &error)) {
        result = mf_fail(&error);
        goto done;
    }
    if ((result = send_batch(settings, &batch)) != MF_EXIT_OK)
        goto done;
    if (arguments.wait || arguments.watch)
        result = follow(settings, &batch, &arguments);
    else
        result = print_rows(settings, &batch, true);
done:
    mf_batch_free(&batch);
    free(arguments.flag);
    return result;
}
