/* modelforge-trainer merge: the outputs of a run, of an adapter that is there already. */
#include "common/files.h"
#include "providers/export.h"
#include "worker/trainer/commands.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct merge {
    const char *model, *adapter, *output;
    enum mf_export_precision precision;
    bool gguf;
    enum mf_gguf_type type;
};

/* 0, or the exit status of wrong usage. */
static int parse(int argc, char **argv, struct merge *merge) {
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},  {"adapter", required_argument, NULL, 'a'},
        {"output", required_argument, NULL, 'o'}, {"gguf", required_argument, NULL, 'g'},
        {"dtype", required_argument, NULL, 'd'},  {0}};
    *merge = (struct merge){.precision = MF_EXPORT_16BIT};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == '?')
            return mf_command_usage("merge", "unknown option", argv[optind - 1]);
        if (option == 'g' && strcmp(optarg, "q8_0") != 0 && strcmp(optarg, "f16") != 0)
            return mf_command_usage("merge", "--gguf must be q8_0 or f16", optarg);
        if (option == 'd' && strcmp(optarg, "16bit") != 0 && strcmp(optarg, "f32") != 0)
            return mf_command_usage("merge", "--dtype must be 16bit or f32", optarg);
        if (option == 'g') {
            merge->gguf = true;
            merge->type = *optarg == 'q' ? MF_GGUF_Q8_0 : MF_GGUF_F16;
        } else if (option == 'd') {
            merge->precision = *optarg == '1' ? MF_EXPORT_16BIT : MF_EXPORT_F32;
        } else {
            *(option == 'm' ? &merge->model : option == 'a' ? &merge->adapter : &merge->output) = optarg;
        }
    }
    if (optind != argc)
        return mf_command_usage("merge", "unexpected argument", argv[optind]);
    if (!merge->model || !merge->adapter || !merge->output)
        return mf_command_usage("merge", "--model, --adapter and --output are needed", NULL);
    return 0;
}

static enum mf_status write_gguf(const struct merge *merge, const struct mf_export_options *options,
                                 struct mf_error *error) {
    char *path = mf_path_join(merge->output, "model.gguf");
    enum mf_status status = path ? mf_export_gguf(options, merge->type, path, error)
                                 : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    free(path);
    return status;
}

static enum mf_status run(const struct merge *merge, size_t *modules, size_t *whole, struct mf_error *error) {
    struct mf_adapter_file *file = NULL;
    struct mf_adapter_deltas deltas = {0};
    enum mf_status status = merge->gguf ? mf_export_gguf_check(merge->model, error) : MF_OK;
    if (status == MF_OK)
        status = mf_adapter_open(merge->adapter, &file, error);
    if (status == MF_OK)
        status = mf_adapter_file_deltas(file, &deltas, error);
    const struct mf_export_options options = {.folder = merge->model,
                                              .delta = deltas.delta,
                                              .deltas = deltas.count,
                                              .value = deltas.value,
                                              .values = deltas.whole,
                                              .untie_head = deltas.untie_head};
    if (status == MF_OK)
        status = mf_export_huggingface(&options, merge->precision, merge->output, error);
    if (status == MF_OK && merge->gguf)
        status = write_gguf(merge, &options, error);
    *modules = deltas.count;
    *whole = deltas.whole;
    mf_adapter_deltas_destroy(&deltas);
    mf_adapter_close(file);
    return status;
}

int mf_command_merge(int argc, char **argv) {
    struct merge merge;
    struct mf_error error;
    size_t modules = 0, whole = 0;
    char replaced[80] = "";
    const int usage = parse(argc, argv, &merge);
    if (usage)
        return usage;
    if (run(&merge, &modules, &whole, &error) != MF_OK)
        return mf_command_failed(&error);
    if (whole)
        (void)snprintf(replaced, sizeof replaced, ", %zu weights replaced", whole);
    printf("%s: %zu modules merged%s%s\n", merge.output, modules, replaced,
           merge.gguf ? "; model.gguf beside" : "");
    return 0;
}
