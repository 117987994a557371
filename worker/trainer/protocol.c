#include "worker/trainer/protocol.h"

#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const event_names[MF_EVENT_TYPE_COUNT] = {
    [MF_EVENT_UNKNOWN] = "unknown",
    [MF_EVENT_HELLO] = "hello",
    [MF_EVENT_PLAN] = "plan",
    [MF_EVENT_PROGRESS] = "progress",
    [MF_EVENT_STEP] = "step",
    [MF_EVENT_EVAL] = "eval",
    [MF_EVENT_CHECKPOINT] = "checkpoint",
    [MF_EVENT_ARTIFACT] = "artifact",
    [MF_EVENT_LOG] = "log",
    [MF_EVENT_PONG] = "pong",
    [MF_EVENT_ACK] = "ack",
    [MF_EVENT_DONE] = "done",
    [MF_EVENT_PAUSED] = "paused",
    [MF_EVENT_CANCELLED] = "cancelled",
    [MF_EVENT_ERROR] = "error",
};
static const char *const phase_names[MF_PHASE_COUNT] = {"load", "plan", "train", "evaluate", "save"};
static const char *const command_names[MF_TRAINER_COUNT] = {"checkpoint", "pause", "cancel", "ping"};

enum field_kind { COUNT, NUMBER, TEXT, OPTIONAL_TEXT, PHASE, DEVICES };

/* Every member of every event, in the order of the line. Encoding and decoding both walk this table. */
static const struct field {
    enum mf_event_type type;
    enum field_kind kind;
    const char *name;
    size_t offset;
} fields[] = {
#define FIELD(TYPE, kind, member, name) \
    { MF_EVENT_##TYPE, kind, #name, offsetof(struct mf_event, member.name) }
    FIELD(HELLO, COUNT, hello, protocol),
    FIELD(HELLO, TEXT, hello, version),
    {MF_EVENT_HELLO, DEVICES, "devices", offsetof(struct mf_event, hello)},
    FIELD(PLAN, COUNT, plan, managed_bytes),
    FIELD(PLAN, COUNT, plan, total_steps),
    FIELD(PLAN, COUNT, plan, train_rows),
    FIELD(PLAN, COUNT, plan, eval_rows),
    FIELD(PLAN, COUNT, plan, train_tokens),
    FIELD(PLAN, COUNT, plan, truncated_rows),
    FIELD(PLAN, COUNT, plan, dropped_rows),
    FIELD(PLAN, TEXT, plan, numeric_plan_sha256),
    FIELD(PLAN, OPTIONAL_TEXT, plan, dataset_sha256),
    FIELD(PLAN, OPTIONAL_TEXT, plan, base_revision),
    FIELD(PLAN, OPTIONAL_TEXT, plan, resumed_plan_sha256),
    FIELD(PROGRESS, PHASE, progress, phase),
    FIELD(PROGRESS, NUMBER, progress, fraction),
    FIELD(STEP, COUNT, step, step),
    FIELD(STEP, NUMBER, step, epoch),
    FIELD(STEP, NUMBER, step, loss),
    FIELD(STEP, NUMBER, step, learning_rate),
    FIELD(STEP, NUMBER, step, gradient_norm),
    FIELD(STEP, COUNT, step, tokens),
    FIELD(STEP, NUMBER, step, tokens_per_second),
    FIELD(STEP, NUMBER, step, elapsed_seconds),
    FIELD(EVAL, COUNT, eval, step),
    FIELD(EVAL, NUMBER, eval, loss),
    FIELD(EVAL, NUMBER, eval, perplexity),
    FIELD(CHECKPOINT, COUNT, checkpoint, step),
    FIELD(CHECKPOINT, TEXT, checkpoint, path),
    FIELD(ARTIFACT, TEXT, artifact, kind),
    FIELD(ARTIFACT, TEXT, artifact, path),
    FIELD(ARTIFACT, COUNT, artifact, size_bytes),
    FIELD(LOG, TEXT, log, level),
    FIELD(LOG, TEXT, log, message),
    {MF_EVENT_PONG, COUNT, "number", offsetof(struct mf_event, number)},
    {MF_EVENT_ACK, COUNT, "number", offsetof(struct mf_event, number)},
    FIELD(DONE, COUNT, done, steps),
    FIELD(DONE, NUMBER, done, train_loss),
    FIELD(DONE, NUMBER, done, eval_loss),
    FIELD(DONE, NUMBER, done, perplexity),
    FIELD(DONE, COUNT, done, trained_tokens),
    FIELD(ERROR, TEXT, error, code),
    FIELD(ERROR, TEXT, error, message),
#undef FIELD
};
enum { FIELD_COUNT = sizeof fields / sizeof *fields };

const char *mf_event_type_name(enum mf_event_type type) {
    return (unsigned)type < MF_EVENT_TYPE_COUNT ? event_names[type] : event_names[MF_EVENT_UNKNOWN];
}

const char *mf_phase_name(enum mf_phase phase) {
    return (unsigned)phase < MF_PHASE_COUNT ? phase_names[phase] : "";
}

const char *mf_trainer_command_name(enum mf_trainer_command_type type) {
    return (unsigned)type < MF_TRAINER_COUNT ? command_names[type] : "";
}

bool mf_event_is_terminal(enum mf_event_type type) {
    return type == MF_EVENT_DONE || type == MF_EVENT_PAUSED || type == MF_EVENT_CANCELLED ||
           type == MF_EVENT_ERROR;
}

static bool is_stream(int fd, int forbidden_access) {
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) != forbidden_access && !fstat(fd, &status) &&
           (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode));
}

bool mf_protocol_attached(void) {
    return is_stream(MF_PROTOCOL_EVENT_FD, O_RDONLY) && is_stream(MF_PROTOCOL_COMMAND_FD, O_WRONLY);
}

/* ---- encoding --------------------------------------------------------------------------------------- */

/* Length of the UTF-8 character at `text`, 0 when it is none (overlong forms and surrogates included). */
static size_t character_bytes(const unsigned char *text, size_t left) {
    static const unsigned char first_minimum[5] = {0, 0, 0xC2, 0xE0, 0xF0};
    unsigned char c = text[0];
    size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (c < 0x80)
        return 1;
    if (c > 0xF4 || n > left || c < first_minimum[n])
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    if ((c == 0xE0 && text[1] < 0xA0) || (c == 0xED && text[1] > 0x9F) || (c == 0xF0 && text[1] < 0x90) ||
        (c == 0xF4 && text[1] > 0x8F))
        return 0;
    return n;
}

static json_t *text_to_json(const char *text) {
    char clean[MF_PROTOCOL_MAX_TEXT + 1];
    size_t length = text ? strlen(text) : 0, used = 0;
    for (size_t i = 0; i < length;) {
        size_t n = character_bytes((const unsigned char *)text + i, length - i);
        if (used + (n ? n : 1) > MF_PROTOCOL_MAX_TEXT)
            break;
        if (n)
            memcpy(clean + used, text + i, n);
        else
            clean[used] = '?';
        used += n ? n : 1;
        i += n ? n : 1;
    }
    return json_stringn(clean, used);
}

static json_t *number_to_json(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *devices_to_json(const struct mf_event *event) {
    json_t *array = json_array();
    for (size_t i = 0; i < event->hello.device_count && i < MF_PROTOCOL_MAX_DEVICES; i++) {
        const struct mf_event_device *device = &event->hello.device[i];
        json_array_append_new(array, json_pack("{s:o, s:o, s:o, s:I}", "name", text_to_json(device->name),
                                               "description", text_to_json(device->description), "uuid",
                                               text_to_json(device->uuid), "memory_bytes",
                                               (json_int_t)device->memory_bytes));
    }
    return array;
}

static json_t *field_to_json(const struct mf_event *event, const struct field *field) {
    const void *at = (const char *)event + field->offset;
    switch (field->kind) {
    case COUNT:
        return json_integer(*(const int64_t *)at);
    case NUMBER:
        return number_to_json(*(const double *)at);
    case TEXT:
    case OPTIONAL_TEXT:
        return text_to_json(*(const char *const *)at);
    case PHASE:
        return json_string(mf_phase_name(*(const enum mf_phase *)at));
    case DEVICES:
        return devices_to_json(event);
    }
    return NULL;
}

void mf_protocol_writer_init(struct mf_protocol_writer *writer, int fd) {
    writer->fd = fd;
    pthread_mutex_init(&writer->lock, NULL);
}

void mf_protocol_writer_destroy(struct mf_protocol_writer *writer) {
    pthread_mutex_destroy(&writer->lock);
}

static enum mf_status write_all(int fd, const char *bytes, size_t length, struct mf_error *error) {
    while (length) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            (void)poll(&wait, 1, -1);
            continue;
        }
        if (n < 0)
            return mf_error_errno(error, errno, "trainer protocol: write");
        bytes += n;
        length -= (size_t)n;
    }
    return MF_OK;
}

/* Takes the reference to `object`. */
static enum mf_status send_object(struct mf_protocol_writer *writer, json_t *object, struct mf_error *error) {
    char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    size_t length = line ? strlen(line) : 0;
    if (!line)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer protocol: no memory for a line");
    enum mf_status status;
    if (length + 1 > MF_PROTOCOL_LINE_BYTES) {
        status =
            mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "trainer protocol: a line of %zu bytes", length);
    } else {
        line[length] = '\n'; /* over the NUL: from here on it is a counted block of bytes */
        pthread_mutex_lock(&writer->lock);
        status = write_all(writer->fd, line, length + 1, error);
        pthread_mutex_unlock(&writer->lock);
    }
    free(line);
    return status;
}

enum mf_status mf_protocol_send_event(struct mf_protocol_writer *writer, const struct mf_event *event,
                                      struct mf_error *error) {
    json_t *object = json_object();
    json_object_set_new(object, "type", json_string(mf_event_type_name(event->type)));
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if (fields[i].type == event->type)
            json_object_set_new(object, fields[i].name, field_to_json(event, &fields[i]));
    if (event->type == MF_EVENT_HELLO)
        json_object_set_new(object, "protocol", json_integer(MF_PROTOCOL_VERSION));
    return send_object(writer, object, error);
}

enum mf_status mf_protocol_send_command(struct mf_protocol_writer *writer,
                                        const struct mf_trainer_command *command, struct mf_error *error) {
    return send_object(writer,
                       json_pack("{s:s, s:I}", "type", mf_trainer_command_name(command->type), "number",
                                 (json_int_t)command->number),
                       error);
}

/* ---- reading lines ---------------------------------------------------------------------------------- */

enum mf_status mf_protocol_reader_init(struct mf_protocol_reader *reader, int fd, struct mf_error *error) {
    *reader = (struct mf_protocol_reader){.fd = fd, .buffer = malloc(MF_PROTOCOL_LINE_BYTES)};
    if (!reader->buffer)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer protocol: no memory for a reader");
    return MF_OK;
}

void mf_protocol_reader_destroy(struct mf_protocol_reader *reader) {
    free(reader->buffer);
    reader->buffer = NULL;
}

enum mf_read_result mf_protocol_reader_fill(struct mf_protocol_reader *reader, struct mf_error *error) {
    memmove(reader->buffer, reader->buffer + reader->taken, reader->used - reader->taken);
    reader->used -= reader->taken;
    reader->taken = 0;
    if (reader->used == MF_PROTOCOL_LINE_BYTES) {
        mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "trainer protocol: a line is longer than %d bytes",
                     MF_PROTOCOL_LINE_BYTES);
        return MF_READ_FAILED;
    }
    for (;;) {
        ssize_t n = read(reader->fd, reader->buffer + reader->used, MF_PROTOCOL_LINE_BYTES - reader->used);
        if (n > 0) {
            reader->used += (size_t)n;
            return MF_READ_DATA;
        }
        if (n == 0)
            return MF_READ_END;
        if (errno == EAGAIN)
            return MF_READ_AGAIN;
        if (errno != EINTR) {
            mf_error_errno(error, errno, "trainer protocol: read");
            return MF_READ_FAILED;
        }
    }
}

const char *mf_protocol_reader_next(struct mf_protocol_reader *reader, size_t *length) {
    char *start = reader->buffer + reader->taken;
    char *end = memchr(start, '\n', reader->used - reader->taken);
    if (!end)
        return NULL;
    *end = 0;
    *length = (size_t)(end - start);
    reader->taken += *length + 1;
    return start;
}

/* ---- decoding --------------------------------------------------------------------------------------- */

static enum mf_status bad_line(struct mf_error *error, const char *type, const char *name,
                               const char *reason) {
    return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "trainer protocol: %s: member '%s' %s", type, name,
                        reason);
}

static enum mf_status parse_object(const char *line, size_t length, json_t **object, const char **type,
                                   struct mf_error *error) {
    json_error_t reason;
    *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &reason);
    if (!*object)
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL,
                            "trainer protocol: a line is not a JSON object: %s at byte %d", reason.text,
                            reason.position);
    mf_json_clean_text(*object);
    *type = json_string_value(json_object_get(*object, "type"));
    if (*type)
        return MF_OK;
    json_decref(*object);
    *object = NULL;
    return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "trainer protocol: a line has no \"type\"");
}

/* A string member; absent counts as "". */
static bool text_member(const json_t *object, const char *name, const char **text) {
    const json_t *value = json_object_get(object, name);
    *text = value ? json_string_value(value) : "";
    return *text && (!value || json_string_length(value) <= MF_PROTOCOL_MAX_TEXT);
}

static bool devices_from_json(const json_t *array, struct mf_event *event) {
    if (!json_is_array(array) || json_array_size(array) > MF_PROTOCOL_MAX_DEVICES)
        return false;
    event->hello.device_count = json_array_size(array);
    for (size_t i = 0; i < event->hello.device_count; i++) {
        const json_t *item = json_array_get(array, i), *memory = json_object_get(item, "memory_bytes");
        struct mf_event_device *device = &event->hello.device[i];
        if (!text_member(item, "name", &device->name) || !*device->name ||
            !text_member(item, "description", &device->description) ||
            !text_member(item, "uuid", &device->uuid) || (memory && !json_is_integer(memory)))
            return false;
        device->memory_bytes = json_integer_value(memory);
    }
    return true;
}

static bool phase_from_json(const json_t *value, enum mf_phase *phase) {
    const char *name = json_string_value(value);
    for (int i = 0; name && i < MF_PHASE_COUNT; i++)
        if (!strcmp(name, phase_names[i])) {
            *phase = (enum mf_phase)i;
            return true;
        }
    return false;
}

static const char *field_from_json(const json_t *value, const struct field *field, struct mf_event *event) {
    void *at = (char *)event + field->offset;
    switch (field->kind) {
    case COUNT:
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return "is not a whole number from 0";
        *(int64_t *)at = json_integer_value(value);
        return NULL;
    case NUMBER:
        if (!json_is_number(value) && !json_is_null(value))
            return "is not a number";
        *(double *)at = json_is_null(value) ? (double)NAN : json_number_value(value);
        return NULL;
    case OPTIONAL_TEXT: /* an older or another trainer does not say it: "" */
        if (!value || json_is_null(value)) {
            *(const char **)at = "";
            return NULL;
        }
        /* fall through */
    case TEXT:
        if (!json_is_string(value) || json_string_length(value) > MF_PROTOCOL_MAX_TEXT)
            return "is not a string of at most 4096 bytes";
        *(const char **)at = json_string_value(value);
        return NULL;
    case PHASE:
        return phase_from_json(value, at) ? NULL : "is no phase";
    case DEVICES:
        return devices_from_json(value, event) ? NULL : "is not an array of at most 64 devices";
    }
    return "cannot be read";
}

enum mf_status mf_event_decode(const char *line, size_t length, struct mf_event *event,
                               struct mf_error *error) {
    const char *type = "";
    memset(event, 0, sizeof *event);
    enum mf_status status = parse_object(line, length, &event->storage, &type, error);
    if (status)
        return status;
    for (int i = MF_EVENT_UNKNOWN + 1; i < MF_EVENT_TYPE_COUNT; i++)
        if (!strcmp(type, event_names[i]))
            event->type = (enum mf_event_type)i;
    for (size_t i = 0; i < FIELD_COUNT && !status; i++) {
        if (fields[i].type != event->type)
            continue;
        const json_t *value = json_object_get(event->storage, fields[i].name);
        const bool missing = !value && fields[i].kind != OPTIONAL_TEXT;
        const char *reason = missing ? "is missing" : field_from_json(value, &fields[i], event);
        if (reason)
            status = bad_line(error, type, fields[i].name, reason);
    }
    if (status)
        mf_event_destroy(event);
    return status;
}

void mf_event_destroy(struct mf_event *event) {
    json_decref(event->storage);
    event->storage = NULL;
}

enum mf_status mf_trainer_command_decode(const char *line, size_t length, struct mf_trainer_command *command,
                                         struct mf_error *error) {
    json_t *object = NULL;
    const char *type = "";
    enum mf_status status = parse_object(line, length, &object, &type, error);
    if (status)
        return status;
    int found = -1;
    for (int i = 0; i < MF_TRAINER_COUNT; i++)
        if (!strcmp(type, command_names[i]))
            found = i;
    const json_t *number = json_object_get(object, "number");
    if (found < 0)
        status = bad_line(error, type, "type", "is no command");
    else if (!json_is_integer(number) || json_integer_value(number) < 1)
        status = bad_line(error, type, "number", "is not a whole number from 1");
    else
        *command =
            (struct mf_trainer_command){(enum mf_trainer_command_type)found, json_integer_value(number)};
    json_decref(object);
    return status;
}
