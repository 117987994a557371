/* librdkafka clients from the kafka.* options. */
#ifndef MF_WORKER_KAFKA_H
#define MF_WORKER_KAFKA_H

#include "common/error.h"
#include "worker/worker.h"

#include <librdkafka/rdkafka.h>

/* What the worker itself decides; a kafka.* option with one of these names is MF_ERROR_CONFIGURATION. */
struct mf_kafka_property {
    const char *name, *value;
};

/* Makes a client: the worker's defaults (which kafka.* may override), then kafka.*, then `fixed` (ended by a
 * NULL name). `prepare` (may be NULL) sets callbacks. Errors and logs of the client go to the log and the
 * counters. */
enum mf_status mf_kafka_new(struct mf_worker *worker, rd_kafka_type_t type,
                            const struct mf_kafka_property *fixed, void (*prepare)(rd_kafka_conf_t *conf),
                            void *opaque, rd_kafka_t **client, struct mf_error *error);

/* Checks kafka.* once at start, so that a misspelt property stops the worker and not a thread of it. */
enum mf_status mf_kafka_check(struct mf_worker *worker, struct mf_error *error);

#endif
