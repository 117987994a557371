#include "worker/trainer/dataset.h"

#include "common/files.h"
#include "common/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Rows between two questions whether the run was cancelled. */
enum { ROWS_UNASKED = 256 };

/* A text that grows. */
struct buffer {
    char *data;
    size_t used, room;
};

/* The dataset in the making. */
struct loading {
    struct mf_dataset *dataset;
    size_t room; /* rows that dataset->row has room for */
    bool (*cancelled)(void *argument);
    void *argument;
};

char *mf_dataset_where(const struct mf_dataset *dataset, const struct mf_row *row, char *text, size_t bytes) {
    snprintf(text, bytes, "%s, %s %lld", dataset->path, dataset->is_array ? "row" : "line",
             (long long)row->number);
    return text;
}

static enum mf_status row_error(const struct mf_dataset *dataset, const struct mf_row *row,
                                const char *problem, const char *field, struct mf_error *error) {
    char where[512];
    mf_dataset_where(dataset, row, where, sizeof where);
    return mf_error_set(error, MF_ERROR_DATASET_ROW, "%s: field '%s' %s", where, field, problem);
}

static const char *json_type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "is an object, not a string";
    case JSON_ARRAY:
        return "is an array, not a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "is a number, not a string";
    case JSON_TRUE:
    case JSON_FALSE:
        return "is a boolean, not a string";
    case JSON_NULL:
        return "is null, not a string";
    case JSON_STRING:
        break;
    }
    return "is a string";
}

/* The string member `field` of the row's object, or NULL with *error filled. */
static const char *text_field(const struct mf_dataset *dataset, const struct mf_row *row,
                              const json_t *object, const char *field, struct mf_error *error) {
    const json_t *value = json_object_get(object, field);
    if (!value)
        row_error(dataset, row, "is missing", field, error);
    else if (!json_is_string(value))
        row_error(dataset, row, json_type_name(value), field, error);
    return json_string_value(value);
}

static enum mf_status out_of_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "dataset: out of memory");
    return MF_ERROR_OUT_OF_MEMORY;
}

static enum mf_status set_pair(struct mf_row *row, const char *user, const char *assistant,
                               struct mf_error *error) {
    row->messages = json_pack("[{s:s,s:s},{s:s,s:s}]", "role", "user", "content", user, "role", "assistant",
                              "content", assistant);
    return row->messages ? MF_OK : out_of_memory(error);
}

static enum mf_status read_pair(const struct mf_dataset *dataset, const json_t *object, const char *input,
                                const char *output, struct mf_row *row, struct mf_error *error) {
    const char *user = text_field(dataset, row, object, input, error);
    const char *assistant = user ? text_field(dataset, row, object, output, error) : NULL;
    return assistant ? set_pair(row, user, assistant, error) : error->status;
}

static enum mf_status read_alpaca(const struct mf_dataset *dataset, const json_t *object, struct mf_row *row,
                                  struct mf_error *error) {
    const char *instruction = text_field(dataset, row, object, "instruction", error);
    const char *output = instruction ? text_field(dataset, row, object, "output", error) : NULL;
    if (!output)
        return error->status;
    const json_t *input = json_object_get(object, "input"); /* may be absent, null or empty */
    if (input && !json_is_string(input) && !json_is_null(input))
        return row_error(dataset, row, json_type_name(input), "input", error);
    const char *more = json_string_value(input);
    if (!more || !*more)
        return set_pair(row, instruction, output, error);
    size_t bytes = strlen(instruction) + strlen(more) + 2;
    char *user = malloc(bytes);
    if (!user)
        return out_of_memory(error);
    snprintf(user, bytes, "%s\n%s", instruction, more);
    enum mf_status status = set_pair(row, user, output, error);
    free(user);
    return status;
}

/* The text of a message's content: a string, or an array of {type: "text", text}. NULL: neither, *error
 * filled. */
static json_t *message_content(const struct mf_dataset *dataset, const struct mf_row *row,
                               const json_t *content, const char *field, struct mf_error *error) {
    if (json_is_string(content))
        return json_string(json_string_value(content));
    if (!content || !json_is_array(content)) {
        row_error(dataset, row, content ? json_type_name(content) : "is missing", field, error);
        return NULL;
    }
    json_t *joined = json_string("");
    size_t index;
    json_t *part;
    json_array_foreach(content, index, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        const char *text = json_string_value(json_object_get(part, "text"));
        if (!type || strcmp(type, "text") != 0 || !text) {
            row_error(dataset, row, "has a part that is not text; only text can be trained on", field, error);
            json_decref(joined);
            return NULL;
        }
        json_t *longer = json_sprintf("%s%s", json_string_value(joined), text);
        json_decref(joined);
        joined = longer;
    }
    if (!joined)
        out_of_memory(error);
    return joined;
}

static enum mf_status read_messages(const struct mf_dataset *dataset, const json_t *object,
                                    struct mf_row *row, struct mf_error *error) {
    const json_t *messages = json_object_get(object, "messages");
    if (!json_is_array(messages) || !json_array_size(messages))
        return row_error(dataset, row, "is not a list of messages", "messages", error);
    row->messages = json_array();
    size_t index;
    json_t *message;
    json_array_foreach(messages, index, message) {
        char field[64];
        snprintf(field, sizeof field, "messages[%zu].role", index);
        if (!json_is_string(json_object_get(message, "role")))
            return row_error(dataset, row, "is missing or not a string", field, error);
        snprintf(field, sizeof field, "messages[%zu].tool_calls", index);
        if (json_is_array(json_object_get(message, "tool_calls")))
            return row_error(dataset, row, "asks for tool calls, which cannot be trained on yet", field,
                             error);
        snprintf(field, sizeof field, "messages[%zu].content", index);
        json_t *content = message_content(dataset, row, json_object_get(message, "content"), field, error);
        if (!content)
            return error->status;
        json_t *made = json_pack("{s:O,s:o}", "role", json_object_get(message, "role"), "content", content);
        if (!made || json_array_append_new(row->messages, made))
            return out_of_memory(error);
    }
    return MF_OK;
}

static enum mf_status read_sharegpt(const struct mf_dataset *dataset, const json_t *object,
                                    struct mf_row *row, struct mf_error *error) {
    static const char *const roles[][2] = {{"human", "user"},
                                           {"user", "user"},
                                           {"gpt", "assistant"},
                                           {"assistant", "assistant"},
                                           {"system", "system"}};
    const json_t *turns = json_object_get(object, "conversations");
    if (!json_is_array(turns) || !json_array_size(turns))
        return row_error(dataset, row, "is not a list of turns", "conversations", error);
    row->messages = json_array();
    size_t index;
    json_t *turn;
    json_array_foreach(turns, index, turn) {
        char field[64];
        const char *from = json_string_value(json_object_get(turn, "from")), *role = NULL;
        for (size_t i = 0; from && i < sizeof roles / sizeof *roles; i++)
            if (!strcmp(from, roles[i][0]))
                role = roles[i][1];
        snprintf(field, sizeof field, "conversations[%zu].from", index);
        if (!role)
            return row_error(dataset, row, "is not one of human, gpt, system", field, error);
        const json_t *value = json_object_get(turn, "value");
        snprintf(field, sizeof field, "conversations[%zu].value", index);
        if (!json_is_string(value))
            return row_error(dataset, row, value ? json_type_name(value) : "is missing", field, error);
        json_t *made = json_pack("{s:s,s:s}", "role", role, "content", json_string_value(value));
        if (!made || json_array_append_new(row->messages, made))
            return out_of_memory(error);
    }
    return MF_OK;
}

static enum mf_status read_text(const struct mf_dataset *dataset, const json_t *object, struct mf_row *row,
                                struct mf_error *error) {
    const char *text = text_field(dataset, row, object, "text", error);
    if (!text)
        return error->status;
    row->text = strdup(text);
    return row->text ? MF_OK : out_of_memory(error);
}

static enum mf_status read_row(const struct mf_dataset *dataset, const json_t *object, struct mf_row *row,
                               struct mf_error *error) {
    char where[512];
    if (!json_is_object(object))
        return mf_error_set(error, MF_ERROR_DATASET_ROW, "%s: the row is not a JSON object",
                            mf_dataset_where(dataset, row, where, sizeof where));
    if (json_object_get(object, "messages"))
        return read_messages(dataset, object, row, error);
    if (json_object_get(object, "conversations"))
        return read_sharegpt(dataset, object, row, error);
    if (json_object_get(object, "instruction"))
        return read_alpaca(dataset, object, row, error);
    if (json_object_get(object, "prompt") || json_object_get(object, "completion"))
        return read_pair(dataset, object, "prompt", "completion", row, error);
    if (json_object_get(object, "input") || json_object_get(object, "output"))
        return read_pair(dataset, object, "input", "output", row, error);
    if (json_object_get(object, "text"))
        return read_text(dataset, object, row, error);
    return mf_error_set(error, MF_ERROR_DATASET_ROW,
                        "%s: no field 'input' and 'output', 'prompt' and 'completion', 'messages', "
                        "'conversations', 'instruction' and 'output', or 'text'",
                        mf_dataset_where(dataset, row, where, sizeof where));
}

static enum mf_status check_cancelled(const struct loading *loading, struct mf_error *error) {
    if (loading->cancelled && loading->cancelled(loading->argument))
        return mf_error_set(error, MF_ERROR_CANCELLED, "the run was cancelled");
    return MF_OK;
}

/* Appends the row that `object` holds; `number` is its line or element. */
static enum mf_status add_row(struct loading *loading, const json_t *object, int64_t number,
                              struct mf_error *error) {
    struct mf_dataset *dataset = loading->dataset;
    if (dataset->rows % ROWS_UNASKED == 0 && check_cancelled(loading, error) != MF_OK)
        return MF_ERROR_CANCELLED;
    if (dataset->rows == MF_DATASET_MAX_ROWS)
        return mf_error_set(error, MF_ERROR_DATASET_SYNTAX, "%s: more than %d rows", dataset->path,
                            MF_DATASET_MAX_ROWS);
    if (dataset->rows == loading->room) {
        size_t more = loading->room ? loading->room * 2 : 256;
        struct mf_row *grown = realloc(dataset->row, more * sizeof *grown);
        if (!grown)
            return out_of_memory(error);
        dataset->row = grown;
        loading->room = more;
    }
    struct mf_row *row = &dataset->row[dataset->rows++];
    *row = (struct mf_row){.number = number};
    return read_row(dataset, object, row, error);
}

/* What is wrong with `text`, which begins at line `line` of the file. */
static enum mf_status syntax_error(const struct mf_dataset *dataset, const char *text, size_t bytes,
                                   int64_t line, const json_error_t *json, struct mf_error *error) {
    const char *reason = json->text;
    if (json_error_code(json) == json_error_invalid_utf8) {
        const size_t at = mf_utf8_valid_bytes(text, bytes);
        const char *start = text;
        for (const char *next; (next = memchr(start, '\n', at - (size_t)(start - text))); start = next + 1)
            line++;
        return mf_error_set(error, MF_ERROR_DATASET_SYNTAX,
                            "%s, line %lld: byte %zu (0x%02X) is not UTF-8; save the file as UTF-8",
                            dataset->path, (long long)line, at - (size_t)(start - text) + 1,
                            at < bytes ? (unsigned char)text[at] : 0);
    }
    if (json_error_code(json) == json_error_null_character)
        reason = "a text holds the character \\u0000, which cannot be trained on";
    return mf_error_set(error, MF_ERROR_DATASET_SYNTAX, "%s, line %lld: invalid JSON: %s (column %d)",
                        dataset->path, (long long)line + json->line - 1, reason, json->column);
}

static enum mf_status parse_lines(struct loading *loading, const char *text, size_t bytes,
                                  struct mf_error *error) {
    const char *path = loading->dataset->path;
    int64_t number = 0;
    for (const char *line = text, *end = text + bytes; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t length = stop ? (size_t)(stop - line) : (size_t)(end - line);
        const char *next = stop ? stop + 1 : end;
        number++;
        while (length && (line[length - 1] == '\r' || line[length - 1] == ' ' || line[length - 1] == '\t'))
            length--;
        if (length > MF_DATASET_MAX_ROW_BYTES)
            return mf_error_set(error, MF_ERROR_DATASET_SYNTAX, "%s, line %lld: longer than %d bytes", path,
                                (long long)number, MF_DATASET_MAX_ROW_BYTES);
        if (length) {
            json_error_t json;
            json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &json);
            if (!object)
                return syntax_error(loading->dataset, line, length, number, &json, error);
            enum mf_status status = add_row(loading, object, number, error);
            json_decref(object);
            if (status != MF_OK)
                return status;
        }
        line = next;
    }
    return MF_OK;
}

static enum mf_status parse_array(struct loading *loading, const char *text, size_t bytes,
                                  struct mf_error *error) {
    json_error_t json;
    loading->dataset->is_array = true;
    json_t *array = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &json);
    if (!array)
        return syntax_error(loading->dataset, text, bytes, 1, &json, error);
    size_t index;
    json_t *object;
    enum mf_status status = MF_OK;
    json_array_foreach(array, index, object) {
        status = add_row(loading, object, (int64_t)index + 1, error);
        if (status != MF_OK)
            break;
    }
    json_decref(array);
    return status;
}

/* Unpacks the gzip members of `packed` into *text, which the caller frees. */
static enum mf_status gunzip(const struct loading *loading, const char *packed, size_t bytes,
                             struct buffer *text, struct mf_error *error) {
    const char *path = loading->dataset->path;
    z_stream stream = {0};
    if (inflateInit2(&stream, 15 + 16) != Z_OK)
        return out_of_memory(error);
    enum mf_status status = MF_OK;
    size_t fed = 0;
    int result = Z_OK;
    while (fed < bytes || stream.avail_in || result == Z_OK) {
        if (!stream.avail_in) {
            if (fed == bytes)
                break;
            size_t chunk = bytes - fed < (1U << 30) ? bytes - fed : 1U << 30;
            stream.next_in = (z_const Bytef *)(packed + fed);
            stream.avail_in = (uInt)chunk;
            fed += chunk;
        }
        if (text->used + 65536 > text->room) {
            size_t room = text->room ? text->room * 2 : 1 << 20;
            char *grown = room > (size_t)MF_DATASET_MAX_BYTES * 2 ? NULL : realloc(text->data, room);
            if (!grown) {
                status = out_of_memory(error);
                break;
            }
            text->data = grown;
            text->room = room;
        }
        status = check_cancelled(loading, error);
        if (status != MF_OK)
            break;
        stream.next_out = (Bytef *)text->data + text->used;
        stream.avail_out = 65536;
        result = inflate(&stream, Z_NO_FLUSH);
        text->used += 65536 - stream.avail_out;
        if (result == Z_STREAM_END && (stream.avail_in || fed < bytes))
            result = inflateReset(&stream);
        if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
            break;
        if ((int64_t)text->used > MF_DATASET_MAX_BYTES) {
            status = mf_error_set(error, MF_ERROR_DATASET_SYNTAX, "%s: more than %lld bytes of text", path,
                                  (long long)MF_DATASET_MAX_BYTES);
            break;
        }
    }
    if (status == MF_OK && result != Z_STREAM_END)
        status =
            mf_error_set(error, MF_ERROR_DATASET_SYNTAX, "%s: the gzip data is damaged or cut short", path);
    inflateEnd(&stream);
    return status;
}

static enum mf_status parse(struct loading *loading, const char *text, size_t bytes, struct mf_error *error) {
    if (bytes >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) {
        text += 3;
        bytes -= 3;
    }
    size_t start = 0;
    while (start < bytes && strchr(" \t\r\n", text[start]) && text[start])
        start++;
    return start < bytes && text[start] == '[' ? parse_array(loading, text, bytes, error)
                                               : parse_lines(loading, text, bytes, error);
}

static enum mf_status load(struct loading *loading, const struct mf_dataset_source *source,
                           struct mf_error *error) {
    struct mf_dataset *dataset = loading->dataset;
    char *raw = NULL;
    size_t bytes = 0;
    struct buffer text = {0};
    enum mf_status status = mf_file_read(source->path, (size_t)MF_DATASET_MAX_BYTES, &raw, &bytes, error);
    if (status == MF_ERROR_IO) {
        status = MF_ERROR_DATASET_NOT_FOUND;
        mf_error_set(error, status, "dataset: %s", error->message);
    }
    if (status != MF_OK)
        goto done;
    status = mf_sha256_text(raw, bytes, dataset->sha256, error);
    if (status != MF_OK)
        goto done;
    if (bytes >= 2 && !memcmp(raw, "\x1F\x8B", 2)) {
        status = gunzip(loading, raw, bytes, &text, error);
        if (status == MF_OK)
            status = parse(loading, text.data, text.used, error);
    } else {
        status = parse(loading, raw, bytes, error);
    }
    if (status == MF_OK && dataset->rows < source->min_rows)
        status = mf_error_set(error, MF_ERROR_DATASET_TOO_SMALL, "%s: has %zu rows, needs at least %zu",
                              dataset->path, dataset->rows, source->min_rows);
done:
    free(text.data);
    free(raw);
    return status;
}

enum mf_status mf_dataset_load_from(const struct mf_dataset_source *source, struct mf_dataset *dataset,
                                    struct mf_error *error) {
    *dataset = (struct mf_dataset){.path = strdup(source->name)};
    struct loading loading = {
        .dataset = dataset, .cancelled = source->cancelled, .argument = source->cancelled_argument};
    enum mf_status status = dataset->path ? load(&loading, source, error) : out_of_memory(error);
    if (status != MF_OK)
        mf_dataset_destroy(dataset);
    return status;
}

enum mf_status mf_dataset_load(const char *path, size_t min_rows, struct mf_dataset *dataset,
                               struct mf_error *error) {
    const struct mf_dataset_source source = {.path = path, .name = path, .min_rows = min_rows};
    return mf_dataset_load_from(&source, dataset, error);
}

void mf_dataset_destroy(struct mf_dataset *dataset) {
    for (size_t i = 0; i < dataset->rows; i++) {
        json_decref(dataset->row[i].messages);
        free(dataset->row[i].text);
    }
    free(dataset->row);
    free(dataset->path);
    *dataset = (struct mf_dataset){0};
}
