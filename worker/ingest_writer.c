/* The writer: where partitions start, and batches into PostgreSQL with their offsets. */
#include "worker/ingest_private.h"

#include "common/clock.h"
#include "common/log.h"
#include "worker/claim.h"
#include "worker/failpoint.h"

#include <stdlib.h>
#include <string.h>

enum { IDLE_MS = 200, WATERMARK_MS = 5000, STATEMENT_MS = 30000, NOTIFY_EVERY_MS = 20 };

/* What this process knows of a partition: next_offset as it last read or wrote it. */
struct entry {
    struct mf_place place;
    int64_t expected;
};

struct writer {
    struct mf_ingest *ingest;
    const struct mf_settings *settings;
    struct mf_link link;
    char *cluster_id;
    struct entry *entry;
    size_t entries;
    struct mf_ingest_record *row; /* batch_records */
    int64_t notified_ms;
    bool notify;
    bool gave_up; /* the worker ends and PostgreSQL is away: what is queued will be read again by others */
};

static bool over(const struct writer *writer) {
    return writer->gave_up || atomic_load(&writer->ingest->worker->stopping);
}

/* Waits until PostgreSQL can be used; false when the worker stops first. */
static bool wait_for_database(struct writer *writer) {
    while (!mf_link_ready(&writer->link)) {
        atomic_store(&writer->ingest->writer_waits, true);
        writer->gave_up |= atomic_load(&writer->ingest->polling_ended);
        if (over(writer))
            return false;
        int64_t delay_ms = mf_link_delay_ms(&writer->link);
        mf_wakeup_wait(&writer->ingest->worker->writer_wakeup, delay_ms < 10 ? 10 : delay_ms);
    }
    atomic_store(&writer->ingest->writer_waits, false);
    return true;
}

static struct entry *find(struct writer *writer, const struct mf_place *place) {
    for (size_t i = 0; i < writer->entries; i++)
        if (writer->entry[i].place.topic == place->topic &&
            writer->entry[i].place.partition == place->partition)
            return &writer->entry[i];
    return NULL;
}

static struct entry *find_or_add(struct writer *writer, const struct mf_place *place) {
    struct entry *entry = find(writer, place);
    if (entry)
        return entry;
    struct entry *grown = realloc(writer->entry, (writer->entries + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    writer->entry = grown;
    entry = &grown[writer->entries++];
    *entry = (struct entry){.place = *place, .expected = MF_OFFSET_NONE};
    return entry;
}

static const char *topic_of(const struct writer *writer, const struct mf_place *place) {
    return writer->settings->topic[place->topic].topic;
}

/* Reads one partition's row; *found says whether there is one. Keeps trying while PostgreSQL is away; false
 * when the worker stops. */
static bool read_offset(struct writer *writer, const struct mf_place *place, struct mf_ingest_offset *offset,
                        bool *found) {
    for (;;) {
        struct mf_ingest_offset *offsets = NULL;
        struct mf_error error;
        size_t count = 0;
        if (!wait_for_database(writer))
            return false;
        enum mf_status status = mf_store_read_offsets(writer->link.database, writer->cluster_id,
                                                      topic_of(writer, place), &offsets, &count, &error);
        *found = false;
        for (size_t i = 0; !status && i < count; i++)
            if (offsets[i].partition == place->partition) {
                *offset = offsets[i];
                *found = true;
            }
        free(offsets);
        if (!status)
            return true;
        mf_link_note(&writer->link, status, "reading offsets", &error);
    }
}

/* ---- where a partition starts ----------------------------------------------------------------------- */

static bool know_cluster(struct writer *writer) {
    if (!writer->cluster_id) {
        char *id = rd_kafka_clusterid(writer->ingest->consumer, WATERMARK_MS);
        if (id)
            writer->cluster_id = strdup(id);
        free(id); /* librdkafka's allocator is the C library's */
    }
    return writer->cluster_id != NULL;
}

static void halt(struct writer *writer, const struct mf_place *place, const char *kind, int64_t expected,
                 int64_t found, const char *detail) {
    struct mf_error error;
    mf_log_error("a partition is halted: it needs `modelforge ingest reset`",
                 MF_LOG_TEXT("topic", topic_of(writer, place)), MF_LOG_INTEGER("partition", place->partition),
                 MF_LOG_TEXT("kind", kind), MF_LOG_INTEGER("expected", expected),
                 MF_LOG_INTEGER("found", found));
    while (wait_for_database(writer)) {
        enum mf_status status =
            mf_store_halt_partition(writer->link.database, writer->cluster_id, topic_of(writer, place),
                                    place->partition, kind, expected, found, detail, &error);
        if (!mf_link_note(&writer->link, status, "halting a partition", &error))
            return;
    }
}

static void position(struct writer *writer, const struct mf_place *place) {
    struct mf_ingest *ingest = writer->ingest;
    struct mf_ingest_offset known;
    bool found = false;
    int64_t low, high;
    struct entry *entry = find_or_add(writer, place);
    if (!entry || !know_cluster(writer) ||
        rd_kafka_query_watermark_offsets(ingest->consumer, topic_of(writer, place), place->partition, &low,
                                         &high, WATERMARK_MS)) {
        mf_ingest_answer(ingest, MF_ANSWER_FAILED, place, NULL);
        return;
    }
    if (!read_offset(writer, place, &known, &found))
        return;
    struct mf_position decided = mf_position_decide(found ? &known : NULL, low, high);
    if (decided.kind == MF_POSITION_HALT && decided.halt_kind)
        halt(writer, place, decided.halt_kind, decided.expected, decided.halt_found,
             "the topic no longer holds the record after the last one taken");
    entry->place = *place;
    entry->expected = decided.expected;
    mf_ingest_answer(ingest, MF_ANSWER_POSITION, place, &decided);
}

/* ---- batches ---------------------------------------------------------------------------------------- */

static void count_fates(struct writer *writer, const struct mf_ingest_record *rows, size_t count) {
    struct mf_counters *counters = &writer->ingest->worker->counters;
    bool outbox = false;
    for (size_t i = 0; i < count; i++) {
        enum mf_ingest_fate fate = rows[i].fate;
        mf_counter_add(counters,
                       fate == MF_FATE_ACCEPTED    ? MF_COUNTER_INGEST_ACCEPTED
                       : fate == MF_FATE_DUPLICATE ? MF_COUNTER_INGEST_DUPLICATE
                       : fate == MF_FATE_IGNORED   ? MF_COUNTER_INGEST_IGNORED
                                                   : MF_COUNTER_INGEST_REJECTED,
                       1);
        writer->notify |= fate == MF_FATE_ACCEPTED && rows[i].kind == MF_INGEST_REQUEST;
        outbox |= fate == MF_FATE_ACCEPTED || fate == MF_FATE_REJECTED;
        if (fate == MF_FATE_ACCEPTED && rows[i].kind == MF_INGEST_COMMAND)
            mf_wakeup_raise(
                &writer->ingest->worker->heartbeat_wakeup); /* it may be for a job that runs here */
    }
    if (outbox)
        mf_wakeup_raise(&writer->ingest->worker->outbox_wakeup);
}

/* Kafka's committed offset shows the lag to Kafka's tools; nothing here reads it. */
static void tell_kafka(struct writer *writer, const struct entry *entry) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic_of(writer, &entry->place), entry->place.partition)->offset =
        entry->expected;
    (void)rd_kafka_commit(writer->ingest->consumer, list, 1);
    rd_kafka_topic_partition_list_destroy(list);
}

static void lose(struct writer *writer, struct entry *entry) {
    struct mf_place place = entry->place;
    entry->place.generation = 0; /* drops what is still queued of it */
    mf_ingest_answer(writer->ingest, MF_ANSWER_LOST, &place, NULL);
}

/* Drops the rows below `next`; returns how many are left. */
static size_t drop_below(struct mf_ingest_record *rows, size_t count, int64_t next) {
    size_t gone = 0;
    while (gone < count && rows[gone].offset < next)
        gone++;
    memmove(rows, rows + gone, (count - gone) * sizeof *rows);
    return count - gone;
}

/* Puts rows of one partition into PostgreSQL, whatever happens to the connection on the way: after every
 * failure it reads where the partition stands before it tries again. */
static void write_batch(struct writer *writer, struct entry *entry, struct mf_ingest_record *rows,
                        size_t count) {
    int64_t next = rows[count - 1].offset + 1;
    count = drop_below(rows, count, entry->expected);
    while (count && wait_for_database(writer)) {
        struct mf_ingest_batch batch = {.cluster_id = writer->cluster_id,
                                        .topic = topic_of(writer, &entry->place),
                                        .partition = entry->place.partition,
                                        .expected = entry->expected,
                                        .next = next,
                                        .records = rows,
                                        .count = count};
        struct mf_error error;
        bool applied = false;
        mf_failpoint("ingest.before_commit");
        enum mf_status status = mf_store_ingest_batch(writer->link.database, &batch, &applied, &error);
        if (!status && applied) {
            mf_failpoint("ingest.after_commit");
            entry->expected = next;
            count_fates(writer, rows, count);
            tell_kafka(writer, entry);
            return;
        }
        struct mf_ingest_offset now;
        bool found;
        if (status && mf_link_note(&writer->link, status, "taking in records", &error) &&
            !writer->link.failures)
            mf_wakeup_wait(&writer->ingest->worker->writer_wakeup,
                           IDLE_MS); /* not the connection: no hot loop */
        if (!read_offset(writer, &entry->place, &now, &found))
            return;
        int64_t stands = found ? now.next : MF_OFFSET_NONE;
        const bool moved = stands != entry->expected;
        if (moved) { /* by this batch or a part of it, or by another consumer: what came in is not known */
            writer->notify = true;
            mf_wakeup_raise(&writer->ingest->worker->heartbeat_wakeup);
            mf_wakeup_raise(&writer->ingest->worker->outbox_wakeup);
        }
        if (moved && (!status || stands < entry->expected || stands > next)) {
            lose(writer, entry); /* another consumer, or this batch so late that it looks like one */
            return;
        }
        entry->expected = stands;
        count = drop_below(rows, count, stands);
    }
}

/* Sends the records of a list, partition by partition. */
static void write_records(struct writer *writer, struct mf_item *list) {
    for (struct mf_item *first = list; first; first = first->next) {
        if (!first->record)
            continue;
        struct entry *entry = find(writer, &first->place);
        size_t count = 0;
        struct mf_item *taken = NULL;
        for (struct mf_item *item = first; item; item = item->next) {
            if (!item->record || item->place.topic != first->place.topic ||
                item->place.partition != first->place.partition)
                continue;
            if (entry && item->place.generation == entry->place.generation)
                writer->row[count++] = item->record->row;
            taken = item;
        }
        if (count && taken)
            write_batch(writer, entry, writer->row, count);
        struct mf_place place = first->place;
        for (struct mf_item *item = first; item; item = item->next)
            if (item->record && item->place.topic == place.topic &&
                item->place.partition == place.partition) {
                mf_handed_record_free(item->record);
                item->record = NULL;
            }
    }
}

static void handle(struct writer *writer, struct mf_item *list) {
    size_t records = 0, bytes = 0;
    for (const struct mf_item *item = list; item; item = item->next) {
        records += item->kind == MF_ITEM_RECORD;
        bytes += item->bytes;
    }
    if (list->kind == MF_ITEM_POSITION)
        position(writer, &list->place);
    else if (list->kind == MF_ITEM_HALT)
        halt(writer, &list->place, "anchor_mismatch", list->expected, list->found,
             "the record at the anchor is not the one that was taken");
    else
        write_records(writer, list);
    while (list) {
        struct mf_item *next = list->next;
        mf_item_free(list);
        list = next;
    }
    mf_ingest_taken(writer->ingest, records, bytes);
}

/* Tells claimers, alone and not too often. */
static void notify(struct writer *writer) {
    struct mf_error error;
    int64_t now = mf_clock_monotonic_ms();
    if (!writer->notify || now - writer->notified_ms < NOTIFY_EVERY_MS || !mf_link_ready(&writer->link))
        return;
    writer->notify = false;
    writer->notified_ms = now;
    mf_link_note(&writer->link, mf_database_notify(writer->link.database, MF_CHANNEL_JOBS, &error),
                 "notifying", &error);
}

void *mf_ingest_writer_main(void *argument) {
    struct mf_ingest *ingest = argument;
    struct writer writer = {.ingest = ingest, .settings = ingest->worker->settings};
    mf_link_init(&writer.link, ingest->worker, "modelforge-worker ingest", STATEMENT_MS);
    writer.row = calloc((size_t)writer.settings->batch_records, sizeof *writer.row);
    if (!writer.row)
        abort();
    while (!over(&writer)) {
        bool last = atomic_load(&ingest->polling_ended);
        struct mf_item *list = mf_ingest_take(ingest, writer.notify ? NOTIFY_EVERY_MS : IDLE_MS);
        if (list)
            handle(&writer, list);
        notify(&writer);
        if (!list && last)
            break;
    }
    mf_link_close(&writer.link);
    free(writer.cluster_id);
    free(writer.entry);
    free(writer.row);
    return NULL;
}

/* ---- the resolver ----------------------------------------------------------------------------------- */

void *mf_ingest_resolver_main(void *argument) {
    enum { ASK_MS = 200 };
    struct mf_ingest *ingest = argument;
    struct mf_counters *counters = &ingest->worker->counters;
    while (!atomic_load(&ingest->worker->stopping) && !atomic_load(&ingest->polling_ended)) {
        mf_wakeup_wait(&ingest->resolver_wakeup, ASK_MS);
        pthread_mutex_lock(&ingest->lock);
        const struct mf_wanted *first = ingest->wanted;
        struct mf_wanted wanted[MF_MAX_TOPICS];
        size_t count = 0;
        for (; first && count < MF_MAX_TOPICS; first = first->next)
            wanted[count++] = *first;
        pthread_mutex_unlock(&ingest->lock);
        for (size_t i = 0; i < count; i++) {
            const struct mf_avro_schema *schema;
            struct mf_error error;
            enum mf_status status =
                mf_registry_writer_schema(ingest->registry, wanted[i].subject, wanted[i].id, &schema, &error);
            bool answered = !status || status == MF_ERROR_UNKNOWN_SCHEMA;
            if (answered != (mf_counter_get(counters, MF_COUNTER_REGISTRY_UP) == 1))
                mf_log_warning(answered ? "the schema registry answers again" : "the schema registry is away",
                               MF_LOG_TEXT("error", answered ? "" : error.message));
            mf_counter_set(counters, MF_COUNTER_REGISTRY_UP, answered);
            if (status == MF_ERROR_UNKNOWN_SCHEMA) {
                pthread_mutex_lock(&ingest->lock);
                for (struct mf_wanted *at = ingest->wanted; at; at = at->next)
                    if (at->id == wanted[i].id && !strcmp(at->subject, wanted[i].subject))
                        at->unknown_ms = mf_clock_monotonic_ms();
                pthread_mutex_unlock(&ingest->lock);
            }
        }
    }
    return NULL;
}
