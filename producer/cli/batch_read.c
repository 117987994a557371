/* Reading a batch and naming its requests. */
#include "producer/cli/batch.h"

#include "common/json.h"
#include "common/text.h"
#include "producer/cli/form.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { HASH_DIGITS = 16 };

void mf_batch_free(struct mf_batch *batch) {
    for (size_t i = 0; i < batch->rows; i++) {
        free(batch->row[i].origin);
        free(batch->row[i].tenant);
        free(batch->row[i].request_id);
        free(batch->row[i].json);
        free(batch->row[i].fault);
    }
    free(batch->row);
    free(batch->batch_id);
    *batch = (struct mf_batch){0};
}

/* Takes `origin`. NULL with *error. */
static struct mf_batch_row *add_row(struct mf_batch *batch, char *origin, struct mf_error *error) {
    if (origin && batch->rows == MF_BATCH_ROWS) {
        free(origin);
        mf_error_set(error, MF_ERROR_MESSAGE_TOO_LARGE, "more than %d requests; send them as several batches",
                     MF_BATCH_ROWS);
        return NULL;
    }
    if (origin && (batch->rows & (batch->rows - 1)) == 0) { /* room doubles at every power of two */
        size_t room = batch->rows ? batch->rows * 2 : 1;
        struct mf_batch_row *grown = realloc(batch->row, room * sizeof *grown);
        if (grown)
            batch->row = grown;
        else {
            free(origin);
            origin = NULL;
        }
    }
    if (!origin) {
        mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for %zu requests", batch->rows + 1);
        return NULL;
    }
    struct mf_batch_row *row = &batch->row[batch->rows++];
    *row = (struct mf_batch_row){.origin = origin};
    return row;
}

static char *format_origin(const char *path, size_t line) {
    struct mf_text text = {0};
    mf_text_printf(&text, "%s:%zu", strcmp(path, "-") == 0 ? "standard input" : path, line);
    return mf_text_take(&text);
}

/* Where rows go, and what makes requests of them. */
struct reading {
    struct mf_batch *batch;
    mf_batch_make *make;
    void *context;
};

/* "nightly-3f9a0c12b7d4e865". */
static enum mf_status make_stem(const struct mf_request *request, char **stem, struct mf_error *error) {
    char hash[MF_SHA256_TEXT_BYTES];
    struct mf_text text = {0};
    enum mf_status status = mf_request_hash(request, hash, error);
    if (status)
        return status;
    mf_text_printf(&text, "%s-%.*s", request->batch_id, HASH_DIGITS, hash);
    if ((status = mf_text_status(&text, error)))
        mf_text_free(&text);
    else
        *stem = mf_text_take(&text);
    return status;
}

/* What a row keeps of its request; the request is of no more use then. */
static enum mf_status keep_request(struct mf_batch *batch, struct mf_request *request,
                                   struct mf_batch_row *row, struct mf_error *error) {
    json_t *object = NULL;
    enum mf_status status = MF_OK;
    row->named = !request->request_id;
    if (row->named)
        status = make_stem(request, &row->request_id, error);
    else
        row->request_id = request->request_id;
    request->request_id = NULL;
    if (!status)
        status = mf_request_to_json(request, true, &object, error);
    if (status)
        return status;
    row->json = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    row->tenant = strdup(request->tenant);
    if (!batch->batch_id)
        batch->batch_id = strdup(request->batch_id);
    return row->json && row->tenant && batch->batch_id
               ? MF_OK
               : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a request");
}

static void take_value(const struct reading *reading, struct mf_batch_row *row, json_t *value) {
    struct mf_request request = {0};
    struct mf_error error;
    enum mf_status status = json_is_object(value) ? reading->make(reading->context, value, &request, &error)
                                                  : mf_error_set(&error, MF_ERROR_INVALID_JSON,
                                                                 "a request is a JSON object, this is %s",
                                                                 mf_json_type_name(value));
    if (!status)
        status = mf_request_validate(&request, &error);
    if (!status)
        status = keep_request(reading->batch, &request, row, &error);
    if (status)
        mf_batch_row_fail(row, &error);
    mf_request_free(&request);
}

static enum mf_status read_lines(const struct reading *reading, const char *path, FILE *file,
                                 struct mf_error *error) {
    enum mf_status status = MF_OK;
    struct mf_error fault;
    char *line = NULL;
    size_t room = 0, number = 0;
    ssize_t length;
    while (!status && (length = getline(&line, &room, file)) >= 0) {
        number++;
        if (line[strspn(line, " \t\r\n")] == 0 && memchr(line, 0, (size_t)length) == NULL)
            continue; /* an empty line */
        json_t *value = NULL;
        struct mf_batch_row *row = add_row(reading->batch, format_origin(path, number), error);
        if (!row) {
            status = error->status;
        } else if (length > MF_FORM_BYTES) {
            mf_error_set(&fault, MF_ERROR_MESSAGE_TOO_LARGE, "the line has more than %d bytes",
                         MF_FORM_BYTES);
            mf_batch_row_fail(row, &fault);
        } else if (mf_json_parse(line, (size_t)length, "the line", &value, &fault)) {
            mf_batch_row_fail(row, &fault);
        } else {
            take_value(reading, row, value);
        }
        json_decref(value);
    }
    if (!status && ferror(file))
        status = mf_error_errno(error, errno, "%s", path);
    free(line);
    return status;
}

static int is_json_file(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);
    return entry->d_name[0] != '.' && length > 5 && !strcmp(entry->d_name + length - 5, ".json");
}

static enum mf_status read_folder(const struct reading *reading, const char *path, struct mf_error *error) {
    enum mf_status status = MF_OK;
    struct mf_error fault;
    struct dirent **entry = NULL;
    int entries = scandir(path, &entry, is_json_file, alphasort);
    if (entries < 0)
        return mf_error_errno(error, errno, "%s", path);
    for (int i = 0; i < entries; i++) {
        struct mf_text name = {0};
        mf_text_printf(&name, "%s/%s", path, entry[i]->d_name);
        json_t *value = NULL;
        struct mf_batch_row *row = status ? NULL : add_row(reading->batch, mf_text_take(&name), error);
        if (!row)
            status = error->status;
        else if (mf_form_read(row->origin, &value, &fault))
            mf_batch_row_fail(row, &fault);
        else
            take_value(reading, row, value);
        json_decref(value);
        mf_text_free(&name);
        free(entry[i]);
    }
    free(entry);
    return status;
}

enum mf_status mf_batch_read(const char *path, mf_batch_make *make, void *context, struct mf_batch *batch,
                             struct mf_error *error) {
    enum mf_status status;
    struct stat facts;
    const struct reading reading = {batch, make, context};
    *batch = (struct mf_batch){0};
    if (!strcmp(path, "-")) {
        status = read_lines(&reading, path, stdin, error);
    } else if (stat(path, &facts) != 0) {
        return mf_error_errno(error, errno, "%s", path);
    } else if (S_ISDIR(facts.st_mode)) {
        status = read_folder(&reading, path, error);
    } else {
        FILE *file = fopen(path, "re");
        if (!file)
            return mf_error_errno(error, errno, "%s", path);
        status = read_lines(&reading, path, file, error);
        fclose(file);
    }
    if (!status && batch->rows == 0)
        status = mf_error_set(error, MF_ERROR_MISSING_FIELD,
                              "%s: no request in it; a batch is a JSONL file, one request a line, or a "
                              "folder of .json files",
                              path);
    return status;
}

/* ---- names ---- */

static int by_name(const void *left, const void *right) {
    const struct mf_batch_row *a = *(struct mf_batch_row *const *)left,
                              *b = *(struct mf_batch_row *const *)right;
    int order = strcmp(a->tenant, b->tenant);
    if (!order)
        order = strcmp(a->request_id, b->request_id);
    return order ? order : (a > b) - (a < b); /* the order of the source */
}

static bool same_name(const struct mf_batch_row *a, const struct mf_batch_row *b) {
    return !strcmp(a->tenant, b->tenant) && !strcmp(a->request_id, b->request_id);
}

/* The k-th of equal stems gets "-k" from the second on. */
static enum mf_status number_equal(struct mf_batch_row **row, size_t count, struct mf_error *error) {
    qsort(row, count, sizeof(struct mf_batch_row *), by_name);
    for (size_t first = 0, at = 1; at < count; at++) {
        if (!same_name(row[first], row[at])) {
            first = at;
            continue;
        }
        struct mf_text text = {0};
        mf_text_printf(&text, "%s-%zu", row[at]->request_id, at - first + 1);
        if (mf_text_status(&text, error))
            return error->status;
        free(row[at]->request_id);
        row[at]->request_id = mf_text_take(&text);
    }
    return MF_OK;
}

static void fail_repeat(struct mf_batch_row *row, const struct mf_batch_row *before) {
    struct mf_error fault;
    mf_error_set(&fault, MF_ERROR_CONFLICTING_FIELDS,
                 "request_id '%s' is that of %s too; give each its own, or leave it out", row->request_id,
                 before->origin);
    mf_batch_row_fail(row, &fault);
}

/* Every row without fault knows its job's id; a form of id that is too long by now is a fault. */
static void name_job(struct mf_batch_row *row) {
    struct mf_error fault;
    enum mf_status status =
        mf_request_id_valid(row->request_id)
            ? mf_job_id(row->tenant, row->request_id, 1, row->job_id, &fault)
            : mf_error_set(&fault, MF_ERROR_INVALID_FIELD,
                           "request_id '%.250s' is longer than 200 bytes; take a shorter batch_id",
                           row->request_id);
    if (status)
        mf_batch_row_fail(row, &fault);
}

/* Row by row those without fault, only the named ones when `named`. Returns how many. */
static size_t select_rows(struct mf_batch *batch, bool named, struct mf_batch_row **row) {
    size_t count = 0;
    for (size_t i = 0; i < batch->rows; i++)
        if (!batch->row[i].faulty && (batch->row[i].named || !named))
            row[count++] = &batch->row[i];
    return count;
}

enum mf_status mf_batch_name_requests(struct mf_batch *batch, struct mf_error *error) {
    struct mf_batch_row **row = calloc(batch->rows, sizeof(struct mf_batch_row *));
    if (!row)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for %zu names", batch->rows);
    enum mf_status status = number_equal(row, select_rows(batch, true, row), error);
    size_t count = status ? 0 : select_rows(batch, false, row);
    for (size_t i = 0; i < count; i++)
        name_job(row[i]);
    count = status ? 0 : select_rows(batch, false, row);
    qsort(row, count, sizeof(struct mf_batch_row *), by_name);
    for (size_t first = 0, i = 1; i < count; i++)
        if (same_name(row[first], row[i]))
            fail_repeat(row[i], row[i - 1]);
        else
            first = i;
    free(row);
    return status;
}

enum mf_status mf_batch_request(const struct mf_batch_row *row, struct mf_request *request,
                                struct mf_error *error) {
    enum mf_status status = mf_request_from_text(row->json, strlen(row->json), row->origin, request, error);
    if (!status && !(request->request_id = strdup(row->request_id)))
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a request");
    return status;
}

void mf_batch_row_fail(struct mf_batch_row *row, const struct mf_error *error) {
    char text[MF_ERROR_TEXT_BYTES + 64];
    free(row->fault);
    row->faulty = true;
    row->fault = strdup(mf_error_format(error, text, sizeof text));
}
