/* Credentials and settings for S3 from where AWS' own tools take them. */
#ifndef MF_COMMON_AWS_CREDENTIALS_H
#define MF_COMMON_AWS_CREDENTIALS_H

#include "common/error.h"

/* Strings are owned; freed with mf_aws_credentials_free(), which wipes the secrets. */
struct mf_aws_credentials {
    char *access_key_id, *secret_access_key;
    char *session_token;    /* NULL: long-lived keys */
    char *region;           /* NULL: not said */
    char *endpoint;         /* NULL: not said */
    const char *taken_from; /* "the environment", "the credentials file": for messages */
};

/* AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; else the profile AWS_PROFILE (default) of
 * AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials) or of AWS_CONFIG_FILE (~/.aws/config). Region:
 * AWS_REGION, AWS_DEFAULT_REGION, the profile. Endpoint: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's
 * endpoint_url. The files are read anew by each call, so that renewed keys are found.
 * MF_ERROR_CONFIGURATION when there are no keys, naming where they were looked for. */
enum mf_status mf_aws_credentials_load(struct mf_aws_credentials *credentials, struct mf_error *error);
void mf_aws_credentials_free(struct mf_aws_credentials *credentials); /* a zeroed one too */

#endif
