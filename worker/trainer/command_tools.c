/* modelforge-trainer convert and providers. */
#include "providers/convert.h"
#include "providers/registry.h"
#include "worker/trainer/commands.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

int mf_command_convert(int argc, char **argv) {
    static const struct option options[] = {{"dtype", required_argument, NULL, 'd'}, {0}};
    struct mf_convert_options convert = {.dtype = MF_F32};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option != 'd')
            return mf_command_usage("convert", "unknown option", NULL);
        if (!strcmp(optarg, "bf16"))
            convert.dtype = MF_BF16;
        else if (strcmp(optarg, "f32") != 0)
            return mf_command_usage("convert", "--dtype must be f32 or bf16", optarg);
    }
    if (argc - optind != 2)
        return mf_command_usage("convert", "IN.gguf and OUT_DIR are needed", NULL);
    convert.gguf_path = argv[optind];
    convert.output_folder = argv[optind + 1];
    struct mf_convert_result result;
    struct mf_error error;
    if (mf_convert_gguf(&convert, &result, &error) != MF_OK)
        return mf_command_failed(&error);
    printf("%s: %lld parameters in %lld tensors, %d layers, vocabulary %d\n", convert.output_folder,
           (long long)result.parameters, (long long)result.tensors, result.layers, result.vocabulary);
    return 0;
}

static const struct mf_capability *row_at(const struct mf_capabilities *capabilities, size_t index) {
    return (const struct mf_capability *)(const void *)((const char *)capabilities->row +
                                                        index * capabilities->stride);
}

static json_t *provider_json(const char *name, const struct mf_capabilities *capabilities) {
    json_t *rows = json_array();
    for (size_t i = 0; i < capabilities->count; i++) {
        const struct mf_capability *row = row_at(capabilities, i);
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:s, s:s}", "architecture", row->architecture,
                                              "task", row->task, "strategy", row->strategy, "level",
                                              mf_capability_level_name(row->level), "reason", row->reason));
    }
    return json_pack("{s:s, s:o}", "name", name, "capabilities", rows);
}

static void print_provider(const char *name, const struct mf_capabilities *capabilities) {
    printf("%s\n", name);
    for (size_t i = 0; i < capabilities->count; i++) {
        const struct mf_capability *row = row_at(capabilities, i);
        printf("  %-10s %-28s %-8s %-12s %s\n", row->architecture, row->task, row->strategy,
               mf_capability_level_name(row->level), row->reason);
    }
}

int mf_command_providers(int argc, char **argv) {
    const bool json = argc == 2 && !strcmp(argv[1], "--json");
    if (argc > 2 || (argc == 2 && !json))
        return mf_command_usage("providers", "unexpected argument", argv[argc - 1]);
    const struct mf_device device = {.size = sizeof device, .kind = MF_DEVICE_CPU};
    json_t *list = json_array();
    for (size_t i = 0; i < mf_provider_count(); i++) {
        const struct mf_provider *provider = mf_provider_at(i);
        struct mf_capabilities capabilities = {.size = sizeof capabilities};
        struct mf_error error;
        if (provider->capabilities(&device, &capabilities, &error) != MF_OK) {
            json_decref(list);
            return mf_command_failed(&error);
        }
        if (json)
            json_array_append_new(list, provider_json(provider->get_provider_name(), &capabilities));
        else
            print_provider(provider->get_provider_name(), &capabilities);
    }
    if (json) {
        json_t *answer = json_pack("{s:O}", "providers", list);
        json_dumpf(answer, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
        printf("\n");
        json_decref(answer);
    }
    json_decref(list);
    return 0;
}
