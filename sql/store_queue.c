/* Caps and weights of the queues that tenants have. */
#include "sql/store_private.h"

enum mf_status mf_store_queues(struct mf_database *database, const char *tenant, struct mf_text_table *table,
                               struct mf_error *error) {
    const struct mf_parameter parameter = mf_parameter_text(tenant);
    return mf_read_table(database, MF_QUERY_READ_QUEUES, &parameter, 1, table, error);
}

enum mf_status mf_store_set_queue(struct mf_database *database, const char *provider, const char *tenant,
                                  const struct mf_queue_change *change, const char *by,
                                  struct mf_queue_limits *limits, struct mf_error *error) {
    struct pg_result *rows = NULL;
    const struct mf_parameter parameters[] = {
        mf_parameter_text(provider),
        mf_parameter_text(tenant),
        mf_parameter_boolean(change->cap_given),
        change->cap == MF_CAP_NONE ? mf_parameter_null() : mf_parameter_integer(change->cap),
        change->weight_given ? mf_parameter_number(change->weight) : mf_parameter_null(),
        mf_parameter_text(by)};
    enum mf_status status =
        mf_database_query(database, MF_QUERY_QUEUE_SET, parameters, MF_COUNT(parameters), &rows, error);
    if (!status)
        *limits = (struct mf_queue_limits){
            .cap = mf_result_null(rows, 0, 0) ? MF_CAP_NONE : (int32_t)mf_result_integer(rows, 0, 0),
            .weight = mf_result_number(rows, 0, 1),
            .offered = mf_result_boolean(rows, 0, 2)};
    mf_result_free(rows);
    return status;
}
