/* Compiles a writer's schema. It comes from the registry, where a producer put it: bounded in size, depth and
 * number of types, and refused when a value of it would be infinite or huge before a byte is read. */
#include "schemas/avro_schema.h"

#include <avro/errors.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

enum {
    NODES = 16384,
    NESTING = 32,  /* of types in the document */
    SLOTS = 16384, /* values of one record without arrays, maps and unions */
    NAME_BYTES = 512
};

static const char *const primitive_names[] = {
    [MF_AVRO_NULL] = "null",   [MF_AVRO_BOOLEAN] = "boolean", [MF_AVRO_INT] = "int",
    [MF_AVRO_LONG] = "long",   [MF_AVRO_FLOAT] = "float",     [MF_AVRO_DOUBLE] = "double",
    [MF_AVRO_BYTES] = "bytes", [MF_AVRO_STRING] = "string",
};

/* Where the compiler is: the namespace in force and the depth. */
struct place {
    const char *name_space;
    int depth;
};

static enum mf_status unusable(struct mf_error *error, const char *what, const char *name) {
    mf_error_set(error, MF_ERROR_UNKNOWN_SCHEMA, "the writer's schema is not usable: %s%s%.100s", what,
                 name ? " " : "", name ? name : "");
    return MF_ERROR_UNKNOWN_SCHEMA;
}

static enum mf_status no_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a writer's schema");
    return MF_ERROR_OUT_OF_MEMORY;
}

static enum mf_status add_node(struct mf_avro_schema *schema, enum mf_avro_kind kind,
                               struct mf_avro_node **result, struct mf_error *error) {
    if (schema->node_count == NODES)
        return unusable(error, "it has too many types", NULL);
    if (schema->node_count == schema->node_capacity) {
        size_t capacity = schema->node_capacity ? 2 * schema->node_capacity : 128;
        struct mf_avro_node **nodes = realloc(schema->nodes, capacity * sizeof(struct mf_avro_node *));
        if (!nodes)
            return no_memory(error);
        schema->nodes = nodes;
        schema->node_capacity = capacity;
    }
    struct mf_avro_node *node = calloc(1, sizeof *node);
    if (!node)
        return no_memory(error);
    node->kind = kind;
    schema->nodes[schema->node_count++] = node;
    *result = node;
    return MF_OK;
}

/* "name" in a namespace to its full name; false when it is too long. */
static bool full_name(const char *name, const char *name_space, char text[NAME_BYTES]) {
    int n = strchr(name, '.') || !*name_space ? snprintf(text, NAME_BYTES, "%s", name)
                                              : snprintf(text, NAME_BYTES, "%s.%s", name_space, name);
    return n > 0 && n < NAME_BYTES;
}

static enum mf_status find_named(struct mf_avro_schema *schema, const char *name, const struct place *place,
                                 struct mf_avro_node **result, struct mf_error *error) {
    char wanted[NAME_BYTES];
    for (size_t i = 0; i < sizeof primitive_names / sizeof *primitive_names; i++)
        if (!strcmp(name, primitive_names[i]))
            return add_node(schema, (enum mf_avro_kind)i, result, error);
    if (!full_name(name, place->name_space, wanted))
        return unusable(error, "a name is too long:", name);
    for (size_t i = 0; i < schema->node_count; i++)
        if (schema->nodes[i]->name && !strcmp(schema->nodes[i]->name, wanted)) {
            *result = schema->nodes[i];
            return MF_OK;
        }
    return unusable(error, "it names a type that it does not define:", name);
}

static enum mf_status compile(struct mf_avro_schema *schema, const json_t *type, const struct place *place,
                              struct mf_avro_node **result, struct mf_error *error);

static enum mf_status make_children(struct mf_avro_node *node, size_t count, struct mf_error *error) {
    node->children = calloc(count ? count : 1, sizeof(struct mf_avro_node *));
    node->count = count;
    return node->children ? MF_OK : no_memory(error);
}

static enum mf_status compile_union(struct mf_avro_schema *schema, const json_t *type,
                                    const struct place *place, struct mf_avro_node **result,
                                    struct mf_error *error) {
    enum mf_status status = add_node(schema, MF_AVRO_UNION, result, error);
    if (!status)
        status = make_children(*result, json_array_size(type), error);
    if (!status && (*result)->count == 0)
        status = unusable(error, "a union is empty", NULL);
    for (size_t i = 0; !status && i < (*result)->count; i++) {
        const json_t *branch = json_array_get(type, i);
        status = json_is_array(branch) ? unusable(error, "a union stands in a union", NULL)
                                       : compile(schema, branch, place, &(*result)->children[i], error);
    }
    return status;
}

/* Gives a node its full name and `inner` the namespace of what is defined inside. */
static enum mf_status name_node(struct mf_avro_schema *schema, struct mf_avro_node *node, const json_t *type,
                                const struct place *place, char inner[NAME_BYTES], struct mf_error *error) {
    char name[NAME_BYTES];
    const char *own = json_string_value(json_object_get(type, "name"));
    const char *name_space = json_string_value(json_object_get(type, "namespace"));
    if (!own || !*own)
        return unusable(error, "a record, enum or fixed has no name", NULL);
    if (!full_name(own, name_space ? name_space : place->name_space, name))
        return unusable(error, "a name is too long:", own);
    for (size_t i = 0; i < schema->node_count; i++)
        if (schema->nodes[i]->name && !strcmp(schema->nodes[i]->name, name))
            return unusable(error, "it defines twice", name);
    if (!(node->name = strdup(name)))
        return no_memory(error);
    char *dot = strrchr(name, '.');
    snprintf(inner, NAME_BYTES, "%.*s", dot ? (int)(dot - name) : 0, name);
    return MF_OK;
}

static enum mf_status compile_record(struct mf_avro_schema *schema, const json_t *type,
                                     const struct place *place, struct mf_avro_node *node,
                                     struct mf_error *error) {
    char inner_name_space[NAME_BYTES];
    const json_t *fields = json_object_get(type, "fields");
    enum mf_status status = name_node(schema, node, type, place, inner_name_space, error);
    if (!status && !json_is_array(fields))
        status = unusable(error, "a record has no fields:", node->name);
    if (!status)
        status = make_children(node, json_array_size(fields), error);
    if (status)
        return status;
    const json_t **documents = calloc(json_array_size(fields) + 1, sizeof(json_t *));
    if (!documents)
        return no_memory(error);
    node->fields = documents;
    struct place inner = {inner_name_space, place->depth};
    for (size_t i = 0; !status && i < node->count; i++) {
        const json_t *field = json_array_get(fields, i);
        const char *name = json_string_value(json_object_get(field, "name"));
        documents[i] = field;
        if (!name || !json_object_get(field, "type"))
            status = unusable(error, "a field has no name or no type, in", node->name);
        else
            status = compile(schema, json_object_get(field, "type"), &inner, &node->children[i], error);
        for (size_t j = 0; !status && j < i; j++)
            if (!strcmp(name, json_string_value(json_object_get(documents[j], "name"))))
                status = unusable(error, "a record has a field twice:", name);
    }
    return status;
}

static enum mf_status compile_enum(struct mf_avro_schema *schema, const json_t *type,
                                   const struct place *place, struct mf_avro_node *node,
                                   struct mf_error *error) {
    char ignored[NAME_BYTES];
    const json_t *symbols = json_object_get(type, "symbols");
    enum mf_status status = name_node(schema, node, type, place, ignored, error);
    node->count = json_array_size(symbols);
    if (!status && node->count == 0)
        status = unusable(error, "an enum has no symbols:", node->name);
    for (size_t i = 0; !status && i < node->count; i++)
        if (!json_is_string(json_array_get(symbols, i)))
            status = unusable(error, "a symbol is not a string, in", node->name);
    return status;
}

static enum mf_status compile_fixed(struct mf_avro_schema *schema, const json_t *type,
                                    const struct place *place, struct mf_avro_node *node,
                                    struct mf_error *error) {
    char ignored[NAME_BYTES];
    int64_t size = 0;
    struct mf_error reason;
    enum mf_status status = name_node(schema, node, type, place, ignored, error);
    if (!status && mf_json_integer(type, "fixed", "size", 1, 1 << 16, &size, &reason))
        status = unusable(error, reason.message, NULL);
    node->count = (size_t)size;
    return status;
}

static enum mf_status compile_container(struct mf_avro_schema *schema, const json_t *item,
                                        const struct place *place, struct mf_avro_node *node,
                                        struct mf_error *error) {
    if (!item)
        return unusable(error, "an array has no items, or a map no values", NULL);
    enum mf_status status = make_children(node, 1, error);
    return status ? status : compile(schema, item, place, &node->children[0], error);
}

static enum mf_status compile_object(struct mf_avro_schema *schema, const json_t *type,
                                     const struct place *place, struct mf_avro_node **result,
                                     struct mf_error *error) {
    const json_t *inner = json_object_get(type, "type");
    const char *name = json_string_value(inner);
    enum mf_status status;
    if (!name)
        return inner ? compile(schema, inner, place, result, error)
                     : unusable(error, "a type has no \"type\"", NULL);
    if (!strcmp(name, "record") || !strcmp(name, "error"))
        return (status = add_node(schema, MF_AVRO_RECORD, result, error))
                   ? status
                   : compile_record(schema, type, place, *result, error);
    if (!strcmp(name, "enum"))
        return (status = add_node(schema, MF_AVRO_ENUM, result, error))
                   ? status
                   : compile_enum(schema, type, place, *result, error);
    if (!strcmp(name, "fixed"))
        return (status = add_node(schema, MF_AVRO_FIXED, result, error))
                   ? status
                   : compile_fixed(schema, type, place, *result, error);
    if (!strcmp(name, "array"))
        return (status = add_node(schema, MF_AVRO_ARRAY, result, error))
                   ? status
                   : compile_container(schema, json_object_get(type, "items"), place, *result, error);
    if (!strcmp(name, "map"))
        return (status = add_node(schema, MF_AVRO_MAP, result, error))
                   ? status
                   : compile_container(schema, json_object_get(type, "values"), place, *result, error);
    status = find_named(schema, name, place, result, error);
    const char *logical = json_string_value(json_object_get(type, "logicalType"));
    if (!status && (*result)->kind == MF_AVRO_LONG && logical)
        (*result)->microseconds = !strcmp(logical, "timestamp-micros");
    return status;
}

static enum mf_status compile(struct mf_avro_schema *schema, const json_t *type, const struct place *place,
                              struct mf_avro_node **result, struct mf_error *error) {
    struct place deeper = {place->name_space, place->depth + 1};
    if (deeper.depth > NESTING)
        return unusable(error, "types are nested too deep", NULL);
    if (json_is_string(type))
        return find_named(schema, json_string_value(type), &deeper, result, error);
    if (json_is_array(type))
        return compile_union(schema, type, &deeper, result, error);
    if (json_is_object(type))
        return compile_object(schema, type, &deeper, result, error);
    return unusable(error, "a type is neither a name, an object nor a list", NULL);
}

/* Counts the values that are there with one value of this type: a record brings its fields, while items and
 * branches come with the bytes. A record that contains itself directly has no end. */
static enum mf_status measure(struct mf_avro_node *node, struct mf_error *error) {
    enum mf_status status = MF_OK;
    if (node->measured)
        return MF_OK;
    if (node->measuring)
        return unusable(error, "a record contains itself:", node->name);
    node->measuring = true;
    node->slots = 1;
    for (size_t i = 0; !status && node->kind == MF_AVRO_RECORD && i < node->count; i++) {
        status = measure(node->children[i], error);
        node->slots += node->children[i]->slots;
        if (!status && node->slots > SLOTS)
            status = unusable(error, "a record has too many fields within fields:", node->name);
    }
    node->measuring = false;
    node->measured = true;
    return status;
}

static enum mf_status build_interface(struct mf_avro_schema *schema, const char *json, size_t length,
                                      struct mf_error *error) {
    if (avro_schema_from_json_length(json, length, &schema->schema)) {
        schema->schema = NULL;
        return unusable(error, avro_strerror(), NULL);
    }
    schema->interface = avro_generic_class_from_schema(schema->schema);
    return schema->interface ? MF_OK : unusable(error, avro_strerror(), NULL);
}

/* Which fields of a request the record's fields are, looked up once and not with each message. */
static enum mf_status find_request_fields(struct mf_avro_schema *schema, struct mf_error *error) {
    schema->request_fields = calloc(schema->root->count + 1, sizeof(struct mf_field *));
    if (!schema->request_fields)
        return no_memory(error);
    for (size_t i = 0; i < schema->root->count; i++)
        schema->request_fields[i] =
            mf_request_field_find(json_string_value(json_object_get(schema->root->fields[i], "name")));
    return MF_OK;
}

enum mf_status mf_avro_schema_parse(const char *json, size_t length, struct mf_avro_schema **result,
                                    struct mf_error *error) {
    struct mf_error reason;
    struct place top = {"", 0};
    *result = NULL;
    if (length > MF_AVRO_SCHEMA_BYTES)
        return unusable(error, "it is too long", NULL);
    struct mf_avro_schema *schema = calloc(1, sizeof *schema);
    if (!schema)
        return no_memory(error);
    enum mf_status status = mf_json_parse(json, length, "schema", &schema->document, &reason);
    if (status)
        status = unusable(error, reason.message, NULL);
    if (!status)
        status = compile(schema, schema->document, &top, &schema->root, error);
    if (!status && schema->root->kind != MF_AVRO_RECORD)
        status = unusable(error, "it is not a record", NULL);
    for (size_t i = 0; !status && i < schema->node_count; i++)
        status = measure(schema->nodes[i], error);
    if (!status)
        status = find_request_fields(schema, error);
    if (!status)
        status = build_interface(schema, json, length, error);
    if (status) {
        mf_avro_schema_free(schema);
        return status;
    }
    *result = schema;
    return MF_OK;
}

void mf_avro_schema_free(struct mf_avro_schema *schema) {
    if (!schema)
        return;
    if (schema->interface)
        avro_value_iface_decref(schema->interface);
    if (schema->schema)
        avro_schema_decref(schema->schema);
    for (size_t i = 0; i < schema->node_count; i++) {
        free(schema->nodes[i]->name);
        free(schema->nodes[i]->children);
        free((void *)schema->nodes[i]->fields);
        free(schema->nodes[i]);
    }
    free(schema->nodes);
    free(schema->request_fields);
    json_decref(schema->document);
    free(schema);
}
