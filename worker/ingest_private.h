/* Shared by the threads of worker/ingest.h only. */
#ifndef MF_WORKER_INGEST_PRIVATE_H
#define MF_WORKER_INGEST_PRIVATE_H

#include "worker/decode.h"
#include "worker/ingest.h"
#include "worker/partition.h"

#include <pthread.h>

/* A partition as one positioning of it: whatever belongs to an older generation is dropped. */
struct mf_place {
    size_t topic; /* index into settings->topic */
    int32_t partition;
    uint64_t generation;
};

enum mf_item_kind { MF_ITEM_RECORD, MF_ITEM_POSITION, MF_ITEM_HALT };

/* Poll thread to writer, in order. */
struct mf_item {
    enum mf_item_kind kind;
    struct mf_place place;
    struct mf_handed_record *record; /* RECORD */
    int64_t expected, found;         /* HALT: an anchor that does not match */
    size_t bytes;
    struct mf_item *next;
};

enum mf_answer_kind {
    MF_ANSWER_POSITION, /* start here */
    MF_ANSWER_FAILED,   /* the broker did not tell its watermarks: ask again a little later */
    MF_ANSWER_LOST      /* PostgreSQL's offset is not where this process left it: ask again */
};

/* Writer to poll thread. */
struct mf_answer {
    enum mf_answer_kind kind;
    struct mf_place place;
    struct mf_position position;
    struct mf_answer *next;
};

/* A schema id that a partition waits for. */
struct mf_wanted {
    const char *subject;
    uint32_t id;
    int64_t unknown_ms; /* CLOCK_MONOTONIC when the registry last said that it has no such id; 0: not yet */
    struct mf_wanted *next;
};

struct mf_ingest {
    struct mf_worker *worker;
    rd_kafka_t *consumer;
    struct mf_registry *registry;
    char *subject[MF_MAX_TOPICS]; /* of settings->topic */
    pthread_t poll_thread, writer_thread, resolver_thread;
    atomic_bool polling_ended; /* nothing is handed over any more */
    atomic_bool writer_waits;  /* for PostgreSQL */
    void *poller;              /* the poll thread's own */

    pthread_mutex_t lock; /* for the rest */
    struct mf_item *first, **last;
    size_t queued_records, queued_bytes;
    bool writing; /* the writer has taken items that it has not finished */
    struct mf_answer *answers, **last_answer;
    struct mf_wanted *wanted;
    struct mf_wakeup resolver_wakeup;
};

/* ---- worker/ingest_queue.c: all take the lock themselves -------------------------------------------- */

void mf_ingest_put(struct mf_ingest *ingest, struct mf_item *item); /* takes it */
/* A list of one control item, or of records up to the limits; NULL when nothing came within wait_ms. */
struct mf_item *mf_ingest_take(struct mf_ingest *ingest, int64_t wait_ms);
void mf_ingest_taken(struct mf_ingest *ingest, size_t records, size_t bytes); /* what was taken is finished */
void mf_item_free(struct mf_item *item);                                      /* one */
void mf_ingest_answer(struct mf_ingest *ingest, enum mf_answer_kind kind, const struct mf_place *place,
                      const struct mf_position *position);
struct mf_answer *mf_ingest_answers(struct mf_ingest *ingest); /* all, in order; the caller frees each */
void mf_ingest_want(struct mf_ingest *ingest, const char *subject, uint32_t id);
int64_t mf_ingest_unknown_since(struct mf_ingest *ingest, const char *subject, uint32_t id);
void mf_ingest_unwant(struct mf_ingest *ingest, const char *subject, uint32_t id);

/* ---- threads ---------------------------------------------------------------------------------------- */

void *mf_ingest_poll_main(void *ingest);
void *mf_ingest_writer_main(void *ingest);
void *mf_ingest_resolver_main(void *ingest);

#endif
