/* Sending bytes as they are: for records that were sent before. Not part of the installed library. */
#ifndef MF_PRODUCER_RAW_H
#define MF_PRODUCER_RAW_H

#include "producer/client.h"

/* Like mf_client_submit, for a message that is made already: nothing is checked, no schema is asked for. The
 * key decides the partition, as it did the first time; NULL key or value: none. */
enum mf_status mf_raw_send(struct mf_client *client, const char *topic, const void *key, size_t key_size,
                           const void *value, size_t value_size, mf_delivery_function *delivered, void *user,
                           struct mf_error *error);

#endif
