#include "common/aws_credentials.h"

#include "common/files.h"
#include "common/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES = 1 << 20 };

static const char *from_environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static enum mf_status keep(char **slot, const char *value, struct mf_error *error) {
    if (*slot || !value)
        return MF_OK;
    return (*slot = strdup(value)) ? MF_OK
                                   : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for credentials");
}

static void wipe(char **secret) {
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

void mf_aws_credentials_free(struct mf_aws_credentials *credentials) {
    wipe(&credentials->access_key_id);
    wipe(&credentials->secret_access_key);
    wipe(&credentials->session_token);
    free(credentials->region);
    free(credentials->endpoint);
    *credentials = (struct mf_aws_credentials){0};
}

/* The path that `variable` names, else ~/.aws/NAME; NULL when there is no home. */
static char *file_path(const char *variable, const char *name) {
    const char *given = from_environment(variable), *home = from_environment("HOME");
    char *path = NULL;
    if (given)
        return strdup(given);
    return home && asprintf(&path, "%s/.aws/%s", home, name) >= 0 ? path : NULL;
}

/* The text without blanks around it; cuts in place. */
static char *trim(char *text) {
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length && strchr(" \t\r", text[length - 1]))
        text[--length] = 0;
    return text;
}

/* "[name]", and in the configuration file "[profile name]". */
static bool is_section(char *line, const char *profile) {
    line[strcspn(line, "]")] = 0;
    char *name = trim(line + 1);
    if (!strncmp(name, "profile ", 8))
        name = trim(name + 8);
    return !strcmp(name, profile);
}

static enum mf_status take_setting(struct mf_aws_credentials *credentials, char *line, bool keys,
                                   struct mf_error *error) {
    char *value = strchr(line, '=');
    if (!value)
        return MF_OK;
    *value++ = 0;
    const char *name = trim(line);
    value = trim(value);
    if (!*value)
        return MF_OK;
    if (keys && !strcmp(name, "aws_access_key_id"))
        return keep(&credentials->access_key_id, value, error);
    if (keys && !strcmp(name, "aws_secret_access_key"))
        return keep(&credentials->secret_access_key, value, error);
    if (keys && !strcmp(name, "aws_session_token"))
        return keep(&credentials->session_token, value, error);
    if (!strcmp(name, "region"))
        return keep(&credentials->region, value, error);
    if (!strcmp(name, "endpoint_url"))
        return keep(&credentials->endpoint, value, error);
    return MF_OK;
}

/* A file that is not there, or may not be read, gives nothing. */
static enum mf_status read_profile(const char *path, const char *profile, bool keys,
                                   struct mf_aws_credentials *credentials, struct mf_error *error) {
    char *text = NULL, *rest, *line;
    size_t size = 0;
    struct mf_error ignored;
    bool inside = false;
    enum mf_status status = MF_OK;
    if (!path || mf_file_read(path, FILE_BYTES, &text, &size, &ignored))
        return MF_OK;
    rest = text;
    while (!status && (line = strsep(&rest, "\n"))) {
        if (*line == '[')
            inside = is_section(line, profile);
        else if (inside && *line != '#' && *line != ';' && *line != ' ' && *line != '\t')
            status = take_setting(credentials, line, keys, error); /* indented: a nested setting */
    }
    explicit_bzero(text, size);
    free(text);
    return status;
}

enum mf_status mf_aws_credentials_load(struct mf_aws_credentials *credentials, struct mf_error *error) {
    const char *profile = from_environment("AWS_PROFILE");
    char *file = file_path("AWS_SHARED_CREDENTIALS_FILE", "credentials");
    char *config = file_path("AWS_CONFIG_FILE", "config");
    *credentials = (struct mf_aws_credentials){.taken_from = "the environment"};
    enum mf_status status;
    profile = profile ? profile : "default";
    if ((status = keep(&credentials->region, from_environment("AWS_REGION"), error)) ||
        (status = keep(&credentials->region, from_environment("AWS_DEFAULT_REGION"), error)) ||
        (status = keep(&credentials->endpoint, from_environment("AWS_ENDPOINT_URL_S3"), error)) ||
        (status = keep(&credentials->endpoint, from_environment("AWS_ENDPOINT_URL"), error)))
        goto done;
    bool keys = !from_environment("AWS_ACCESS_KEY_ID") || !from_environment("AWS_SECRET_ACCESS_KEY");
    if (keys)
        credentials->taken_from = "the credentials file";
    else if ((status = keep(&credentials->access_key_id, from_environment("AWS_ACCESS_KEY_ID"), error)) ||
             (status =
                  keep(&credentials->secret_access_key, from_environment("AWS_SECRET_ACCESS_KEY"), error)) ||
             (status = keep(&credentials->session_token, from_environment("AWS_SESSION_TOKEN"), error)))
        goto done;
    if ((status = read_profile(file, profile, keys, credentials, error)))
        goto done;
    keys = keys && !credentials->access_key_id; /* never one half of a pair from each file */
    if ((status = read_profile(config, profile, keys, credentials, error)))
        goto done;
    if (!credentials->access_key_id || !credentials->secret_access_key)
        status = mf_error_set(error, MF_ERROR_CONFIGURATION,
                              "s3: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give "
                              "the profile '%.64s' "
                              "aws_access_key_id and aws_secret_access_key in %.256s (instance roles, SSO "
                              "and web identities are "
                              "not supported)",
                              profile, file ? file : "~/.aws/credentials");
done:
    free(file);
    free(config);
    if (status)
        mf_aws_credentials_free(credentials);
    return status;
}
