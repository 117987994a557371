#include "producer/cli/delivery.h"

enum { DELIVERY_WAIT_MS = 65000 };

struct mf_receipt mf_receipt_unknown(void) {
    return (struct mf_receipt){.error = {.status = MF_ERROR_KAFKA}};
}

void mf_receipt_keep(const struct mf_delivery *delivery, void *user) {
    struct mf_receipt *receipt = user;
    receipt->sent = (struct mf_sent){.partition = delivery->partition, .offset = delivery->offset};
    snprintf(receipt->sent.topic, sizeof receipt->sent.topic, "%s", delivery->topic);
    if (delivery->status)
        mf_error_set(&receipt->error, delivery->status, "not accepted by topic %s: %s", delivery->topic,
                     delivery->message);
    else
        receipt->error.status = MF_OK;
}

enum mf_status mf_receipt_wait(struct mf_client *client, const struct mf_receipt *receipt,
                               struct mf_error *error) {
    enum mf_status status = mf_client_flush(client, DELIVERY_WAIT_MS, error);
    if (!status && receipt->error.status) {
        *error = receipt->error;
        status = receipt->error.status;
    }
    return status;
}
