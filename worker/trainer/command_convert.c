/* modelforge-trainer convert: GGUF to a Hugging Face folder. */
#include "providers/convert.h"
#include "worker/trainer/commands.h"

#include <getopt.h>
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
