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
        json_decref(batch->row[i].object);
        mf_request_free(&batch->row[i].request);
    }
    free(batch->row);
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

static void must_be_object(struct mf_batch_row *row) {
    if (!row->error.status && !json_is_object(row->object))
        mf_error_set(&row->error, MF_ERROR_INVALID_JSON, "a request is a JSON object, this is %s",
                     mf_json_type_name(row->object));
}

static enum mf_status read_lines(const char *path, FILE *file, struct mf_batch *batch,
                                 struct mf_error *error) {
    enum mf_status status = MF_OK;
    char *line = NULL;
    size_t room = 0, number = 0;
    ssize_t length;
    while (!status && (length = getline(&line, &room, file)) >= 0) {
        number++;
        if (line[strspn(line, " \t\r\n")] == 0 && memchr(line, 0, (size_t)length) == NULL)
            continue; /* an empty line */
        struct mf_batch_row *row = add_row(batch, format_origin(path, number), error);
        if (!row)
            status = error->status;
        else if (length > MF_FORM_BYTES)
            mf_error_set(&row->error, MF_ERROR_MESSAGE_TOO_LARGE, "the line has more than %d bytes",
                         MF_FORM_BYTES);
        else if (!mf_json_parse(line, (size_t)length, "the line", &row->object, &row->error))
            must_be_object(row);
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

static enum mf_status read_folder(const char *path, struct mf_batch *batch, struct mf_error *error) {
    enum mf_status status = MF_OK;
    struct dirent **entry = NULL;
    int entries = scandir(path, &entry, is_json_file, alphasort);
    if (entries < 0)
        return mf_error_errno(error, errno, "%s", path);
    for (int i = 0; i < entries; i++) {
        struct mf_text name = {0};
        mf_text_printf(&name, "%s/%s", path, entry[i]->d_name);
        struct mf_batch_row *row = status ? NULL : add_row(batch, mf_text_take(&name), error);
        if (!row)
            status = error->status;
        else if (!mf_form_read(row->origin, &row->object, &row->error))
            must_be_object(row);
        mf_text_free(&name);
        free(entry[i]);
    }
    free(entry);
    return status;
}

enum mf_status mf_batch_read(const char *path, struct mf_batch *batch, struct mf_error *error) {
    enum mf_status status;
    struct stat facts;
    *batch = (struct mf_batch){0};
    if (!strcmp(path, "-")) {
        status = read_lines(path, stdin, batch, error);
    } else if (stat(path, &facts) != 0) {
        return mf_error_errno(error, errno, "%s", path);
    } else if (S_ISDIR(facts.st_mode)) {
        status = read_folder(path, batch, error);
    } else {
        FILE *file = fopen(path, "re");
        if (!file)
            return mf_error_errno(error, errno, "%s", path);
        status = read_lines(path, file, batch, error);
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

/* Rows in the order of what they are compared by. */
struct named {
    struct mf_batch_row *row;
    const char *tenant;
    char *name; /* request id, or the stem of one */
    size_t place;
};

static int by_name(const void *left, const void *right) {
    const struct named *a = left, *b = right;
    int order = strcmp(a->tenant, b->tenant);
    if (!order)
        order = strcmp(a->name, b->name);
    return order ? order : (a->place > b->place) - (a->place < b->place);
}

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

/* The requests without an id, sorted: the k-th of equal ones gets "-k" from the second on. */
static enum mf_status give_names(struct named *named, size_t count, struct mf_error *error) {
    size_t same = 0;
    qsort(named, count, sizeof *named, by_name);
    for (size_t i = 0; i < count; i++) {
        struct mf_text text = {0};
        same = i > 0 && !strcmp(named[i].tenant, named[i - 1].tenant) &&
                       !strcmp(named[i].name, named[i - 1].name)
                   ? same + 1
                   : 1;
        mf_text_puts(&text, named[i].name);
        if (same > 1)
            mf_text_printf(&text, "-%zu", same);
        if (mf_text_status(&text, error))
            return error->status;
        named[i].row->request.request_id = mf_text_take(&text);
    }
    return MF_OK;
}

/* All rows, sorted by request id: equal neighbours are refused. */
static void refuse_repeats(struct named *named, size_t count) {
    qsort(named, count, sizeof *named, by_name);
    for (size_t i = 1; i < count; i++)
        if (!strcmp(named[i].tenant, named[i - 1].tenant) && !strcmp(named[i].name, named[i - 1].name))
            mf_error_set(&named[i].row->error, MF_ERROR_CONFLICTING_FIELDS,
                         "request_id '%s' is that of %s too; give each its own, or leave it out",
                         named[i].name, named[i - 1].row->origin);
}

enum mf_status mf_batch_name_requests(struct mf_batch *batch, struct mf_error *error) {
    enum mf_status status = MF_OK;
    size_t unnamed = 0, all = 0;
    struct named *named = calloc(batch->rows, sizeof *named);
    if (!named)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for %zu names", batch->rows);
    for (size_t i = 0; i < batch->rows && !status; i++) {
        struct mf_batch_row *row = &batch->row[i];
        if (row->error.status || row->request.request_id)
            continue;
        named[unnamed] = (struct named){row, row->request.tenant, NULL, i};
        if (!(status = make_stem(&row->request, &named[unnamed].name, error)))
            unnamed++;
    }
    if (!status)
        status = give_names(named, unnamed, error);
    for (size_t i = 0; i < unnamed; i++)
        free(named[i].name);
    for (size_t i = 0; i < batch->rows && !status; i++)
        if (!batch->row[i].error.status)
            named[all++] = (struct named){&batch->row[i], batch->row[i].request.tenant,
                                          batch->row[i].request.request_id, i};
    if (!status)
        refuse_repeats(named, all);
    free(named);
    return status;
}
