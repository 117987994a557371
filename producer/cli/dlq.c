/* dlq: rejected records, as PostgreSQL keeps them, and sending them again. */
#include "producer/cli/delivery.h"
#include "producer/cli/table.h"
#include "producer/raw.h"

#include "common/clock.h"
#include "common/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_LIMIT = 20, PAGE = 100, SHOWN_BYTES = 512 };

static const char help[] = "usage: modelforge dlq list [--topic TOPIC] [--code CODE] [--limit N]\n"
                           "       modelforge dlq show ID [--raw]\n"
                           "       modelforge dlq replay ID... | --code CODE\n\n"
                           "A record that cannot be accepted is kept with a code and a reason, and goes to "
                           "the dead-letter topic. 'list'\n"
                           "shows the newest. 'show' gives one with the beginning of its bytes; --raw writes "
                           "all of them and nothing else.\n"
                           "'replay' sends records again as they were, with their key, to the topic they "
                           "came from, once what was wrong is\n"
                           "mended (a schema registered, a tenant allowed): those named, or all of a code "
                           "that were not sent again yet. A\n"
                           "worker judges them like new ones. 'show' and 'replay' need the rights of "
                           "modelforge_owner; who replayed what\n"
                           "stays in the view replay_log.";

struct arguments {
    const char *topic, *code;
    int64_t limit;
    bool raw;
    int64_t *id;
    size_t ids;
};

static bool read_number(const char *text, int64_t *value) {
    char *end;
    *value = strtoll(text, &end, 10);
    return end != text && !*end && *value > 0;
}

/* Returns -1 to go on, else an exit status. */
static int read_arguments(struct arguments *arguments, int argc, char **argv) {
    for (int i = 2; i < argc; i++) {
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--topic") && more)
            arguments->topic = argv[++i];
        else if (!strcmp(argv[i], "--code") && more)
            arguments->code = argv[++i];
        else if (!strcmp(argv[i], "--raw"))
            arguments->raw = true;
        else if (!strcmp(argv[i], "--limit") && more) {
            const int result = mf_read_number("dlq", "--limit", argv[++i], 1, &arguments->limit);
            if (result >= 0)
                return result;
        } else if (!read_number(argv[i], &arguments->id[arguments->ids++]))
            return mf_usage("dlq", "'%s' is no dead letter's number", argv[i]);
    }
    return -1;
}

static int list(struct mf_settings *settings, const struct arguments *arguments) {
    struct mf_error error;
    struct mf_database *database;
    struct mf_text_table table = {0};
    if (mf_settings_database(settings, false, &database, &error) ||
        mf_store_rejects(database, arguments->topic, arguments->code, (size_t)arguments->limit, &table,
                         &error))
        return mf_fail(&error);
    return mf_table_give(settings, &table, "reject_id,rejected_at,code,replayed_at,reason",
                         "nothing was rejected");
}

/* Text as it is, other bytes as \xNN. */
static void print_bytes(const char *label, const unsigned char *bytes, size_t size) {
    printf("%-10s ", label);
    for (size_t i = 0; i < size && i < SHOWN_BYTES; i++)
        printf(bytes[i] >= ' ' && bytes[i] < 0x7F && bytes[i] != '\\' ? "%c" : "\\x%02x", bytes[i]);
    if (size > SHOWN_BYTES)
        printf(" ... (--raw for all of it)");
    putchar('\n');
}

static int print_json(const struct mf_dead_letter *letter) {
    char time[MF_TIME_TEXT_BYTES], again[MF_TIME_TEXT_BYTES];
    bool replayed = letter->replayed_at != MF_TIME_NONE;
    return mf_json_print(json_pack(
        "{s:I, s:s, s:i, s:I, s:s, s:s, s:I, s:b, s:s, s:s?}", "reject_id", (json_int_t)letter->reject_id,
        "topic", letter->topic, "partition", letter->partition, "offset", (json_int_t)letter->offset, "code",
        letter->code, "reason", letter->reason, "bytes", (json_int_t)letter->value_bytes, "kept",
        letter->kept, "rejected_at", mf_time_format(letter->rejected_at, time), "replayed_at",
        replayed ? mf_time_format(letter->replayed_at, again) : NULL));
}

static int show(struct mf_settings *settings, const struct arguments *arguments) {
    struct mf_error error;
    struct mf_database *database;
    struct mf_dead_letter letter = {0};
    char time[MF_TIME_TEXT_BYTES];
    int result = MF_EXIT_OK;
    if (mf_settings_database(settings, false, &database, &error) ||
        mf_store_reject(database, arguments->id[0], &letter, &error))
        return mf_fail(&error);
    if (arguments->raw && !letter.kept) {
        mf_error_set(&error, MF_ERROR_NOT_FOUND,
                     "the value of dead letter %lld (%lld bytes) was too large to keep",
                     (long long)letter.reject_id, (long long)letter.value_bytes);
        result = mf_fail(&error);
    } else if (arguments->raw) {
        if (fwrite(letter.value, 1, letter.value_size, stdout) != letter.value_size)
            result = MF_EXIT_FAILED;
    } else if (settings->json) {
        result = print_json(&letter);
    } else {
        printf("%-10s %s: %s\n", "rejected", letter.code, letter.reason);
        printf("%-10s %s, partition %d, offset %lld\n", "from", letter.topic, letter.partition,
               (long long)letter.offset);
        printf("%-10s %s\n", "at", mf_time_format(letter.rejected_at, time));
        if (letter.replayed_at != MF_TIME_NONE)
            printf("%-10s %s\n", "replayed", mf_time_format(letter.replayed_at, time));
        print_bytes("key", letter.key, letter.key_size);
        if (letter.kept)
            print_bytes("value", letter.value, letter.value_size);
        else
            printf("%-10s %lld bytes, too large to keep\n", "value", (long long)letter.value_bytes);
    }
    mf_dead_letter_free(&letter);
    return result;
}

struct replaying {
    struct mf_settings *settings;
    struct mf_database *database;
    struct mf_client *client;
    size_t sent;
};

/* One after the other, so that what is written down is what the broker has, and their order stays. */
static enum mf_status replay_one(struct replaying *replaying, int64_t id, struct mf_error *error) {
    struct mf_dead_letter letter = {0};
    struct mf_receipt receipt = mf_receipt_unknown();
    enum mf_status status = mf_store_reject(replaying->database, id, &letter, error);
    if (!status && !letter.kept)
        status = mf_error_set(
            error, MF_ERROR_NOT_FOUND,
            "the value of dead letter %lld (%lld bytes) was too large to keep: its producer must send "
            "it again",
            (long long)id, (long long)letter.value_bytes);
    if (!status)
        status = mf_raw_send(replaying->client, letter.topic, letter.key, letter.key_size, letter.value,
                             letter.value_size, mf_receipt_keep, &receipt, error);
    if (!status)
        status = mf_receipt_wait(replaying->client, &receipt, error);
    if (!status)
        status = mf_store_reject_replayed(replaying->database, id, receipt.sent.topic, receipt.sent.partition,
                                          receipt.sent.offset, mf_operator_name(), error);
    if (!status) {
        replaying->sent++;
        if (!replaying->settings->json)
            printf("dead letter %lld (%s) is offset %lld of %s, partition %d\n", (long long)id, letter.code,
                   (long long)receipt.sent.offset, receipt.sent.topic, receipt.sent.partition);
    }
    mf_dead_letter_free(&letter);
    return status;
}

static enum mf_status replay_code(struct replaying *replaying, const char *code, struct mf_error *error) {
    int64_t ids[PAGE], after = 0;
    size_t count = 0;
    enum mf_status status;
    do {
        status = mf_store_rejects_to_replay(replaying->database, code, after, ids, PAGE, &count, error);
        for (size_t i = 0; !status && i < count; i++)
            status = replay_one(replaying, after = ids[i], error);
    } while (!status && count == PAGE);
    return status;
}

static int replay(struct mf_settings *settings, const struct arguments *arguments) {
    struct mf_error error;
    struct replaying replaying = {.settings = settings};
    enum mf_status status = mf_settings_database(settings, false, &replaying.database, &error);
    if (!status)
        status = mf_settings_client(settings, &replaying.client, &error);
    if (!status && arguments->code)
        status = replay_code(&replaying, arguments->code, &error);
    for (size_t i = 0; !status && i < arguments->ids; i++)
        status = replay_one(&replaying, arguments->id[i], &error);
    mf_client_destroy(replaying.client);
    if (settings->json)
        printf("{\"replayed\":%zu}\n", replaying.sent);
    else if (!status && !replaying.sent)
        puts("nothing to send again");
    return status ? mf_fail(&error) : MF_EXIT_OK;
}

int mf_command_dlq(struct mf_settings *settings, int argc, char **argv) {
    struct arguments arguments = {.limit = LIST_LIMIT};
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help")) {
            mf_print_help(stdout, help);
            return MF_EXIT_OK;
        }
    const char *verb = argc > 1 ? argv[1] : "";
    arguments.id = calloc((size_t)argc, sizeof *arguments.id);
    if (!arguments.id)
        return mf_usage("dlq", "out of memory");
    int result = read_arguments(&arguments, argc, argv);
    if (result >= 0)
        goto done;
    if (!strcmp(verb, "list") && !arguments.ids && !arguments.raw)
        result = list(settings, &arguments);
    else if (!strcmp(verb, "show") && arguments.ids == 1)
        result = show(settings, &arguments);
    else if (!strcmp(verb, "replay") && (arguments.ids > 0) != (arguments.code != NULL))
        result = replay(settings, &arguments);
    else
        result = mf_usage("dlq", "it takes 'list', 'show ID' or 'replay ID...' or 'replay --code CODE'");
done:
    free(arguments.id);
    return result;
}
