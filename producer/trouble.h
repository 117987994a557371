/* What librdkafka says of its connections: the reason behind "timed out" and "no broker answers". Without
 * this its messages would go to standard error, and the errors that callers get would not name the cause. */
#ifndef MF_PRODUCER_TROUBLE_H
#define MF_PRODUCER_TROUBLE_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdbool.h>

enum { MF_TROUBLE_TEXT_BYTES = 800 };

/* Belongs to one rd_kafka_t and outlives it; any thread. */
struct mf_kafka_trouble {
    pthread_mutex_t lock;
    rd_kafka_resp_err_t code; /* of the gravest since the last mf_kafka_trouble_over; 0: none */
    bool all_down;
    char text[512];
};

void mf_kafka_trouble_init(struct mf_kafka_trouble *trouble);
void mf_kafka_trouble_destroy(struct mf_kafka_trouble *trouble);
/* Takes the error and log callbacks and the opaque of a configuration. What librdkafka has to say comes while
 * the application polls. */
void mf_kafka_trouble_watch(struct mf_kafka_trouble *trouble, rd_kafka_conf_t *conf);
/* Something went through: what was wrong before is over. */
void mf_kafka_trouble_over(struct mf_kafka_trouble *trouble);

/* "; <what the broker's connection said>" and, where one is known, how to mend it; "" when there is nothing.
 */
const char *mf_kafka_trouble_text(struct mf_kafka_trouble *trouble, char text[MF_TROUBLE_TEXT_BYTES]);
/* Every broker refuses this client's login or certificate, or shows one that it must not trust: waiting will
 * not help. */
bool mf_kafka_trouble_hopeless(struct mf_kafka_trouble *trouble);

#endif
