/* What the storage need not keep, by the database's word. */
#include "sql/store_private.h"

static enum mf_status ask_lock(struct mf_database *database, enum mf_query query, bool *held,
                               struct mf_error *error) {
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, query, NULL, 0, &rows, error);
    *held = !status && mf_result_boolean(rows, 0, 0);
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_collect_lock(struct mf_database *database, bool *held, struct mf_error *error) {
    return ask_lock(database, MF_QUERY_COLLECT_LOCK, held, error);
}

enum mf_status mf_store_collect_unlock(struct mf_database *database, struct mf_error *error) {
    bool was_held;
    return ask_lock(database, MF_QUERY_COLLECT_UNLOCK, &was_held, error);
}

enum mf_status mf_store_superseded(struct mf_database *database, int64_t keep_s, struct mf_text_table *table,
                                   struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_integer(keep_s)};
    return mf_read_table(database, MF_QUERY_COLLECT_SUPERSEDED, parameters, 1, table, error);
}

enum mf_status mf_store_collect_mark(struct mf_database *database, int64_t keep_s, struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_parameter_integer(keep_s)};
    struct pg_result *rows = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_COLLECT_MARK, parameters, 1, &rows, error);
    mf_result_free(rows);
    return status;
}

enum mf_status mf_store_collect_marked(struct mf_database *database, struct mf_text_table *table,
                                       struct mf_error *error) {
    return mf_read_table(database, MF_QUERY_COLLECT_MARKED, NULL, 0, table, error);
}

enum mf_status mf_store_collect_removed(struct mf_database *database, struct mf_array *uris,
                                        struct mf_error *error) {
    const struct mf_parameter parameters[] = {mf_array_parameter(uris)};
    struct pg_result *rows = NULL;
    enum mf_status status =
        mf_database_query(database, MF_QUERY_COLLECT_REMOVED, parameters, 1, &rows, error);
    mf_result_free(rows);
    return status;
}

void mf_storage_entries_add(struct mf_storage_entries *entries, const char *attempt_id, const char *uri,
                            int64_t size_bytes) {
    mf_array_text(&entries->attempt_id, attempt_id);
    mf_array_text(&entries->uri, uri);
    mf_array_integer(&entries->size_bytes, size_bytes);
    entries->count++;
}

void mf_storage_entries_free(struct mf_storage_entries *entries) {
    mf_array_free(&entries->attempt_id);
    mf_array_free(&entries->uri);
    mf_array_free(&entries->size_bytes);
    entries->count = 0;
}

enum mf_status mf_store_orphans(struct mf_database *database, struct mf_storage_entries *entries,
                                int64_t keep_s, struct mf_text_table *table, struct mf_error *error) {
    const struct mf_parameter parameters[] = {
        mf_array_parameter(&entries->attempt_id), mf_array_parameter(&entries->uri),
        mf_array_parameter(&entries->size_bytes), mf_parameter_integer(keep_s)};
    return mf_read_table(database, MF_QUERY_COLLECT_ORPHANS, parameters, 4, table, error);
}
