/* The daemon's settings: one option table, read once. */
#ifndef MF_WORKER_SETTINGS_H
#define MF_WORKER_SETTINGS_H

#include "common/config.h"
#include "worker/storage.h"
#include "worker/trainer/protocol.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { MF_MAX_TOPICS = 32 };

/* One consumed topic and the tenants that it may name. */
struct mf_topic_rule {
    char *topic;
    bool commands; /* of topics.commands; else of topics.requests */
    char *tenants; /* ",default,team-a," or "*" */
};

/* What a tenant may read. */
struct mf_tenant_roots {
    char *tenant; /* or "*" */
    char *root;   /* "/folder", "s3://bucket/prefix", "https://host/path", "hf://organisation" */
};

/* Strings belong to the configuration or the settings; immutable once loaded. */
struct mf_settings {
    struct mf_config *config;
    char *worker_id, *host, *work_dir, *storage_url, *trainer_path;
    const char *providers_folder, *providers_trusted, *providers_user; /* NULL: not given */
    const char *database_url, *registry_url, *registry_username, *registry_password, *registry_ca_file;
    const char *events_topic, *dlq_topic, *http_listen;
    const char *storage_s3_endpoint, *storage_s3_region, *storage_s3_ca_file; /* NULL: not given */
    int64_t collect_ms, keep_s;
    struct mf_tenant_roots *roots; /* of tenants.roots */
    size_t root_count;
    const char *download_ca_file; /* NULL: the system's */
    char *labels;                 /* JSON object of strings */
    const char *gpus;             /* as mf_gpus_options.choice */
    const char *gpu_lock_dir, *gpu_inventory_file;
    int64_t gpu_poll_ms, gpu_foreign_bytes;
    int32_t reserve_s;
    struct mf_topic_rule topic[MF_MAX_TOPICS];
    size_t topic_count;
    int slots;
    int64_t lease_ms, blind_limit_ms, claim_poll_ms, drain_ms, cancel_ms;
    int32_t provider_grace_s, preempt_s, batch_settle_s;
    int64_t retry_base_ms, retry_limit_ms;
    int64_t hello_limit_ms, silence_limit_ms[MF_PHASE_COUNT];
    int64_t spool_memory_bytes, spool_file_bytes;
    int64_t batch_records, batch_ms, queue_bytes, schema_wait_ms;
};

extern const struct mf_config_table mf_settings_table;

/* MF_ERROR_CONFIGURATION names the option. *settings is freed with mf_settings_free() whatever is returned.
 */
enum mf_status mf_settings_load(const char *path, const struct mf_config_override *overrides,
                                size_t override_count, struct mf_settings *settings, struct mf_error *error);
void mf_settings_free(struct mf_settings *settings);

/* The roots of a tenant, its own, those of "*" and its folder of the storage, as a JSON array; NULL when
 * memory runs out. The caller decrefs it. */
json_t *mf_settings_roots(const struct mf_settings *settings, const char *tenant);

/* What the storage is opened with; lives as long as the settings. */
struct mf_storage_options mf_settings_storage(const struct mf_settings *settings);

/* Whether the topic may name the tenant. */
bool mf_topic_rule_allows(const struct mf_topic_rule *rule, const char *tenant);

#endif
