#include "worker/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THIN_KEEP_EVERY = 16 };

/* A record on disk and in memory: its length, then its bytes. Order: memory is older than the file; while the
 * file holds anything new records go to the file. */
struct mf_spool {
    pthread_mutex_t lock;
    char *path;
    struct mf_spool_limits limits;
    char *memory; /* a block of memory_bytes, records from `head` to `tail` */
    size_t head, tail, memory_records;
    int fd; /* -1: no file */
    int64_t file_head, file_tail;
    size_t file_records;
    uint64_t thin_seen;
    int64_t dropped;
};

enum mf_status mf_spool_open(const char *path, const struct mf_spool_limits *limits, struct mf_spool **spool,
                             struct mf_error *error) {
    struct mf_spool *made = calloc(1, sizeof *made);
    *spool = NULL;
    if (made) {
        made->fd = -1;
        made->limits = *limits;
        if (made->limits.memory_bytes < 2 * (MF_SPOOL_RECORD_BYTES + sizeof(uint32_t)))
            made->limits.memory_bytes = 2 * (MF_SPOOL_RECORD_BYTES + sizeof(uint32_t));
        made->path = strdup(path);
        made->memory = malloc(made->limits.memory_bytes);
    }
    if (!made || !made->path || !made->memory) {
        if (made) {
            free(made->path);
            free(made->memory);
        }
        free(made);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the metrics spool");
    }
    pthread_mutex_init(&made->lock, NULL);
    *spool = made;
    return MF_OK;
}

void mf_spool_close(struct mf_spool *spool) {
    if (!spool)
        return;
    if (spool->fd >= 0) {
        close(spool->fd);
        unlink(spool->path);
    }
    pthread_mutex_destroy(&spool->lock);
    free(spool->memory);
    free(spool->path);
    free(spool);
}

static bool write_at(int fd, const void *bytes, size_t length, int64_t offset) {
    const char *at = bytes;
    while (length) {
        ssize_t n = pwrite(fd, at, length, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
        offset += n;
    }
    return true;
}

static bool read_at(int fd, void *bytes, size_t length, int64_t offset) {
    char *at = bytes;
    while (length) {
        ssize_t n = pread(fd, at, length, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
        offset += n;
    }
    return true;
}

/* A record that is only half written is overwritten by the next one: file_tail moves last. */
static bool append_to_file(struct mf_spool *spool, const void *record, uint32_t bytes) {
    if (spool->fd < 0)
        spool->fd = open(spool->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (spool->fd < 0 || !write_at(spool->fd, &bytes, sizeof bytes, spool->file_tail) ||
        !write_at(spool->fd, record, bytes, spool->file_tail + (int64_t)sizeof bytes))
        return false;
    spool->file_tail += (int64_t)(sizeof bytes + bytes);
    spool->file_records++;
    return true;
}

static bool append_to_memory(struct mf_spool *spool, const void *record, uint32_t bytes) {
    size_t need = sizeof bytes + bytes;
    if (spool->limits.memory_bytes - spool->tail < need && spool->head) {
        memmove(spool->memory, spool->memory + spool->head, spool->tail - spool->head);
        spool->tail -= spool->head;
        spool->head = 0;
    }
    if (spool->limits.memory_bytes - spool->tail < need)
        return false;
    memcpy(spool->memory + spool->tail, &bytes, sizeof bytes);
    memcpy(spool->memory + spool->tail + sizeof bytes, record, bytes);
    spool->tail += need;
    spool->memory_records++;
    return true;
}

void mf_spool_append(struct mf_spool *spool, enum mf_spool_class class_, const void *record, size_t bytes) {
    pthread_mutex_lock(&spool->lock);
    int64_t waiting = spool->file_tail - spool->file_head;
    bool kept = bytes <= MF_SPOOL_RECORD_BYTES, thin = class_ == MF_SPOOL_THIN;
    if (kept && (spool->file_records || !append_to_memory(spool, record, (uint32_t)bytes))) {
        kept = waiting + (int64_t)bytes <= spool->limits.file_bytes;
        if (kept && thin && waiting > spool->limits.file_bytes / 2)
            kept = spool->thin_seen++ % THIN_KEEP_EVERY == 0;
        kept = kept && append_to_file(spool, record, (uint32_t)bytes);
    }
    if (!kept)
        spool->dropped++;
    pthread_mutex_unlock(&spool->lock);
}

/* Moves records from the file to memory while they fit. Under the lock. */
static void refill(struct mf_spool *spool) {
    char record[MF_SPOOL_RECORD_BYTES];
    int64_t before = spool->file_head;
    while (spool->file_records) {
        uint32_t bytes;
        if (!read_at(spool->fd, &bytes, sizeof bytes, spool->file_head) || bytes > sizeof record ||
            !read_at(spool->fd, record, bytes, spool->file_head + (int64_t)sizeof bytes)) {
            spool->dropped += (int64_t)spool->file_records;
            spool->file_records = 0;
            break;
        }
        if (!append_to_memory(spool, record, bytes)) {
            /* Gives the disk back where the file system can; where not, an emptied file is cut below. */
            (void)fallocate(spool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, before,
                            spool->file_head - before);
            return;
        }
        spool->file_head += (int64_t)(sizeof bytes + bytes);
        spool->file_records--;
    }
    if (spool->file_tail) { /* empty: give the space back */
        spool->file_head = spool->file_tail = 0;
        if (ftruncate(spool->fd, 0)) { /* harmless: the space is reused from the start */
        }
    }
}

size_t mf_spool_peek(struct mf_spool *spool, size_t max_records,
                     void (*visit)(void *context, const void *record, size_t bytes), void *context) {
    pthread_mutex_lock(&spool->lock);
    if (spool->file_records && spool->memory_records < max_records)
        refill(spool);
    size_t count = 0;
    for (size_t at = spool->head; count < max_records && count < spool->memory_records; count++) {
        uint32_t bytes;
        memcpy(&bytes, spool->memory + at, sizeof bytes);
        visit(context, spool->memory + at + sizeof bytes, bytes);
        at += sizeof bytes + bytes;
    }
    pthread_mutex_unlock(&spool->lock);
    return count;
}

void mf_spool_remove(struct mf_spool *spool, size_t records) {
    pthread_mutex_lock(&spool->lock);
    for (; records && spool->memory_records; records--, spool->memory_records--) {
        uint32_t bytes;
        memcpy(&bytes, spool->memory + spool->head, sizeof bytes);
        spool->head += sizeof bytes + bytes;
    }
    if (!spool->memory_records)
        spool->head = spool->tail = 0;
    pthread_mutex_unlock(&spool->lock);
}

size_t mf_spool_depth(struct mf_spool *spool) {
    pthread_mutex_lock(&spool->lock);
    size_t depth = spool->memory_records + spool->file_records;
    pthread_mutex_unlock(&spool->lock);
    return depth;
}

int64_t mf_spool_take_dropped(struct mf_spool *spool) {
    pthread_mutex_lock(&spool->lock);
    int64_t dropped = spool->dropped;
    spool->dropped = 0;
    pthread_mutex_unlock(&spool->lock);
    return dropped;
}
