/* A request as a person gives it: a JSON object from a file, flags over it, the configuration's own values.
 */
#ifndef MF_PRODUCER_CLI_FORM_H
#define MF_PRODUCER_CLI_FORM_H

#include "producer/cli/settings.h"

#include <jansson.h>

enum { MF_FORM_BYTES = 1 << 20 }; /* of one request's JSON */

/* Reads the JSON value of a file, or of standard input ("-"). New reference. */
enum mf_status mf_form_read(const char *path, json_t **object, struct mf_error *error);

/* "--learning-rate", "1e-4": checks the text by the field table and sets it in the object, in place of what
 * the object says of the field under any of its names. */
enum mf_status mf_form_flag(json_t *object, const char *flag, const char *value, struct mf_error *error);

/* Adds what the configuration says of every request of this user (tenant, submitted.by), then
 * mf_request_from_json; model_name, dataset and validation_dataset that exist here become absolute paths,
 * since a worker has another current folder. Free *request whatever is returned. */
enum mf_status mf_form_request(struct mf_settings *settings, json_t *object, struct mf_request *request,
                               struct mf_error *error);

#endif
