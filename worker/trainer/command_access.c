/* modelforge-trainer access: can a provider use a model? What every job asks before it loads anything. */
#include "providers/registry.h"
#include "worker/trainer/commands.h"

#include <getopt.h>
#include <stdio.h>

int mf_command_access(int argc, char **argv) {
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"revision", required_argument, NULL, 'r'},
                                            {"provider", required_argument, NULL, 'p'},
                                            {0}};
    struct mf_model_reference reference = {.size = sizeof reference};
    const char *name = "huggingface";
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'm')
            reference.model_id = optarg;
        else if (option == 'r')
            reference.revision = optarg;
        else if (option == 'p')
            name = optarg;
        else
            return mf_command_usage("access", "unknown option", argv[optind - 1]);
    }
    if (optind != argc)
        return mf_command_usage("access", "unexpected argument", argv[optind]);
    if (!reference.model_id)
        return mf_command_usage("access", "--model is needed", NULL);
    const struct mf_provider *provider = NULL;
    struct mf_provider_context context = {0};
    struct mf_error error;
    enum mf_status status = mf_provider_find(name, &provider, &error);
    if (status == MF_OK)
        status = mf_provider_validate_model_access(provider, &context, &reference, &error);
    if (status != MF_OK)
        return mf_command_failed(&error);
    printf("%s: %s may be used\n", name, reference.model_id);
    return 0;
}
