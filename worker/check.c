#include "worker/check.h"

#include "common/clock.h"
#include "common/digest.h"
#include "common/files.h"
#include "common/text.h"
#include "schemas/registry.h"
#include "sql/migrate.h"
#include "sql/store.h"
#include "worker/gpu_source.h"
#include "worker/kafka.h"
#include "worker/providers.h"
#include "worker/spawner.h"
#include "worker/storage.h"

#include <errno.h>
#include <jansson.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PROBE_BYTES = 64 * 1024, LEAST_FREE_MIB = 1024, ANSWER_MS = 10000 };

struct check {
    const struct mf_settings *settings;
    struct mf_findings *findings;
    bool development;
};

/* ---- storage ---- */

/* A small file of bytes that nobody else has, below work.dir, and where it lies in the storage. */
struct probe {
    char *source, *back;
    char name[64], key[128];
    unsigned char bytes[PROBE_BYTES];
    struct mf_stored_artifact object;
};

static enum mf_status make_probe(const struct check *check, struct probe *probe, struct mf_error *error) {
    char id[MF_UUID_TEXT_BYTES];
    mf_uuid_format(mf_uuid_random(), id);
    snprintf(probe->name, sizeof probe->name, "check-%s", id);
    snprintf(probe->key, sizeof probe->key, "check/%s", id);
    for (size_t i = 0; i < PROBE_BYTES; i += sizeof(uint64_t)) {
        uint64_t word = mf_random_u64();
        memcpy(probe->bytes + i, &word, sizeof word);
    }
    probe->source = mf_path_join(check->settings->work_dir, probe->name);
    if (probe->source && asprintf(&probe->back, "%s.back", probe->source) < 0)
        probe->back = NULL;
    if (!probe->source || !probe->back)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a path");
    return mf_file_write_atomic(probe->source, probe->bytes, PROBE_BYTES, 0600, error);
}

/* What is read back must be what was written, wherever it lies. */
static enum mf_status compare(const struct probe *probe, const char *path, struct mf_error *error) {
    char *bytes = NULL;
    size_t size = 0;
    enum mf_status status = mf_file_read(path, PROBE_BYTES + 1, &bytes, &size, error);
    if (!status && (size != PROBE_BYTES || memcmp(bytes, probe->bytes, size) != 0))
        status = mf_error_set(error, MF_ERROR_IO, "%s: what was written is read back as other bytes",
                              probe->object.uri);
    free(bytes);
    return status;
}

static enum mf_status try_storage(struct check *check, struct mf_storage *storage, struct probe *probe,
                                  struct mf_error *error) {
    char *path = NULL;
    enum mf_status status = make_probe(check, probe, error), removed;
    if (status)
        return status;
    status = mf_storage_publish(storage, check->settings->work_dir, probe->name, probe->key, NULL,
                                &probe->object, error);
    if (status)
        return mf_error_prefix(error, "writing");
    status =
        mf_storage_fetch(storage, probe->object.uri, probe->object.sha256, probe->back, NULL, &path, error);
    if (!status && !path)
        status = mf_error_set(error, MF_ERROR_IO, "%s is not there though it was written", probe->object.uri);
    if (!status)
        status = compare(probe, path, error);
    if (status)
        mf_error_prefix(error, "reading back");
    free(path);
    path = NULL;
    removed = mf_storage_remove(storage, probe->object.uri, status ? NULL : error);
    if (!status && removed)
        return mf_error_prefix(error, "removing");
    unlink(probe->back);
    if (!status)
        status = mf_storage_fetch(storage, probe->object.uri, probe->object.sha256, probe->back, NULL, &path,
                                  error);
    if (!status && path)
        status =
            mf_error_set(error, MF_ERROR_IO, "%s is still there though it was removed", probe->object.uri);
    free(path);
    return status;
}

/* Whether it works. */
static bool check_storage(struct check *check) {
    const struct mf_storage_options options = mf_settings_storage(check->settings);
    struct mf_storage *storage = NULL;
    struct probe *probe = calloc(1, sizeof *probe);
    struct mf_error error;
    int64_t began_ms = mf_clock_monotonic_ms();
    enum mf_status status = probe ? mf_storage_open(&options, &storage, &error)
                                  : mf_error_set(&error, MF_ERROR_OUT_OF_MEMORY, "no memory for a probe");
    if (!status && probe)
        status = try_storage(check, storage, probe, &error);
    if (status)
        mf_find(check->findings, MF_FINDING_FAULT, "storage",
                *options.url == 's'
                    ? "storage.s3_endpoint, the bucket, its keys and its policy: objects are written, "
                      "listed, read and removed below the prefix"
                    : "storage.url is a folder, on a mount that is there, that this user may write",
                "%s: %s", options.url, error.message);
    else
        mf_find(check->findings, MF_FINDING_OK, "storage", NULL,
                "%s: %d KiB written, read back and removed in %lld ms", options.url, PROBE_BYTES / 1024,
                (long long)(mf_clock_monotonic_ms() - began_ms));
    if (probe) {
        if (probe->source)
            unlink(probe->source);
        if (probe->back)
            unlink(probe->back);
        free(probe->source);
        free(probe->back);
        mf_stored_artifact_free(&probe->object);
    }
    free(probe);
    mf_storage_close(storage);
    return !status;
}

/* ---- the host ---- */

/* Whether this user may go through, read and, where asked, write it; and how much room there is. */
static void check_folder(struct check *check, const char *name, const char *folder, bool written) {
    struct statvfs facts;
    if (access(folder, written ? R_OK | W_OK | X_OK : R_OK | X_OK) || statvfs(folder, &facts)) {
        char user[64];
        snprintf(user, sizeof user, "user id %u", (unsigned)geteuid());
        mf_find(check->findings, MF_FINDING_FAULT, name,
                errno == ENOENT ? "make the folder, or mount it" : "give the worker's user its rights there",
                "%s: %s (as %s)", folder, strerror(errno), user);
        return;
    }
    const uint64_t free_mib = (uint64_t)facts.f_bavail * facts.f_frsize >> 20;
    const bool full = written && free_mib < LEAST_FREE_MIB;
    if (written)
        mf_find(check->findings, full ? MF_FINDING_FAULT : MF_FINDING_OK, name,
                full ? "make room: checkpoints and results need more" : NULL, "%s: %.1f GiB free", folder,
                (double)free_mib / 1024);
    else
        mf_find(check->findings, MF_FINDING_OK, name, NULL, "%s can be read", folder);
}

static void check_folders(struct check *check, bool stores) {
    static const char scheme[] = "file://";
    const struct mf_settings *settings = check->settings;
    check_folder(check, "work.dir", settings->work_dir, true);
    if (stores && !strncmp(settings->storage_url, scheme, sizeof scheme - 1))
        check_folder(check, "room in the storage", settings->storage_url + sizeof scheme - 1, true);
    for (size_t i = 0; i < settings->root_count; i++)
        if (*settings->roots[i].root == '/')
            check_folder(check, "tenants.roots", settings->roots[i].root, false);
}

static void check_providers_user(struct check *check) {
    const char *name = check->settings->providers_user;
    if (!name)
        return;
    if (!getpwnam(name))
        mf_find(check->findings, MF_FINDING_FAULT, "providers.user", "make the user, or name another one",
                "there is no user '%s' on this host", name);
    else if (geteuid() != 0)
        mf_find(check->findings, MF_FINDING_WARNING, "providers.user",
                "only root can start programs as another user", "this user cannot become '%s'", name);
    else
        mf_find(check->findings, MF_FINDING_OK, "providers.user", NULL, "'%s' is there", name);
}

/* ---- the trainer ---- */

/* GPUs as the driver tells of them, beside how many the trainer can use. */
static void check_gpus(struct check *check, const json_t *trainer) {
    const json_int_t usable =
        json_integer_value(json_object_get(json_object_get(trainer, "devices"), "cuda"));
    struct mf_gpu_source *source = NULL;
    struct mf_gpu *gpu = calloc(MF_MAX_GPUS, sizeof *gpu);
    char why[MF_GPU_FAULT_BYTES] = "";
    size_t count = 0;
    struct mf_error error;
    enum mf_status status =
        gpu ? mf_gpu_source_open(check->settings->gpu_inventory_file, &source, why, &error)
            : mf_error_set(&error, MF_ERROR_OUT_OF_MEMORY, "no memory for GPUs");
    if (!status && source)
        status = mf_gpu_source_read(source, gpu, &count, &error);
    for (size_t i = 0; !status && gpu && i < count; i++)
        mf_find(check->findings, *gpu[i].fault ? MF_FINDING_FAULT : MF_FINDING_OK, "GPU",
                *gpu[i].fault ? "no job gets it until it works; nvidia-smi -q shows more" : NULL,
                "%s, %.1f of %.1f GiB used, %s%s%s", gpu[i].name, (double)gpu[i].used_bytes / (1 << 30),
                (double)gpu[i].memory_bytes / (1 << 30), gpu[i].uuid, *gpu[i].fault ? ": " : "",
                gpu[i].fault);
    const bool blind = !status && count && !usable;
    if (status)
        mf_find(check->findings, MF_FINDING_FAULT, "devices", NULL, "%s", error.message);
    else
        mf_find(check->findings, blind ? MF_FINDING_WARNING : MF_FINDING_OK, "devices",
                blind ? "the trainer must be built with -DMODELFORGE_CUDA=ON and CUDA_VISIBLE_DEVICES must "
                        "not hide them"
                      : NULL,
                "the CPU and %lld GPU(s)%s%s", (long long)usable,
                blind            ? ", though the driver has some"
                : !count && *why ? ": "
                                 : "",
                count ? "" : why);
    mf_gpu_source_close(source);
    free(gpu);
}

static void judge_providers(struct check *check, const json_t *trainer) {
    struct mf_text usable = {0};
    size_t i;
    const json_t *provider;
    json_array_foreach(json_object_get(trainer, "providers"), i, provider) {
        const char *name = json_string_value(json_object_get(provider, "name"));
        const char *reason = json_string_value(json_object_get(provider, "reason"));
        if (json_is_true(json_object_get(provider, "available")))
            mf_text_printf(&usable, "%s%s", usable.length ? ", " : "", name);
        else
            mf_find(check->findings, MF_FINDING_WARNING, "provider",
                    "jobs that name it wait for another worker; 'modelforge-trainer providers' says more",
                    "%s cannot be used: %s", name, reason ? reason : "no reason given");
    }
    mf_find(check->findings, usable.length ? MF_FINDING_OK : MF_FINDING_FAULT, "trainer",
            usable.length ? NULL : "'modelforge-trainer providers' says what is missing", "%s offers %s",
            check->settings->trainer_path, usable.length ? mf_text_string(&usable) : "no provider");
    mf_text_free(&usable);
}

static void check_trainer(struct check *check) {
    struct mf_worker worker = {.settings = check->settings};
    struct mf_error error;
    enum mf_status status = mf_spawner_start(&worker.spawner, &error);
    if (!status)
        status = mf_providers_ask(&worker, &error);
    if (status) {
        mf_find(check->findings, MF_FINDING_FAULT, "trainer",
                "trainer.path names a program of this version that this user may run", "%s", error.message);
    } else {
        json_t *details = json_loads(worker.details, 0, NULL);
        judge_providers(check, json_object_get(details, "trainer"));
        check_gpus(check, json_object_get(details, "trainer"));
        json_decref(details);
    }
    mf_spawner_stop(worker.spawner);
    mf_providers_free(&worker);
}

/* ---- the services, by this configuration's logins ---- */

static void check_kafka(struct check *check) {
    static const struct mf_kafka_property none[] = {{NULL, NULL}};
    struct mf_worker worker = {.settings = check->settings};
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_t *client = NULL;
    struct mf_error error;
    enum mf_status status = mf_kafka_new(&worker, RD_KAFKA_CONSUMER, none, NULL, NULL, &client, &error);
    if (!status) {
        const rd_kafka_resp_err_t failure = rd_kafka_metadata(client, 0, NULL, &metadata, ANSWER_MS);
        if (failure)
            status = mf_error_set(&error, MF_ERROR_KAFKA, "%s", rd_kafka_err2str(failure));
        else
            rd_kafka_metadata_destroy(metadata);
        rd_kafka_destroy(client);
    }
    mf_find(check->findings, status ? MF_FINDING_FAULT : MF_FINDING_OK, "worker's kafka",
            status ? "kafka.* of the worker's configuration" : NULL, "%s",
            status ? error.message : "answers");
}

static void check_registry(struct check *check) {
    const struct mf_settings *settings = check->settings;
    const struct mf_registry_options options = {.url = settings->registry_url,
                                                .username = settings->registry_username,
                                                .password = settings->registry_password,
                                                .ca_file = settings->registry_ca_file,
                                                .attempts = 1};
    struct mf_registry *registry = NULL;
    struct mf_error error;
    enum mf_status status = mf_registry_new(&options, &registry, &error);
    if (!status)
        status = mf_registry_ping(registry, &error);
    mf_find(check->findings, status ? MF_FINDING_FAULT : MF_FINDING_OK, "worker's registry",
            status ? "registry.* of the worker's configuration" : NULL, "%s",
            status ? error.message : "answers");
    mf_registry_free(registry);
}

static void check_database(struct check *check) {
    const struct mf_database_options options = {.url = check->settings->database_url,
                                                .application_name = "modelforge-worker check",
                                                .connect_timeout_s = 5,
                                                .statement_timeout_ms = ANSWER_MS};
    struct mf_worker_rights rights = {0};
    struct mf_database *database = NULL;
    struct mf_error error;
    char mend[256];
    enum mf_status status = mf_database_open(&options, &database, &error);
    if (!status)
        status = mf_migrate_check(database, &error);
    if (!status)
        status = mf_store_worker_rights(database, &rights, &error);
    snprintf(mend, sizeof mend, "modelforge migrate --worker-login %s",
             rights.more || !*rights.login ? "NAME" : rights.login);
    if (status)
        mf_find(check->findings, MF_FINDING_FAULT, "worker's login", NULL, "%s", error.message);
    else if (!rights.enough)
        mf_find(check->findings, MF_FINDING_FAULT, "worker's login", mend, "%s lacks the rights of a worker",
                rights.login);
    else if (rights.more && !check->development)
        mf_find(check->findings, MF_FINDING_WARNING, "worker's login", mend,
                "%s has more rights than a worker needs: it could change the audit trail", rights.login);
    else
        mf_find(check->findings, MF_FINDING_OK, "worker's login", NULL, "%s has the rights of a worker%s",
                rights.login, rights.more ? ", and more" : " and no more");
    mf_database_close(database);
}

void mf_check_worker(const struct mf_settings *settings, bool development, struct mf_findings *findings) {
    struct check check = {.settings = settings, .findings = findings, .development = development};
    check_folders(&check, check_storage(&check));
    if (settings->slots) {
        check_trainer(&check);
        check_providers_user(&check);
    }
    check_kafka(&check);
    check_registry(&check);
    check_database(&check);
}
