/* Rejected records: reading them, and sending them again. */
#include <stdlib.h>

#include "sql/store_private.h"

enum mf_status mf_store_rejects(struct mf_database *database, const char *topic, const char *code,
                                size_t limit, struct mf_text_table *table, struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_text(topic), mf_parameter_text(code),
                                              mf_parameter_integer((int64_t)limit)};
    return mf_read_table(database, MF_QUERY_READ_REJECTS, parameters, MF_COUNT(parameters), table, error);
}

void mf_dead_letter_free(struct mf_dead_letter *letter) {
    free(letter->topic);
    free(letter->code);
    free(letter->reason);
    free(letter->key);
    free(letter->value);
    *letter = (struct mf_dead_letter){0};
}

enum mf_status mf_store_reject(struct mf_database *database, int64_t reject_id, struct mf_dead_letter *letter,
                               struct mf_error *error) {
    struct pg_result *rows = NULL;
    const struct mf_parameter id = mf_parameter_integer(reject_id);
    *letter = (struct mf_dead_letter){.reject_id = reject_id};
    enum mf_status status = mf_database_query(database, MF_QUERY_REJECT_READ, &id, 1, &rows, error);
    if (status)
        return status;
    if (!mf_result_rows(rows)) {
        status =
            mf_error_set(error, MF_ERROR_NOT_FOUND, "there is no dead letter %lld", (long long)reject_id);
        goto done;
    }
    letter->topic = mf_result_copy(rows, 0, 0);
    letter->partition = (int32_t)mf_result_integer(rows, 0, 1);
    letter->offset = mf_result_integer(rows, 0, 2);
    letter->code = mf_result_copy(rows, 0, 3);
    letter->reason = mf_result_copy(rows, 0, 4);
    letter->value_bytes = mf_result_integer(rows, 0, 5);
    letter->rejected_at = mf_result_time(rows, 0, 7);
    letter->replayed_at = mf_result_time(rows, 0, 8);
    if (!letter->topic || !letter->code || !letter->reason ||
        !mf_result_bytes(rows, 0, 9, &letter->key, &letter->key_size) ||
        !mf_result_bytes(rows, 0, 10, &letter->value, &letter->value_size))
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a dead letter");
    letter->kept = letter->value_bytes == 0 || mf_result_boolean(rows, 0, 11);
done:
    mf_result_free(rows);
    if (status)
        mf_dead_letter_free(letter);
    return status;
}

enum mf_status mf_store_rejects_to_replay(struct mf_database *database, const char *code, int64_t after,
                                          int64_t *ids, size_t limit, size_t *count, struct mf_error *error) {
    struct pg_result *rows = NULL;
    const struct mf_parameter parameters[] = {mf_parameter_text(code), mf_parameter_integer(after),
                                              mf_parameter_integer((int64_t)limit)};
    *count = 0;
    enum mf_status status = mf_database_query(database, MF_QUERY_REJECTS_TO_REPLAY, parameters,
                                              MF_COUNT(parameters), &rows, error);
    for (; !status && *count < (size_t)mf_result_rows(rows); ++*count)
        ids[*count] = mf_result_integer(rows, (int)*count, 0);
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_reject_replayed(struct mf_database *database, int64_t reject_id, const char *topic,
                                        int32_t partition, int64_t offset, const char *by,
                                        struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_integer(reject_id), mf_parameter_text(topic),
                                              mf_parameter_integer(partition), mf_parameter_integer(offset),
                                              mf_parameter_text(by)};
    return mf_database_query(database, MF_QUERY_REJECT_REPLAYED, parameters, MF_COUNT(parameters), NULL,
                             error);
}
