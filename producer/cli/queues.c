/* queues: what waits and runs by provider and tenant, and the caps and weights that share the places out. */
#include "producer/cli/settings.h"
#include "producer/cli/table.h"

#include "schemas/request.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: modelforge queues [list] [--tenant TENANT]\n"
    "       modelforge queues set PROVIDER TENANT [--cap N | none] [--weight W]\n\n"
    "Every tenant has a queue of its own for each provider. 'list' shows what runs, waits (ready now), is\n"
    "delayed (run_at or a back-off), paused or cannot be placed, and its share: the part of the places that "
    "the\n"
    "tenant gets while all who have work now want more. 'set' changes, for jobs to come too:\n\n"
    "  --cap N       at most N jobs at once; 0 holds the queue: nothing new is started; none: no cap\n"
    "  --weight W    a tenant of weight 2 gets twice the places of one of weight 1 (the default)\n\n"
    "Jobs that run already go on under a lower cap. 'set' needs the rights of modelforge_owner; who set what "
    "is\n"
    "in the view queue_change_log.";

struct setting {
    const char *provider, *tenant;
    struct mf_queue_change change;
};

static int print_limits(const struct mf_settings *settings, const struct setting *setting,
                        const struct mf_queue_limits *limits) {
    if (settings->json)
        return mf_json_print(json_pack("{s:s, s:s, s:o, s:f, s:b}", "provider", setting->provider, "tenant",
                                       setting->tenant, "cap",
                                       limits->cap == MF_CAP_NONE ? json_null() : json_integer(limits->cap),
                                       "weight", limits->weight, "offered", limits->offered));
    printf("%s/%s: ", setting->provider, setting->tenant);
    if (limits->cap == MF_CAP_NONE)
        printf("no cap");
    else
        printf("at most %d at once", limits->cap);
    printf(", weight %g\n", limits->weight);
    if (!limits->offered)
        fprintf(stderr, "modelforge: note that no worker has offered provider '%s' so far\n",
                setting->provider);
    return MF_EXIT_OK;
}

static int set_queue(struct mf_settings *settings, const struct setting *setting) {
    struct mf_error error;
    struct mf_database *database;
    struct mf_queue_limits limits = {.cap = MF_CAP_NONE};
    enum mf_status status = mf_settings_database(settings, false, &database, &error);
    if (status)
        return mf_fail(&error);
    status = mf_store_set_queue(database, setting->provider, setting->tenant, &setting->change,
                                mf_operator_name(), &limits, &error);
    if (status == MF_ERROR_INTERNAL && mf_database_failure(database) == MF_DATABASE_DEFECT)
        mf_error_prefix(&error, "caps and weights are set with the rights of modelforge_owner");
    if (!status) /* a higher cap is heard of at once; a lost notification only costs a poll time */
        (void)mf_database_notify(database, MF_CHANNEL_JOBS, &error);
    return status ? mf_fail(&error) : print_limits(settings, setting, &limits);
}

/* "3" or "none". */
static bool read_cap(const char *text, struct mf_queue_change *change) {
    char *end;
    change->cap_given = true;
    change->cap = MF_CAP_NONE;
    if (!strcmp(text, "none"))
        return true;
    errno = 0;
    long value = strtol(text, &end, 10);
    change->cap = (int32_t)value;
    return *text && !*end && !errno && value >= 0 && value <= INT32_MAX;
}

static bool read_weight(const char *text, struct mf_queue_change *change) {
    char *end;
    change->weight_given = true;
    change->weight = strtod(text, &end);
    return *text && !*end && isfinite(change->weight) && change->weight >= 1e-6 && change->weight <= 1e6;
}

static int set(struct mf_settings *settings, int argc, char **argv) {
    if (argc < 4)
        return mf_usage("queues", "set which PROVIDER and TENANT?");
    struct setting setting = {.provider = argv[2], .tenant = argv[3]};
    if (!mf_provider_name_valid(setting.provider))
        return mf_usage("queues", "'%s' is no provider's name", setting.provider);
    if (!mf_tenant_name_valid(setting.tenant))
        return mf_usage("queues", "'%s' is no tenant's name", setting.tenant);
    for (int i = 4; i < argc; i += 2) {
        bool cap = !strcmp(argv[i], "--cap");
        if ((!cap && strcmp(argv[i], "--weight") != 0) || i + 1 == argc)
            return mf_usage("queues", "unexpected '%s', or it lacks its value", argv[i]);
        if (cap && !read_cap(argv[i + 1], &setting.change))
            return mf_usage("queues", "--cap takes a whole number from 0, or none, not '%s'", argv[i + 1]);
        if (!cap && !read_weight(argv[i + 1], &setting.change))
            return mf_usage("queues", "--weight takes a number from 0.000001 to 1000000, not '%s'",
                            argv[i + 1]);
    }
    if (!setting.change.cap_given && !setting.change.weight_given)
        return mf_usage("queues", "set --cap, --weight or both");
    return set_queue(settings, &setting);
}

static int list(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    struct mf_database *database;
    struct mf_text_table table = {0};
    const char *tenant = NULL;
    int i = argc > 1 && !strcmp(argv[1], "list") ? 2 : 1;
    if (i + 1 < argc && !strcmp(argv[i], "--tenant")) {
        tenant = argv[i + 1];
        i += 2;
    }
    if (i < argc)
        return mf_usage("queues", "unexpected '%s', or it lacks its value", argv[i]);
    if (mf_settings_database(settings, false, &database, &error) ||
        mf_store_queues(database, tenant, &table, &error))
        return mf_fail(&error);
    return mf_table_give(settings, &table,
                         "provider,tenant,running,waiting,unplaceable,cap,weight,share_percent",
                         "no tenant has had a job yet, and no cap or weight is set");
}

int mf_command_queues(struct mf_settings *settings, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help")) {
            mf_print_help(stdout, help);
            return MF_EXIT_OK;
        }
    return argc > 1 && !strcmp(argv[1], "set") ? set(settings, argc, argv) : list(settings, argc, argv);
}
