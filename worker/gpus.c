#include "worker/gpus.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    STUCK_MS = 60000, /* a look that takes longer: the driver hangs */
    CHANGED = sizeof((struct mf_gpus_options *)0)->changed / sizeof(struct mf_wakeup *)
};

struct mf_gpus {
    struct mf_gpu_source *source;
    char *lock_dir;
    int64_t poll_ms, foreign_bytes;
    struct mf_wakeup *changed[CHANGED];
    struct mf_wakeup look; /* for the thread */
    pthread_t thread;
    atomic_bool stopping;
    bool threaded;
    char chosen[MF_MAX_GPUS][MF_GPU_UUID_BYTES]; /* empty when all are */
    size_t chosen_count;

    pthread_mutex_t lock; /* for what follows */
    struct mf_gpu gpu[MF_MAX_GPUS];
    size_t count;
    int64_t looked_ms; /* CLOCK_MONOTONIC of the last look that ended */
};

/* ---- watching ----------------------------------------------------------------------------------------- */

static bool is_chosen(const struct mf_gpus *gpus, const char *uuid) {
    for (size_t i = 0; i < gpus->chosen_count; i++)
        if (!strcmp(gpus->chosen[i], uuid))
            return true;
    return gpus->chosen_count == 0;
}

static bool free_of_others(const struct mf_gpus *gpus, const struct mf_gpu *gpu) {
    return gpu->used_bytes <= gpus->foreign_bytes;
}

/* What a look found takes the place of what was known. True when jobs may be claimed by it that could not
 * before, or the other way round. */
static bool replace(struct mf_gpus *gpus, const struct mf_gpu *found, size_t count) {
    bool differs = false;
    size_t kept = 0;
    pthread_mutex_lock(&gpus->lock);
    for (size_t i = 0; i < count; i++) {
        if (!is_chosen(gpus, found[i].uuid))
            continue;
        const struct mf_gpu before = gpus->gpu[kept];
        const bool same = kept < gpus->count && !strcmp(before.uuid, found[i].uuid);
        if (!same || strcmp(before.fault, found[i].fault) != 0) {
            differs = true;
            if (*found[i].fault)
                mf_log_warning("a GPU is taken out of service", MF_LOG_TEXT("uuid", found[i].uuid),
                               MF_LOG_TEXT("name", found[i].name), MF_LOG_TEXT("reason", found[i].fault));
            else
                mf_log_info("a GPU is in service", MF_LOG_TEXT("uuid", found[i].uuid),
                            MF_LOG_TEXT("name", found[i].name));
        }
        differs |= !same || free_of_others(gpus, &before) != free_of_others(gpus, &found[i]);
        gpus->gpu[kept++] = found[i];
    }
    differs |= kept != gpus->count;
    gpus->count = kept;
    gpus->looked_ms = mf_clock_monotonic_ms();
    pthread_mutex_unlock(&gpus->lock);
    return differs;
}

/* A look failed: what was there is there, but cannot be trusted. */
static bool distrust(struct mf_gpus *gpus, const struct mf_error *error) {
    struct mf_gpu found[MF_MAX_GPUS];
    pthread_mutex_lock(&gpus->lock);
    size_t count = gpus->count;
    memcpy(found, gpus->gpu, sizeof found);
    pthread_mutex_unlock(&gpus->lock);
    for (size_t i = 0; i < count; i++)
        snprintf(found[i].fault, sizeof found[i].fault, "it cannot be looked at: %.120s", error->message);
    return replace(gpus, found, count);
}

static void *watch(void *argument) {
    struct mf_gpus *gpus = argument;
    while (!atomic_load(&gpus->stopping)) {
        struct mf_gpu found[MF_MAX_GPUS];
        struct mf_error error;
        size_t count = 0;
        mf_wakeup_wait(&gpus->look, gpus->poll_ms);
        if (atomic_load(&gpus->stopping))
            break;
        if (!(mf_gpu_source_read(gpus->source, found, &count, &error) ? distrust(gpus, &error)
                                                                      : replace(gpus, found, count)))
            continue;
        for (size_t i = 0; i < CHANGED; i++)
            if (gpus->changed[i])
                mf_wakeup_raise(gpus->changed[i]);
    }
    return NULL;
}

/* Why a GPU that was looked at is not for jobs; "" for none. With the lock. */
static const char *fault_of(const struct mf_gpus *gpus, const struct mf_gpu *gpu) {
    return mf_clock_monotonic_ms() - gpus->looked_ms > STUCK_MS + gpus->poll_ms ? "the driver does not answer"
                                                                                : gpu->fault;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

/* One item of the choice: a uuid, or its beginning, or a position. */
static enum mf_status choose(struct mf_gpus *gpus, const char *item, const struct mf_gpu *found, size_t count,
                             struct mf_error *error) {
    const bool position = *item && !item[strspn(item, "0123456789")];
    size_t matches = 0, match = 0;
    for (size_t i = 0; i < count; i++)
        if (position ? strtoul(item, NULL, 10) == i : *item && !strncmp(found[i].uuid, item, strlen(item))) {
            match = i;
            matches++;
        }
    if (matches != 1)
        return mf_error_set(
            error, MF_ERROR_CONFIGURATION,
            "worker.gpus: '%.90s' names %s of the %zu GPUs here: give a uuid or a position from 0", item,
            matches ? "several" : "none", count);
    if (gpus->chosen_count < MF_MAX_GPUS)
        memcpy(gpus->chosen[gpus->chosen_count++], found[match].uuid, MF_GPU_UUID_BYTES);
    return MF_OK;
}

static enum mf_status choose_all(struct mf_gpus *gpus, const char *choice, const struct mf_gpu *found,
                                 size_t count, struct mf_error *error) {
    if (!strcmp(choice, "all"))
        return MF_OK;
    char *list = strdup(choice), *rest = list, *item;
    enum mf_status status =
        list ? MF_OK : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for settings");
    while (!status && (item = strsep(&rest, ","))) {
        while (isspace((unsigned char)*item))
            item++;
        size_t length = strlen(item);
        while (length && isspace((unsigned char)item[length - 1]))
            item[--length] = 0;
        status = choose(gpus, item, found, count, error);
    }
    free(list);
    return status;
}

static enum mf_status first_look(struct mf_gpus *gpus, const struct mf_gpus_options *options,
                                 struct mf_error *error) {
    struct mf_gpu found[MF_MAX_GPUS];
    size_t count = 0;
    enum mf_status status = mf_gpu_source_read(gpus->source, found, &count, error);
    if (!status)
        status = choose_all(gpus, options->choice, found, count, error);
    if (!status)
        (void)replace(gpus, found, count);
    return status;
}

static int open_lock(const struct mf_gpus *gpus, const char *name);

static enum mf_status check_lock_dir(const struct mf_gpus *gpus, struct mf_error *error) {
    enum mf_status status =
        mf_path_exists(gpus->lock_dir) ? MF_OK : mf_directory_create(gpus->lock_dir, 01777, error);
    int fd = status ? -1 : open_lock(gpus, "claim");
    if (!status && fd < 0)
        status = mf_error_errno(error, errno, "%s/modelforge-claim.lock", gpus->lock_dir);
    if (fd >= 0)
        close(fd);
    if (status) {
        mf_error_prefix(error, "gpu.lock_dir");
        error->status = MF_ERROR_CONFIGURATION;
    }
    return status ? MF_ERROR_CONFIGURATION : MF_OK;
}

enum mf_status mf_gpus_open(const struct mf_gpus_options *options, struct mf_gpus **gpus,
                            struct mf_error *error) {
    char why[MF_GPU_FAULT_BYTES];
    struct mf_gpu_source *source = NULL;
    *gpus = NULL;
    if (!strcmp(options->choice, "none"))
        return MF_OK;
    enum mf_status status = mf_gpu_source_open(options->inventory_file, &source, why, error);
    if (status)
        return status;
    if (!source && strcmp(options->choice, "all") != 0)
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "worker.gpus names GPUs, but there are none: %s",
                            why);
    if (!source) {
        mf_log_info("no GPUs are used", MF_LOG_TEXT("reason", why));
        return MF_OK;
    }
    struct mf_gpus *made = calloc(1, sizeof *made);
    char *lock_dir = strdup(options->lock_dir);
    if (!made || !lock_dir) {
        free(made);
        free(lock_dir);
        mf_gpu_source_close(source);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to watch GPUs");
    }
    made->source = source;
    made->lock_dir = lock_dir;
    made->poll_ms = options->poll_ms;
    made->foreign_bytes = options->foreign_bytes;
    for (size_t i = 0; i < CHANGED; i++)
        made->changed[i] = options->changed[i];
    pthread_mutex_init(&made->lock, NULL);
    mf_wakeup_init(&made->look);
    if ((status = check_lock_dir(made, error)) || (status = first_look(made, options, error))) {
        mf_gpus_close(made);
        return status;
    }
    int failure = pthread_create(&made->thread, NULL, watch, made);
    if (failure) {
        mf_gpus_close(made);
        return mf_error_errno(error, failure, "the thread that watches GPUs");
    }
    made->threaded = true;
    *gpus = made;
    return MF_OK;
}

void mf_gpus_close(struct mf_gpus *gpus) {
    if (!gpus)
        return;
    atomic_store(&gpus->stopping, true);
    mf_wakeup_raise(&gpus->look);
    if (gpus->threaded)
        pthread_join(gpus->thread, NULL);
    mf_wakeup_destroy(&gpus->look);
    pthread_mutex_destroy(&gpus->lock);
    mf_gpu_source_close(gpus->source);
    free(gpus->lock_dir);
    free(gpus);
}

bool mf_gpus_any(struct mf_gpus *gpus) {
    if (!gpus)
        return false;
    pthread_mutex_lock(&gpus->lock);
    const bool any = gpus->count > 0;
    pthread_mutex_unlock(&gpus->lock);
    return any;
}

/* ---- telling ------------------------------------------------------------------------------------------ */

static int larger_first(const void *a, const void *b) {
    const int64_t *left = a, *right = b;
    return (*left < *right) - (*left > *right);
}

json_t *mf_gpus_describe(struct mf_gpus *gpus, int64_t memory[MF_MAX_GPUS], size_t *working) {
    json_t *list = json_array();
    *working = 0;
    if (!gpus || !list)
        return list;
    pthread_mutex_lock(&gpus->lock);
    for (size_t i = 0; i < gpus->count; i++) {
        const struct mf_gpu *gpu = &gpus->gpu[i];
        const char *fault = fault_of(gpus, gpu);
        json_t *item = json_pack("{s:s, s:s, s:I, s:I, s:s?}", "uuid", gpu->uuid, "name", gpu->name,
                                 "memory_bytes", (json_int_t)gpu->memory_bytes, "used_bytes",
                                 (json_int_t)gpu->used_bytes, "fault", *fault ? fault : NULL);
        if (!*fault)
            memory[(*working)++] = gpu->memory_bytes;
        if (!item || json_array_append_new(list, item)) {
            json_decref(list);
            list = NULL;
            break;
        }
    }
    pthread_mutex_unlock(&gpus->lock);
    qsort(memory, *working, sizeof *memory, larger_first);
    return list;
}

/* ---- locks -------------------------------------------------------------------------------------------- */

/* -1 with errno. Any user's worker may lock: flock needs no right to write. */
static int open_lock(const struct mf_gpus *gpus, const char *name) {
    char path[4096 + MF_GPU_UUID_BYTES];
    int length = snprintf(path, sizeof path, "%s/modelforge-%s.lock", gpus->lock_dir, name);
    if (length < 0 || (size_t)length >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC |
                            O_NOFOLLOW); /* no O_CREAT: a sticky folder forbids it on others' files */
    return fd >= 0 || errno != ENOENT ? fd : open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
}

/* -1: somebody has it, or it cannot be made. */
static int try_lock(const struct mf_gpus *gpus, const char *name) {
    int fd = open_lock(gpus, name);
    if (fd < 0) {
        mf_log_warning("a GPU's lock cannot be opened", MF_LOG_TEXT("name", name),
                       MF_LOG_TEXT("folder", gpus->lock_dir), MF_LOG_TEXT("error", strerror(errno)));
        return -1;
    }
    if (!flock(fd, LOCK_EX | LOCK_NB))
        return fd;
    close(fd);
    return -1;
}

static int by_memory(const void *a, const void *b) {
    const struct mf_gpu_lock *left = a, *right = b;
    if (left->memory_bytes != right->memory_bytes)
        return left->memory_bytes < right->memory_bytes ? 1 : -1;
    return strcmp(left->uuid, right->uuid);
}

void mf_gpus_hold(struct mf_gpus *gpus, struct mf_gpu_hold *hold) {
    bool occupied = false;
    hold->count = 0;
    hold->busy = false;
    hold->claim_fd = -1;
    if (!gpus)
        return;
    if ((hold->claim_fd = try_lock(gpus, "claim")) < 0) {
        hold->busy = true;
        return;
    }
    pthread_mutex_lock(&gpus->lock);
    for (size_t i = 0; i < gpus->count; i++) {
        const struct mf_gpu *gpu = &gpus->gpu[i];
        struct mf_gpu_lock *lock = &hold->gpu[hold->count];
        if (*fault_of(gpus, gpu) || (lock->fd = try_lock(gpus, gpu->uuid)) < 0)
            continue;
        if (!free_of_others(gpus, gpu)) { /* or our last look was before its trainer ended */
            mf_gpu_unlock(lock);
            occupied = true;
            continue;
        }
        memcpy(lock->uuid, gpu->uuid, sizeof lock->uuid);
        lock->memory_bytes = gpu->memory_bytes;
        hold->count++;
    }
    pthread_mutex_unlock(&gpus->lock);
    qsort(hold->gpu, hold->count, sizeof *hold->gpu, by_memory);
    if (occupied)
        mf_wakeup_raise(&gpus->look);
}

void mf_gpu_unlock(struct mf_gpu_lock *lock) {
    if (lock->fd >= 0)
        close(lock->fd);
    lock->fd = -1;
}

void mf_gpu_hold_end(struct mf_gpu_hold *hold) {
    for (size_t i = 0; i < hold->count; i++)
        mf_gpu_unlock(&hold->gpu[i]);
    if (hold->claim_fd >= 0)
        close(hold->claim_fd);
    hold->claim_fd = -1;
    hold->count = 0;
}
