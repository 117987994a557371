/* What became of one message that a command sent. */
#ifndef MF_PRODUCER_CLI_DELIVERY_H
#define MF_PRODUCER_CLI_DELIVERY_H

#include "producer/cli/job.h"

struct mf_receipt {
    struct mf_error error; /* status MF_OK once it was accepted */
    struct mf_sent sent;   /* then: where it lies */
};
/* Nothing is known yet. */
struct mf_receipt mf_receipt_unknown(void);
/* A mf_delivery_function; `user` is the receipt. */
void mf_receipt_keep(const struct mf_delivery *delivery, void *user);
/* Waits until the message is acknowledged. MF_ERROR_KAFKA: it was not. */
enum mf_status mf_receipt_wait(struct mf_client *client, const struct mf_receipt *receipt,
                               struct mf_error *error);

#endif
