/* From Kafka into the tables: one transaction a batch and partition. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql/store_private.h"

/* Part of a batch that becomes one transaction. */
struct range {
    struct mf_ingest_batch *batch;
    size_t first, count;
    int64_t expected, next;
    const char *unstorable; /* the range is one record that PostgreSQL refused for this reason */
    /* of the running transaction */
    bool moved_elsewhere;
    struct mf_count_changes changes;
    struct mf_array accepted; /* job ids */
    size_t accepted_count;
};

enum mf_status mf_store_key_hash(const void *key, size_t size, unsigned char hash[MF_SHA256_BYTES],
                                 struct mf_error *error) {
    return mf_sha256(key ? key : "", key ? size : 0, hash, error);
}

static struct mf_ingest_record *record_at(const struct range *range, size_t i) {
    return &range->batch->records[range->first + i];
}

/* ---- the offset ---- */

static enum mf_status move_offset(struct mf_database *database, struct range *range, struct mf_error *error) {
    const struct mf_ingest_batch *batch = range->batch;
    const struct mf_ingest_record *last = range->count ? record_at(range, range->count - 1) : NULL;
    unsigned char hash[MF_SHA256_BYTES];
    struct pg_result *rows = NULL;
    enum mf_status status = last ? mf_store_key_hash(last->key, last->key_size, hash, error) : MF_OK;
    if (status)
        return status;
    const struct mf_parameter parameters[] = {mf_parameter_text(batch->cluster_id),
                                              mf_parameter_text(batch->topic),
                                              mf_parameter_integer(batch->partition),
                                              mf_parameter_integer(range->next),
                                              last ? mf_parameter_integer(last->offset) : mf_parameter_null(),
                                              mf_parameter_time(last ? last->timestamp : MF_TIME_NONE),
                                              mf_parameter_bytes(last ? hash : NULL, sizeof hash),
                                              mf_parameter_integer(range->expected)};
    if (range->expected == MF_OFFSET_NONE)
        status = mf_database_query(database, MF_QUERY_INGEST_OFFSET_INSERT, parameters, 7, &rows, error);
    else
        status = mf_database_query(database, MF_QUERY_INGEST_OFFSET_ADVANCE, parameters, 8, &rows, error);
    if (!status)
        range->moved_elsewhere = mf_result_rows(rows) == 0;
    mf_result_free(rows);
    return status;
}

/* ---- rejects ---- */

static enum mf_status reject(struct mf_database *database, const struct range *range,
                             struct mf_ingest_record *record, enum mf_status code, const char *reason,
                             struct mf_error *error) {
    unsigned char hash[MF_SHA256_BYTES];
    bool inline_value = record->value && record->value_size <= MF_REJECT_INLINE_BYTES;
    char *clean = mf_clean_text(reason ? reason : mf_status_meaning(code));
    enum mf_status status = mf_store_key_hash(record->value, record->value_size, hash, error);
    if (!status && !clean)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a reject");
    const struct mf_parameter parameters[] = {
        mf_parameter_text(range->batch->cluster_id),
        mf_parameter_text(range->batch->topic),
        mf_parameter_integer(range->batch->partition),
        mf_parameter_integer(record->offset),
        mf_parameter_time(record->timestamp),
        mf_parameter_text(mf_status_code(code)),
        mf_parameter_text(clean),
        mf_parameter_bytes(record->key, record->key_size),
        mf_parameter_bytes(inline_value ? record->value : NULL, record->value_size),
        mf_parameter_integer((int64_t)record->value_size),
        mf_parameter_bytes(hash, sizeof hash)};
    if (!status)
        status = mf_database_query(database, MF_QUERY_INGEST_REJECT, parameters, MF_COUNT(parameters), NULL,
                                   error);
    free(clean);
    if (!status) {
        record->fate = MF_FATE_REJECTED;
        record->code = code;
    }
    return status;
}

/* ---- requests ---- */

enum { REQUEST_ARRAYS = 19 };

static enum mf_status add_request(struct mf_array *arrays, size_t ordinal,
                                  const struct mf_ingest_record *record, struct mf_error *error) {
    const struct mf_ingest_request *request = &record->request;
    unsigned char hash[MF_SHA256_BYTES];
    enum mf_status status = mf_store_key_hash(record->value, record->value_size, hash, error);
    if (status)
        return status;
    struct mf_array *next = arrays;
    mf_array_integer(next++, (int64_t)ordinal);
    mf_array_text(next++, request->job_id);
    mf_array_text(next++, request->tenant);
    mf_array_text(next++, request->request_id);
    mf_array_text(next++, request->request_hash);
    mf_array_text(next++, request->config);
    mf_array_text(next++, request->provider);
    mf_array_text(next++, request->batch_id);
    mf_array_text(next++, request->submitted_by);
    mf_array_text(next++, request->trace_context);
    mf_array_time(next++, request->run_at);
    mf_array_time(next++, request->deadline);
    mf_array_integer(next++, request->priority);
    mf_array_integer(next++, request->devices);
    mf_array_integer(next++, request->max_attempts);
    mf_array_integer(next++, request->schema_id);
    mf_array_bytes(next++, hash, sizeof hash);
    mf_array_integer(next++, record->offset);
    mf_array_time(next++, record->timestamp);
    return MF_OK;
}

/* Marks what became a job; the others keep MF_FATE_NONE. */
static enum mf_status insert_requests(struct mf_database *database, struct range *range,
                                      struct mf_array *arrays, struct mf_error *error) {
    struct mf_parameter parameters[REQUEST_ARRAYS + 2] = {mf_parameter_text(range->batch->topic),
                                                          mf_parameter_integer(range->batch->partition)};
    struct pg_result *rows = NULL;
    for (size_t i = 0; i < REQUEST_ARRAYS; i++)
        parameters[i + 2] = mf_array_parameter(&arrays[i]);
    enum mf_status status =
        mf_database_query(database, MF_QUERY_INGEST_REQUESTS, parameters, MF_COUNT(parameters), &rows, error);
    for (int row = 0; !status && row < mf_result_rows(rows); row++) {
        struct mf_ingest_record *record = record_at(range, (size_t)mf_result_integer(rows, row, 0));
        record->fate = MF_FATE_ACCEPTED;
        mf_array_text(&range->accepted, record->request.job_id);
        range->accepted_count++;
        mf_count_changes_add(&range->changes, record->request.provider, record->request.tenant,
                             mf_result_boolean(rows, row, 1), 0);
    }
    mf_result_free(rows);
    return status;
}

/* The requests that made no job: known with the same hash, or a conflict. */
static enum mf_status judge_known(struct mf_database *database, struct range *range, struct mf_error *error) {
    struct mf_array arrays[4] = {0};
    struct pg_result *rows = NULL;
    size_t asked = 0;
    enum mf_status status = MF_OK;
    for (size_t i = 0; i < range->count; i++) {
        const struct mf_ingest_record *record = record_at(range, i);
        if (record->kind != MF_INGEST_REQUEST || record->fate != MF_FATE_NONE)
            continue;
        mf_array_integer(&arrays[0], (int64_t)i);
        mf_array_text(&arrays[1], record->request.tenant);
        mf_array_text(&arrays[2], record->request.request_id);
        mf_array_text(&arrays[3], record->request.request_hash);
        asked++;
    }
    if (!asked)
        return MF_OK;
    const struct mf_parameter parameters[] = {mf_array_parameter(&arrays[0]), mf_array_parameter(&arrays[1]),
                                              mf_array_parameter(&arrays[2]), mf_array_parameter(&arrays[3])};
    status = mf_database_query(database, MF_QUERY_INGEST_KNOWN, parameters, 4, &rows, error);
    if (!status && (size_t)mf_result_rows(rows) != asked)
        status = mf_error_set(error, MF_ERROR_INTERNAL, "a request is neither new nor known");
    for (int row = 0; !status && row < mf_result_rows(rows); row++) {
        struct mf_ingest_record *record = record_at(range, (size_t)mf_result_integer(rows, row, 0));
        if (mf_result_boolean(rows, row, 1)) {
            record->fate = MF_FATE_DUPLICATE;
            continue;
        }
        char reason[512];
        snprintf(
            reason, sizeof reason,
            "request_id '%s' of tenant '%s' was used before with another content: choose a new request_id",
            record->request.request_id, record->request.tenant);
        status = reject(database, range, record, MF_ERROR_REQUEST_CONFLICT, reason, error);
    }
    mf_result_free(rows);
    for (size_t i = 0; i < MF_COUNT(arrays); i++)
        mf_array_free(&arrays[i]);
    return status;
}

static enum mf_status take_requests(struct mf_database *database, struct range *range,
                                    struct mf_error *error) {
    struct mf_array arrays[REQUEST_ARRAYS] = {0};
    bool any = false;
    enum mf_status status = MF_OK;
    for (size_t i = 0; !status && i < range->count; i++)
        if (record_at(range, i)->kind == MF_INGEST_REQUEST) {
            status = add_request(arrays, i, record_at(range, i), error);
            any = true;
        }
    if (!status && any)
        status = insert_requests(database, range, arrays, error);
    if (!status && range->accepted_count) {
        const struct mf_parameter ids = mf_array_parameter(&range->accepted);
        status = mf_database_query(database, MF_QUERY_INGEST_AUDIT, &ids, 1, NULL, error);
    }
    if (!status && any)
        status = judge_known(database, range, error);
    for (size_t i = 0; i < REQUEST_ARRAYS; i++)
        mf_array_free(&arrays[i]);
    return status;
}

/* ---- commands ---- */

static enum mf_status take_command(struct mf_database *database, struct range *range,
                                   struct mf_ingest_record *record, struct mf_error *error) {
    struct mf_error refusal = {.status = MF_OK};
    enum mf_status status =
        mf_command_take(database, &record->command, &range->changes, &record->fate, &refusal, error);
    if (!status && refusal.status)
        status = reject(database, range, record, refusal.status, refusal.message, error);
    return status;
}

/* ---- the transaction ---- */

static enum mf_status take_others(struct mf_database *database, struct range *range, struct mf_error *error) {
    enum mf_status status = MF_OK;
    for (size_t i = 0; !status && i < range->count; i++) {
        struct mf_ingest_record *record = record_at(range, i);
        if (record->kind == MF_INGEST_REJECT)
            status = reject(database, range, record, record->reject_status, record->reject_reason, error);
        else if (record->kind == MF_INGEST_COMMAND)
            status = take_command(database, range, record, error);
    }
    return status;
}

static enum mf_status take_range(struct mf_database *database, void *context, struct mf_error *error) {
    struct range *range = context;
    mf_array_free(&range->accepted);
    mf_count_changes_free(&range->changes);
    range->accepted_count = 0;
    for (size_t i = 0; i < range->count; i++) {
        record_at(range, i)->fate = MF_FATE_NONE;
        record_at(range, i)->code = MF_OK;
    }
    enum mf_status status = move_offset(database, range, error);
    if (status || range->moved_elsewhere)
        return status;
    if (range->unstorable)
        return reject(database, range, record_at(range, 0), MF_ERROR_UNSTORABLE, range->unstorable, error);
    status = take_requests(database, range, error);
    if (!status && range->accepted_count) {
        const struct mf_parameter ids = mf_array_parameter(&range->accepted);
        status = mf_apply_waiting_commands(database, &ids, &range->changes, error);
    }
    if (!status)
        status = take_others(database, range, error);
    if (!status)
        status = mf_count_changes_write(database, &range->changes, error);
    return status;
}

/* Applies [first, first + count), in halves when PostgreSQL refuses a value. */
static enum mf_status apply_range(struct mf_database *database, struct range range, bool *applied,
                                  struct mf_error *error) {
    struct mf_error refusal;
    enum mf_status status = mf_database_transaction(database, take_range, &range, &refusal);
    if (status) {
        for (size_t i = 0; i < range.count; i++)
            record_at(&range, i)->fate = MF_FATE_NONE;
    }
    mf_array_free(&range.accepted);
    mf_count_changes_free(&range.changes);
    *applied = !status && !range.moved_elsewhere;
    if (status != MF_ERROR_UNSTORABLE || range.unstorable || !range.count) {
        if (status)
            mf_error_set(error, status, "%s", refusal.message);
        return status;
    }
    struct range part = {.batch = range.batch, .first = range.first, .expected = range.expected};
    if (range.count == 1) {
        part.count = 1;
        part.next = range.next;
        part.unstorable = refusal.message;
        return apply_range(database, part, applied, error);
    }
    part.count = range.count / 2;
    part.next = record_at(&range, part.count - 1)->offset + 1;
    status = apply_range(database, part, applied, error);
    if (status || !*applied)
        return status;
    struct range rest = {.batch = range.batch,
                         .first = part.first + part.count,
                         .count = range.count - part.count,
                         .expected = part.next,
                         .next = range.next};
    return apply_range(database, rest, applied, error);
}

enum mf_status mf_store_ingest_batch(struct mf_database *database, struct mf_ingest_batch *batch,
                                     bool *applied, struct mf_error *error) {
    struct range whole = {
        .batch = batch, .count = batch->count, .expected = batch->expected, .next = batch->next};
    *applied = false;
    for (size_t i = 0; i < batch->count; i++)
        batch->records[i].fate = MF_FATE_NONE;
    return apply_range(database, whole, applied, error);
}

/* ---- offsets ---- */

static enum mf_status read_offset(const struct pg_result *rows, int row, struct mf_ingest_offset *offset,
                                  struct mf_error *error) {
    unsigned char *hash = NULL;
    size_t size = 0;
    *offset = (struct mf_ingest_offset){
        .partition = (int32_t)mf_result_integer(rows, row, 0),
        .next = mf_result_null(rows, row, 1) ? MF_OFFSET_NONE : mf_result_integer(rows, row, 1),
        .anchor_offset = mf_result_null(rows, row, 2) ? MF_OFFSET_NONE : mf_result_integer(rows, row, 2),
        .anchor_timestamp = mf_result_time(rows, row, 3),
        .halted = mf_result_boolean(rows, row, 5)};
    if (!mf_result_bytes(rows, row, 4, &hash, &size))
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for offsets");
    if (hash && size == MF_SHA256_BYTES)
        memcpy(offset->anchor_key_hash, hash, size);
    free(hash);
    return MF_OK;
}

enum mf_status mf_store_read_offsets(struct mf_database *database, const char *cluster_id, const char *topic,
                                     struct mf_ingest_offset **offsets, size_t *count,
                                     struct mf_error *error) {
    struct pg_result *rows = NULL;
    const struct mf_parameter parameters[] = {mf_parameter_text(cluster_id), mf_parameter_text(topic)};
    *offsets = NULL;
    *count = 0;
    enum mf_status status =
        mf_database_query(database, MF_QUERY_INGEST_OFFSETS_READ, parameters, 2, &rows, error);
    size_t found = status ? 0 : (size_t)mf_result_rows(rows);
    struct mf_ingest_offset *list = found ? calloc(found, sizeof *list) : NULL;
    if (found && !list) {
        mf_result_free(rows);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for offsets");
    }
    for (size_t i = 0; list && !status && i < found; i++)
        status = read_offset(rows, (int)i, &list[i], error);
    mf_result_free(rows);
    if (status) {
        free(list);
        return status;
    }
    *offsets = list;
    *count = found;
    return MF_OK;
}

enum mf_status mf_store_halt_partition(struct mf_database *database, const char *cluster_id,
                                       const char *topic, int32_t partition, const char *kind,
                                       int64_t expected, int64_t found, const char *detail,
                                       struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_text(cluster_id),   mf_parameter_text(topic),
                                              mf_parameter_integer(partition), mf_parameter_text(kind),
                                              mf_parameter_integer(expected),  mf_parameter_integer(found),
                                              mf_parameter_text(detail)};
    return mf_database_query(database, MF_QUERY_INGEST_HALT, parameters, MF_COUNT(parameters), NULL, error);
}

struct reset {
    const char *cluster_id, *topic, *by;
    int32_t partition;
    int64_t next;
};

static enum mf_status reset_partition(struct mf_database *database, void *context, struct mf_error *error) {
    const struct reset *reset = context;
    struct pg_result *result;
    const struct mf_parameter gap[] = {mf_parameter_text(reset->cluster_id), mf_parameter_text(reset->topic),
                                       mf_parameter_integer(reset->partition), mf_parameter_text(reset->by),
                                       mf_parameter_integer(reset->next)};
    const struct mf_parameter offset[] = {gap[0], gap[1], gap[2], gap[4]};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_INGEST_RESET_GAP, gap, MF_COUNT(gap), &result, error);
    if (status)
        return status;
    int rows = mf_result_rows(result);
    mf_result_free(result);
    if (!rows)
        return mf_error_set(error, MF_ERROR_NOT_FOUND, "partition %d of topic '%s' is not halted",
                            reset->partition, reset->topic);
    return mf_database_query(database, MF_QUERY_INGEST_RESET_OFFSET, offset, MF_COUNT(offset), NULL, error);
}

enum mf_status mf_store_reset_partition(struct mf_database *database, const char *cluster_id,
                                        const char *topic, int32_t partition, int64_t next, const char *by,
                                        struct mf_error *error) {
    struct reset reset = {cluster_id, topic, by, partition, next};
    return mf_database_transaction(database, reset_partition, &reset, error);
}
