/* The request as a struct: making, reading from JSON and text, writing, hashing. */
#include "schemas/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "schemas/request_private.h"

static enum mf_status no_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a training request");
    return MF_ERROR_OUT_OF_MEMORY;
}

static void free_list(struct mf_string_list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->item[i]);
    free(list->item);
    *list = (struct mf_string_list){0};
}

static void clear_member(const struct mf_field *field, void *member) {
    switch (field->kind) {
    case MF_KIND_STRING:
        free(*(char **)member);
        *(char **)member = NULL;
        break;
    case MF_KIND_STRING_LIST:
        free_list(member);
        break;
    case MF_KIND_MAP:
        json_decref(*(json_t **)member);
        *(json_t **)member = NULL;
        break;
    default:
        break;
    }
}

/* "a,b" into a list. */
static bool split_list(const char *text, struct mf_string_list *list) {
    size_t capacity = 1;
    for (const char *c = text; *c; c++)
        capacity += *c == ',';
    list->item = calloc(capacity, sizeof *list->item);
    for (const char *item = text; list->item && *item;) {
        size_t length = strcspn(item, ",");
        if (!(list->item[list->count] = strndup(item, length)))
            return false;
        list->count++;
        item += length + (item[length] == ',');
    }
    return list->item != NULL;
}

/* False when memory runs out. The member's old value is freed. */
static bool set_default(const struct mf_field *field, void *member) {
    clear_member(field, member);
    switch (field->kind) {
    case MF_KIND_STRING:
        return !field->default_text || (*(char **)member = strdup(field->default_text));
    case MF_KIND_INTEGER:
        *(int64_t *)member = (int64_t)field->default_number;
        return true;
    case MF_KIND_NUMBER:
        *(double *)member = field->default_number;
        return true;
    case MF_KIND_BOOLEAN:
        *(bool *)member = field->default_number != 0;
        return true;
    case MF_KIND_OPTIONAL_INTEGER:
    case MF_KIND_TIMESTAMP:
        *(struct mf_optional_integer *)member = (struct mf_optional_integer){0};
        return true;
    case MF_KIND_OPTIONAL_NUMBER:
        *(struct mf_optional_number *)member = (struct mf_optional_number){0};
        return true;
    case MF_KIND_OPTIONAL_BOOLEAN:
        *(struct mf_optional_boolean *)member = (struct mf_optional_boolean){0};
        return true;
    case MF_KIND_STRING_LIST:
        return !field->default_text || split_list(field->default_text, member);
    case MF_KIND_MAP:
        return (*(json_t **)member = json_object()) != NULL;
    }
    return false;
}

enum mf_status mf_request_init(struct mf_request *request, struct mf_error *error) {
    const struct mf_field *fields = mf_request_fields();
    memset(request, 0, sizeof *request);
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++)
        if (!set_default(&fields[i], mf_field_member(&fields[i], request)))
            return no_memory(error);
    return MF_OK;
}

void mf_request_free(struct mf_request *request) {
    const struct mf_field *fields = mf_request_fields();
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++)
        clear_member(&fields[i], mf_field_member(&fields[i], request));
}

/* ---- reading ---- */

static enum mf_status wrong_type(const struct mf_field *field, const json_t *value, const char *expected,
                                 struct mf_error *error) {
    char excerpt[120];
    return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: expected %s, found %s (%s)", field->name,
                        expected, mf_json_type_name(value), mf_json_excerpt(value, excerpt, sizeof excerpt));
}

/* The choice's own name when `text` is an alias of one. */
static const char *canonical_choice(const struct mf_field *field, const char *text) {
    size_t count;
    const struct mf_field_choice *choice = mf_field_choices(field, &count);
    for (size_t i = 0; i < count; i++)
        if (mf_name_listed(choice[i].aliases, text))
            return choice[i].value;
    return text;
}

static enum mf_status read_string(const struct mf_field *field, const json_t *value, char **member,
                                  struct mf_error *error) {
    if (!json_is_string(value))
        return wrong_type(field, value, "a string", error);
    if (strlen(json_string_value(value)) != json_string_length(value))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: holds a NUL", field->name);
    char *copy = strdup(canonical_choice(field, json_string_value(value)));
    if (!copy)
        return no_memory(error);
    free(*member);
    *member = copy;
    return MF_OK;
}

static enum mf_status read_integer(const struct mf_field *field, const json_t *value, int64_t *member,
                                   struct mf_error *error) {
    double number = json_number_value(value);
    if (json_is_integer(value))
        *member = json_integer_value(value);
    else if (json_is_real(value) && number == rint(number) && fabs(number) <= 9007199254740992.0)
        *member = (int64_t)number;
    else
        return wrong_type(field, value, "an integer", error);
    return MF_OK;
}

static enum mf_status read_number(const struct mf_field *field, const json_t *value, double *member,
                                  struct mf_error *error) {
    if (!json_is_number(value))
        return wrong_type(field, value, "a number", error);
    *member = json_number_value(value);
    return MF_OK;
}

static enum mf_status read_boolean(const struct mf_field *field, const json_t *value, bool *member,
                                   struct mf_error *error) {
    if (!json_is_boolean(value))
        return wrong_type(field, value, "true or false", error);
    *member = json_is_true(value);
    return MF_OK;
}

static enum mf_status read_timestamp(const struct mf_field *field, const json_t *value, int64_t *member,
                                     struct mf_error *error) {
    static const char *const form = "a time with its zone, such as \"2026-11-25T18:00:00Z\"";
    if (!json_is_string(value) || !mf_time_parse(json_string_value(value), member))
        return wrong_type(field, value, form, error);
    return MF_OK;
}

/* A list of strings; one string stands for a list of one. */
static enum mf_status read_list(const struct mf_field *field, const json_t *value,
                                struct mf_string_list *member, struct mf_error *error) {
    size_t count = json_is_string(value) ? 1 : json_array_size(value);
    if (!json_is_string(value) && !json_is_array(value))
        return wrong_type(field, value, "a list of strings", error);
    if (field->bounded && (double)count > field->maximum)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %zu items, at most %g are allowed",
                            field->name, count, field->maximum);
    struct mf_string_list list = {.item = calloc(count ? count : 1, sizeof *list.item)};
    enum mf_status status = list.item ? MF_OK : no_memory(error);
    for (size_t i = 0; !status && i < count; i++, list.count++)
        status = read_string(field, json_is_string(value) ? value : json_array_get(value, i), &list.item[i],
                             error);
    if (status) {
        list.count += list.item && list.count < count && list.item[list.count];
        free_list(&list);
        return status;
    }
    free_list(member);
    *member = list;
    return MF_OK;
}

/* A scalar as a new JSON string; NULL for an array, an object or null. */
static json_t *scalar_text(const json_t *value) {
    char text[MF_NUMBER_TEXT_BYTES];
    if (json_is_string(value))
        return json_string(json_string_value(value));
    if (json_is_boolean(value))
        return json_string(json_is_true(value) ? "true" : "false");
    if (json_is_integer(value))
        return json_sprintf("%lld", (long long)json_integer_value(value));
    if (json_is_real(value))
        return json_string(mf_number_format(json_real_value(value), text));
    return NULL;
}

static enum mf_status read_map(const struct mf_field *field, const json_t *value, json_t **member,
                               struct mf_error *error) {
    if (!json_is_object(value))
        return wrong_type(field, value, "an object of strings", error);
    json_t *map = json_object();
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)value, key, item) {
        json_t *text = scalar_text(item);
        if (json_is_string(item) && strlen(json_string_value(item)) != json_string_length(item)) {
            json_decref(text);
            json_decref(map);
            return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: \"%.64s\": holds a NUL", field->name,
                                key);
        }
        if (!text) {
            json_decref(map);
            return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: \"%.64s\": expected a string, found %s",
                                field->name, key, mf_json_type_name(item));
        }
        if (json_object_set_new(map, key, text)) {
            json_decref(map);
            return no_memory(error);
        }
    }
    if (!map)
        return no_memory(error);
    json_decref(*member);
    *member = map;
    return MF_OK;
}

static enum mf_status read_member(const struct mf_field *field, const json_t *value, void *member,
                                  struct mf_error *error) {
    if (json_is_null(value))
        return set_default(field, member) ? MF_OK : no_memory(error);
    switch (field->kind) {
    case MF_KIND_STRING:
        return read_string(field, value, member, error);
    case MF_KIND_INTEGER:
        return read_integer(field, value, member, error);
    case MF_KIND_NUMBER:
        return read_number(field, value, member, error);
    case MF_KIND_BOOLEAN:
        return read_boolean(field, value, member, error);
    case MF_KIND_OPTIONAL_INTEGER:
    case MF_KIND_TIMESTAMP: {
        struct mf_optional_integer *optional = member;
        optional->set = true;
        return field->kind == MF_KIND_TIMESTAMP ? read_timestamp(field, value, &optional->value, error)
                                                : read_integer(field, value, &optional->value, error);
    }
    case MF_KIND_OPTIONAL_NUMBER:
        ((struct mf_optional_number *)member)->set = true;
        return read_number(field, value, &((struct mf_optional_number *)member)->value, error);
    case MF_KIND_OPTIONAL_BOOLEAN:
        ((struct mf_optional_boolean *)member)->set = true;
        return read_boolean(field, value, &((struct mf_optional_boolean *)member)->value, error);
    case MF_KIND_STRING_LIST:
        return read_list(field, value, member, error);
    case MF_KIND_MAP:
        return read_map(field, value, member, error);
    }
    return MF_OK;
}

/* The member of a field under its name or one of its aliases; *found counts how many there are. */
static enum mf_status find_member(const json_t *object, const struct mf_field *field, const json_t **value,
                                  size_t *found, struct mf_error *error) {
    const char *given = field->name;
    *value = json_object_get(object, field->name);
    *found = *value != NULL;
    for (const char *alias = field->aliases; *alias;) {
        char name[64];
        size_t length = strcspn(alias, ",");
        memcpy(name, alias, length); /* aliases are short: a test measures them */
        name[length] = 0;
        const json_t *other = json_object_get(object, name);
        if (other && *found)
            return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                                "%s and %s are the same field: give only %s", given, name, field->name);
        if (other) {
            *value = other;
            ++*found;
            given = alias;
        }
        alias += length + (alias[length] == ',');
    }
    return MF_OK;
}

static size_t smallest(size_t a, size_t b, size_t c) {
    return a < b ? (a < c ? a : c) : (b < c ? b : c);
}

/* Edits (insert, delete, replace) between two names; long names count as far apart. */
static size_t edit_distance(const char *a, const char *b) {
    enum { LONGEST = 40 };
    size_t row[LONGEST + 1], n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t above = row[j];
            row[j] = smallest(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[m];
}

static enum mf_status unknown_field(const char *name, struct mf_error *error) {
    const struct mf_field *fields = mf_request_fields();
    const char *nearest = NULL;
    size_t nearest_distance = 4;
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++) {
        size_t distance = edit_distance(name, fields[i].name);
        if (distance < nearest_distance && 3 * distance <= strlen(name)) {
            nearest_distance = distance;
            nearest = fields[i].name;
        }
    }
    return nearest ? mf_error_set(error, MF_ERROR_UNKNOWN_FIELD, "%.100s: no such field; did you mean %s?",
                                  name, nearest)
                   : mf_error_set(error, MF_ERROR_UNKNOWN_FIELD,
                                  "%.100s: no such field; schemas/FIELDS.md lists them all", name);
}

static enum mf_status refuse_unknown(const json_t *object, bool allow_run, struct mf_error *error) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        if (mf_request_field_find(key) || (allow_run && !strcmp(key, "run")))
            continue;
        return unknown_field(key, error);
    }
    return MF_OK;
}

/* Tenant and request id, for the record of a request that fails: kept only when their form is right. */
static void read_identity(const json_t *object, struct mf_request *request) {
    const char *tenant = json_string_value(json_object_get(object, "tenant"));
    const char *request_id = json_string_value(json_object_get(object, "request_id"));
    if (tenant && mf_tenant_name_valid(tenant)) {
        char *copy = strdup(tenant);
        if (copy) {
            free(request->tenant);
            request->tenant = copy;
        }
    }
    if (request_id && mf_request_id_valid(request_id)) {
        free(request->request_id);
        request->request_id = strdup(request_id);
    }
}

/* What a failed request says of itself may be stored and shown: not a name that breaks the rules. */
static void drop_bad_identity(struct mf_request *request) {
    if (request->tenant && !mf_tenant_name_valid(request->tenant)) {
        free(request->tenant);
        request->tenant = NULL;
    }
    if (request->request_id && !mf_request_id_valid(request->request_id)) {
        free(request->request_id);
        request->request_id = NULL;
    }
}

static enum mf_status read_object(const json_t *object, bool allow_run, struct mf_request *request,
                                  struct mf_error *error) {
    const struct mf_field *fields = mf_request_fields();
    enum mf_status status = MF_OK;
    size_t known = 0;
    if (!json_is_object(object))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "a training request is a JSON object, found %s",
                            mf_json_type_name(object));
    read_identity(object, request);
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++) {
        const json_t *value;
        size_t found;
        if ((status = find_member(object, &fields[i], &value, &found, error)))
            return status;
        known += found;
        if (value && (status = read_member(&fields[i], value, mf_field_member(&fields[i], request), error)))
            return status;
    }
    if (known != json_object_size(object) && (status = refuse_unknown(object, allow_run, error)))
        return status;
    return mf_request_validate(request, error);
}

enum mf_status mf_request_from_json(const json_t *object, bool allow_run, struct mf_request *request,
                                    struct mf_error *error) {
    enum mf_status status = mf_request_init(request, error);
    if (!status)
        status = read_object(object, allow_run, request, error);
    if (status)
        drop_bad_identity(request);
    return status;
}

enum mf_status mf_request_from_text(const char *text, size_t length, const char *where,
                                    struct mf_request *request, struct mf_error *error) {
    json_t *object;
    memset(request, 0, sizeof *request);
    enum mf_status status = mf_json_parse(text, length, where, &object, error);
    if (status)
        return status;
    status = mf_request_from_json(object, false, request, error);
    if (status)
        mf_error_prefix(error, "%s", where);
    json_decref(object);
    return status;
}

/* "k=v,k=v" as an object, or "a,b" as an array; NULL when memory runs out or a pair has no "=". */
static json_t *pairs_to_json(const char *text) {
    json_t *object = json_object();
    while (object && *text) {
        size_t length = strcspn(text, ","), key = strcspn(text, "=");
        if (key >= length ||
            json_object_setn_new(object, text, key, json_stringn(text + key + 1, length - key - 1))) {
            json_decref(object);
            return NULL;
        }
        text += length + (text[length] == ',');
    }
    return object;
}

static json_t *items_to_json(const char *text) {
    json_t *array = json_array();
    while (array && *text) {
        size_t length = strcspn(text, ",");
        if (json_array_append_new(array, json_stringn(text, length))) {
            json_decref(array);
            return NULL;
        }
        text += length + (text[length] == ',');
    }
    return array;
}

/* Text as the JSON value that it looks like for a field of this kind. */
static json_t *text_to_json(enum mf_field_kind kind, const char *text) {
    json_error_t ignored;
    json_t *value = NULL;
    if (!strcmp(text, "null"))
        return json_null();
    switch (kind) {
    case MF_KIND_STRING:
    case MF_KIND_TIMESTAMP:
        return json_string(text);
    case MF_KIND_STRING_LIST:
        return items_to_json(text);
    case MF_KIND_MAP:
        value = pairs_to_json(text);
        break;
    default:
        value = json_loads(text, JSON_DECODE_ANY, &ignored);
        break;
    }
    return value ? value : json_string(text); /* whose type is then named in the message */
}

enum mf_status mf_request_set_text(struct mf_request *request, const char *name, const char *text,
                                   struct mf_error *error) {
    const struct mf_field *field = mf_request_field_find(name);
    if (!field)
        return unknown_field(name, error);
    json_t *value = text_to_json(field->kind, text);
    if (!value)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: the text is not UTF-8", name);
    enum mf_status status = read_member(field, value, mf_field_member(field, request), error);
    json_decref(value);
    return status ? status : mf_field_check(field, request, error);
}

/* ---- writing ---- */

bool mf_field_is_default(const struct mf_field *field, const struct mf_request *request) {
    const void *value = mf_field_value(field, request);
    switch (field->kind) {
    case MF_KIND_STRING: {
        const char *string = *(char *const *)value;
        return string && field->default_text ? !strcmp(string, field->default_text)
                                             : !string && !field->default_text;
    }
    case MF_KIND_INTEGER:
        return *(const int64_t *)value == (int64_t)field->default_number;
    case MF_KIND_NUMBER:
        return *(const double *)value == field->default_number;
    case MF_KIND_BOOLEAN:
        return *(const bool *)value == (field->default_number != 0);
    case MF_KIND_OPTIONAL_INTEGER:
    case MF_KIND_TIMESTAMP:
        return !((const struct mf_optional_integer *)value)->set;
    case MF_KIND_OPTIONAL_NUMBER:
        return !((const struct mf_optional_number *)value)->set;
    case MF_KIND_OPTIONAL_BOOLEAN:
        return !((const struct mf_optional_boolean *)value)->set;
    case MF_KIND_STRING_LIST: {
        const struct mf_string_list *list = value;
        const char *rest = field->default_text ? field->default_text : "";
        for (size_t i = 0; i < list->count; i++) {
            size_t length = strcspn(rest, ",");
            if (!*rest || strlen(list->item[i]) != length || memcmp(list->item[i], rest, length) != 0)
                return false;
            rest += length + (rest[length] == ',');
        }
        return !*rest;
    }
    case MF_KIND_MAP:
        return json_object_size(*(json_t *const *)value) == 0;
    }
    return false;
}

static json_t *list_to_json(const struct mf_string_list *list) {
    json_t *array = json_array();
    for (size_t i = 0; array && i < list->count; i++)
        if (json_array_append_new(array, json_string(list->item[i]))) {
            json_decref(array);
            return NULL;
        }
    return array;
}

json_t *mf_field_to_json(const struct mf_field *field, const struct mf_request *request) {
    const void *value = mf_field_value(field, request);
    char time[MF_TIME_TEXT_BYTES];
    switch (field->kind) {
    case MF_KIND_STRING:
        return *(char *const *)value ? json_string(*(char *const *)value) : json_null();
    case MF_KIND_INTEGER:
        return json_integer(*(const int64_t *)value);
    case MF_KIND_NUMBER:
        return json_real(*(const double *)value);
    case MF_KIND_BOOLEAN:
        return json_boolean(*(const bool *)value);
    case MF_KIND_OPTIONAL_INTEGER: {
        const struct mf_optional_integer *integer = value;
        return integer->set ? json_integer(integer->value) : json_null();
    }
    case MF_KIND_OPTIONAL_NUMBER: {
        const struct mf_optional_number *number = value;
        return number->set ? json_real(number->value) : json_null();
    }
    case MF_KIND_OPTIONAL_BOOLEAN: {
        const struct mf_optional_boolean *boolean = value;
        return boolean->set ? json_boolean(boolean->value) : json_null();
    }
    case MF_KIND_TIMESTAMP: {
        const struct mf_optional_integer *instant = value;
        return instant->set ? json_string(mf_time_format(instant->value, time)) : json_null();
    }
    case MF_KIND_STRING_LIST:
        return list_to_json(value);
    case MF_KIND_MAP:
        return *(json_t *const *)value ? json_deep_copy(*(json_t *const *)value) : json_object();
    }
    return NULL;
}

enum mf_status mf_request_to_json(const struct mf_request *request, bool only_changed, json_t **result,
                                  struct mf_error *error) {
    const struct mf_field *fields = mf_request_fields();
    json_t *object = json_object();
    *result = NULL;
    for (size_t i = 0; object && i < MF_REQUEST_FIELD_COUNT; i++) {
        if (only_changed && mf_field_is_default(&fields[i], request))
            continue;
        if (json_object_set_new(object, fields[i].name, mf_field_to_json(&fields[i], request))) {
            json_decref(object);
            object = NULL;
        }
    }
    if (!object)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY,
                            "cannot write a training request as JSON: no memory, or a "
                            "text that is not UTF-8");
    *result = object;
    return MF_OK;
}

bool mf_request_has_default(const struct mf_request *request, enum mf_request_field field) {
    return mf_field_is_default(&mf_request_fields()[field], request);
}

bool mf_request_trains_all(const struct mf_request *request) {
    return !strcmp(request->finetuning, "full");
}

enum mf_status mf_request_hash(const struct mf_request *request, char text[MF_SHA256_TEXT_BYTES],
                               struct mf_error *error) {
    json_t *object;
    char *canonical = NULL;
    enum mf_status status = mf_request_to_json(request, true, &object, error);
    if (!status)
        status = mf_json_canonical(object, &canonical, error);
    if (!status)
        status = mf_sha256_text(canonical, strlen(canonical), text, error);
    free(canonical);
    json_decref(object);
    return status;
}

enum mf_status mf_job_id(const char *tenant, const char *request_id, int64_t generation,
                         char text[MF_UUID_TEXT_BYTES], struct mf_error *error) {
    /* of all job ids, for ever */
    static const struct mf_uuid job_name_space = {
        {0x6d, 0x0f, 0x2a, 0x5e, 0x93, 0xc4, 0x4b, 0x1d, 0x8e, 0x57, 0x1a, 0xb0, 0xd2, 0x3c, 0x64, 0xf9}};
    struct mf_text name = {0};
    struct mf_uuid uuid;
    /* a tenant has no slash and the generation none either, so different triples give different names */
    mf_text_printf(&name, "%s/%s/%lld", tenant, request_id, (long long)generation);
    enum mf_status status = mf_text_status(&name, error);
    if (!status)
        status = mf_uuid_v5(job_name_space, name.data, name.length, &uuid, error);
    if (!status)
        mf_uuid_format(uuid, text);
    mf_text_free(&name);
    return status;
}
