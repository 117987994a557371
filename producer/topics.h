/* Making and checking the topics that the contract needs. */
#ifndef MF_PRODUCER_TOPICS_H
#define MF_PRODUCER_TOPICS_H

#include "common/error.h"
#include "producer/client.h"

/* What a topic must be so that "acknowledged" means "kept": replication factor 3, min.insync.replicas 2,
 * cleanup.policy delete, retention of 7 days or more. */
enum { MF_TOPIC_REPLICATION = 3, MF_TOPIC_MIN_INSYNC = 2 };
#define MF_TOPIC_RETENTION_MS ((int64_t)7 * 24 * 3600 * 1000)

/* A connection for administration; one thread. */
struct mf_admin;
enum mf_status mf_admin_create(const struct mf_client_property *kafka, size_t count, struct mf_admin **admin,
                               struct mf_error *error);
void mf_admin_destroy(struct mf_admin *admin);

/* Makes a topic with the settings above (min.insync.replicas: one less than the replicas, 1 at least).
 * *created is false when it is there already; it is then left as it is. */
enum mf_status mf_admin_create_topic(struct mf_admin *admin, const char *topic, int partitions, int replicas,
                                     bool *created, struct mf_error *error);

struct mf_topic_state {
    bool exists;
    int partitions, replicas; /* replicas: the least of its partitions */
    int min_insync;
    bool compacted;
    int64_t retention_ms; /* -1: for ever */
};
/* MF_ERROR_KAFKA when the cluster cannot be reached. */
enum mf_status mf_admin_describe_topic(struct mf_admin *admin, const char *topic,
                                       struct mf_topic_state *state, struct mf_error *error);
/* How many brokers answer now. */
enum mf_status mf_admin_brokers(struct mf_admin *admin, int *brokers, struct mf_error *error);
/* The first offset that is there and the one after the last. */
enum mf_status mf_admin_watermarks(struct mf_admin *admin, const char *topic, int32_t partition, int64_t *low,
                                   int64_t *high, struct mf_error *error);
/* The cluster's id, as ingest_offsets holds it. */
enum mf_status mf_admin_cluster(struct mf_admin *admin, char *id, size_t bytes, struct mf_error *error);

#endif
