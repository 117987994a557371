/* The outbox: what waits for Kafka. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

static void free_row(struct mf_outbox_row *row) {
    free(row->tenant);
    free(row->request_id);
    free(row->type);
    free(row->state);
    free(row->detail);
    free(row->code);
    free(row->reason);
    free(row->source_topic);
    free(row->key);
    free(row->value);
}

void mf_outbox_rows_free(struct mf_outbox_rows *rows) {
    for (size_t i = 0; rows->row && i < rows->count; i++)
        free_row(&rows->row[i]);
    free(rows->row);
    *rows = (struct mf_outbox_rows){0};
}

static enum mf_status lock_query(struct mf_database *database, enum mf_query query, int shard, bool *done,
                                 struct mf_error *error) {
    const struct mf_parameter number = mf_parameter_integer(shard);
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, query, &number, 1, &rows, error);
    *done = !status && mf_result_boolean(rows, 0, 0);
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_outbox_lock(struct mf_database *database, int shard, bool *held,
                                    struct mf_error *error) {
    return lock_query(database, MF_QUERY_OUTBOX_LOCK, shard, held, error);
}

enum mf_status mf_store_outbox_unlock(struct mf_database *database, int shard, struct mf_error *error) {
    bool was_held;
    return lock_query(database, MF_QUERY_OUTBOX_UNLOCK, shard, &was_held, error);
}

/* A cell into *copy; false: no memory. */
static bool take(const struct pg_result *rows, int row, int column, char **copy) {
    *copy = mf_result_copy(rows, row, column);
    return *copy || mf_result_null(rows, row, column);
}

static bool read_event(const struct pg_result *rows, int i, struct mf_outbox_row *row) {
    row->kind = MF_OUTBOX_EVENT;
    snprintf(row->event_id, sizeof row->event_id, "%s", mf_result_text(rows, i, 1));
    snprintf(row->job_id, sizeof row->job_id, "%s", mf_result_text(rows, i, 2));
    row->sequence = mf_result_integer(rows, i, 7);
    row->attempt = mf_count_or_none(rows, i, 8);
    row->step = mf_count_or_none(rows, i, 9);
    row->occurred_at = mf_result_time(rows, i, 11);
    return take(rows, i, 3, &row->tenant) && take(rows, i, 4, &row->request_id) &&
           take(rows, i, 5, &row->type) && take(rows, i, 6, &row->state) && take(rows, i, 10, &row->detail);
}

static bool read_dead_letter(const struct pg_result *rows, int i, struct mf_outbox_row *row) {
    row->kind = MF_OUTBOX_DEAD_LETTER;
    row->reject_id = mf_result_integer(rows, i, 1);
    row->source_partition = (int32_t)mf_result_integer(rows, i, 5);
    row->source_offset = mf_result_integer(rows, i, 6);
    return take(rows, i, 2, &row->code) && take(rows, i, 3, &row->reason) &&
           take(rows, i, 4, &row->source_topic) && mf_result_bytes(rows, i, 7, &row->key, &row->key_size) &&
           mf_result_bytes(rows, i, 8, &row->value, &row->value_size);
}

enum mf_status mf_store_outbox_fetch(struct mf_database *database, int shard, enum mf_outbox_kind kind,
                                     int64_t after, size_t limit, struct mf_outbox_rows *rows,
                                     struct mf_error *error) {
    struct pg_result *found = NULL;
    bool events = kind == MF_OUTBOX_EVENT;
    const struct mf_parameter parameters[] = {mf_parameter_integer(shard), mf_parameter_integer(after),
                                              mf_parameter_integer((int64_t)limit),
                                              mf_parameter_integer(MF_REJECT_INLINE_BYTES)};
    *rows = (struct mf_outbox_rows){0};
    enum mf_status status = mf_database_query(
        database, events ? MF_QUERY_OUTBOX_FETCH_EVENTS : MF_QUERY_OUTBOX_FETCH_DEAD_LETTERS, parameters,
        events ? 3 : 4, &found, error);
    size_t count = status ? 0 : (size_t)mf_result_rows(found);
    bool ok = true;
    if (count) {
        rows->row = calloc(count, sizeof *rows->row);
        ok = rows->row != NULL;
    }
    for (size_t i = 0; ok && i < count; i++) {
        struct mf_outbox_row *row = &rows->row[i];
        row->id = mf_result_integer(found, (int)i, 0);
        rows->count++;
        ok = events ? read_event(found, (int)i, row) : read_dead_letter(found, (int)i, row);
    }
    mf_result_free(found);
    if (!ok) {
        mf_outbox_rows_free(rows);
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for outbox rows");
    }
    return status;
}

enum mf_status mf_store_outbox_delivered(struct mf_database *database, const int64_t *ids, size_t count,
                                         struct mf_error *error) {
    struct mf_array list = {0};
    for (size_t i = 0; i < count; i++)
        mf_array_integer(&list, ids[i]);
    const struct mf_parameter parameter = mf_array_parameter(&list);
    enum mf_status status =
        count ? mf_database_query(database, MF_QUERY_OUTBOX_DELIVERED, &parameter, 1, NULL, error) : MF_OK;
    mf_array_free(&list);
    return status;
}

enum mf_status mf_store_outbox_park(struct mf_database *database, int64_t id, const char *reason,
                                    struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_integer(id), mf_parameter_text(reason)};
    return mf_database_query(database, MF_QUERY_OUTBOX_PARK, parameters, 2, NULL, error);
}

enum mf_status mf_store_outbox_depth(struct mf_database *database, int64_t *waiting, int64_t *parked,
                                     struct mf_error *error) {
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_OUTBOX_DEPTH, NULL, 0, &rows, error);
    *waiting = status ? 0 : mf_result_integer(rows, 0, 0);
    *parked = status ? 0 : mf_result_integer(rows, 0, 1);
    mf_result_free(rows);
    return status;
}
