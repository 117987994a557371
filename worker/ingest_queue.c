#include "worker/ingest_private.h"

#include "common/clock.h"

#include <stdlib.h>
#include <string.h>

void mf_item_free(struct mf_item *item) {
    mf_handed_record_free(item->record);
    free(item);
}

void mf_ingest_put(struct mf_ingest *ingest, struct mf_item *item) {
    pthread_mutex_lock(&ingest->lock);
    item->next = NULL;
    *ingest->last = item;
    ingest->last = &item->next;
    ingest->queued_bytes += item->bytes;
    ingest->queued_records += item->kind == MF_ITEM_RECORD;
    mf_counter_set(&ingest->worker->counters, MF_COUNTER_INGEST_QUEUED, (int64_t)ingest->queued_records);
    pthread_mutex_unlock(&ingest->lock);
    mf_wakeup_raise(&ingest->worker->writer_wakeup);
}

/* Cuts off the head of the queue: a control item, or records up to the limit. Under the lock. */
static struct mf_item *cut(struct mf_ingest *ingest, struct mf_item ***end, int64_t limit,
                           bool records_only) {
    struct mf_item *list = ingest->first, **at = &ingest->first;
    if (!list || (records_only && list->kind != MF_ITEM_RECORD))
        return NULL;
    if (list->kind != MF_ITEM_RECORD) {
        at = &list->next;
    } else {
        for (int64_t n = 0; *at && (*at)->kind == MF_ITEM_RECORD && n < limit; n++)
            at = &(*at)->next;
    }
    ingest->first = *at;
    *at = NULL;
    if (!ingest->first)
        ingest->last = &ingest->first;
    *end = at;
    ingest->writing = true;
    return list;
}

static int64_t length(const struct mf_item *list) {
    int64_t count = 0;
    for (; list; list = list->next)
        count++;
    return count;
}

struct mf_item *mf_ingest_take(struct mf_ingest *ingest, int64_t wait_ms) {
    const struct mf_settings *settings = ingest->worker->settings;
    struct mf_item *list, **end = NULL, **more_end;
    pthread_mutex_lock(&ingest->lock);
    list = cut(ingest, &end, settings->batch_records, false);
    pthread_mutex_unlock(&ingest->lock);
    if (!list) {
        mf_wakeup_wait(&ingest->worker->writer_wakeup, wait_ms);
        pthread_mutex_lock(&ingest->lock);
        list = cut(ingest, &end, settings->batch_records, false);
        pthread_mutex_unlock(&ingest->lock);
    }
    int64_t until_ms = mf_clock_monotonic_ms() + settings->batch_ms, left_ms;
    int64_t room = settings->batch_records - length(list);
    while (list && list->kind == MF_ITEM_RECORD && room > 0 &&
           (left_ms = until_ms - mf_clock_monotonic_ms()) > 0) {
        mf_wakeup_wait(&ingest->worker->writer_wakeup, left_ms);
        pthread_mutex_lock(&ingest->lock);
        struct mf_item *more = cut(ingest, &more_end, room, true);
        pthread_mutex_unlock(&ingest->lock);
        if (more) {
            room -= length(more);
            *end = more;
            end = more_end;
        }
    }
    return list;
}

void mf_ingest_taken(struct mf_ingest *ingest, size_t records, size_t bytes) {
    pthread_mutex_lock(&ingest->lock);
    ingest->queued_records -= records;
    ingest->queued_bytes -= bytes;
    ingest->writing = false;
    mf_counter_set(&ingest->worker->counters, MF_COUNTER_INGEST_QUEUED, (int64_t)ingest->queued_records);
    pthread_mutex_unlock(&ingest->lock);
}

void mf_ingest_answer(struct mf_ingest *ingest, enum mf_answer_kind kind, const struct mf_place *place,
                      const struct mf_position *position) {
    struct mf_answer *answer = calloc(1, sizeof *answer);
    if (!answer)
        abort(); /* a partition that never gets its answer would stand still for ever */
    answer->kind = kind;
    answer->place = *place;
    if (position)
        answer->position = *position;
    pthread_mutex_lock(&ingest->lock);
    *ingest->last_answer = answer;
    ingest->last_answer = &answer->next;
    pthread_mutex_unlock(&ingest->lock);
}

struct mf_answer *mf_ingest_answers(struct mf_ingest *ingest) {
    pthread_mutex_lock(&ingest->lock);
    struct mf_answer *list = ingest->answers;
    ingest->answers = NULL;
    ingest->last_answer = &ingest->answers;
    pthread_mutex_unlock(&ingest->lock);
    return list;
}

static struct mf_wanted **find(struct mf_ingest *ingest, const char *subject, uint32_t id) {
    struct mf_wanted **at = &ingest->wanted;
    while (*at && ((*at)->id != id || strcmp((*at)->subject, subject) != 0))
        at = &(*at)->next;
    return at;
}

void mf_ingest_want(struct mf_ingest *ingest, const char *subject, uint32_t id) {
    pthread_mutex_lock(&ingest->lock);
    struct mf_wanted **at = find(ingest, subject, id);
    if (!*at && (*at = calloc(1, sizeof **at))) /* without memory: asked again at the next look */
        **at = (struct mf_wanted){.subject = subject, .id = id};
    pthread_mutex_unlock(&ingest->lock);
    mf_wakeup_raise(&ingest->resolver_wakeup);
}

int64_t mf_ingest_unknown_since(struct mf_ingest *ingest, const char *subject, uint32_t id) {
    pthread_mutex_lock(&ingest->lock);
    struct mf_wanted *wanted = *find(ingest, subject, id);
    int64_t unknown_ms = wanted ? wanted->unknown_ms : 0;
    pthread_mutex_unlock(&ingest->lock);
    return unknown_ms;
}

void mf_ingest_unwant(struct mf_ingest *ingest, const char *subject, uint32_t id) {
    pthread_mutex_lock(&ingest->lock);
    struct mf_wanted **at = find(ingest, subject, id), *gone = *at;
    if (gone)
        *at = gone->next;
    free(gone);
    pthread_mutex_unlock(&ingest->lock);
}
