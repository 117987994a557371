/* Where jobs may run: what they need against what workers have, and what is said of those that fit nowhere.
 */
#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ON_NEW_DATABASE(TEST) cmocka_unit_test_setup_teardown(TEST, create_migrated, drop_database)
#define GIB                   INT64_C(1073741824)

static const char *config_of_next_job;
static int32_t devices_of_next_job;
static void with_config(struct mf_ingest_request *request) {
    request->config = config_of_next_job;
    request->devices = devices_of_next_job;
}
/* A job whose request is this JSON object, of tenant "team". */
static void add(struct mf_database *database, const char *request_id, const char *config) {
    const char *gpus = strstr(config, "\"gpus\":");
    config_of_next_job = config;
    devices_of_next_job = gpus ? gpus[7] - '0' : 1;
    add_job(database, "team", request_id, with_config, NULL);
}

/* What a worker has. */
struct place {
    const char *name, *host, *labels;
    bool on_cpu, on_gpu, many_gpus;
    int64_t memory_gib[4];
    size_t gpu_count;
    int32_t slots;
    bool broken; /* one GPU more, which does not work */
};

static size_t memory_of(const struct place *place, int64_t *memory) {
    for (size_t i = 0; i < place->gpu_count; i++)
        memory[i] = place->memory_gib[i] * GIB;
    return place->gpu_count;
}

static struct mf_worker_provider provider_of(const struct place *place) {
    return (struct mf_worker_provider){.name = "huggingface",
                                       .on_cpu = place->on_cpu,
                                       .on_gpu = place->on_gpu,
                                       .many_gpus = place->many_gpus};
}

static void advertise(struct mf_database *database, const struct place *place) {
    const struct mf_worker_provider provider = provider_of(place);
    int64_t memory[4];
    char gpus[2048] = "[";
    struct mf_error error;
    for (size_t i = 0; i < place->gpu_count; i++)
        snprintf(gpus + strlen(gpus), sizeof gpus - strlen(gpus),
                 "%s{\"uuid\": \"GPU-%zu\", \"name\": \"Card\", \"memory_bytes\": %" PRId64
                 ", \"used_bytes\": 0, "
                 "\"fault\": "
                 "null}",
                 i ? "," : "", i, place->memory_gib[i] * GIB);
    if (place->broken)
        snprintf(gpus + strlen(gpus), sizeof gpus - strlen(gpus),
                 "%s{\"uuid\": \"GPU-9\", \"name\": \"Card\", \"memory_bytes\": %lld, \"used_bytes\": 0, "
                 "\"fault\": "
                 "\"Xid 79\"}",
                 place->gpu_count ? "," : "", (long long)(80 * GIB));
    (void)strncat(gpus, "]", sizeof gpus - strlen(gpus) - 1);
    const struct mf_worker_row row = {.worker_id = place->name,
                                      .alive_s = 60,
                                      .host = place->host ? place->host : "h",
                                      .boot_id = "b",
                                      .version = "v",
                                      .providers = &provider,
                                      .provider_count = 1,
                                      .slots = place->slots ? place->slots : 1,
                                      .gpus = gpus,
                                      .gpu_memory = memory,
                                      .gpu_count = memory_of(place, memory),
                                      .labels = place->labels};
    assert_fine(mf_store_register_worker(database, &row, &error));
}

/* What it claims with all its GPUs free; "" for nothing. The claim says which GPUs. */
static const char *takes_into(struct mf_database *database, const struct place *place,
                              struct mf_claim *claim) {
    static char request_id[64];
    const struct mf_worker_provider provider = provider_of(place);
    int64_t memory[4];
    size_t count = 0;
    struct mf_error error;
    const struct mf_claim_offer offer = {.worker_id = place->name,
                                         .providers = &provider,
                                         .provider_count = 1,
                                         .labels = place->labels,
                                         .has_gpus = place->gpu_count || place->broken,
                                         .gpu_memory = memory,
                                         .gpu_count = memory_of(place, memory)};
    assert_fine(mf_store_claim(database, &offer, 1, claim, &count, &error));
    snprintf(request_id, sizeof request_id, "%s", count ? claim->request_id : "");
    return request_id;
}
static const char *takes(struct mf_database *database, const struct place *place) {
    struct mf_claim claim = {.attempt = 0};
    const char *request_id = takes_into(database, place, &claim);
    mf_claim_free(&claim);
    return request_id;
}

static struct mf_reap_report reap(struct mf_database *database, int grace_s, int reserve_s) {
    struct mf_error error;
    struct mf_reap_report report;
    const struct mf_reap_options options = {
        .provider_grace_s = grace_s, .reserve_s = reserve_s, .preempt_s = 0};
    assert_fine(mf_store_reap(database, &options, &report, &error));
    return report;
}
static const char *reason_of(const char *request_id) {
    return ask("SELECT waiting_reason FROM jobs WHERE request_id = '%s'", request_id);
}

static const struct place cpu = {.name = "cpu", .on_cpu = true};
static const struct place one = {
    .name = "one", .on_cpu = true, .on_gpu = true, .memory_gib = {24}, .gpu_count = 1};
static const struct place two = {.name = "two",
                                 .on_cpu = true,
                                 .on_gpu = true,
                                 .many_gpus = true,
                                 .memory_gib = {80, 40},
                                 .gpu_count = 2,
                                 .labels = "{\"zone\": \"eu\", \"team\": \"a\"}"};

static void test_devices(void **unused) {
    struct mf_database *database = connect_worker();
    struct mf_claim claim;
    (void)unused;
    add(database, "on cuda", "{\"device\": \"cuda\"}");
    assert_string_equal(takes(database, &cpu), "");
    assert_string_equal(takes_into(database, &one, &claim), "on cuda");
    assert_int_equal(claim.gpu_count, 1);
    mf_claim_free(&claim);
    add(database, "on cpu", "{\"device\": \"cpu\"}");
    assert_string_equal(takes_into(database, &one, &claim), "on cpu");
    assert_int_equal(claim.gpu_count, 0);
    mf_claim_free(&claim);
    /* Left open: a GPU where there are GPUs, and then it waits for one that works. */
    static const struct place dead = {.name = "dead", .on_cpu = true, .on_gpu = true, .broken = true};
    static const struct place unused_gpu = {
        .name = "unused", .on_cpu = true, .memory_gib = {24}, .gpu_count = 1};
    add(database, "open 1", "{}");
    add(database, "open 2", "{}");
    add(database, "open 3", "{}");
    assert_string_equal(takes(database, &dead), "");
    assert_string_equal(takes_into(database, &one, &claim), "open 1");
    assert_int_equal(claim.gpu_count, 1);
    mf_claim_free(&claim);
    assert_string_equal(takes(database, &cpu), "open 2");
    assert_string_equal(takes_into(database, &unused_gpu, &claim),
                        "open 3"); /* its provider computes on no GPU */
    assert_int_equal(claim.gpu_count, 0);
    mf_claim_free(&claim);
    mf_database_close(database);
}

static void test_memory_number_and_labels(void **unused) {
    struct mf_database *database = connect_worker();
    struct mf_claim claim;
    (void)unused;
    add(database, "large", "{\"min_gpu_memory_gib\": 30.5}");
    assert_string_equal(takes(database, &cpu), ""); /* memory of a GPU is a GPU's */
    assert_string_equal(takes(database, &one), "");
    assert_string_equal(takes_into(database, &two, &claim), "large");
    assert_int_equal(claim.gpu_count, 1);
    assert_int_equal(claim.gpu[0], 1); /* the smaller one that is enough */
    mf_claim_free(&claim);
    add(database, "huge", "{\"min_gpu_memory_gib\": 41}");
    assert_string_equal(takes_into(database, &two, &claim), "huge");
    assert_int_equal(claim.gpu[0], 0);
    mf_claim_free(&claim);

    add(database, "pair", "{\"gpus\":2}");
    add(database, "elsewhere", "{\"labels\": {\"zone\": \"us\"}}");
    add(database, "here", "{\"labels\": {\"team\": \"a\"}, \"device\": \"cpu\"}");
    add(database, "single", "{\"device\": \"cpu\"}");
    assert_string_equal(takes(database, &one), "single"); /* what does not fit lets others pass */
    assert_string_equal(takes_into(database, &two, &claim), "pair");
    assert_int_equal(claim.gpu_count, 2);
    mf_claim_free(&claim);
    assert_string_equal(takes(database, &two), "here");
    add(database, "pair of large", "{\"gpus\":2, \"min_gpu_memory_gib\": 50}");
    assert_string_equal(takes(database, &two), ""); /* both must be large enough */
    mf_database_close(database);
}

/* One call gives no GPU to two jobs. */
static void test_claims_of_one_offer_share_its_gpus(void **unused) {
    struct mf_database *database = connect_worker();
    const struct mf_worker_provider provider = provider_of(&two);
    const int64_t memory[] = {80 * GIB, 40 * GIB};
    struct mf_claim claims[4] = {{.attempt = 0}};
    struct mf_error error;
    size_t count;
    (void)unused;
    const struct mf_claim_offer offer = {.worker_id = "two",
                                         .providers = &provider,
                                         .provider_count = 1,
                                         .has_gpus = true,
                                         .gpu_memory = memory,
                                         .gpu_count = 2};
    add(database, "a", "{}");
    add(database, "b", "{\"min_gpu_memory_gib\": 40}");
    add(database, "c", "{}");
    assert_fine(mf_store_claim(database, &offer, 4, claims, &count, &error));
    assert_int_equal(count, 2);
    assert_int_equal(claims[0].gpu[0], 1);
    assert_int_equal(claims[1].gpu[0], 0);
    for (size_t i = 0; i < count; i++)
        mf_claim_free(&claims[i]);
    mf_database_close(database);
}

static void test_what_fits_nowhere_says_why_and_fails(void **unused) {
    struct mf_database *database = connect_worker();
    (void)unused;
    advertise(database, &cpu);
    add(database, "cuda", "{\"device\": \"cuda\"}");
    add(database, "plain", "{}");
    add(database, "labelled", "{\"labels\": {\"zone\": \"us\"}}");
    reap(database, 3600, 60);
    assert_string_equal(reason_of("cuda"),
                        "needs a GPU; no live worker has one that works for provider 'huggingface'");
    assert_string_equal(reason_of("plain"), "(null)");
    assert_string_equal(reason_of("labelled"),
                        "no live worker of provider 'huggingface' has the labels {\"zone\": \"us\"}");
    advertise(database, &two);
    add(database, "four", "{\"gpus\":4}");
    add(database, "memory", "{\"min_gpu_memory_gib\": 100}");
    reap(database, 3600, 60);
    assert_string_equal(reason_of("cuda"), "(null)"); /* now there is one */
    assert_string_equal(reason_of("four"),
                        "needs 4 GPUs at once; no live worker gives a job of provider 'huggingface' so many");
    assert_string_equal(
        reason_of("memory"),
        "needs a GPU of at least 100.0 GiB of memory; no live worker of provider 'huggingface' has that");
    assert_string_equal(ask("SELECT waiting_reason FROM job_overview WHERE request_id = 'four'"),
                        reason_of("four"));

    /* Beyond the grace time: failed, with the list of what is there. */
    assert_int_equal(reap(database, 0, 60).failed_provider, 3);
    assert_string_equal(ask("SELECT state || '|' || error_code || '|' || error_message FROM jobs WHERE "
                            "request_id = 'memory'"),
                        "failed|unplaceable|ResourceError: needs a GPU of at least 100.0 GiB of memory; no "
                        "live worker of provider "
                        "'huggingface' has that. What the live workers of this provider have: cpu: no GPU; "
                        "two: Card, 80.0 GiB + Card, "
                        "40.0 GiB, labels {\"team\": \"a\", \"zone\": \"eu\"}");
    assert_string_equal(
        ask("SELECT string_agg(request_id, ' ' ORDER BY request_id) FROM jobs WHERE state = 'queued'"),
        "cuda plain");

    /* The only GPU breaks: an open job waits where there are only GPUs, and the list says what is wrong. */
    static const struct place broken = {.name = "two", .on_gpu = true, .broken = true};
    struct mf_error error;
    assert_fine(mf_store_unregister_worker(database, "cpu", &error));
    advertise(database, &broken);
    reap(database, 3600, 60);
    assert_string_equal(reason_of("plain"),
                        "needs a GPU; no live worker has one that works for provider 'huggingface'");
    reap(database, 0, 60);
    assert_non_null(strstr(ask("SELECT error_message FROM jobs WHERE request_id = 'plain'"),
                           "two: Card, 80.0 GiB (out: Xid 79)"));
    mf_database_close(database);
}

/* Small jobs would take each GPU that becomes free: after a while a worker keeps itself free for the wide
 * one. */
static void test_a_job_of_several_gpus_gets_a_worker_to_itself(void **unused) {
    struct mf_database *database = connect_worker();
    struct mf_claim claim;
    static const struct place same_host = {
        .name = "neighbour", .on_gpu = true, .memory_gib = {80, 40}, .gpu_count = 2};
    static const struct place half = {.name = "two",
                                      .on_cpu = true,
                                      .on_gpu = true,
                                      .many_gpus = true,
                                      .memory_gib = {40},
                                      .gpu_count = 1,
                                      .labels = "{\"zone\": \"eu\", \"team\": \"a\"}"};
    struct mf_error error;
    (void)unused;
    advertise(database, &two);
    advertise(database, &one);
    add(database, "wide", "{\"gpus\":2}");
    add(database, "small 1", "{}");
    add(database, "small 2", "{\"device\": \"cpu\"}");
    assert_int_equal(reap(database, 3600, 60).reserved, 0); /* it has not waited yet */
    assert_string_equal(takes(database, &half), "small 1"); /* one GPU is free */
    run_sql("UPDATE jobs SET ready_at = now() - interval '61 seconds' WHERE request_id = 'wide'");
    assert_int_equal(reap(database, 3600, 60).reserved, 1);
    assert_int_equal(reap(database, 3600, 60).reserved, 0); /* exactly one */
    assert_string_equal(ask("SELECT reserved_for FROM jobs WHERE request_id = 'wide'"), "two");
    assert_int_equal(ask_number("SELECT count(*) FROM job_events WHERE type = 'reserved'"), 1);
    add(database, "small 3", "{}");
    assert_string_equal(takes(database, &half), "small 2"); /* no GPU to anybody else, but the CPU */
    assert_string_equal(takes(database, &half), "");
    advertise(database, &same_host);
    assert_string_equal(takes(database, &same_host),
                        ""); /* nor to another worker of the host: they share GPUs */
    assert_string_equal(takes_into(database, &two, &claim), "wide");
    assert_int_equal(claim.gpu_count, 2);
    mf_claim_free(&claim);
    assert_string_equal(ask("SELECT reserved_for FROM jobs WHERE request_id = 'wide'"), "(null)");
    assert_string_equal(takes(database, &same_host), "small 3");

    /* A reservation ends with its worker. */
    add(database, "wide 2", "{\"gpus\":2}");
    run_sql("UPDATE jobs SET ready_at = now() - interval '61 seconds' WHERE request_id = 'wide 2'");
    assert_int_equal(reap(database, 3600, 60).reserved, 1);
    assert_fine(mf_store_unregister_worker(database, "two", &error));
    assert_int_equal(reap(database, 3600, 60).reserved, 0);
    assert_string_equal(ask("SELECT reserved_for FROM jobs WHERE request_id = 'wide 2'"), "(null)");
    mf_database_close(database);
}

/* A job gives way only where the other can use its place. */
static void test_places_that_do_not_help_are_left_alone(void **unused) {
    struct mf_database *database = connect_worker();
    (void)unused;
    advertise(database, &cpu);
    advertise(database, &one);
    add(database, "on the cpu", "{\"preemptible\": true, \"device\": \"cpu\"}");
    assert_string_equal(takes(database, &cpu), "on the cpu");
    add(database, "on the gpu", "{\"preemptible\": true}");
    assert_string_equal(takes(database, &one), "on the gpu");
    run_sql("UPDATE jobs SET claim_order = claim_order + interval '10 hours'");
    add(database, "urgent", "{\"device\": \"cuda\"}");
    run_sql("UPDATE jobs SET priority = 5 WHERE request_id = 'urgent'");
    assert_int_equal(reap(database, 3600, 60).preempted, 1);
    assert_string_equal(ask("SELECT request_id FROM jobs WHERE preempted_at IS NOT NULL"), "on the gpu");
    run_sql("UPDATE jobs SET preempted_at = NULL, needs = '{\"device\": \"cuda\", \"gpu_memory_bytes\": "
            "99999999999}'"
            " WHERE preempted_at IS NOT NULL OR request_id = 'urgent'");
    renew_ready_jobs();
    assert_int_equal(reap(database, 3600, 60).preempted, 0); /* no place here is large enough for it */
    mf_database_close(database);
}

/* Who looks for places, who reads worker_status and who lists live workers agree. */
static void expect_life(struct mf_database *database, const char *view, size_t listed, const char *waiting) {
    struct mf_text_table table = {0};
    struct mf_error error;
    (void)reap(database, 3600, 60);
    assert_string_equal(ask("SELECT live FROM worker_status"), view);
    assert_fine(mf_store_live_workers(database, &table, &error));
    assert_int_equal(table.rows, listed);
    mf_text_table_free(&table);
    assert_string_equal(reason_of("job"), waiting);
}

static void test_a_worker_lives_for_as_long_as_it_said(void **unused) {
    static const char nobody[] = "no live worker offers provider 'huggingface'";
    struct mf_database *database = connect_worker();
    struct mf_error error;
    (void)unused;
    advertise(database, &cpu);
    add(database, "job", "{}");
    expect_life(database, "t", 1, "(null)");
    run_sql("UPDATE workers SET heard_at = now() - interval '50 seconds'"); /* of 60 */
    expect_life(database, "t", 1, "(null)");
    run_sql("UPDATE workers SET alive_seconds = 40");
    expect_life(database, "f", 0, nobody);
    advertise(database, &cpu); /* heard again */
    expect_life(database, "t", 1, "(null)");
    assert_fine(mf_store_unregister_worker(database, "cpu", &error));
    expect_life(database, "f", 0, nobody);
    mf_database_close(database);
}

int main(void) {
    require_database();
    const struct CMUnitTest tests[] = {
        ON_NEW_DATABASE(test_devices),
        ON_NEW_DATABASE(test_memory_number_and_labels),
        ON_NEW_DATABASE(test_claims_of_one_offer_share_its_gpus),
        ON_NEW_DATABASE(test_what_fits_nowhere_says_why_and_fails),
        ON_NEW_DATABASE(test_a_job_of_several_gpus_gets_a_worker_to_itself),
        ON_NEW_DATABASE(test_places_that_do_not_help_are_left_alone),
        ON_NEW_DATABASE(test_a_worker_lives_for_as_long_as_it_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
