/* ingest: where partitions stand, and letting a halted one go on. */
#include "producer/cli/settings.h"
#include "producer/cli/table.h"

#include "common/text.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: modelforge ingest status\n"
    "       modelforge ingest reset TOPIC PARTITION --from beginning | end | OFFSET\n\n"
    "A worker halts a partition when Kafka does not hold what comes next: the topic was cut, made anew, or\n"
    "records were deleted before they were taken in. 'status' shows where each partition stands. 'reset' "
    "lets a\n"
    "halted one go on: from the first record there is (what was taken before is recognised by its request "
    "id,\n"
    "what was rejected is rejected again), from the end (what is there now is skipped), or from an offset. "
    "It\n"
    "needs the rights of modelforge_owner; who did it and where it went on stays in the view "
    "ingest_gap_log.\n"
    "Running workers notice within 10 s.";

struct reset {
    const char *topic, *from;
    long partition;
};

/* "beginning", "end" or a number as an offset that lies within the partition. */
static enum mf_status choose_offset(struct mf_admin *admin, const struct reset *reset, int64_t *offset,
                                    struct mf_error *error) {
    int64_t low, high;
    char *end;
    enum mf_status status =
        mf_admin_watermarks(admin, reset->topic, (int32_t)reset->partition, &low, &high, error);
    if (status)
        return status;
    if (!strcmp(reset->from, "beginning") || !strcmp(reset->from, "end")) {
        *offset = !strcmp(reset->from, "end") ? high : low;
        return MF_OK;
    }
    *offset = strtoll(reset->from, &end, 10);
    if (*end || end == reset->from || *offset < low || *offset > high)
        return mf_error_set(
            error, MF_ERROR_INVALID_FIELD,
            "--from: '%s' is not beginning, end or an offset from %lld to %lld, which is what the "
            "partition holds",
            reset->from, (long long)low, (long long)high);
    return MF_OK;
}

static int reset_partition(struct mf_settings *settings, const struct reset *reset) {
    struct mf_error error;
    struct mf_database *database;
    struct mf_admin *admin = NULL;
    char cluster[128];
    int64_t offset = 0;
    enum mf_status status = mf_settings_database(settings, false, &database, &error);
    if (!status)
        status = mf_settings_admin(settings, &admin, &error);
    if (!status)
        status = mf_admin_cluster(admin, cluster, sizeof cluster, &error);
    if (!status)
        status = choose_offset(admin, reset, &offset, &error);
    if (!status)
        status = mf_store_reset_partition(database, cluster, reset->topic, (int32_t)reset->partition, offset,
                                          mf_operator_name(), &error);
    mf_admin_destroy(admin);
    if (status)
        return mf_fail(&error);
    if (settings->json)
        printf("{\"topic\":\"%s\",\"partition\":%ld,\"offset\":%lld}\n", reset->topic, reset->partition,
               (long long)offset);
    else
        printf("partition %ld of %s goes on at offset %lld\n", reset->partition, reset->topic,
               (long long)offset);
    return MF_EXIT_OK;
}

static int show_status(struct mf_settings *settings) {
    struct mf_error error;
    struct mf_database *database;
    struct mf_text_table table = {0};
    if (mf_settings_database(settings, false, &database, &error) ||
        mf_store_ingest_status(database, &table, &error))
        return mf_fail(&error);
    return mf_table_give(settings, &table,
                         "topic,partition,next_offset,updated_at,halted_by,expected_offset,found_offset",
                         "no partition was read yet");
}

int mf_command_ingest(struct mf_settings *settings, int argc, char **argv) {
    struct reset reset = {0};
    char *end = NULL;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help")) {
            mf_print_help(stdout, help);
            return MF_EXIT_OK;
        }
    if (argc == 2 && !strcmp(argv[1], "status"))
        return show_status(settings);
    if (argc != 6 || strcmp(argv[1], "reset") != 0 || strcmp(argv[4], "--from") != 0)
        return mf_usage("ingest", "it takes 'status' or 'reset TOPIC PARTITION --from WHERE'");
    reset = (struct reset){argv[2], argv[5], strtol(argv[3], &end, 10)};
    if (*end || end == argv[3] || reset.partition < 0 || reset.partition > INT32_MAX)
        return mf_usage("ingest", "'%s' is no partition number", argv[3]);
    return reset_partition(settings, &reset);
}
