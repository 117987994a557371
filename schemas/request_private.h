/* What the files of schemas/request share among themselves. */
#ifndef MF_SCHEMAS_REQUEST_PRIVATE_H
#define MF_SCHEMAS_REQUEST_PRIVATE_H

#include "common/text.h"
#include "schemas/request.h"

enum { MF_MAP_KEY_BYTES = 128, MF_MAP_VALUE_BYTES = 4096, MF_LIST_ITEM_BYTES = 256 };

/* Whether `name` is an item of "a,b,c". */
bool mf_name_listed(const char *list, const char *name);
/* The choices of a field, neighbours in an array; NULL and 0 when any text is allowed. */
const struct mf_field_choice *mf_field_choices(const struct mf_field *field, size_t *count);

/* The member of a field: cast it to the C type of its kind. */
static inline void *mf_field_member(const struct mf_field *field, struct mf_request *request) {
    return (char *)request + field->offset;
}

static inline const void *mf_field_value(const struct mf_field *field, const struct mf_request *request) {
    return (const char *)request + field->offset;
}

bool mf_field_is_default(const struct mf_field *field, const struct mf_request *request);
/* The value as JSON: new reference; NULL when memory runs out. */
json_t *mf_field_to_json(const struct mf_field *field, const struct mf_request *request);
/* Range, length, choices and form of one field. */
enum mf_status mf_field_check(const struct mf_field *field, const struct mf_request *request,
                              struct mf_error *error);
/* "[1, 1024]", "(0, 1]"; of a field without bounds "". */
void mf_field_range_text(const struct mf_field *field, struct mf_text *text);

#endif
