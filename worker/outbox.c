#include "worker/outbox.h"

#include "common/clock.h"
#include "common/log.h"
#include "schemas/avro_codec.h"
#include "schemas/registry.h"
#include "sql/store.h"
#include "worker/failpoint.h"
#include "worker/kafka.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    IDLE_MS = 500,
    RETRY_MS = 500,           /* of a lane whose topic takes nothing; doubles */
    EVENTS_RETRY_MS = 2000,   /* at most */
    LETTERS_RETRY_MS = 60000, /* at most; while it waits for its reports no event is sent */
    LOCK_MS = 2000,           /* how often shards of vanished holders are tried */
    BATCH_ROWS = 200,
    STATEMENT_MS = 20000,
    HEADER_KEY_BYTES = 4096 /* a longer key is left out of the dead letter's headers */
};

enum fate { WAITING, SENT, DELIVERED, REFUSED, FAILED };

/* One row under way. */
struct slot {
    enum fate fate;
    rd_kafka_resp_err_t error;
    bool without_value; /* the topic takes no message of that size */
};

/* Events and dead letters go to topics of their own, of which one may take nothing while the other does. */
struct lane {
    int64_t next_ms, delay_ms; /* after a failure: when it is tried again; the delay, 0: it works */
};

struct outbox {
    struct mf_worker *worker;
    struct mf_link link;
    rd_kafka_t *producer;
    struct mf_registry *registry;
    uint32_t event_schema; /* id of the events' schema; 0: not known yet */
    uint64_t session;      /* in which the shards below are held */
    bool held[MF_OUTBOX_SHARDS];
    int64_t next_lock_ms;
    struct lane lane[MF_OUTBOX_KINDS];
    size_t open; /* slots that wait for a delivery report */
};

static void on_delivery(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque) {
    struct outbox *outbox = opaque;
    struct slot *slot = message->_private;
    (void)producer;
    slot->error = message->err;
    slot->fate = !message->err ? DELIVERED
                 : message->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
                         message->err == RD_KAFKA_RESP_ERR_INVALID_RECORD
                     ? REFUSED
                     : FAILED;
    outbox->open--;
}

static void set_delivery(rd_kafka_conf_t *conf) {
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
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
        rd_kafka_destroy(outbox->producer);
        outbox->producer = NULL;
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

static void send_parts(struct outbox *outbox, struct slot *slot, rd_kafka_vu_t *parts, size_t count) {
    slot->fate = SENT;
    outbox->open++;
    rd_kafka_error_t *failure = rd_kafka_produceva(outbox->producer, parts, count);
    if (!failure)
        return;
    outbox->open--;
    slot->error = rd_kafka_error_code(failure);
    slot->fate = slot->error == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? REFUSED : FAILED;
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

static void send_event(struct outbox *outbox, const struct mf_outbox_row *row, struct slot *slot) {
    struct mf_text value = {0}, key = {0};
    struct mf_error error;
    mf_text_printf(&key, "%s/%s", row->tenant, row->request_id);
    enum mf_status status = encode_event(outbox, row, &value, &error);
    if (!status)
        status = mf_text_status(&key, &error);
    if (status) {
        mf_log_error("an event cannot be encoded", MF_LOG_TEXT("event_id", row->event_id),
                     MF_LOG_FAILURE(&error));
        slot->fate = status == MF_ERROR_OUT_OF_MEMORY ? FAILED : REFUSED;
        slot->error = RD_KAFKA_RESP_ERR__INVALID_ARG;
    } else {
        rd_kafka_vu_t parts[] = {
            part_topic(outbox->worker->settings->events_topic),
            part_bytes(RD_KAFKA_VTYPE_KEY, key.data, key.length),
            part_bytes(RD_KAFKA_VTYPE_VALUE, value.data, value.length),
            {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
            {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = slot},
        };
        send_parts(outbox, slot, parts, sizeof parts / sizeof *parts);
    }
    mf_text_free(&value);
    mf_text_free(&key);
}

static void send_dead_letter(struct outbox *outbox, const struct mf_outbox_row *row, struct slot *slot) {
    char partition[16], offset[24], reject_id[24];
    snprintf(partition, sizeof partition, "%" PRId32, row->source_partition);
    snprintf(offset, sizeof offset, "%" PRId64, row->source_offset);
    snprintf(reject_id, sizeof reject_id, "%" PRId64, row->reject_id);
    bool value = row->value && !slot->without_value;
    rd_kafka_vu_t parts[12];
    size_t count = 0;
    parts[count++] = part_topic(outbox->worker->settings->dlq_topic);
    parts[count++] = part_bytes(RD_KAFKA_VTYPE_KEY, partition, strlen(partition));
    parts[count++] = part_bytes(RD_KAFKA_VTYPE_VALUE, value ? row->value : NULL, value ? row->value_size : 0);
    parts[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY};
    parts[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = slot};
    parts[count++] = part_header("code", row->code, strlen(row->code));
    parts[count++] = part_header("reason", row->reason, strlen(row->reason));
    parts[count++] = part_header("source_topic", row->source_topic, strlen(row->source_topic));
    parts[count++] = part_header("source_partition", partition, strlen(partition));
    parts[count++] = part_header("source_offset", offset, strlen(offset));
    parts[count++] = part_header("reject_id", reject_id, strlen(reject_id));
    if (row->key && row->key_size <= HEADER_KEY_BYTES)
        parts[count++] = part_header("source_key", row->key, row->key_size);
    send_parts(outbox, slot, parts, count);
}

/* ---- waves ------------------------------------------------------------------------------------------ */

static bool same_job(const struct mf_outbox_row *a, const struct mf_outbox_row *b) {
    return a->kind == MF_OUTBOX_EVENT && b->kind == MF_OUTBOX_EVENT && !strcmp(a->job_id, b->job_id);
}

/* A row may go when no earlier row of its job is still on this side: the first delivery of a job's events is
 * in order whatever fails. */
static bool may_go(const struct mf_outbox_rows *rows, const struct slot *slots, size_t at) {
    for (size_t i = 0; i < at; i++)
        if (same_job(&rows->row[i], &rows->row[at]) && slots[i].fate != DELIVERED)
            return false;
    return true;
}

/* Sends every row that may go and waits for all reports. False when nothing could go. */
static bool one_wave(struct outbox *outbox, const struct mf_outbox_rows *rows, struct slot *slots) {
    bool any = false;
    for (size_t i = 0; i < rows->count; i++) {
        if (slots[i].fate != WAITING || !may_go(rows, slots, i))
            continue;
        any = true;
        if (rows->row[i].kind == MF_OUTBOX_EVENT)
            send_event(outbox, &rows->row[i], &slots[i]);
        else
            send_dead_letter(outbox, &rows->row[i], &slots[i]);
    }
    while (outbox->open)
        rd_kafka_poll(outbox->producer, 100);
    return any;
}

/* A message that is too large loses its value once; what is refused even so is parked. */
static enum mf_status settle_refused(struct outbox *outbox, const struct mf_outbox_row *row,
                                     struct slot *slot, struct mf_error *error) {
    if (row->kind == MF_OUTBOX_DEAD_LETTER && row->value && !slot->without_value) {
        slot->without_value = true;
        slot->fate = WAITING;
        return MF_OK;
    }
    mf_log_error("an outbox row is parked", MF_LOG_INTEGER("row", row->id),
                 MF_LOG_TEXT("error", rd_kafka_err2str(slot->error)));
    enum mf_status status =
        mf_store_outbox_park(outbox->link.database, row->id, rd_kafka_err2str(slot->error), error);
    if (!status)
        slot->fate = DELIVERED; /* as far as the order of its job goes */
    return status;
}

static void count_delivered(struct outbox *outbox, const struct mf_outbox_row *row) {
    mf_counter_add(&outbox->worker->counters,
                   row->kind == MF_OUTBOX_EVENT ? MF_COUNTER_OUTBOX_EVENTS : MF_COUNTER_OUTBOX_DEAD_LETTERS,
                   1);
}

/* Sends rows wave by wave. *failed says that some must be tried again later. */
static enum mf_status send_rows(struct outbox *outbox, const struct mf_outbox_rows *rows, bool *failed,
                                struct mf_error *error) {
    struct slot *slots = calloc(rows->count, sizeof *slots);
    int64_t *ids = calloc(rows->count, sizeof *ids);
    enum mf_status status = MF_OK;
    if (!slots || !ids) {
        free(slots);
        free(ids);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the outbox");
    }
    while (!status && one_wave(outbox, rows, slots)) {
        size_t delivered = 0;
        for (size_t i = 0; !status && i < rows->count; i++) {
            if (slots[i].fate == DELIVERED && !slots[i].error)
                ids[delivered++] = rows->row[i].id;
            else if (slots[i].fate == REFUSED)
                status = settle_refused(outbox, &rows->row[i], &slots[i], error);
        }
        mf_failpoint("outbox.before_delivered");
        if (!status && delivered)
            status = mf_store_outbox_delivered(outbox->link.database, ids, delivered, error);
        for (size_t i = 0; !status && i < rows->count; i++)
            if (slots[i].fate == DELIVERED && !slots[i].error) {
                count_delivered(outbox, &rows->row[i]);
                slots[i].error = RD_KAFKA_RESP_ERR__NOOP; /* done with: not reported a second time */
            }
    }
    for (size_t i = 0; i < rows->count; i++)
        if (slots[i].fate == FAILED) {
            if (!*failed)
                mf_log_warning("an event could not be delivered yet",
                               MF_LOG_TEXT("error", rd_kafka_err2str(slots[i].error)));
            *failed = true;
            mf_counter_add(&outbox->worker->counters, MF_COUNTER_OUTBOX_RETRIES, 1);
        }
    free(slots);
    free(ids);
    return status;
}

/* ---- shards ----------------------------------------------------------------------------------------- */

static enum mf_status take_shards(struct outbox *outbox, struct mf_error *error) {
    uint64_t session = mf_database_session(outbox->link.database);
    int64_t now = mf_clock_monotonic_ms();
    enum mf_status status = MF_OK;
    if (session != outbox->session) /* the locks went with the old session */
        memset(outbox->held, 0, sizeof outbox->held);
    else if (now < outbox->next_lock_ms)
        return MF_OK;
    outbox->session = session;
    outbox->next_lock_ms = now + LOCK_MS;
    for (int shard = 0; !status && shard < MF_OUTBOX_SHARDS; shard++)
        if (!outbox->held[shard])
            status = mf_store_outbox_lock(outbox->link.database, shard, &outbox->held[shard], error);
    return status;
}

/* One look at one shard for one kind of row. A lane that failed is tried with a single row. */
static enum mf_status one_shard(struct outbox *outbox, enum mf_outbox_kind kind, int shard, bool *sent,
                                bool *failed, struct mf_error *error) {
    struct mf_outbox_rows rows = {0};
    enum mf_status status = mf_store_outbox_fetch(outbox->link.database, shard, kind, 0,
                                                  outbox->lane[kind].delay_ms ? 1 : BATCH_ROWS, &rows, error);
    if (!status && rows.count) {
        *sent = true;
        if (producer_ready(outbox) && (kind == MF_OUTBOX_DEAD_LETTER || schema_ready(outbox)))
            status = send_rows(outbox, &rows, failed, error);
        else
            *failed = true;
    }
    mf_outbox_rows_free(&rows);
    return status;
}

/* All shards, up to the first one that fails: the topic is the same for all of them. */
static enum mf_status one_lane(struct outbox *outbox, enum mf_outbox_kind kind, bool *sent,
                               struct mf_error *error) {
    const int64_t limit_ms = kind == MF_OUTBOX_EVENT ? EVENTS_RETRY_MS : LETTERS_RETRY_MS;
    struct lane *lane = &outbox->lane[kind];
    enum mf_status status = MF_OK;
    bool failed = false, any = false;
    if (mf_clock_monotonic_ms() < lane->next_ms)
        return MF_OK;
    for (int shard = 0; !status && !failed && shard < MF_OUTBOX_SHARDS; shard++)
        if (outbox->held[shard])
            status = one_shard(outbox, kind, shard, &any, &failed, error);
    if (failed) {
        lane->delay_ms = lane->delay_ms ? lane->delay_ms * 2 : RETRY_MS;
        lane->delay_ms = lane->delay_ms < limit_ms ? lane->delay_ms : limit_ms;
        lane->next_ms = mf_clock_monotonic_ms() + lane->delay_ms;
    } else if (!status) {
        lane->delay_ms = 0;
        *sent |= any;
    }
    return status;
}

/* *sent: something went, so there may be more. */
static enum mf_status one_turn(struct outbox *outbox, bool *sent, struct mf_error *error) {
    enum mf_status status = take_shards(outbox, error);
    for (int kind = 0; !status && kind < MF_OUTBOX_KINDS; kind++)
        status = one_lane(outbox, (enum mf_outbox_kind)kind, sent, error);
    return status;
}

void *mf_outbox_main(void *argument) {
    struct outbox outbox = {.worker = argument};
    struct mf_worker *worker = argument;
    struct mf_error error;
    struct mf_registry_options options = {.url = worker->settings->registry_url,
                                          .username = worker->settings->registry_username,
                                          .password = worker->settings->registry_password,
                                          .ca_file = worker->settings->registry_ca_file,
                                          .attempts = 1,
                                          .stop = &worker->stopping};
    mf_link_init(&outbox.link, worker, "modelforge-worker outbox", STATEMENT_MS);
    if (mf_registry_new(&options, &outbox.registry, &error))
        abort(); /* memory, at start */
    while (!atomic_load(&worker->stopping)) {
        bool sent = false;
        enum mf_status status = MF_OK;
        if (mf_link_ready(&outbox.link)) {
            status = one_turn(&outbox, &sent, &error);
            mf_link_note(&outbox.link, status, "sending the outbox", &error);
            atomic_store(&worker->outbox_idle, !status && !sent && !outbox.lane[MF_OUTBOX_EVENT].delay_ms);
        }
        if (status || outbox.link.failures)
            mf_wakeup_wait(&worker->outbox_wakeup, RETRY_MS);
        else if (!sent)
            mf_wakeup_wait(&worker->outbox_wakeup, IDLE_MS);
    }
    if (outbox.producer)
        rd_kafka_destroy(outbox.producer);
    mf_registry_free(outbox.registry);
    mf_link_close(&outbox.link);
    return NULL;
}
