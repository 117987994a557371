/* A Kafka record to what PostgreSQL stores of it: a request, a command, or a reject with its reason. */
#ifndef MF_WORKER_DECODE_H
#define MF_WORKER_DECODE_H

#include "schemas/avro_codec.h"
#include "schemas/registry.h"
#include "sql/store.h"
#include "worker/settings.h"

#include <librdkafka/rdkafka.h>

/* One record on its way from the poll thread to the writer. Owns the message and all that `row` points to. */
struct mf_handed_record {
    rd_kafka_message_t *message;
    struct mf_request request;
    struct mf_command command;
    char *config, *trace_context;
    struct mf_error error; /* of a reject */
    struct mf_ingest_record row;
};

enum mf_decode_result {
    MF_DECODED,          /* `row` is complete: request, command or reject */
    MF_DECODE_NO_SCHEMA, /* its schema id is not known yet: ask the registry */
    MF_DECODE_NO_MEMORY
};

/* Looks at the message that record->message holds; never waits. `subject` is the topic's. With `give_up` an
 * unknown schema id is a reject. *schema_id is set for MF_DECODE_NO_SCHEMA. */
enum mf_decode_result mf_decode(struct mf_registry *registry, const struct mf_topic_rule *rule,
                                const char *subject, bool give_up, struct mf_handed_record *record,
                                uint32_t *schema_id);

size_t mf_handed_record_bytes(const struct mf_handed_record *record); /* a measure for bounds */
void mf_handed_record_free(struct mf_handed_record *record);          /* the struct too; NULL is allowed */

#endif
