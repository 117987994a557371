/* The outbox thread. Rows are fetched page by page, go out side by side, and are settled as their reports
 * come: nothing waits for a report but the rows of the same key, so that a topic or partition that takes
 * nothing holds up only what is meant for it. */
#include "worker/outbox.h"

#include "common/clock.h"
#include "common/log.h"
#include "schemas/avro_codec.h"
#include "schemas/registry.h"
#include "sql/store.h"
#include "worker/failpoint.h"
#include "worker/kafka.h"
#include "worker/outbox_keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    IDLE_MS = 500,   /* between two looks when nobody wakes the thread */
    RETRY_MS = 500,  /* of what is not ready to send at all */
    PASS_MS = 20,    /* rows under way are met again by every pass: not more often than this */
    REPORTS_MS = 10, /* longest wait for reports before the flags are looked at */
    PURGE_MS = 5000,
    CLOSE_MS = 2000,          /* for reports of what is under way when the worker stops */
    EVENTS_RETRY_MS = 15000,  /* back-off of a job's events at most */
    LETTERS_RETRY_MS = 60000, /* of the dead letters of a partition */
    FULL_WARNING_MS = 60000,
    LOCK_MS = 2000, /* how often shards of vanished holders are tried */
    PAGE_ROWS = 200,
    LETTERS_TOGETHER = 200, /* of one partition */
    EVENT_FLIGHTS = 1536,   /* under way at once */
    LETTER_FLIGHTS = 512,
    PROBES = 128, /* of these, of keys that failed: the room is for those that do not */
    FLIGHTS = EVENT_FLIGHTS + LETTER_FLIGHTS,
    BARE_ROWS = 256,
    STATEMENT_MS = 20000,
    HEADER_KEY_BYTES = 4096 /* a longer key is left out of the dead letter's headers */
};

enum fate { FREE, SENT, DELIVERED, REFUSED, FAILED };

/* One row under way. librdkafka has a copy of its content. */
struct flight {
    enum fate fate;
    enum mf_outbox_kind kind;
    rd_kafka_resp_err_t error;
    bool with_value, probe;
    int64_t row;
    char key[MF_OUTBOX_KEY_BYTES];
    struct flight *next; /* free ones */
};

/* One kind of row: events and dead letters go to topics of their own. A pass looks at every row that waits,
 * shard by shard.
 */
struct lane {
    int64_t pass_ms;          /* when the pass began */
    int64_t hold_ms, rest_ms; /* nothing is sent before (no producer, no schema); no pass begins before */
    int64_t after[MF_OUTBOX_SHARDS];
    bool ended[MF_OUTBOX_SHARDS]; /* this pass is through with the shard */
    bool again;                   /* another pass is due: rows came back, or there may be new ones */
    bool sent, skipped;           /* the pass sent something; it passed rows whose keys may not go now */
    size_t open, probes;          /* under way; of these, of keys that failed */
    size_t limit;
};

struct outbox {
    struct mf_worker *worker;
    struct mf_link link;
    rd_kafka_t *producer;
    struct mf_registry *registry;
    uint32_t event_schema; /* id of the events' schema; 0: not known yet */
    uint64_t session;      /* in which the shards below are held */
    bool held[MF_OUTBOX_SHARDS];
    int64_t next_lock_ms, next_warning_ms, next_full_ms;
    struct lane lane[MF_OUTBOX_KINDS];
    struct flight flight[FLIGHTS], *free;
    size_t reports; /* flights that wait for one */
    int64_t
        bare[BARE_ROWS]; /* dead letters whose topic takes no message of their size: go without their value */
    size_t bare_next;
    struct mf_outbox_keys keys;
};

static void on_delivery(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque) {
    struct outbox *outbox = opaque;
    struct flight *flight = message->_private;
    (void)producer;
    flight->error = message->err;
    flight->fate = !message->err ? DELIVERED
                   : message->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
                           message->err == RD_KAFKA_RESP_ERR_INVALID_RECORD
                       ? REFUSED
                       : FAILED;
    outbox->reports--;
}

static void set_delivery(rd_kafka_conf_t *conf) {
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
}

/* Ends the producer and every wait for its reports: rows whose fate is not known by then count as failed. */
static void drop_producer(struct outbox *outbox) {
    int64_t end_ms = mf_clock_monotonic_ms() + PURGE_MS;
    if (!outbox->producer)
        return;
    rd_kafka_purge(outbox->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (outbox->reports && mf_clock_monotonic_ms() < end_ms)
        rd_kafka_poll(outbox->producer, REPORTS_MS);
    rd_kafka_destroy(outbox->producer);
    outbox->producer = NULL;
    outbox->reports = 0;
    for (size_t i = 0; i < FLIGHTS; i++)
        if (outbox->flight[i].fate == SENT) {
            outbox->flight[i].fate = FAILED;
            outbox->flight[i].error = RD_KAFKA_RESP_ERR__DESTROY;
        }
}

/* Makes the producer when there is none, or when it declared itself fatally broken (rule 5). */
static bool producer_ready(struct outbox *outbox) {
    static const struct mf_kafka_property fixed[] = {{"enable.idempotence", "true"},
                                                     {"acks", "all"},
                                                     {"partitioner", "murmur2_random"},
                                                     {"message.timeout.ms", "10000"},
                                                     {NULL, NULL}};
    char reason[256];
    struct mf_error error;
    if (outbox->producer && mf_fault("outbox.fatal"))
        rd_kafka_test_fatal_error(outbox->producer, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                                  "a test's fault");
    if (outbox->producer && rd_kafka_fatal_error(outbox->producer, reason, sizeof reason)) {
        mf_log_warning("the Kafka producer is made anew", MF_LOG_TEXT("error", reason));
        drop_producer(outbox);
    }
    if (!outbox->producer && mf_kafka_new(outbox->worker, RD_KAFKA_PRODUCER, fixed, set_delivery, outbox,
                                          &outbox->producer, &error))
        mf_log_error("no Kafka producer", MF_LOG_FAILURE(&error));
    return outbox->producer != NULL;
}

/* Registers the events' schema once, so that its id is known. */
static bool schema_ready(struct outbox *outbox) {
    struct mf_error error;
    if (outbox->event_schema)
        return true;
    char *subject = mf_registry_subject(outbox->worker->settings->events_topic);
    enum mf_status status =
        subject ? mf_registry_register(outbox->registry, subject, mf_avro_schema_text(MF_AVRO_JOB_EVENT),
                                       &outbox->event_schema, &error)
                : mf_error_set(&error, MF_ERROR_OUT_OF_MEMORY, "no memory for a subject");
    free(subject);
    if (status)
        mf_log_warning("the schema of events cannot be registered now", MF_LOG_FAILURE(&error));
    return !status;
}

/* ---- sending one row -------------------------------------------------------------------------------- */

static enum mf_status encode_event(const struct outbox *outbox, const struct mf_outbox_row *row,
                                   struct mf_text *message, struct mf_error *error) {
    struct mf_job_event event = {.event_id = row->event_id,
                                 .job_id = row->job_id,
                                 .tenant = row->tenant,
                                 .request_id = row->request_id,
                                 .sequence = row->sequence,
                                 .recorded_at_ms = row->occurred_at,
                                 .type = row->type,
                                 .state = row->state,
                                 .attempt = row->attempt == MF_COUNT_NONE ? 0 : row->attempt,
                                 .step = {row->step != MF_COUNT_NONE, row->step},
                                 .detail = row->detail};
    return mf_avro_encode_event(outbox->event_schema, &event, message, error);
}

static void send_parts(struct outbox *outbox, struct flight *flight, rd_kafka_vu_t *parts, size_t count) {
    flight->fate = SENT;
    outbox->reports++;
    rd_kafka_error_t *failure = rd_kafka_produceva(outbox->producer, parts, count);
    if (!failure)
        return;
    outbox->reports--;
    flight->error = rd_kafka_error_code(failure);
    flight->fate = flight->error == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? REFUSED : FAILED;
    rd_kafka_error_destroy(failure);
}

static rd_kafka_vu_t part_topic(const char *name) {
    return (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = name};
}

static rd_kafka_vu_t part_bytes(rd_kafka_vtype_t type, const void *bytes, size_t size) {
    rd_kafka_vu_t part = {.vtype = type};
    part.u.mem.ptr = (void *)bytes; /* copied by librdkafka */
    part.u.mem.size = size;
    return part;
}

static rd_kafka_vu_t part_header(const char *name, const void *value, size_t size) {
    return (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_HEADER,
                           .u.header = {.name = name, .val = value, .size = (ssize_t)size}};
}

static void send_event(struct outbox *outbox, const struct mf_outbox_row *row, struct flight *flight) {
    struct mf_text value = {0}, key = {0};
    struct mf_error error;
    mf_text_printf(&key, "%s/%s", row->tenant, row->request_id);
    enum mf_status status = encode_event(outbox, row, &value, &error);
    if (!status)
        status = mf_text_status(&key, &error);
    if (status) {
        mf_log_error("an event cannot be encoded", MF_LOG_TEXT("event_id", row->event_id),
                     MF_LOG_FAILURE(&error));
        flight->fate = status == MF_ERROR_OUT_OF_MEMORY ? FAILED : REFUSED;
        flight->error = RD_KAFKA_RESP_ERR__INVALID_ARG;
    } else {
        rd_kafka_vu_t parts[] = {
            part_topic(outbox->worker->settings->events_topic),
            part_bytes(RD_KAFKA_VTYPE_KEY, key.data, key.length),
            part_bytes(RD_KAFKA_VTYPE_VALUE, value.data, value.length),
            {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
            {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = flight},
        };
        send_parts(outbox, flight, parts, sizeof parts / sizeof *parts);
    }
    mf_text_free(&value);
    mf_text_free(&key);
}

static void send_dead_letter(struct outbox *outbox, const struct mf_outbox_row *row, struct flight *flight) {
    char partition[16], offset[24], reject_id[24];
    snprintf(partition, sizeof partition, "%" PRId32, row->source_partition);
    snprintf(offset, sizeof offset, "%" PRId64, row->source_offset);
    snprintf(reject_id, sizeof reject_id, "%" PRId64, row->reject_id);
    bool value = flight->with_value;
    rd_kafka_vu_t parts[12];
    size_t count = 0;
    parts[count++] = part_topic(outbox->worker->settings->dlq_topic);
    parts[count++] = part_bytes(RD_KAFKA_VTYPE_KEY, partition, strlen(partition));
    parts[count++] = part_bytes(RD_KAFKA_VTYPE_VALUE, value ? row->value : NULL, value ? row->value_size : 0);
    parts[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY};
    parts[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = flight};
    parts[count++] = part_header("code", row->code, strlen(row->code));
    parts[count++] = part_header("reason", row->reason, strlen(row->reason));
    parts[count++] = part_header("source_topic", row->source_topic, strlen(row->source_topic));
    parts[count++] = part_header("source_partition", partition, strlen(partition));
    parts[count++] = part_header("source_offset", offset, strlen(offset));
    parts[count++] = part_header("reject_id", reject_id, strlen(reject_id));
    if (row->key && row->key_size <= HEADER_KEY_BYTES)
        parts[count++] = part_header("source_key", row->key, row->key_size);
    send_parts(outbox, flight, parts, count);
}

/* ---- settling --------------------------------------------------------------------------------------- */

static bool is_bare(const struct outbox *outbox, int64_t row) {
    for (size_t i = 0; i < BARE_ROWS; i++)
        if (outbox->bare[i] == row)
            return true;
    return false;
}

/* The flight is over; its key may send again, at once or after a while. */
static void land(struct outbox *outbox, struct flight *flight, bool delivered) {
    struct lane *lane = &outbox->lane[flight->kind];
    mf_outbox_keys_give(&outbox->keys, flight->key, delivered, mf_clock_monotonic_ms(),
                        flight->kind == MF_OUTBOX_EVENT ? EVENTS_RETRY_MS : LETTERS_RETRY_MS);
    lane->open--;
    lane->probes -= flight->probe;
    lane->again |= delivered;
    flight->fate = FREE;
    flight->next = outbox->free;
    outbox->free = flight;
}

/* A message that is too large loses its value once; what is refused even so is parked. */
static enum mf_status settle_refused(struct outbox *outbox, struct flight *flight, struct mf_error *error) {
    enum mf_status status = MF_OK;
    if (flight->with_value) {
        outbox->bare[outbox->bare_next++ % BARE_ROWS] = flight->row;
    } else {
        mf_log_error("an outbox row is parked", MF_LOG_INTEGER("row", flight->row),
                     MF_LOG_TEXT("error", rd_kafka_err2str(flight->error)));
        status =
            mf_store_outbox_park(outbox->link.database, flight->row, rd_kafka_err2str(flight->error), error);
    }
    if (!status)
        land(outbox, flight, true);
    return status;
}

static void settle_failed(struct outbox *outbox, struct flight *flight) {
    if (mf_clock_monotonic_ms() >= outbox->next_warning_ms) {
        mf_log_warning(flight->kind == MF_OUTBOX_EVENT ? "an event could not be delivered yet"
                                                       : "a dead letter could not be delivered yet",
                       MF_LOG_TEXT("error", rd_kafka_err2str(flight->error)));
        outbox->next_warning_ms = mf_clock_monotonic_ms() + RETRY_MS;
    }
    mf_counter_add(&outbox->worker->counters, MF_COUNTER_OUTBOX_RETRIES, 1);
    land(outbox, flight, false);
}

/* Rows that Kafka has leave the outbox in one statement. When PostgreSQL does not take it, their flights stay
 * as they are, so that they are not sent a second time. */
static enum mf_status settle_delivered(struct outbox *outbox, struct mf_error *error) {
    int64_t ids[FLIGHTS];
    size_t count = 0;
    for (size_t i = 0; i < FLIGHTS; i++)
        if (outbox->flight[i].fate == DELIVERED)
            ids[count++] = outbox->flight[i].row;
    if (!count)
        return MF_OK;
    mf_failpoint("outbox.before_delivered");
    enum mf_status status = mf_store_outbox_delivered(outbox->link.database, ids, count, error);
    for (size_t i = 0; !status && i < FLIGHTS; i++) {
        struct flight *flight = &outbox->flight[i];
        if (flight->fate != DELIVERED)
            continue;
        mf_counter_add(
            &outbox->worker->counters,
            flight->kind == MF_OUTBOX_EVENT ? MF_COUNTER_OUTBOX_EVENTS : MF_COUNTER_OUTBOX_DEAD_LETTERS, 1);
        land(outbox, flight, true);
    }
    return status;
}

/* So many keys fail that no new one may go: what is behind waits unseen unless this says so. */
static void tell_of_failing_keys(struct outbox *outbox) {
    const int64_t now_ms = mf_clock_monotonic_ms();
    mf_counter_set(&outbox->worker->counters, MF_COUNTER_OUTBOX_FAILING_KEYS, outbox->keys.failing);
    if (outbox->keys.free >= 0 || now_ms < outbox->next_full_ms)
        return;
    mf_log_error("deliveries of so many jobs fail that those of others wait",
                 MF_LOG_INTEGER("failing", outbox->keys.failing));
    outbox->next_full_ms = now_ms + FULL_WARNING_MS;
}

static enum mf_status settle(struct outbox *outbox, struct mf_error *error) {
    tell_of_failing_keys(outbox);
    if (outbox->lane[MF_OUTBOX_EVENT].open + outbox->lane[MF_OUTBOX_DEAD_LETTER].open == 0)
        return MF_OK;
    enum mf_status status = settle_delivered(outbox, error);
    for (size_t i = 0; !status && i < FLIGHTS; i++)
        if (outbox->flight[i].fate == REFUSED)
            status = settle_refused(outbox, &outbox->flight[i], error);
        else if (outbox->flight[i].fate == FAILED)
            settle_failed(outbox, &outbox->flight[i]);
    return status;
}

/* ---- shards and passes ------------------------------------------------------------------------------ */

static void begin_pass(struct lane *lane) {
    memset(lane->after, 0, sizeof lane->after);
    memset(lane->ended, 0, sizeof lane->ended);
    lane->again = lane->sent = lane->skipped = false;
    lane->pass_ms = mf_clock_monotonic_ms();
}

/* Nothing is under way, nothing failed, everything is looked at anew. */
static void forget(struct outbox *outbox) {
    mf_outbox_keys_clear(&outbox->keys);
    outbox->free = NULL;
    outbox->reports = 0;
    for (size_t i = 0; i < FLIGHTS; i++) {
        outbox->flight[i] = (struct flight){.next = outbox->free};
        outbox->free = &outbox->flight[i];
    }
    for (int kind = 0; kind < MF_OUTBOX_KINDS; kind++) {
        outbox->lane[kind] = (struct lane){.limit = kind == MF_OUTBOX_EVENT ? EVENT_FLIGHTS : LETTER_FLIGHTS};
        begin_pass(&outbox->lane[kind]);
    }
}

/* The locks went with the old session: what is under way is another holder's now. Rows that Kafka has are
 * still taken out.
 */
static enum mf_status leave_shards(struct outbox *outbox, struct mf_error *error) {
    memset(outbox->held, 0, sizeof outbox->held);
    if (outbox->reports)
        drop_producer(outbox);
    enum mf_status status = settle_delivered(outbox, error);
    if (!status) /* else they would be sent again at every reconnect while PostgreSQL takes no writes */
        forget(outbox);
    return status;
}

static enum mf_status take_shards(struct outbox *outbox, struct mf_error *error) {
    uint64_t session = mf_database_session(outbox->link.database);
    int64_t now = mf_clock_monotonic_ms();
    enum mf_status status = MF_OK;
    if (session != outbox->session)
        status = leave_shards(outbox, error);
    else if (now < outbox->next_lock_ms)
        return MF_OK;
    outbox->session = session;
    outbox->next_lock_ms = now + LOCK_MS;
    for (int shard = 0; !status && shard < MF_OUTBOX_SHARDS; shard++)
        if (!outbox->held[shard])
            status = mf_store_outbox_lock(outbox->link.database, shard, &outbox->held[shard], error);
    return status;
}

/* A dead letter that an earlier pass sent and that is not settled yet; of events the key tells. */
static bool is_under_way(const struct outbox *outbox, const struct mf_outbox_row *row) {
    for (size_t i = 0; row->kind == MF_OUTBOX_DEAD_LETTER && i < FLIGHTS; i++)
        if (outbox->flight[i].fate != FREE && outbox->flight[i].row == row->id)
            return true;
    return false;
}

/* Sends the row if its key may; false when there is no room for it in this pass. */
static bool send_row(struct outbox *outbox, const struct mf_outbox_row *row) {
    struct lane *lane = &outbox->lane[row->kind];
    char key[MF_OUTBOX_KEY_BYTES];
    if (lane->open >= lane->limit)
        return false;
    if (row->kind == MF_OUTBOX_EVENT)
        snprintf(key, sizeof key, "%s", row->job_id);
    else
        snprintf(key, sizeof key, "%" PRId32, row->source_partition); /* as the message's key */
    bool probe = mf_outbox_keys_failing(&outbox->keys, key);
    if (is_under_way(outbox, row) ||
        !mf_outbox_keys_take(&outbox->keys, key, row->kind == MF_OUTBOX_EVENT ? 1 : LETTERS_TOGETHER,
                             lane->probes < PROBES, mf_clock_monotonic_ms())) {
        lane->skipped = true;
        return true;
    }
    struct flight *flight = outbox->free;
    outbox->free = flight->next;
    *flight = (struct flight){.kind = row->kind, .row = row->id, .probe = probe};
    lane->probes += probe;
    snprintf(flight->key, sizeof flight->key, "%s", key);
    lane->open++;
    lane->sent = true;
    if (row->kind == MF_OUTBOX_EVENT) {
        send_event(outbox, row, flight);
    } else {
        flight->with_value = row->value && !is_bare(outbox, row->id);
        send_dead_letter(outbox, row, flight);
    }
    return true;
}

/* The next rows of one shard. */
static enum mf_status one_page(struct outbox *outbox, enum mf_outbox_kind kind, int shard,
                               struct mf_error *error) {
    struct lane *lane = &outbox->lane[kind];
    struct mf_outbox_rows rows = {0};
    size_t done = 0;
    enum mf_status status = mf_store_outbox_fetch(outbox->link.database, shard, kind, lane->after[shard],
                                                  PAGE_ROWS, &rows, error);
    bool ready =
        !rows.count || (producer_ready(outbox) && (kind == MF_OUTBOX_DEAD_LETTER || schema_ready(outbox)));
    if (!ready)
        lane->hold_ms = mf_clock_monotonic_ms() + RETRY_MS;
    while (ready && done < rows.count && send_row(outbox, &rows.row[done]))
        lane->after[shard] = rows.row[done++].id;
    lane->ended[shard] = !status && done == rows.count && rows.count < PAGE_ROWS;
    mf_outbox_rows_free(&rows);
    return status;
}

static bool pass_ended(const struct outbox *outbox, const struct lane *lane) {
    for (int shard = 0; shard < MF_OUTBOX_SHARDS; shard++)
        if (outbox->held[shard] && !lane->ended[shard])
            return false;
    return true;
}

/* Another pass may begin now. One that took long, because much of what it met may not go, is followed by a
 * rest. */
static bool pass_due(const struct lane *lane) {
    int64_t now = mf_clock_monotonic_ms();
    return lane->again && now >= lane->rest_ms && now >= lane->hold_ms &&
           (!lane->open || now - lane->pass_ms >= PASS_MS);
}

/* Goes on with the pass, or begins one. */
static enum mf_status one_lane(struct outbox *outbox, enum mf_outbox_kind kind, struct mf_error *error) {
    struct lane *lane = &outbox->lane[kind];
    enum mf_status status = MF_OK;
    if (pass_ended(outbox, lane)) {
        if (!pass_due(lane))
            return MF_OK;
        begin_pass(lane);
    }
    for (int shard = 0; shard < MF_OUTBOX_SHARDS; shard++)
        while (!status && outbox->held[shard] && !lane->ended[shard] && lane->open < lane->limit &&
               mf_clock_monotonic_ms() >= lane->hold_ms)
            status = one_page(outbox, kind, shard, error);
    if (!status && lane->skipped && pass_ended(outbox, lane)) {
        int64_t now = mf_clock_monotonic_ms();
        lane->rest_ms = now + (now - lane->pass_ms);
    }
    return status;
}

static enum mf_status one_turn(struct outbox *outbox, struct mf_error *error) {
    enum mf_status status = take_shards(outbox, error);
    if (!status)
        status = settle(outbox, error);
    for (int kind = 0; !status && kind < MF_OUTBOX_KINDS; kind++)
        status = one_lane(outbox, (enum mf_outbox_kind)kind, error);
    return status;
}

/* Every event that was there when the pass began is in Kafka. */
static bool events_idle(const struct outbox *outbox) {
    const struct lane *lane = &outbox->lane[MF_OUTBOX_EVENT];
    return pass_ended(outbox, lane) && !lane->sent && !lane->skipped && !lane->open && !lane->again;
}

/* Until there may be something to do: reports, a wake-up, or it is time to look again. */
static void wait_for_work(struct outbox *outbox, int64_t *look_ms) {
    struct lane *events = &outbox->lane[MF_OUTBOX_EVENT], *letters = &outbox->lane[MF_OUTBOX_DEAD_LETTER];
    bool pending = events->again || letters->again; /* for a rest, or for PASS_MS */
    bool due = pass_due(events) || pass_due(letters);
    if (outbox->reports)
        rd_kafka_poll(outbox->producer, due ? 0 : REPORTS_MS);
    bool woken = mf_wakeup_wait(&outbox->worker->outbox_wakeup, due || outbox->reports ? 0
                                                                : pending              ? REPORTS_MS
                                                                                       : IDLE_MS);
    int64_t now = mf_clock_monotonic_ms();
    if (woken || now >= *look_ms) {
        events->again = letters->again = true;
        *look_ms = now + IDLE_MS;
    }
}

/* What is under way when the worker stops is waited for a while, so that it is not sent again. */
static void close_outbox(struct outbox *outbox) {
    struct mf_error error;
    if (outbox->reports)
        rd_kafka_flush(outbox->producer, CLOSE_MS);
    drop_producer(outbox);
    if (mf_link_ready(&outbox->link))
        (void)settle_delivered(outbox, &error);
    mf_registry_free(outbox->registry);
    mf_link_close(&outbox->link);
    free(outbox);
}

void *mf_outbox_main(void *argument) {
    struct outbox *outbox = calloc(1, sizeof *outbox);
    struct mf_worker *worker = argument;
    struct mf_error error;
    struct mf_registry_options options = {.url = worker->settings->registry_url,
                                          .username = worker->settings->registry_username,
                                          .password = worker->settings->registry_password,
                                          .ca_file = worker->settings->registry_ca_file,
                                          .attempts = 1,
                                          .stop = &worker->stopping};
    if (!outbox || mf_registry_new(&options, &outbox->registry, &error))
        abort(); /* memory, at start */
    outbox->worker = worker;
    mf_link_init(&outbox->link, worker, "modelforge-worker outbox", STATEMENT_MS);
    forget(outbox);
    for (int64_t look_ms = 0; !atomic_load(&worker->stopping);) {
        wait_for_work(outbox, &look_ms);
        if (!mf_link_ready(&outbox->link)) {
            mf_wakeup_wait(&worker->outbox_wakeup, outbox->reports ? REPORTS_MS : RETRY_MS);
            look_ms = 0;
            continue;
        }
        enum mf_status status = one_turn(outbox, &error);
        mf_link_note(&outbox->link, status, "sending the outbox", &error);
        if (!status && pass_ended(outbox, &outbox->lane[MF_OUTBOX_EVENT]))
            atomic_store(&worker->outbox_idle, events_idle(outbox));
    }
    close_outbox(outbox);
    return NULL;
}
