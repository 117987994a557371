#include "producer/cli/form.h"

#include "common/json.h"
#include "common/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum mf_status mf_form_read(const char *path, json_t **object, struct mf_error *error) {
    if (strcmp(path, "-") != 0)
        return mf_json_read_file(path, MF_FORM_BYTES, object, error);
    struct mf_text text = {0};
    char block[4096];
    size_t got;
    while ((got = fread(block, 1, sizeof block, stdin)) > 0 && text.length <= MF_FORM_BYTES)
        mf_text_append(&text, block, got);
    enum mf_status status = mf_text_status(&text, error);
    if (!status && text.length > MF_FORM_BYTES)
        status = mf_error_set(error, MF_ERROR_MESSAGE_TOO_LARGE, "standard input: more than %d bytes",
                              MF_FORM_BYTES);
    if (!status)
        status = mf_json_parse(mf_text_string(&text), text.length, "standard input", object, error);
    mf_text_free(&text);
    return status;
}

/* A flag replaces what the file says of the field under any of its names. */
static void drop_field(json_t *object, const struct mf_field *field) {
    json_object_del(object, field->name);
    char names[256];
    snprintf(names, sizeof names, "%s", field->aliases);
    for (char *rest = NULL, *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        json_object_del(object, name);
}

enum mf_status mf_form_flag(json_t *object, const char *flag, const char *value, struct mf_error *error) {
    enum mf_status status;
    char name[64];
    struct mf_request one = {0};
    json_t *all = NULL;
    snprintf(name, sizeof name, "%s", flag + 2);
    for (char *c = name; *c; c++)
        if (*c == '-')
            *c = '_';
    const struct mf_field *field = mf_request_field_find(name);
    if (!field) { /* the request reader knows the nearest name */
        json_t *unknown = json_pack("{s:s}", name, value);
        status = mf_request_from_json(unknown, false, &one, error);
        mf_request_free(&one);
        json_decref(unknown);
        return status ? mf_error_prefix(error, "%s", flag) : MF_OK;
    }
    if (!(status = mf_request_init(&one, error)) &&
        !(status = mf_request_set_text(&one, field->name, value, error)) &&
        !(status = mf_request_to_json(&one, false, &all, error))) {
        drop_field(object, field);
        json_object_set(object, field->name, json_object_get(all, field->name));
    }
    json_decref(all);
    mf_request_free(&one);
    return status;
}

/* The worker has another current folder: a path that exists here goes as an absolute one. */
static enum mf_status make_absolute(char **path, struct mf_error *error) {
    if (!*path || **path == '/' || strstr(*path, "://") || access(*path, F_OK) != 0)
        return MF_OK;
    char *absolute = realpath(*path, NULL);
    if (!absolute)
        return mf_error_errno(error, errno, "%s", *path);
    free(*path);
    *path = absolute;
    return MF_OK;
}

/* What the configuration says of every request of this user. */
static enum mf_status apply_settings(struct mf_settings *settings, json_t *object, struct mf_error *error) {
    enum mf_status status = mf_settings_load(settings, error);
    if (status)
        return status;
    const char *by = mf_config_string(settings->config, "submitted.by");
    if (!json_object_get(object, "tenant"))
        json_object_set_new(object, "tenant", json_string(mf_config_string(settings->config, "tenant")));
    if (by && !json_object_get(object, "submitted_by"))
        json_object_set_new(object, "submitted_by", json_string(by));
    return MF_OK;
}

enum mf_status mf_form_request(struct mf_settings *settings, json_t *object, struct mf_request *request,
                               struct mf_error *error) {
    enum mf_status status = apply_settings(settings, object, error);
    if (!status)
        status = mf_request_from_json(object, false, request, error);
    if (!status)
        status = make_absolute(&request->model_name, error);
    if (!status)
        status = make_absolute(&request->dataset, error);
    if (!status)
        status = make_absolute(&request->validation_dataset, error);
    if (!status)
        status = make_absolute(&request->adapter_name_or_path, error);
    return status;
}
