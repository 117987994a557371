#include "schemas/registry.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/http_client.h"
#include "common/json.h"

enum {
    DEFAULT_TIMEOUT_MS = 5000,
    DEFAULT_ATTEMPTS = 3,
    DEFAULT_REFRESH_MS = 5000,
    ANSWER_BYTES = 4 << 20, /* a schema in JSON in JSON */
    VERSIONS = 10000        /* of one subject */
};

static const char content_type[] = "application/vnd.schemaregistry.v1+json";
static const char accepted[] = "application/vnd.schemaregistry.v1+json, application/json";

/* A version of a subject. Versions never change, so it is asked for once, and found without a lock
 * thereafter. */
struct version {
    int64_t number;
    uint32_t id;
    struct mf_avro_schema *schema; /* NULL: its text is not usable */
    struct mf_error reason;        /* why not */
};

struct subject {
    char *name;
    struct version **versions; /* each stays where it is as long as the registry lives */
    size_t count, capacity;
    bool asked;
    int64_t asked_at_ms;   /* monotonic */
    enum mf_status answer; /* of the last refresh */
    struct mf_error error;
};

struct mf_registry {
    char *url; /* without a slash at the end */
    int64_t refresh_interval_ms;
    struct mf_http_client *client;
    pthread_mutex_t network; /* one request at a time; guards client; taken before `state` */
    pthread_mutex_t state;   /* guards what follows; never held over a request */
    struct subject **subjects;
    size_t subject_count;
};

static enum mf_status no_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the schema registry's answers");
    return MF_ERROR_OUT_OF_MEMORY;
}

enum mf_status mf_registry_new(const struct mf_registry_options *options, struct mf_registry **result,
                               struct mf_error *error) {
    const struct mf_http_options http = {
        .timeout_ms = options->timeout_ms ? options->timeout_ms : DEFAULT_TIMEOUT_MS,
        .attempts = options->attempts ? options->attempts : DEFAULT_ATTEMPTS,
        .response_limit_bytes = ANSWER_BYTES,
        .redirects = 3,
        .ca_file = options->ca_file,
        .username = options->username,
        .password = options->password,
        .stop = options->stop,
    };
    *result = NULL;
    if (strncmp(options->url, "http://", 7) != 0 && strncmp(options->url, "https://", 8) != 0)
        return mf_error_set(error, MF_ERROR_CONFIGURATION,
                            "the registry's URL must begin with http:// or https://");
    struct mf_registry *registry = calloc(1, sizeof *registry);
    if (!registry)
        return no_memory(error);
    pthread_mutex_init(&registry->network, NULL);
    pthread_mutex_init(&registry->state, NULL);
    registry->refresh_interval_ms =
        options->refresh_interval_ms ? options->refresh_interval_ms : DEFAULT_REFRESH_MS;
    registry->url = strdup(options->url);
    enum mf_status status =
        registry->url ? mf_http_client_new(&http, &registry->client, error) : no_memory(error);
    if (status) {
        mf_registry_free(registry);
        return status;
    }
    for (size_t length = strlen(registry->url); length && registry->url[length - 1] == '/'; length--)
        registry->url[length - 1] = 0;
    *result = registry;
    return MF_OK;
}

static void free_subject(struct subject *subject) {
    for (size_t i = 0; i < subject->count; i++) {
        mf_avro_schema_free(subject->versions[i]->schema);
        free(subject->versions[i]);
    }
    free(subject->versions);
    free(subject->name);
    free(subject);
}

void mf_registry_free(struct mf_registry *registry) {
    if (!registry)
        return;
    for (size_t i = 0; i < registry->subject_count; i++)
        free_subject(registry->subjects[i]);
    free(registry->subjects);
    mf_http_client_free(registry->client);
    pthread_mutex_destroy(&registry->network);
    pthread_mutex_destroy(&registry->state);
    free(registry->url);
    free(registry);
}

/* ---- requests; the caller holds `network` ---- */

/* What the registry says about itself when it refuses: {"error_code": 42201, "message": "..."}. */
static void explain(const struct mf_http_response *response, char *text, size_t bytes) {
    json_t *answer = NULL;
    struct mf_error ignored;
    const char *message = NULL;
    if (!mf_json_parse(mf_text_string(&response->body), response->body.length, "answer", &answer, &ignored))
        message = json_string_value(json_object_get(answer, "message"));
    snprintf(text, bytes, "%s", message ? message : "no reason given");
    json_decref(answer);
}

/* Sends and parses. *answer is a new reference. */
static enum mf_status ask(struct mf_registry *registry, const char *method, const struct mf_text *path,
                          const char *body, json_t **answer, struct mf_error *error) {
    struct mf_http_response response = {0};
    struct mf_text url = {0};
    char reason[512];
    *answer = NULL;
    mf_text_printf(&url, "%s%s", registry->url, mf_text_string(path));
    const struct mf_http_request request = {.method = method,
                                            .url = mf_text_string(&url),
                                            .content_type = body ? content_type : NULL,
                                            .accept = accepted,
                                            .body = body,
                                            .body_bytes = body ? strlen(body) : 0};
    enum mf_status status = path->failed || url.failed
                                ? no_memory(error)
                                : mf_http_perform(registry->client, &request, &response, error);
    if (status == MF_ERROR_HTTP) {
        status = mf_error_set(error, MF_ERROR_REGISTRY, "schema registry: %s",
                              error ? error->message : "no answer");
    } else if (!status && response.status == 404) {
        explain(&response, reason, sizeof reason);
        status = mf_error_set(error, MF_ERROR_UNKNOWN_SCHEMA, "schema registry: %s", reason);
    } else if (!status && (response.status == 409 || response.status == 422)) {
        explain(&response, reason, sizeof reason);
        status = mf_error_set(error, MF_ERROR_CONFIGURATION, "schema registry: refused: %s", reason);
    } else if (!status && response.status / 100 != 2) {
        explain(&response, reason, sizeof reason);
        status = mf_error_set(error, MF_ERROR_REGISTRY, "schema registry: it answered %d to %s %s: %s",
                              response.status, method, mf_text_string(path), reason);
    } else if (!status && mf_json_parse(mf_text_string(&response.body), response.body.length,
                                        "schema registry", answer, error)) {
        status = mf_error_set(error, MF_ERROR_REGISTRY, "%s; is the URL the registry's own?",
                              error ? error->message : "");
    }
    mf_text_free(&url);
    mf_http_response_free(&response);
    return status;
}

/* A member of an answer that must be there; otherwise something else answers under this URL. */
static enum mf_status no_sense(enum mf_status status, struct mf_error *error) {
    return status ? mf_error_set(error, MF_ERROR_REGISTRY, "%s; is the URL the registry's own?",
                                 error ? error->message : "no sense in the answer")
                  : MF_OK;
}

/* POSTs the schema below the subject; the answer's id. */
static enum mf_status post_schema(struct mf_registry *registry, const char *subject, const char *below,
                                  const char *schema, uint32_t *id, struct mf_error *error) {
    struct mf_text path = {0};
    json_t *answer = NULL, *body = json_pack("{s:s}", "schema", schema);
    char *text = NULL;
    int64_t number = 0;
    enum mf_status status = body ? mf_json_canonical(body, &text, error) : no_memory(error);
    mf_text_puts(&path, "/subjects/");
    mf_url_escape(&path, subject);
    mf_text_puts(&path, below);
    pthread_mutex_lock(&registry->network);
    if (!status)
        status = ask(registry, "POST", &path, text, &answer, error);
    pthread_mutex_unlock(&registry->network);
    if (!status)
        status =
            no_sense(mf_json_integer(answer, "schema registry", "id", 0, UINT32_MAX, &number, error), error);
    *id = (uint32_t)number;
    json_decref(answer);
    json_decref(body);
    free(text);
    mf_text_free(&path);
    return status;
}

enum mf_status mf_registry_register(struct mf_registry *registry, const char *subject, const char *schema,
                                    uint32_t *id, struct mf_error *error) {
    return post_schema(registry, subject, "/versions", schema, id, error);
}

enum mf_status mf_registry_find(struct mf_registry *registry, const char *subject, const char *schema,
                                uint32_t *id, struct mf_error *error) {
    return post_schema(registry, subject, "", schema, id, error);
}

enum mf_status mf_registry_compatibility(struct mf_registry *registry, const char *subject,
                                         char level[MF_COMPATIBILITY_BYTES], struct mf_error *error) {
    struct mf_text path = {0};
    json_t *answer = NULL;
    const char *text = NULL;
    mf_text_puts(&path, "/config/");
    mf_url_escape(&path, subject);
    pthread_mutex_lock(&registry->network);
    enum mf_status status = ask(registry, "GET", &path, NULL, &answer, error);
    if (status == MF_ERROR_UNKNOWN_SCHEMA) { /* none of its own: that of all subjects counts */
        mf_text_clear(&path);
        mf_text_puts(&path, "/config");
        status = ask(registry, "GET", &path, NULL, &answer, error);
    }
    pthread_mutex_unlock(&registry->network);
    if (!status)
        status = no_sense(mf_json_string(answer, "schema registry", "compatibilityLevel",
                                         MF_COMPATIBILITY_BYTES - 1, &text, error),
                          error);
    snprintf(level, MF_COMPATIBILITY_BYTES, "%s", status ? "" : text);
    json_decref(answer);
    mf_text_free(&path);
    return status;
}

enum mf_status mf_registry_set_compatibility(struct mf_registry *registry, const char *subject,
                                             const char *level, struct mf_error *error) {
    struct mf_text path = {0}, body = {0};
    json_t *answer = NULL;
    mf_text_puts(&path, "/config/");
    mf_url_escape(&path, subject);
    mf_text_printf(&body, "{\"compatibility\":\"%s\"}", level);
    pthread_mutex_lock(&registry->network);
    enum mf_status status = ask(registry, "PUT", &path, mf_text_string(&body), &answer, error);
    pthread_mutex_unlock(&registry->network);
    json_decref(answer);
    mf_text_free(&path);
    mf_text_free(&body);
    return status;
}

enum mf_status mf_registry_schema_text(struct mf_registry *registry, uint32_t id, char **schema,
                                       struct mf_error *error) {
    struct mf_text path = {0};
    json_t *answer = NULL;
    const char *text = NULL;
    *schema = NULL;
    mf_text_printf(&path, "/schemas/ids/%u", id);
    pthread_mutex_lock(&registry->network);
    enum mf_status status = ask(registry, "GET", &path, NULL, &answer, error);
    pthread_mutex_unlock(&registry->network);
    if (!status)
        status = no_sense(
            mf_json_string(answer, "schema registry", "schema", MF_AVRO_SCHEMA_BYTES, &text, error), error);
    if (!status && !(*schema = strdup(text)))
        status = no_memory(error);
    json_decref(answer);
    mf_text_free(&path);
    return status;
}

enum mf_status mf_registry_ping(struct mf_registry *registry, struct mf_error *error) {
    struct mf_text path = {0};
    json_t *answer = NULL;
    mf_text_puts(&path, "/subjects");
    pthread_mutex_lock(&registry->network);
    enum mf_status status = ask(registry, "GET", &path, NULL, &answer, error);
    pthread_mutex_unlock(&registry->network);
    json_decref(answer);
    mf_text_free(&path);
    return status == MF_ERROR_UNKNOWN_SCHEMA
               ? mf_error_set(error, MF_ERROR_REGISTRY, "schema registry: nothing is at %s/subjects",
                              registry->url)
               : status;
}

/* ---- what is known; the caller holds `state` ---- */

static struct subject *find_subject(const struct mf_registry *registry, const char *name) {
    for (size_t i = 0; i < registry->subject_count; i++)
        if (!strcmp(registry->subjects[i]->name, name))
            return registry->subjects[i];
    return NULL;
}

static struct subject *add_subject(struct mf_registry *registry, const char *name) {
    struct subject **subjects =
        realloc(registry->subjects, (registry->subject_count + 1) * sizeof(struct subject *));
    if (!subjects)
        return NULL;
    registry->subjects = subjects;
    struct subject *subject = calloc(1, sizeof *subject);
    if (!subject || !(subject->name = strdup(name))) {
        free(subject);
        return NULL;
    }
    return subjects[registry->subject_count++] = subject;
}

static struct version *find_version(const struct subject *subject, int64_t number) {
    for (size_t i = 0; i < subject->count; i++)
        if (subject->versions[i]->number == number)
            return subject->versions[i];
    return NULL;
}

static const struct version *find_id(const struct mf_registry *registry, const char *name, uint32_t id) {
    const struct subject *subject = find_subject(registry, name);
    for (size_t i = 0; subject && i < subject->count; i++)
        if (subject->versions[i]->id == id)
            return subject->versions[i];
    return NULL;
}

static bool add_version(struct subject *subject, struct version *version) {
    if (subject->count == subject->capacity) {
        size_t capacity = subject->capacity ? 2 * subject->capacity : 8;
        struct version **versions = realloc(subject->versions, capacity * sizeof(struct version *));
        if (!versions)
            return false;
        subject->versions = versions;
        subject->capacity = capacity;
    }
    subject->versions[subject->count++] = version;
    return true;
}

/* ---- asking for what is not known; the caller holds `network` ---- */

static enum mf_status fetch_version(struct mf_registry *registry, struct subject *subject, int64_t number,
                                    struct mf_error *error) {
    struct mf_text path = {0};
    json_t *answer = NULL;
    const char *text = NULL;
    int64_t id = 0;
    mf_text_puts(&path, "/subjects/");
    mf_url_escape(&path, subject->name);
    mf_text_printf(&path, "/versions/%lld", (long long)number);
    enum mf_status status = ask(registry, "GET", &path, NULL, &answer, error);
    if (!status)
        status = no_sense(mf_json_integer(answer, "schema registry", "id", 0, UINT32_MAX, &id, error), error);
    if (!status)
        status =
            no_sense(mf_json_string(answer, "schema registry", "schema", ANSWER_BYTES, &text, error), error);
    struct version *version = status ? NULL : calloc(1, sizeof *version);
    if (!status && !version)
        status = no_memory(error);
    if (version) {
        version->number = number;
        version->id = (uint32_t)id;
        if (mf_avro_schema_parse(text, strlen(text), &version->schema, &version->reason) ==
            MF_ERROR_OUT_OF_MEMORY)
            status = no_memory(error);
        pthread_mutex_lock(&registry->state);
        if (!status && !add_version(subject, version))
            status = no_memory(error);
        pthread_mutex_unlock(&registry->state);
        if (status) {
            mf_avro_schema_free(version->schema);
            free(version);
        }
    }
    json_decref(answer);
    mf_text_free(&path);
    return status;
}

static enum mf_status fetch_versions(struct mf_registry *registry, struct subject *subject,
                                     struct mf_error *error) {
    struct mf_text path = {0};
    json_t *answer = NULL;
    mf_text_puts(&path, "/subjects/");
    mf_url_escape(&path, subject->name);
    mf_text_puts(&path, "/versions");
    enum mf_status status = ask(registry, "GET", &path, NULL, &answer, error);
    if (!status && (!json_is_array(answer) || json_array_size(answer) > VERSIONS))
        status = mf_error_set(error, MF_ERROR_REGISTRY,
                              "schema registry: the versions of %s are no list of numbers", subject->name);
    for (size_t i = 0; !status && i < json_array_size(answer); i++) {
        int64_t number = json_integer_value(json_array_get(answer, i));
        pthread_mutex_lock(&registry->state);
        bool known = find_version(subject, number) != NULL;
        pthread_mutex_unlock(&registry->state);
        if (!known)
            status = fetch_version(registry, subject, number, error);
    }
    json_decref(answer);
    mf_text_free(&path);
    return status;
}

/* Brings a subject up to date unless that was tried within the interval: then that answer counts. */
static enum mf_status refresh(struct mf_registry *registry, const char *name, struct mf_error *error) {
    enum mf_status status = MF_OK;
    struct mf_error reason = {0};
    pthread_mutex_lock(&registry->network);
    pthread_mutex_lock(&registry->state);
    struct subject *subject = find_subject(registry, name);
    if (!subject)
        subject = add_subject(registry, name);
    bool recent = subject && subject->asked &&
                  mf_clock_monotonic_ms() - subject->asked_at_ms < registry->refresh_interval_ms;
    pthread_mutex_unlock(&registry->state);
    if (!subject) {
        status = no_memory(error);
    } else if (recent) {
        status = subject->answer;
        reason = subject->error;
    } else {
        status = fetch_versions(registry, subject, &reason);
        subject->asked = true;
        subject->asked_at_ms = mf_clock_monotonic_ms();
        subject->answer = status;
        subject->error = reason;
    }
    pthread_mutex_unlock(&registry->network);
    return status ? mf_error_set(error, status, "%s", reason.message) : MF_OK;
}

/* The schema of a version that is known. */
static enum mf_status use_version(const struct version *version, const struct mf_avro_schema **schema,
                                  struct mf_error *error) {
    *schema = version->schema;
    return version->schema ? MF_OK
                           : mf_error_set(error, MF_ERROR_UNKNOWN_SCHEMA, "schema id %u: %s", version->id,
                                          version->reason.message);
}

static const struct version *look_up(struct mf_registry *registry, const char *subject, uint32_t id) {
    pthread_mutex_lock(&registry->state);
    const struct version *version = find_id(registry, subject, id);
    pthread_mutex_unlock(&registry->state);
    return version;
}

enum mf_status mf_registry_writer_schema(struct mf_registry *registry, const char *subject, uint32_t id,
                                         const struct mf_avro_schema **schema, struct mf_error *error) {
    *schema = NULL;
    const struct version *version = look_up(registry, subject, id);
    if (version)
        return use_version(version, schema, error);
    enum mf_status status = refresh(registry, subject, error);
    if ((version = look_up(registry, subject, id))) /* even if what came after it could not be had */
        return use_version(version, schema, error);
    if (status && status != MF_ERROR_UNKNOWN_SCHEMA)
        return status;
    return mf_error_set(error, MF_ERROR_UNKNOWN_SCHEMA, "schema id %u is not registered under the subject %s",
                        id, subject);
}

const struct mf_avro_schema *mf_registry_cached(struct mf_registry *registry, const char *subject,
                                                uint32_t id) {
    const struct version *version = look_up(registry, subject, id);
    return version ? version->schema : NULL;
}

char *mf_registry_subject(const char *topic) {
    struct mf_text subject = {0};
    mf_text_printf(&subject, "%s-value", topic);
    if (subject.failed)
        mf_text_free(&subject);
    return subject.data;
}
