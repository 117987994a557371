/* Client of a Confluent-compatible schema registry (Confluent's, Karapace, Apicurio's ccompat API). */
#ifndef MF_SCHEMAS_REGISTRY_H
#define MF_SCHEMAS_REGISTRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "schemas/avro_codec.h"

/* Zero means the default in brackets. Strings are copied. */
struct mf_registry_options {
    const char *url; /* base, may have a path: "http://host:8080/apis/ccompat/v7" */
    const char *username, *password;
    const char *ca_file;
    int64_t timeout_ms;          /* of one request [5 s] */
    int attempts;                /* [3] */
    int64_t refresh_interval_ms; /* a subject's list is asked for at most this often [5 s]; < 0: always */
    const atomic_bool *stop;     /* ends requests in flight; may be NULL; must outlive the registry */
};

/* Any thread may call; requests are sent one at a time under a lock, so a call can wait as long as the
 * attempts of those before it take. Only mf_registry_cached never waits for the network: it is the one for a
 * poll thread. */
struct mf_registry;

enum mf_status mf_registry_new(const struct mf_registry_options *options, struct mf_registry **registry,
                               struct mf_error *error);
void mf_registry_free(struct mf_registry *registry);

/* An outage (no connection, time-out, 5xx, an answer that makes no sense) is MF_ERROR_REGISTRY; a subject or
 * id that the registry says it does not have is MF_ERROR_UNKNOWN_SCHEMA; a schema that it will not take is
 * MF_ERROR_CONFIGURATION with its reason. */

/* Registers the schema under the subject ("modelforge.requests-value"), or finds it there; gives its id. */
enum mf_status mf_registry_register(struct mf_registry *registry, const char *subject, const char *schema,
                                    uint32_t *id, struct mf_error *error);
/* The same without registering: MF_ERROR_UNKNOWN_SCHEMA when the subject does not have this schema. */
enum mf_status mf_registry_find(struct mf_registry *registry, const char *subject, const char *schema,
                                uint32_t *id, struct mf_error *error);
enum { MF_COMPATIBILITY_BYTES = 32 };
/* The level that counts for the subject, its own or that of all. */
enum mf_status mf_registry_compatibility(struct mf_registry *registry, const char *subject,
                                         char level[MF_COMPATIBILITY_BYTES], struct mf_error *error);
/* "BACKWARD", "NONE", ... for one subject. */
enum mf_status mf_registry_set_compatibility(struct mf_registry *registry, const char *subject,
                                             const char *level, struct mf_error *error);
/* The text of a schema by id, whatever its subject; freed by the caller. */
enum mf_status mf_registry_schema_text(struct mf_registry *registry, uint32_t id, char **schema,
                                       struct mf_error *error);
/* Whether the registry answers. */
enum mf_status mf_registry_ping(struct mf_registry *registry, struct mf_error *error);

/* The writer's schema of an id that is registered under the subject, asking the registry when it is not known
 * yet (at most once in refresh_interval_ms a subject; between, the last answer counts).
 * MF_ERROR_UNKNOWN_SCHEMA also when the registered text is not usable. *schema lives as long as the registry.
 */
enum mf_status mf_registry_writer_schema(struct mf_registry *registry, const char *subject, uint32_t id,
                                         const struct mf_avro_schema **schema, struct mf_error *error);
/* The same from what is known already; NULL when that id is not known under that subject. Never waits. */
const struct mf_avro_schema *mf_registry_cached(struct mf_registry *registry, const char *subject,
                                                uint32_t id);

/* "topic-value" (TopicNameStrategy); freed by the caller; NULL when memory runs out. */
char *mf_registry_subject(const char *topic);

#endif
