/* A compiled writer's schema, for the files of schemas/avro_*: the tree that the byte checker walks, and
 * avro-c's own form of the same schema. */
#ifndef MF_SCHEMAS_AVRO_SCHEMA_H
#define MF_SCHEMAS_AVRO_SCHEMA_H

#include <avro/generic.h>
#include <avro/schema.h>

#include "schemas/avro_codec.h"

enum mf_avro_kind {
    MF_AVRO_NULL,
    MF_AVRO_BOOLEAN,
    MF_AVRO_INT,
    MF_AVRO_LONG,
    MF_AVRO_FLOAT,
    MF_AVRO_DOUBLE,
    MF_AVRO_BYTES,
    MF_AVRO_STRING,
    MF_AVRO_RECORD,
    MF_AVRO_ENUM,
    MF_AVRO_FIXED,
    MF_AVRO_ARRAY,
    MF_AVRO_MAP,
    MF_AVRO_UNION
};

/* Nodes belong to the schema; a type that is named again is the same node, so the tree may have cycles. */
struct mf_avro_node {
    enum mf_avro_kind kind;
    char *name;   /* full name of a record, enum or fixed; else NULL */
    size_t count; /* children of a record, union, array or map; symbols of an enum; bytes of a fixed */
    struct mf_avro_node **children; /* fields, branches, items or values */
    const json_t *const *fields;    /* of a record: the JSON of each field, in the schema's document */
    bool microseconds;              /* a long of logical type timestamp-micros */
    bool measured, measuring;       /* while compiling */
    size_t slots;                   /* values that exist as soon as one of this type does */
};

struct mf_avro_schema {
    json_t *document;
    struct mf_avro_node *root;              /* a record */
    const struct mf_field **request_fields; /* of each field of root; NULL: it is none of a request */
    struct mf_avro_node **nodes;
    size_t node_count, node_capacity;
    avro_schema_t schema;
    avro_value_iface_t *interface;
};

/* Whether the bytes are exactly one value of the schema, within all bounds. MF_ERROR_BAD_AVRO. */
enum mf_status mf_avro_check(const struct mf_avro_schema *schema, const uint8_t *body, size_t body_bytes,
                             struct mf_error *error);

#endif
