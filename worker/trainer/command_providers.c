/* modelforge-trainer providers: what can be trained here, by provider. */
#include "kernels/cuda/backend.h"
#include "providers/models/architecture.h"
#include "providers/places.h"
#include "providers/registry.h"
#include "schemas/request.h"
#include "worker/trainer/commands.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const device_names[] = {"cpu", "cuda"};

static json_t *choices_json(enum mf_request_field field) {
    json_t *list = json_array();
    size_t count;
    const struct mf_field_choice *choice = mf_request_choices(&count);
    for (size_t i = 0; i < count; i++)
        if (choice[i].field == field)
            json_array_append_new(list, json_string(choice[i].value));
    return list;
}

static json_t *architectures_json(void) {
    json_t *list = json_array();
    for (size_t i = 0; mf_architecture_type(i); i++)
        json_array_append_new(list, json_string(mf_architecture_type(i)));
    return list;
}

/* The first of this machine's devices that the provider cannot run on, where it runs on none. */
static const json_t *hindrance(const struct mf_provider_listing *row, const bool *present) {
    const json_t *first = NULL;
    for (int i = 0; i < 2; i++) {
        const json_t *device = json_object_get(row->devices, device_names[i]);
        if (!present[i])
            continue;
        if (json_is_true(json_object_get(device, "available")))
            return NULL;
        first = first ? first : device;
    }
    return first;
}

/* `code` and `reason` only where it is not available. */
static json_t *provider_json(const struct mf_provider_listing *row, const bool *present) {
    const json_t *hindered = row->devices ? hindrance(row, present) : NULL;
    static const char *const kinds[] = {"built-in", "library", "program"};
    json_t *object = json_pack("{s:s, s:s, s:s*, s:s*, s:b, s:I}", "name", row->name, "kind",
                               kinds[row->kind], "path", row->path, "version", row->version, "available",
                               row->devices && !hindered, "max_gpus", (json_int_t)row->max_gpus);
    if (!row->devices) {
        json_object_set_new(object, "code", json_string(mf_status_code(row->error.status)));
        json_object_set_new(object, "reason", json_string(row->error.message));
    } else if (hindered) {
        json_object_set(object, "code", json_object_get(hindered, "code"));
        json_object_set(object, "reason", json_object_get(hindered, "reason"));
    }
    if (row->devices)
        json_object_set(object, "devices", row->devices);
    return object;
}

static void print_json(const struct mf_provider_listing *list, size_t count, const bool *present, int gpus) {
    char *folder = NULL;
    struct mf_error ignored;
    mf_providers_folder(&folder, &ignored);
    json_t *providers = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(providers, provider_json(&list[i], present));
    json_t *answer = json_pack("{s:i, s:s?, s:{s:i, s:i}, s:o, s:o, s:o, s:o}", "abi", MF_PROVIDER_ABI,
                               "folder", folder, "devices", "cpu", 1, "cuda", gpus, "architectures",
                               architectures_json(), "tasks", choices_json(MF_REQUEST_task), "strategies",
                               choices_json(MF_REQUEST_strategy), "providers", providers);
    json_dumpf(answer, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    printf("\n");
    json_decref(answer);
    free(folder);
}

static const char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static void print_rows(const json_t *rows) {
    const json_t *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        printf("  %-12s %-28s %-8s %-12s %s\n", text_of(row, "architecture"), text_of(row, "task"),
               text_of(row, "strategy"), text_of(row, "level"), text_of(row, "reason"));
    }
}

static void print_provider(const struct mf_provider_listing *row, const bool *present) {
    printf("%s%s%s%s\n", row->name, row->path ? " (" : "", row->path ? row->path : "", row->path ? ")" : "");
    if (!row->devices)
        printf("  cannot be used: %s\n", row->error.message);
    const json_t *shown = NULL;
    for (int i = 0; i < 2 && row->devices; i++) {
        const json_t *device = json_object_get(row->devices, device_names[i]);
        const json_t *rows = json_object_get(device, "capabilities");
        if (!present[i])
            continue;
        if (!rows)
            printf("  not on %s: %s\n", device_names[i], text_of(device, "reason"));
        else if (shown && json_equal(shown, rows))
            printf("  on %s: the same\n", device_names[i]);
        else
            print_rows(shown = rows);
    }
}

int mf_command_providers(int argc, char **argv) {
    const bool json = argc == 2 && !strcmp(argv[1], "--json");
    if (argc > 2 || (argc == 2 && !json))
        return mf_command_usage("providers", "unexpected argument", argv[argc - 1]);
    struct mf_provider_listing *list = NULL;
    size_t count = 0;
    struct mf_error error;
    /* Libraries are tried before the driver starts: a process that forks is not to have it in its memory. */
    if (mf_provider_list(&list, &count, &error) != MF_OK)
        return mf_command_failed(&error);
    const int gpus = mf_cuda_device_count(NULL);
    const bool present[] = {true, gpus > 0};
    if (json)
        print_json(list, count, present, gpus);
    for (size_t i = 0; i < count && !json; i++)
        print_provider(&list[i], present);
    mf_provider_list_free(list, count);
    return 0;
}
