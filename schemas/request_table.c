/* The field table as data, and what is looked up in it. */
#include <string.h>

#include "schemas/request_private.h"

#define REQUIRED          true, NULL, 0
#define NONE              false, NULL, 0
#define TEXT(value)       false, value, 0
#define ITEMS(value)      false, value, 0
#define WHOLE(value)      false, NULL, (double)(value)
#define REAL(value)       false, NULL, value
#define TRUTH(value)      false, NULL, (value) ? 1.0 : 0.0
#define ANY               false, 0, 0, false, false
#define CLOSED(low, high) true, low, high, false, false
#define ABOVE(low, high)  true, low, high, true, false
#define BELOW(low, high)  true, low, high, false, true
#define WORKS             NULL

static const struct mf_field fields[MF_REQUEST_FIELD_COUNT] = {
#define MF_FIELD(kind, name, aliases, default_value, range, refusal, since, meaning) \
    {#name,         MF_KIND_##kind, aliases,                                         \
     default_value, range,          refusal,                                         \
     since,         meaning,        offsetof(struct mf_request, name)},
#include "schemas/request_fields.def"
};

static const struct mf_field_choice choices[] = {
#define MF_CHOICE(field, value, aliases, refusal) {MF_REQUEST_##field, value, aliases, refusal},
#include "schemas/request_fields.def"
};

const struct mf_field *mf_request_fields(void) {
    return fields;
}

const struct mf_field_choice *mf_request_choices(size_t *count) {
    *count = sizeof choices / sizeof *choices;
    return choices;
}

bool mf_name_listed(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *item = list; length && *item;) {
        size_t item_length = strcspn(item, ",");
        if (item_length == length && !memcmp(item, name, length))
            return true;
        item += item_length + (item[item_length] == ',');
    }
    return false;
}

const struct mf_field *mf_request_field_find(const char *name) {
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++)
        if (!strcmp(fields[i].name, name))
            return &fields[i];
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++)
        if (mf_name_listed(fields[i].aliases, name))
            return &fields[i];
    return NULL;
}

const struct mf_field_choice *mf_field_choices(const struct mf_field *field, size_t *count) {
    const struct mf_field_choice *first = NULL;
    *count = 0;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (&fields[choices[i].field] == field) {
            first = first ? first : &choices[i];
            ++*count;
        } else if (first || &fields[choices[i].field] > field) {
            break; /* they stand in the order of the fields */
        }
    return first;
}
