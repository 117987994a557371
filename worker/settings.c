#include "worker/settings.h"

#include "common/files.h"
#include "schemas/request.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STRING  MF_OPTION_STRING
#define INTEGER MF_OPTION_INTEGER
static const struct mf_option options[] = {
    {.name = "database.url",
     .kind = STRING,
     .required = true,
     .secret = true,
     .meaning = "PostgreSQL as a libpq URI: postgresql://modelforge_worker@host/modelforge"},
    {.name = "kafka.*",
     .kind = MF_OPTION_PREFIX,
     .secret = true,
     .meaning = "any property of librdkafka; kafka.bootstrap.servers must be given"},
    {.name = "registry.url",
     .kind = STRING,
     .required = true,
     .meaning = "schema registry with Confluent's API, path included"},
    {.name = "registry.username", .kind = STRING, .meaning = "user name for the registry"},
    {.name = "registry.password", .kind = STRING, .secret = true, .meaning = "password for the registry"},
    {.name = "registry.ca_file",
     .kind = STRING,
     .meaning = "PEM file of the registry's certificate authority"},
    {.name = "topics.requests",
     .kind = STRING,
     .initial = "modelforge.requests",
     .meaning = "topics of training requests, separated by commas"},
    {.name = "topics.commands",
     .kind = STRING,
     .initial = "modelforge.commands",
     .meaning = "topics of commands, separated by commas"},
    {.name = "topics.events",
     .kind = STRING,
     .initial = "modelforge.events",
     .meaning = "topic of job events"},
    {.name = "topics.dlq",
     .kind = STRING,
     .initial = "modelforge.requests.dlq",
     .meaning = "topic of messages that were rejected"},
    {.name = "tenants",
     .kind = STRING,
     .meaning = "the tenants that a topic may name: topic=a,b;topic=* (a topic that is not listed: default)"},
    {.name = "tenants.roots",
     .kind = STRING,
     .initial = "*=/,hf://",
     .meaning =
         "what a tenant's jobs may read models and datasets from: tenant=root,root;*=root, a root being "
         "/folder, s3://bucket/prefix, https://host/path, hf:// or hf://organisation"},
    {.name = "download.ca_file",
     .kind = STRING,
     .meaning = "PEM file of the certificate authority of https:// datasets"},
    {.name = "worker.id",
     .kind = STRING,
     .meaning = "stable name of this worker, unique in the database (the host's name)"},
    {.name = "worker.slots",
     .kind = INTEGER,
     .initial = "1",
     .minimum = 0,
     .maximum = 64,
     .meaning = "jobs that may run here at once, each on GPUs of its own; 0: only ingest and publish"},
    {.name = "worker.labels",
     .kind = STRING,
     .meaning =
         "what this worker is or has: name=value,name=value; a request that names labels runs only where "
         "all of them are"},
    {.name = "worker.gpus",
     .kind = STRING,
     .meaning = "GPUs that jobs may have: all, none, or uuids or positions in nvidia-smi's order, separated "
                "by commas "
                "(CUDA_VISIBLE_DEVICES, else all)"},
    {.name = "gpu.lock_dir",
     .kind = STRING,
     .initial = "/run/lock",
     .meaning =
         "folder of the locks by which all workers of a host share its GPUs; the same for all of them"},
    {.name = "gpu.poll_ms",
     .kind = INTEGER,
     .initial = "2000",
     .minimum = 20,
     .maximum = 60000,
     .meaning = "milliseconds between two looks at the health and the memory of the GPUs"},
    {.name = "gpu.foreign_mib",
     .kind = INTEGER,
     .initial = "1024",
     .minimum = 0,
     .maximum = 1 << 20,
     .meaning = "a GPU on which programs other than modelforge's use more memory than this is not taken"},
    {.name = "gpu.inventory_file",
     .kind = STRING,
     .meaning = "for tests on a machine without GPUs: a JSON file that says which GPUs there are, read again "
                "at every "
                "look; refused where there are real ones"},
    {.name = "work.dir",
     .kind = STRING,
     .initial = "/var/lib/modelforge",
     .meaning = "attempt folders, metric spools and the instance lock"},
    {.name = "storage.url",
     .kind = STRING,
     .meaning =
         "where artifacts and checkpoints are kept: file:///folder or s3://bucket/prefix, with AWS' usual "
         "variables and files for its credentials (file:// and the folder storage of work.dir)"},
    {.name = "storage.s3_endpoint",
     .kind = STRING,
     .meaning = "https://host of a server that speaks S3's protocol (AWS_ENDPOINT_URL_S3, else AWS' own)"},
    {.name = "storage.s3_region",
     .kind = STRING,
     .meaning = "region of the bucket (AWS_REGION, else us-east-1)"},
    {.name = "storage.s3_ca_file",
     .kind = STRING,
     .meaning = "PEM file of the certificate authority of storage.s3_endpoint"},
    {.name = "storage.collect_seconds",
     .kind = INTEGER,
     .initial = "3600",
     .minimum = 0,
     .maximum = 604800,
     .meaning = "time between two looks for what the storage need not keep; 0: never"},
    {.name = "storage.keep_seconds",
     .kind = INTEGER,
     .initial = "86400",
     .minimum = 0,
     .maximum = 1e9,
     .meaning = "checkpoints stay for so long after their job has ended, left-overs after their attempt"},
    {.name = "trainer.path",
     .kind = STRING,
     .meaning = "the training program (modelforge-trainer beside this program)"},
    {.name = "providers.folder",
     .kind = STRING,
     .meaning = "folder of providers that are not built in: NAME.conf, libmodelforge-provider-NAME.so "
                "(../lib/modelforge/providers beside the trainer's folder)"},
    {.name = "providers.trusted",
     .kind = STRING,
     .meaning = "names, between commas, of such providers that may run as this worker's user (gguf)"},
    {.name = "providers.user",
     .kind = STRING,
     .meaning = "the user that all other such providers run as; changing to it takes a worker that is root"},
    {.name = "lease.seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "30",
     .minimum = 1,
     .maximum = 3600,
     .meaning = "a worker that is not heard for this long loses its jobs"},
    {.name = "lease.blind_limit",
     .kind = MF_OPTION_NUMBER,
     .initial = "900",
     .minimum = 1,
     .maximum = 86400,
     .meaning = "seconds that a job trains on while PostgreSQL cannot be reached"},
    {.name = "claim.poll_ms",
     .kind = INTEGER,
     .initial = "1000",
     .minimum = 10,
     .maximum = 60000,
     .meaning = "milliseconds between two looks for jobs, beside notifications"},
    {.name = "provider.grace_seconds",
     .kind = INTEGER,
     .initial = "600",
     .minimum = 0,
     .maximum = 604800,
     .meaning =
         "a job fails after this long in which no live worker could take it: its provider, its device, its "
         "GPUs' memory or its labels are nowhere"},
    {.name = "reserve.seconds",
     .kind = INTEGER,
     .initial = "60",
     .minimum = 0,
     .maximum = 604800,
     .meaning = "a job of several GPUs waits this long before a worker takes no other job of GPUs until it "
                "has them"},
    {.name = "preempt.seconds",
     .kind = INTEGER,
     .initial = "5",
     .minimum = 0,
     .maximum = 604800,
     .meaning = "a job waits this long before a preemptible one of lower priority of its tenant gives way"},
    {.name = "batch.settle_seconds",
     .kind = INTEGER,
     .initial = "10",
     .minimum = 0,
     .maximum = 86400,
     .meaning = "a batch has ended (event batch_finished) once nothing of it was left to do for this long"},
    {.name = "retry.base_ms",
     .kind = INTEGER,
     .initial = "5000",
     .minimum = 0,
     .maximum = 3600000,
     .meaning = "back-off after a first failure that may be tried again; doubles each time"},
    {.name = "retry.limit_ms",
     .kind = INTEGER,
     .initial = "600000",
     .minimum = 0,
     .maximum = 86400000,
     .meaning = "the longest back-off"},
    {.name = "drain.seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "30",
     .minimum = 0,
     .maximum = 3600,
     .meaning = "after SIGTERM: time for running jobs to end before they are killed"},
    {.name = "cancel.seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "30",
     .minimum = 0,
     .maximum = 3600,
     .meaning = "time for a trainer to obey a cancel before it gets SIGTERM"},
    {.name = "watchdog.start_seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "60",
     .minimum = 0.1,
     .maximum = 86400,
     .meaning = "a new trainer must say hello within this time"},
    {.name = "watchdog.load_seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "900",
     .minimum = 0.1,
     .maximum = 86400,
     .meaning = "longest silence while a model loads"},
    {.name = "watchdog.plan_seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "900",
     .minimum = 0.1,
     .maximum = 86400,
     .meaning = "longest silence while the dataset is read and memory is planned"},
    {.name = "watchdog.train_seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "900",
     .minimum = 0.1,
     .maximum = 86400,
     .meaning = "longest silence between two steps"},
    {.name = "watchdog.evaluate_seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "1800",
     .minimum = 0.1,
     .maximum = 86400,
     .meaning = "longest silence during evaluation"},
    {.name = "watchdog.save_seconds",
     .kind = MF_OPTION_NUMBER,
     .initial = "900",
     .minimum = 0.1,
     .maximum = 86400,
     .meaning = "longest silence while a result is written"},
    {.name = "spool.memory_bytes",
     .kind = INTEGER,
     .initial = "262144",
     .minimum = 65536,
     .maximum = 1 << 30,
     .meaning = "metrics of a job that wait in memory before they go to disk"},
    {.name = "spool.file_bytes",
     .kind = INTEGER,
     .initial = "268435456",
     .minimum = 0,
     .maximum = 1e12,
     .meaning = "metrics of a job that wait on disk; from half of it on they are thinned"},
    {.name = "ingest.batch_records",
     .kind = INTEGER,
     .initial = "1000",
     .minimum = 1,
     .maximum = 100000,
     .meaning = "records of one transaction at most"},
    {.name = "ingest.batch_ms",
     .kind = INTEGER,
     .initial = "20",
     .minimum = 0,
     .maximum = 10000,
     .meaning = "milliseconds that a transaction waits for more records"},
    {.name = "ingest.queue_bytes",
     .kind = INTEGER,
     .initial = "16777216",
     .minimum = 1 << 20,
     .maximum = 1 << 30,
     .meaning = "bytes of decoded records that wait for PostgreSQL before partitions are paused"},
    {.name = "ingest.schema_wait",
     .kind = MF_OPTION_NUMBER,
     .initial = "30",
     .minimum = 0,
     .maximum = 3600,
     .meaning = "seconds that a partition waits for its schema id to appear before the record is rejected"},
    {.name = "http.listen",
     .kind = STRING,
     .initial = "127.0.0.1:9464",
     .meaning = "address of /healthz and /metrics; none: not served"},
    {.name = "log.level",
     .kind = MF_OPTION_CHOICE,
     .initial = "info",
     .choices = "debug|info|warning|error",
     .meaning = "lines below this level are dropped"},
    {.name = "tenant", .kind = MF_OPTION_ELSEWHERE, .meaning = "of the modelforge program"},
    {.name = "submitted.by", .kind = MF_OPTION_ELSEWHERE, .meaning = "of the modelforge program"},
};

const struct mf_config_table mf_settings_table = {
    .program = "modelforge-worker", .options = options, .count = sizeof options / sizeof *options};

static int64_t milliseconds(const struct mf_config *config, const char *name) {
    return (int64_t)(mf_config_number(config, name) * 1000 + 0.5);
}

/* The text without the blanks around it; cuts in place. */
static char *trim(char *text) {
    text += strspn(text, " ");
    size_t length = strlen(text);
    while (length && text[length - 1] == ' ')
        text[--length] = 0;
    return text;
}

/* ---- topics and tenants ----------------------------------------------------------------------------- */

/* What Kafka allows. librdkafka would take a name that begins with "^" for a pattern of topics. */
static bool topic_name_valid(const char *name) {
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return length <= 249 && !name[length] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static enum mf_status add_topics(struct mf_settings *settings, const char *option, bool commands,
                                 struct mf_error *error) {
    char *list = strdup(mf_config_string(settings->config, option)), *rest = list, *name;
    enum mf_status status = MF_OK;
    while (!status && rest && (name = strsep(&rest, ","))) {
        name = trim(name);
        for (size_t i = 0; i < settings->topic_count; i++)
            if (!strcmp(settings->topic[i].topic, name))
                status = mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: topic '%s' is given twice", option,
                                      name);
        if (!*name)
            status = mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: a topic has no name", option);
        else if (!topic_name_valid(name))
            status = mf_error_set(error, MF_ERROR_CONFIGURATION,
                                  "%s: '%.64s' is no topic's name: [A-Za-z0-9._-]{1,249}", option, name);
        else if (settings->topic_count == MF_MAX_TOPICS)
            status =
                mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: more than %d topics", option, MF_MAX_TOPICS);
        if (!status)
            settings->topic[settings->topic_count++] =
                (struct mf_topic_rule){strdup(name), commands, strdup(",default,")};
    }
    free(list);
    return status;
}

/* "a, b" to ",a,b,"; NULL for a bad name. */
static char *normalised_tenants(char *list) {
    if (!strcmp(list, "*"))
        return strdup("*");
    char *result = malloc(strlen(list) + 3), *name;
    size_t length = 0;
    result[length++] = ',';
    while ((name = strsep(&list, ","))) {
        name = trim(name);
        if (!mf_tenant_name_valid(name)) {
            free(result);
            return NULL;
        }
        length = (size_t)(stpcpy(stpcpy(result + length, name), ",") - result);
    }
    result[length] = 0;
    return result;
}

static enum mf_status apply_tenants(struct mf_settings *settings, struct mf_error *error) {
    const char *text = mf_config_string(settings->config, "tenants");
    char *list = strdup(text ? text : ""), *rest = list, *entry;
    enum mf_status status = MF_OK;
    while (!status && (entry = strsep(&rest, ";"))) {
        char *topic = strsep(&entry, "=");
        topic = trim(topic);
        if (!*topic && !entry)
            continue;
        struct mf_topic_rule *rule = NULL;
        for (size_t i = 0; i < settings->topic_count; i++)
            if (!strcmp(settings->topic[i].topic, topic))
                rule = &settings->topic[i];
        char *tenants = entry ? normalised_tenants(trim(entry)) : NULL;
        if (!rule)
            status =
                mf_error_set(error, MF_ERROR_CONFIGURATION, "tenants: topic '%s' is not consumed", topic);
        else if (!tenants)
            status =
                mf_error_set(error, MF_ERROR_CONFIGURATION,
                             "tenants: the tenants of topic '%s' are neither * nor names like a,b", topic);
        if (status || !rule) {
            free(tenants);
        } else {
            free(rule->tenants);
            rule->tenants = tenants;
        }
    }
    free(list);
    return status;
}

/* A folder's own name, without "." or ".." or a slash at its end; the beginning of a URL. */
static bool root_valid(char *root) {
    static const char *const schemes[] = {"s3://", "https://"};
    if (strstr(root, "..") || strpbrk(root, " \t?#\\@"))
        return false;
    size_t length = strlen(root);
    if (*root == '/') {
        while (length > 1 && root[length - 1] == '/')
            root[--length] = 0;
        return !strstr(root, "//") && !strstr(root, "/./");
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (!strncmp(root, schemes[i], strlen(schemes[i])))
            return root[strlen(schemes[i])] != 0 && root[strlen(schemes[i])] != '/';
    return !strncmp(root, "hf://", 5);
}

static enum mf_status add_root(struct mf_settings *settings, const char *tenant, char *root,
                               struct mf_error *error) {
    if (!root_valid(root))
        return mf_error_set(
            error, MF_ERROR_CONFIGURATION,
            "tenants.roots: '%.300s' is none of /folder, s3://bucket/prefix, https://host/path, "
            "hf:// and hf://organisation",
            root);
    struct mf_tenant_roots *grown =
        realloc(settings->roots, (settings->root_count + 1) * sizeof *settings->roots);
    if (!grown)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for settings");
    settings->roots = grown;
    grown[settings->root_count++] = (struct mf_tenant_roots){strdup(tenant), strdup(root)};
    return MF_OK;
}

static enum mf_status apply_roots(struct mf_settings *settings, struct mf_error *error) {
    char *list = strdup(mf_config_string(settings->config, "tenants.roots")), *rest = list, *entry;
    enum mf_status status = MF_OK;
    while (!status && rest && (entry = strsep(&rest, ";"))) {
        char *tenant = trim(strsep(&entry, "=")), *root;
        if (!*tenant && !entry)
            continue;
        if (!entry || (strcmp(tenant, "*") != 0 && !mf_tenant_name_valid(tenant)))
            status = mf_error_set(
                error, MF_ERROR_CONFIGURATION,
                "tenants.roots: '%.100s' does not begin with a tenant's name or * and =", tenant);
        while (!status && (root = strsep(&entry, ",")))
            status = add_root(settings, tenant, trim(root), error);
    }
    free(list);
    return status;
}

json_t *mf_settings_roots(const struct mf_settings *settings, const char *tenant) {
    json_t *roots = json_array();
    for (size_t i = 0; i < settings->root_count; i++)
        if (!strcmp(settings->roots[i].tenant, "*") || !strcmp(settings->roots[i].tenant, tenant))
            json_array_append_new(roots, json_string(settings->roots[i].root));
    if (!strncmp(settings->storage_url, "file://", 7)) /* its own artifacts: an adapter to go on from */
        json_array_append_new(roots, json_sprintf("%s/%s", settings->storage_url + 7, tenant));
    return roots;
}

bool mf_topic_rule_allows(const struct mf_topic_rule *rule, const char *tenant) {
    if (!strcmp(rule->tenants, "*"))
        return true;
    size_t length = strlen(tenant);
    if (!length || strchr(tenant, ','))
        return false;
    for (const char *at = rule->tenants; (at = strstr(at, tenant)); at++)
        if (at > rule->tenants && at[-1] == ',' && at[length] == ',')
            return true;
    return false;
}

/* ---- loading ---------------------------------------------------------------------------------------- */

static char *own_host_name(void) {
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) || !*name)
        return strdup("localhost");
    return strdup(name);
}

/* "modelforge-trainer" in the folder of this program. */
static char *trainer_beside_program(void) {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0)
        return strdup("modelforge-trainer");
    path[length] = 0;
    *strrchr(path, '/') = 0;
    return mf_path_join(path, "modelforge-trainer");
}

/* The folder, made when missing, without links in its name: attempt folders are compared as texts. */
static enum mf_status take_work_dir(struct mf_settings *settings, struct mf_error *error) {
    const char *name = mf_config_string(settings->config, "work.dir");
    enum mf_status status = mf_directory_create(name, 0750, error);
    if (status)
        return mf_error_prefix(error, "work.dir");
    settings->work_dir = realpath(name, NULL);
    return settings->work_dir ? MF_OK : mf_error_errno(error, errno, "work.dir: %s", name);
}

static void take_limits(struct mf_settings *settings) {
    static const char *const silence[MF_PHASE_COUNT] = {"watchdog.load_seconds", "watchdog.plan_seconds",
                                                        "watchdog.train_seconds", "watchdog.evaluate_seconds",
                                                        "watchdog.save_seconds"};
    const struct mf_config *config = settings->config;
    settings->slots = (int)mf_config_integer(config, "worker.slots");
    settings->lease_ms = milliseconds(config, "lease.seconds");
    settings->blind_limit_ms = milliseconds(config, "lease.blind_limit");
    settings->claim_poll_ms = mf_config_integer(config, "claim.poll_ms");
    settings->drain_ms = milliseconds(config, "drain.seconds");
    settings->cancel_ms = milliseconds(config, "cancel.seconds");
    settings->provider_grace_s = (int32_t)mf_config_integer(config, "provider.grace_seconds");
    settings->preempt_s = (int32_t)mf_config_integer(config, "preempt.seconds");
    settings->batch_settle_s = (int32_t)mf_config_integer(config, "batch.settle_seconds");
    settings->retry_base_ms = mf_config_integer(config, "retry.base_ms");
    settings->retry_limit_ms = mf_config_integer(config, "retry.limit_ms");
    settings->hello_limit_ms = milliseconds(config, "watchdog.start_seconds");
    for (int i = 0; i < MF_PHASE_COUNT; i++)
        settings->silence_limit_ms[i] = milliseconds(config, silence[i]);
    settings->spool_memory_bytes = mf_config_integer(config, "spool.memory_bytes");
    settings->spool_file_bytes = mf_config_integer(config, "spool.file_bytes");
    settings->batch_records = mf_config_integer(config, "ingest.batch_records");
    settings->batch_ms = mf_config_integer(config, "ingest.batch_ms");
    settings->queue_bytes = mf_config_integer(config, "ingest.queue_bytes");
    settings->schema_wait_ms = milliseconds(config, "ingest.schema_wait");
}

/* "a=b, c=d" to a JSON object. */
static enum mf_status take_labels(struct mf_settings *settings, struct mf_error *error) {
    const char *text = mf_config_string(settings->config, "worker.labels");
    char *list = strdup(text ? text : ""), *rest = list, *entry;
    json_t *labels = json_object();
    enum mf_status status = MF_OK;
    while (!status && rest && *rest && (entry = strsep(&rest, ","))) {
        char *name = trim(strsep(&entry, "=")), *value = entry ? trim(entry) : NULL;
        if (!*name || !value || strlen(name) > 128 || json_object_get(labels, name) ||
            json_object_set_new(labels, name, json_string(value)))
            status = mf_error_set(error, MF_ERROR_CONFIGURATION,
                                  "worker.labels: '%.100s' is not name=value with a name of its own", name);
    }
    settings->labels = status ? NULL : json_dumps(labels, JSON_COMPACT | JSON_SORT_KEYS);
    if (!status && !settings->labels)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for settings");
    json_decref(labels);
    free(list);
    return status;
}

static void take_gpus(struct mf_settings *settings) {
    const struct mf_config *config = settings->config;
    const char *given = mf_config_string(config, "worker.gpus"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    settings->gpus = given                                    ? given
                     : !visible                               ? "all"
                     : *visible && strcmp(visible, "-1") != 0 ? visible
                                                              : "none";
    settings->gpu_lock_dir = mf_config_string(config, "gpu.lock_dir");
    settings->gpu_inventory_file = mf_config_string(config, "gpu.inventory_file");
    settings->gpu_poll_ms = mf_config_integer(config, "gpu.poll_ms");
    settings->gpu_foreign_bytes = mf_config_integer(config, "gpu.foreign_mib") << 20;
    settings->reserve_s = (int32_t)mf_config_integer(config, "reserve.seconds");
}

static char *copy_or(const char *given, char *(*otherwise)(void)) {
    return given ? strdup(given) : otherwise();
}

enum mf_status mf_settings_load(const char *path, const struct mf_config_override *overrides,
                                size_t override_count, struct mf_settings *settings, struct mf_error *error) {
    memset(settings, 0, sizeof *settings);
    enum mf_status status =
        mf_config_load(&mf_settings_table, path, overrides, override_count, &settings->config, error);
    if (status)
        return status;
    const struct mf_config *config = settings->config;
    settings->database_url = mf_config_string(config, "database.url");
    settings->registry_url = mf_config_string(config, "registry.url");
    settings->registry_username = mf_config_string(config, "registry.username");
    settings->registry_password = mf_config_string(config, "registry.password");
    settings->registry_ca_file = mf_config_string(config, "registry.ca_file");
    settings->events_topic = mf_config_string(config, "topics.events");
    settings->dlq_topic = mf_config_string(config, "topics.dlq");
    settings->http_listen = mf_config_string(config, "http.listen");
    settings->providers_folder = mf_config_string(config, "providers.folder");
    settings->providers_trusted = mf_config_string(config, "providers.trusted");
    settings->providers_user = mf_config_string(config, "providers.user");
    take_limits(settings);
    take_gpus(settings);
    settings->collect_ms = mf_config_integer(config, "storage.collect_seconds") * 1000;
    settings->keep_s = mf_config_integer(config, "storage.keep_seconds");
    settings->host = own_host_name();
    settings->worker_id = copy_or(mf_config_string(config, "worker.id"), own_host_name);
    settings->trainer_path = copy_or(mf_config_string(config, "trainer.path"), trainer_beside_program);
    if (!mf_tenant_name_valid(settings->worker_id))
        return mf_error_set(error, MF_ERROR_CONFIGURATION,
                            "worker.id: '%s' is not of the form [A-Za-z0-9._-]{1,64}", settings->worker_id);
    if ((status = add_topics(settings, "topics.requests", false, error)) ||
        (status = add_topics(settings, "topics.commands", true, error)) ||
        (status = apply_tenants(settings, error)) || (status = apply_roots(settings, error)) ||
        (status = take_labels(settings, error)) || (status = take_work_dir(settings, error)))
        return status;
    settings->download_ca_file = mf_config_string(config, "download.ca_file");
    settings->storage_s3_endpoint = mf_config_string(config, "storage.s3_endpoint");
    settings->storage_s3_region = mf_config_string(config, "storage.s3_region");
    settings->storage_s3_ca_file = mf_config_string(config, "storage.s3_ca_file");
    const char *storage = mf_config_string(config, "storage.url");
    if (storage)
        settings->storage_url = strdup(storage);
    else if (asprintf(&settings->storage_url, "file://%s/storage", settings->work_dir) < 0)
        settings->storage_url = NULL;
    return settings->storage_url ? MF_OK
                                 : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for settings");
}

struct mf_storage_options mf_settings_storage(const struct mf_settings *settings) {
    return (struct mf_storage_options){.url = settings->storage_url,
                                       .s3_endpoint = settings->storage_s3_endpoint,
                                       .s3_region = settings->storage_s3_region,
                                       .s3_ca_file = settings->storage_s3_ca_file};
}

void mf_settings_free(struct mf_settings *settings) {
    for (size_t i = 0; i < settings->topic_count; i++) {
        free(settings->topic[i].topic);
        free(settings->topic[i].tenants);
    }
    for (size_t i = 0; i < settings->root_count; i++) {
        free(settings->roots[i].tenant);
        free(settings->roots[i].root);
    }
    free(settings->roots);
    free(settings->labels);
    free(settings->worker_id);
    free(settings->host);
    free(settings->work_dir);
    free(settings->storage_url);
    free(settings->trainer_path);
    mf_config_free(settings->config);
    memset(settings, 0, sizeof *settings);
}
