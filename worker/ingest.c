/* The poll thread: consumes, decodes, hands over. */
#include "worker/ingest.h"

#include "common/clock.h"
#include "common/log.h"
#include "worker/ingest_private.h"
#include "worker/kafka.h"

#include <stdlib.h>
#include <string.h>

enum {
    POLL_MS = 50,
    POSITION_RETRY_MS = 1000,
    HALTED_RETRY_MS = 5000, /* an operator may have let a halted partition go on */
    GAUGES_MS = 1000,
    FLUSH_MS = 5000, /* at the end: for the writer to finish */
    LOOK_MS = 100,   /* between two looks for an awaited schema */
    MAX_PARTITIONS = 4096
};

enum state { POSITIONING, VERIFYING, READING, WAITING, HALTED };

struct partition {
    struct mf_place place;
    enum state state;
    bool asked;           /* POSITIONING, HALTED: the writer has the question */
    int64_t ask_again_ms; /* POSITIONING, HALTED: not before */
    struct mf_position position;
    int64_t fetch;                    /* where a new assignment would go on */
    bool paused;                      /* by us, in the present assignment */
    struct mf_handed_record *pending; /* WAITING: for this schema id */
    uint32_t schema_id;
    int64_t waiting_ms, look_ms;
    bool passed_by;          /* WAITING: later records came although it is paused: they must be read again */
    uint32_t poison_id;      /* a schema id that was given up: until then it is not waited for again, or a */
    int64_t poison_until_ms; /* producer with a wrong registry would stop the partition for every record */
};

struct poller {
    struct mf_ingest *ingest;
    const struct mf_settings *settings;
    struct partition *partition; /* MAX_PARTITIONS */
    size_t count;
    uint64_t generation;
    bool paused_all, reassign;
    int64_t gauges_ms;
};

/* ---- assignment ------------------------------------------------------------------------------------- */

static size_t topic_index(const struct poller *poller, const char *name) {
    size_t i = 0;
    while (i < poller->settings->topic_count && strcmp(poller->settings->topic[i].topic, name) != 0)
        i++;
    return i;
}

static struct partition *find(struct poller *poller, size_t topic, int32_t id) {
    for (size_t i = 0; i < poller->count; i++)
        if (poller->partition[i].place.topic == topic && poller->partition[i].place.partition == id)
            return &poller->partition[i];
    return NULL;
}

static void drop_pending(struct poller *poller, struct partition *partition) {
    if (!partition->pending)
        return;
    mf_ingest_unwant(poller->ingest, poller->ingest->subject[partition->place.topic], partition->schema_id);
    mf_handed_record_free(partition->pending);
    partition->pending = NULL;
}

/* Asks the writer where to start; until it answers the partition is not part of the assignment at all. */
static void position(struct poller *poller, struct partition *partition, int64_t delay_ms) {
    drop_pending(poller, partition);
    partition->state = POSITIONING;
    partition->passed_by = false;
    partition->asked = false;
    partition->ask_again_ms = mf_clock_monotonic_ms() + delay_ms;
    partition->place.generation = ++poller->generation;
    poller->reassign = true;
}

static void ask_positions(struct poller *poller) {
    for (size_t i = 0; i < poller->count; i++) {
        struct partition *partition = &poller->partition[i];
        if ((partition->state != POSITIONING && partition->state != HALTED) || partition->asked ||
            mf_clock_monotonic_ms() < partition->ask_again_ms)
            continue;
        struct mf_item *item = calloc(1, sizeof *item);
        if (!item)
            return;
        item->kind = MF_ITEM_POSITION;
        item->place = partition->place;
        mf_ingest_put(poller->ingest, item);
        partition->asked = true;
    }
}

/* Gives librdkafka the partitions whose place is known, each with its offset, and none else. */
static void assign_known(struct poller *poller) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)poller->count + 1);
    for (size_t i = 0; i < poller->count; i++) {
        struct partition *partition = &poller->partition[i];
        partition->paused = false;
        if (partition->state == POSITIONING || partition->state == HALTED)
            continue;
        rd_kafka_topic_partition_list_add(list, poller->settings->topic[partition->place.topic].topic,
                                          partition->place.partition)
            ->offset = partition->fetch;
    }
    rd_kafka_resp_err_t failure = rd_kafka_assign(poller->ingest->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    poller->reassign = failure != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (failure)
        mf_log_warning("partitions could not be assigned", MF_LOG_TEXT("error", rd_kafka_err2str(failure)));
}

static void on_rebalance(rd_kafka_t *consumer, rd_kafka_resp_err_t what,
                         rd_kafka_topic_partition_list_t *list, void *opaque) {
    struct poller *poller = opaque;
    for (size_t i = 0; i < poller->count; i++)
        drop_pending(poller, &poller->partition[i]);
    poller->count = 0;
    if (what != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        rd_kafka_assign(consumer, NULL);
        poller->reassign = false;
        return;
    }
    for (int i = 0; i < list->cnt && poller->count < MAX_PARTITIONS; i++) {
        struct partition *partition = &poller->partition[poller->count++];
        memset(partition, 0, sizeof *partition);
        partition->place.topic = topic_index(poller, list->elems[i].topic);
        partition->place.partition = list->elems[i].partition;
        position(poller, partition, 0);
    }
    mf_log_info("partitions were assigned", MF_LOG_INTEGER("count", list->cnt));
    assign_known(poller);
}

/* ---- pausing ---------------------------------------------------------------------------------------- */

static bool must_pause_all(const struct poller *poller) {
    struct mf_ingest *ingest = poller->ingest;
    pthread_mutex_lock(&ingest->lock);
    size_t bytes = ingest->queued_bytes;
    pthread_mutex_unlock(&ingest->lock);
    size_t limit = (size_t)poller->settings->queue_bytes;
    return bytes > (poller->paused_all ? limit / 2 : limit) || atomic_load(&ingest->writer_waits);
}

/* Brings every partition to paused or not; resumes only what this thread paused. */
static void apply_pauses(struct poller *poller) {
    rd_kafka_topic_partition_list_t *pause = NULL, *resume = NULL;
    bool all = must_pause_all(poller);
    if (all != poller->paused_all)
        mf_log_info(all ? "pausing all partitions" : "resuming partitions");
    poller->paused_all = all;
    mf_counter_set(&poller->ingest->worker->counters, MF_COUNTER_INGEST_PAUSED, all);
    for (size_t i = 0; i < poller->count; i++) {
        struct partition *partition = &poller->partition[i];
        bool assigned = partition->state != POSITIONING && partition->state != HALTED;
        bool wanted = all || partition->state == WAITING;
        if (!assigned || wanted == partition->paused)
            continue;
        rd_kafka_topic_partition_list_t **list = wanted ? &pause : &resume;
        if (!*list)
            *list = rd_kafka_topic_partition_list_new((int)poller->count);
        rd_kafka_topic_partition_list_add(*list, poller->settings->topic[partition->place.topic].topic,
                                          partition->place.partition);
        partition->paused = wanted;
    }
    if (pause) {
        rd_kafka_pause_partitions(poller->ingest->consumer, pause);
        rd_kafka_topic_partition_list_destroy(pause);
    }
    if (resume) {
        rd_kafka_resume_partitions(poller->ingest->consumer, resume);
        rd_kafka_topic_partition_list_destroy(resume);
    }
}

/* ---- records ---------------------------------------------------------------------------------------- */

static void halt(struct poller *poller, struct partition *partition, int64_t found) {
    struct mf_item *item = calloc(1, sizeof *item);
    if (item) {
        item->kind = MF_ITEM_HALT;
        item->place = partition->place;
        item->expected = partition->position.known.anchor_offset;
        item->found = found;
        mf_ingest_put(poller->ingest, item);
    }
    partition->state = HALTED;
    partition->asked = false;
    partition->ask_again_ms = mf_clock_monotonic_ms() + HALTED_RETRY_MS;
    poller->reassign = true;
}

static void hand_over(struct poller *poller, struct partition *partition, struct mf_handed_record *record) {
    struct mf_item *item = calloc(1, sizeof *item);
    if (!item) { /* read it again later */
        mf_handed_record_free(record);
        position(poller, partition, POSITION_RETRY_MS);
        return;
    }
    item->kind = MF_ITEM_RECORD;
    item->place = partition->place;
    item->record = record;
    item->bytes = mf_handed_record_bytes(record);
    mf_ingest_put(poller->ingest, item);
}

/* Decodes a record that this function owns from here on. */
static void decode(struct poller *poller, struct partition *partition, struct mf_handed_record *record,
                   bool give_up) {
    struct mf_ingest *ingest = poller->ingest;
    size_t topic = partition->place.topic;
    uint32_t schema_id;
    switch (mf_decode(ingest->registry, &poller->settings->topic[topic], ingest->subject[topic], give_up,
                      record, &schema_id)) {
    case MF_DECODED:
        partition->state = READING;
        hand_over(poller, partition, record);
        return;
    case MF_DECODE_NO_SCHEMA:
        if (schema_id == partition->poison_id && mf_clock_monotonic_ms() < partition->poison_until_ms) {
            decode(poller, partition, record, true);
            return;
        }
        if (partition->state != WAITING)
            partition->waiting_ms = mf_clock_monotonic_ms();
        mf_ingest_want(ingest, ingest->subject[topic],
                       schema_id); /* again: another partition may have ended it */
        partition->state = WAITING;
        partition->schema_id = schema_id;
        partition->pending = record;
        partition->look_ms = mf_clock_monotonic_ms() + LOOK_MS;
        return;
    case MF_DECODE_NO_MEMORY:
        mf_handed_record_free(record);
        position(poller, partition, POSITION_RETRY_MS);
        return;
    }
}

static void look_for_schemas(struct poller *poller) {
    int64_t now = mf_clock_monotonic_ms();
    for (size_t i = 0; i < poller->count; i++) {
        struct partition *partition = &poller->partition[i];
        if (partition->state != WAITING || now < partition->look_ms)
            continue;
        const char *subject = poller->ingest->subject[partition->place.topic];
        uint32_t schema_id = partition->schema_id;
        int64_t unknown_ms = mf_ingest_unknown_since(poller->ingest, subject, schema_id);
        bool give_up = unknown_ms && unknown_ms - partition->waiting_ms >= poller->settings->schema_wait_ms;
        struct mf_handed_record *record = partition->pending;
        partition->pending = NULL;
        decode(poller, partition, record, give_up);
        if (partition->state != WAITING)
            mf_ingest_unwant(poller->ingest, subject, schema_id);
        if (partition->state != WAITING && partition->passed_by)
            position(poller, partition, 0);
        if (give_up) {
            partition->poison_id = schema_id;
            partition->poison_until_ms = now + poller->settings->schema_wait_ms;
        }
    }
}

/* The first record of a partition that was read before must be the one that was taken last. */
static void verify(struct poller *poller, struct partition *partition, const rd_kafka_message_t *message) {
    struct mf_error error;
    rd_kafka_timestamp_type_t type;
    bool same;
    int64_t timestamp = rd_kafka_message_timestamp(message, &type);
    if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
        timestamp = MF_TIME_NONE;
    if (mf_position_verify(&partition->position.known, message->offset, timestamp, message->key,
                           message->key_len, &same, &error)) {
        position(poller, partition, POSITION_RETRY_MS);
    } else if (same) {
        partition->state = READING;
        partition->fetch = message->offset + 1;
    } else {
        halt(poller, partition, message->offset);
    }
}

/* Takes the message. */
static void take_message(struct poller *poller, rd_kafka_message_t *message) {
    struct partition *partition =
        find(poller, topic_index(poller, rd_kafka_topic_name(message->rkt)), message->partition);
    if (!partition || message->offset < partition->fetch || partition->state == POSITIONING ||
        partition->state == HALTED) {
        rd_kafka_message_destroy(message); /* of an assignment or position that is over */
        return;
    }
    if (partition->state == WAITING) { /* just dropped, this record would look like a gap */
        partition->passed_by = true;
        rd_kafka_message_destroy(message);
        return;
    }
    if (partition->state == VERIFYING) {
        verify(poller, partition, message);
        rd_kafka_message_destroy(message);
        return;
    }
    partition->fetch = message->offset + 1;
    if (message->offset < partition->position.expected) { /* taken before */
        rd_kafka_message_destroy(message);
        return;
    }
    struct mf_handed_record *record = calloc(1, sizeof *record);
    if (!record) {
        rd_kafka_message_destroy(message);
        position(poller, partition, POSITION_RETRY_MS);
        return;
    }
    record->message = message;
    decode(poller, partition, record, false);
}

/* An event that is no record. Takes the message. */
static void take_error(struct poller *poller, rd_kafka_message_t *message) {
    struct partition *partition =
        message->rkt
            ? find(poller, topic_index(poller, rd_kafka_topic_name(message->rkt)), message->partition)
            : NULL;
    mf_counter_add(&poller->ingest->worker->counters, MF_COUNTER_KAFKA_ERRORS, 1);
    if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET && partition && partition->state != POSITIONING)
        position(poller, partition, 0); /* out of range: the writer looks at the watermarks and decides */
    mf_log_warning("kafka consumer", MF_LOG_TEXT("error", rd_kafka_message_errstr(message)),
                   MF_LOG_TEXT("topic", message->rkt ? rd_kafka_topic_name(message->rkt) : ""),
                   MF_LOG_INTEGER("partition", message->partition));
    rd_kafka_message_destroy(message);
}

static void take_position(struct poller *poller, struct partition *partition,
                          const struct mf_position *position) {
    bool still_halted = partition->state == HALTED && position->kind == MF_POSITION_HALT;
    partition->position = *position;
    partition->fetch = position->fetch;
    partition->state = position->kind == MF_POSITION_HALT     ? HALTED
                       : position->kind == MF_POSITION_ANCHOR ? VERIFYING
                                                              : READING;
    partition->asked = false;
    partition->ask_again_ms = mf_clock_monotonic_ms() + HALTED_RETRY_MS;
    poller->reassign |= !still_halted;
}

static void take_answers(struct poller *poller) {
    struct mf_answer *answer = mf_ingest_answers(poller->ingest), *next;
    for (; answer; answer = next) {
        struct partition *partition = find(poller, answer->place.topic, answer->place.partition);
        next = answer->next;
        if (partition && partition->place.generation == answer->place.generation) {
            if (answer->kind == MF_ANSWER_LOST) {
                position(poller, partition, 0);
            } else if (answer->kind == MF_ANSWER_FAILED) {
                position(poller, partition, POSITION_RETRY_MS);
            } else {
                take_position(poller, partition, &answer->position);
            }
        }
        free(answer);
    }
}

static void set_gauges(struct poller *poller) {
    struct mf_counters *counters = &poller->ingest->worker->counters;
    static const enum mf_counter gauge[] = {[POSITIONING] = MF_COUNTER_PARTITIONS_POSITIONING,
                                            [VERIFYING] = MF_COUNTER_PARTITIONS_POSITIONING,
                                            [READING] = MF_COUNTER_PARTITIONS_READING,
                                            [WAITING] = MF_COUNTER_PARTITIONS_WAITING,
                                            [HALTED] = MF_COUNTER_PARTITIONS_HALTED};
    int64_t states[MF_COUNTER_COUNT] = {0}, lag = 0, now = mf_clock_monotonic_ms();
    if (now < poller->gauges_ms)
        return;
    poller->gauges_ms = now + GAUGES_MS;
    for (size_t i = 0; i < poller->count; i++) {
        const struct partition *partition = &poller->partition[i];
        int64_t low, high;
        states[gauge[partition->state]]++;
        if (!rd_kafka_get_watermark_offsets(poller->ingest->consumer,
                                            poller->settings->topic[partition->place.topic].topic,
                                            partition->place.partition, &low, &high) &&
            high > partition->fetch)
            lag += high - partition->fetch;
    }
    for (size_t i = 0; i < sizeof gauge / sizeof *gauge; i++)
        mf_counter_set(counters, gauge[i], states[gauge[i]]);
    mf_counter_set(counters, MF_COUNTER_INGEST_LAG, lag + mf_counter_get(counters, MF_COUNTER_INGEST_QUEUED));
}

/* ---- the thread ------------------------------------------------------------------------------------- */

static void subscribe(struct poller *poller) {
    rd_kafka_topic_partition_list_t *topics =
        rd_kafka_topic_partition_list_new((int)poller->settings->topic_count);
    for (size_t i = 0; i < poller->settings->topic_count; i++)
        rd_kafka_topic_partition_list_add(topics, poller->settings->topic[i].topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t failure = rd_kafka_subscribe(poller->ingest->consumer, topics);
    if (failure)
        mf_log_error("cannot subscribe", MF_LOG_TEXT("error", rd_kafka_err2str(failure)));
    rd_kafka_topic_partition_list_destroy(topics);
}

/* Lets the writer finish what it was given before another worker gets the partitions. */
static void flush(struct poller *poller) {
    struct mf_ingest *ingest = poller->ingest;
    int64_t until_ms = mf_clock_monotonic_ms() + FLUSH_MS;
    bool busy = true;
    while (busy && mf_clock_monotonic_ms() < until_ms && !atomic_load(&ingest->worker->stopping)) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(ingest->consumer, POLL_MS);
        if (message)
            rd_kafka_message_destroy(message);
        pthread_mutex_lock(&ingest->lock);
        busy = ingest->first || ingest->writing;
        pthread_mutex_unlock(&ingest->lock);
    }
}

void *mf_ingest_poll_main(void *argument) {
    struct mf_ingest *ingest = argument;
    struct poller *poller = ingest->poller;
    subscribe(poller);
    while (!atomic_load(&ingest->worker->draining) && !atomic_load(&ingest->worker->stopping)) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(ingest->consumer, POLL_MS);
        if (message && message->err)
            take_error(poller, message);
        else if (message)
            take_message(poller, message);
        take_answers(poller);
        look_for_schemas(poller);
        ask_positions(poller);
        if (poller->reassign)
            assign_known(poller);
        apply_pauses(poller);
        set_gauges(poller);
    }
    flush(poller);
    atomic_store(&ingest->polling_ended, true);
    mf_wakeup_raise(&ingest->worker->writer_wakeup);
    rd_kafka_consumer_close(ingest->consumer);
    return NULL;
}

/* ---- start and stop --------------------------------------------------------------------------------- */

static void set_rebalance(rd_kafka_conf_t *conf) {
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
}

static void destroy(struct mf_ingest *ingest) {
    struct poller *poller = ingest->poller;
    while (ingest->first) {
        struct mf_item *item = ingest->first;
        ingest->first = item->next;
        mf_item_free(item);
    }
    for (struct mf_answer *answer = mf_ingest_answers(ingest), *next; answer; answer = next) {
        next = answer->next;
        free(answer);
    }
    while (ingest->wanted)
        mf_ingest_unwant(ingest, ingest->wanted->subject, ingest->wanted->id);
    if (ingest->consumer)
        rd_kafka_destroy(ingest->consumer);
    mf_registry_free(ingest->registry);
    for (size_t i = 0; i < MF_MAX_TOPICS; i++)
        free(ingest->subject[i]);
    if (poller)
        free(poller->partition);
    free(poller);
    mf_wakeup_destroy(&ingest->resolver_wakeup);
    pthread_mutex_destroy(&ingest->lock);
    free(ingest);
}

static enum mf_status make_clients(struct mf_ingest *ingest, struct poller *poller, struct mf_error *error) {
    static const struct mf_kafka_property fixed[] = {{"auto.offset.reset", "error"},
                                                     {"enable.auto.commit", "false"},
                                                     {"enable.auto.offset.store", "false"},
                                                     {NULL, NULL}};
    const struct mf_settings *settings = ingest->worker->settings;
    struct mf_registry_options options = {.url = settings->registry_url,
                                          .username = settings->registry_username,
                                          .password = settings->registry_password,
                                          .ca_file = settings->registry_ca_file,
                                          .attempts = 1,
                                          .stop = &ingest->worker->stopping};
    enum mf_status status = mf_registry_new(&options, &ingest->registry, error);
    if (status)
        return status;
    for (size_t i = 0; i < settings->topic_count; i++)
        if (!(ingest->subject[i] = mf_registry_subject(settings->topic[i].topic)))
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for ingest");
    status = mf_kafka_new(ingest->worker, RD_KAFKA_CONSUMER, fixed, set_rebalance, poller, &ingest->consumer,
                          error);
    if (!status)
        rd_kafka_poll_set_consumer(ingest->consumer);
    return status;
}

enum mf_status mf_ingest_start(struct mf_worker *worker, struct mf_ingest **result, struct mf_error *error) {
    struct mf_ingest *ingest = calloc(1, sizeof *ingest);
    struct poller *poller = calloc(1, sizeof *poller);
    *result = NULL;
    if (!ingest || !poller || !(poller->partition = calloc(MAX_PARTITIONS, sizeof *poller->partition))) {
        free(ingest);
        free(poller);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for ingest");
    }
    ingest->worker = worker;
    ingest->poller = poller;
    ingest->last = &ingest->first;
    ingest->last_answer = &ingest->answers;
    poller->ingest = ingest;
    poller->settings = worker->settings;
    pthread_mutex_init(&ingest->lock, NULL);
    mf_wakeup_init(&ingest->resolver_wakeup);
    mf_counter_set(&worker->counters, MF_COUNTER_REGISTRY_UP, 1);
    enum mf_status status = make_clients(ingest, poller, error);
    if (status) {
        destroy(ingest);
        return status;
    }
    int failure = pthread_create(&ingest->poll_thread, NULL, mf_ingest_poll_main, ingest);
    if (!failure)
        failure = pthread_create(&ingest->writer_thread, NULL, mf_ingest_writer_main, ingest);
    if (!failure)
        failure = pthread_create(&ingest->resolver_thread, NULL, mf_ingest_resolver_main, ingest);
    if (failure) /* the process is about to end */
        return mf_error_errno(error, failure, "ingest threads");
    *result = ingest;
    return MF_OK;
}

void mf_ingest_stop(struct mf_ingest *ingest) {
    if (!ingest)
        return;
    pthread_join(ingest->poll_thread, NULL);
    pthread_join(ingest->writer_thread, NULL);
    mf_wakeup_raise(&ingest->resolver_wakeup);
    pthread_join(ingest->resolver_thread, NULL);
    destroy(ingest);
}
