/* The training request: one struct, generated from the field table (schemas/request_fields.def). */
#ifndef MF_SCHEMAS_REQUEST_H
#define MF_SCHEMAS_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mf_optional_integer {
    bool set;
    int64_t value;
};

struct mf_optional_number {
    bool set;
    double value;
};

struct mf_optional_boolean {
    bool set;
    bool value;
};

/* `count` strings; item is NULL when there are none. */
struct mf_string_list {
    char **item;
    size_t count;
};

/* The C type of each kind. STRING: NULL is null (only where the default is). TIMESTAMP: milliseconds since
 * 1970 in UTC; in JSON RFC 3339. MAP: a JSON object of strings, never NULL after initialisation; numbers and
 * booleans in JSON become their text. */
#define MF_MEMBER_STRING           char *
#define MF_MEMBER_INTEGER          int64_t
#define MF_MEMBER_NUMBER           double
#define MF_MEMBER_BOOLEAN          bool
#define MF_MEMBER_OPTIONAL_INTEGER struct mf_optional_integer
#define MF_MEMBER_OPTIONAL_NUMBER  struct mf_optional_number
#define MF_MEMBER_OPTIONAL_BOOLEAN struct mf_optional_boolean
#define MF_MEMBER_TIMESTAMP        struct mf_optional_integer
#define MF_MEMBER_STRING_LIST      struct mf_string_list
#define MF_MEMBER_MAP              json_t *

/* One member for each field, with the field's name: request->learning_rate, request->max_seq_length.value.
 * Owns all it points to; filled by the functions below, freed with mf_request_free. Read-only use from
 * several threads is fine except for the maps' reference counts. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): the table's order is for readers */
struct mf_request {
#define MF_FIELD(kind, name, aliases, default_value, range, refusal, since, meaning) MF_MEMBER_##kind name;
#include "schemas/request_fields.def"
};

enum mf_request_field {
#define MF_FIELD(kind, name, aliases, default_value, range, refusal, since, meaning) MF_REQUEST_##name,
#include "schemas/request_fields.def"
    MF_REQUEST_FIELD_COUNT
};

/* Every field at its default (required ones NULL). MF_ERROR_OUT_OF_MEMORY only; *request can be freed anyway.
 */
enum mf_status mf_request_init(struct mf_request *request, struct mf_error *error);
/* Frees what it holds; a zeroed struct and a second call are fine. */
void mf_request_free(struct mf_request *request);

/* Reads a flat JSON object: names and aliases (both at once: MF_ERROR_CONFLICTING_FIELDS), null as "not
 * given", choices and their aliases, ranges; a name that is not in the table is MF_ERROR_UNKNOWN_FIELD with
 * the nearest one; then mf_request_validate. A member "run" (what the worker adds for the trainer) is left
 * alone when `allow_run`. *request needs no initialisation and must be freed whatever is returned: when it
 * fails it still holds tenant and request_id if these could be read and have their form, else NULL. */
enum mf_status mf_request_from_json(const json_t *object, bool allow_run, struct mf_request *request,
                                    struct mf_error *error);
/* mf_json_parse and mf_request_from_json; `where` names the source in messages. */
enum mf_status mf_request_from_text(const char *text, size_t length, const char *where,
                                    struct mf_request *request, struct mf_error *error);

/* What from_json checks, for a struct filled in C: required fields (MF_ERROR_MISSING_FIELD), ranges and
 * choices (MF_ERROR_INVALID_FIELD), fields that contradict each other (MF_ERROR_CONFLICTING_FIELDS), features
 * refused by this version (MF_ERROR_UNSUPPORTED_FIELD). The message names the field, its value, what is
 * allowed and how to mend it. What depends on a host (whether a provider, path or device exists) is not
 * looked at. */
enum mf_status mf_request_validate(const struct mf_request *request, struct mf_error *error);

/* Sets one field from text, as a command line or form gives it: "3", "true", "a,b" for lists, "k=v,k=v" for
 * maps, null. The name may be an alias. Checks form and range, not the fields together. */
enum mf_status mf_request_set_text(struct mf_request *request, const char *name, const char *text,
                                   struct mf_error *error);

/* Every field (null where not set), or only those that differ from their defaults. New reference. */
enum mf_status mf_request_to_json(const struct mf_request *request, bool only_changed, json_t **object,
                                  struct mf_error *error);

/* Whether a field has its default, given or not. */
bool mf_request_has_default(const struct mf_request *request, enum mf_request_field field);

/* Whether every weight is trained, and no adapters are. */
bool mf_request_trains_all(const struct mf_request *request);

/* sha256 (hexadecimal) of the canonical JSON of the fields that differ from their defaults: two requests with
 * the same id are the same exactly when this is equal. */
enum mf_status mf_request_hash(const struct mf_request *request, char text[MF_SHA256_TEXT_BYTES],
                               struct mf_error *error);

/* UUIDv5 of tenant, request_id and generation (the first is 1): a client knows it before the worker does. */
enum mf_status mf_job_id(const char *tenant, const char *request_id, int64_t generation,
                         char text[MF_UUID_TEXT_BYTES], struct mf_error *error);

/* The forms of names, for callers that have a name without a request: [A-Za-z0-9._-]{1,64}; [a-z0-9_-]{1,32};
 * 1 to 200 bytes of UTF-8 without control characters. */
bool mf_tenant_name_valid(const char *name);
bool mf_provider_name_valid(const char *name);
bool mf_request_id_valid(const char *name);

/* ---- the table itself, for documentation, forms and codecs ---- */

enum mf_field_kind {
    MF_KIND_STRING,
    MF_KIND_INTEGER,
    MF_KIND_NUMBER,
    MF_KIND_BOOLEAN,
    MF_KIND_OPTIONAL_INTEGER,
    MF_KIND_OPTIONAL_NUMBER,
    MF_KIND_OPTIONAL_BOOLEAN,
    MF_KIND_TIMESTAMP,
    MF_KIND_STRING_LIST,
    MF_KIND_MAP
};

struct mf_field_choice {
    enum mf_request_field field;
    const char *value, *aliases;
    const char *refusal; /* NULL: works */
};

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): the table's order is for readers */
struct mf_field {
    const char *name;
    enum mf_field_kind kind;
    const char *aliases; /* "a,b" or "" */
    bool required;
    const char *default_text; /* STRING, STRING_LIST ("a,b"); NULL: null or empty */
    double default_number;    /* INTEGER, NUMBER, BOOLEAN (0 or 1) */
    bool bounded;
    double minimum, maximum;
    bool minimum_open, maximum_open;
    const char *refusal; /* NULL: works */
    const char *since, *meaning;
    size_t offset; /* of the member in struct mf_request */
};

/* All fields in table order, MF_REQUEST_FIELD_COUNT of them, indexed by enum mf_request_field. Static. */
const struct mf_field *mf_request_fields(void);
/* All choices in table order; those of one field are neighbours. Static. */
const struct mf_field_choice *mf_request_choices(size_t *count);
/* The field of a name or alias; NULL when there is none. */
const struct mf_field *mf_request_field_find(const char *name);

/* What schemas/FIELDS.md and schemas/TrainingRequest.avsc hold; ctest compares. MF_ERROR_OUT_OF_MEMORY only;
 * *text is freed by the caller. */
enum mf_status mf_request_fields_markdown(char **text, struct mf_error *error);
enum mf_status mf_request_avro_schema(char **text, struct mf_error *error);

#ifdef __cplusplus
}
#endif

#endif
