/* Where a partition starts, and what is taken for the record that was taken last. */
#include "worker/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct mf_ingest_offset known(int64_t next, int64_t anchor) {
    struct mf_ingest_offset offset = {.next = next, .anchor_offset = anchor, .anchor_timestamp = 1000};
    struct mf_error error;
    assert_int_equal(mf_store_key_hash("key", 3, offset.anchor_key_hash, &error), MF_OK);
    return offset;
}

static void a_new_partition_starts_at_its_beginning(void **state) {
    (void)state;
    struct mf_position position = mf_position_decide(NULL, 17, 90);
    assert_int_equal(position.kind, MF_POSITION_BEGINNING);
    assert_int_equal(position.fetch, 17);
    assert_int_equal(position.expected, MF_OFFSET_NONE);
}

static void a_known_partition_starts_at_its_anchor(void **state) {
    (void)state;
    struct mf_ingest_offset offset = known(50, 49);
    struct mf_position position = mf_position_decide(&offset, 0, 90);
    assert_int_equal(position.kind, MF_POSITION_ANCHOR);
    assert_int_equal(position.fetch, 49);
    assert_int_equal(position.expected, 50);
    offset = known(50, 44); /* a gap made by a transaction's marker */
    assert_int_equal(mf_position_decide(&offset, 0, 50).fetch, 44);
}

static void retention_up_to_the_next_record_loses_nothing(void **state) {
    (void)state;
    struct mf_ingest_offset offset = known(50, 49);
    struct mf_position position = mf_position_decide(&offset, 50, 90);
    assert_int_equal(position.kind, MF_POSITION_NEXT);
    assert_int_equal(position.fetch, 50);
}

static void lost_records_halt(void **state) {
    (void)state;
    struct mf_ingest_offset offset = known(50, 49);
    struct mf_position position = mf_position_decide(&offset, 51, 90);
    assert_int_equal(position.kind, MF_POSITION_HALT);
    assert_string_equal(position.halt_kind, "low_watermark");
    assert_int_equal(position.halt_found, 51);
    position = mf_position_decide(&offset, 0, 49);
    assert_int_equal(position.kind, MF_POSITION_HALT);
    assert_string_equal(position.halt_kind, "out_of_range");
    assert_int_equal(position.halt_found, 49);
    offset.halted = true; /* said already: no second row */
    position = mf_position_decide(&offset, 0, 90);
    assert_int_equal(position.kind, MF_POSITION_HALT);
    assert_null(position.halt_kind);
}

static bool same(const struct mf_ingest_offset *offset, int64_t at, int64_t timestamp, const char *key) {
    struct mf_error error;
    bool result;
    assert_int_equal(mf_position_verify(offset, at, timestamp, key, strlen(key), &result, &error), MF_OK);
    return result;
}

static void the_anchor_is_offset_time_and_key(void **state) {
    (void)state;
    struct mf_ingest_offset offset = known(50, 49);
    assert_true(same(&offset, 49, 1000, "key"));
    assert_false(same(&offset, 50, 1000, "key"));
    assert_false(same(&offset, 49, 1001, "key"));
    assert_false(same(&offset, 49, 1000, "kez"));
    assert_false(same(&offset, 49, 1000, ""));
}

/* A producer that gives microseconds: PostgreSQL holds no such time, so the anchor has none. */
static void an_anchor_with_an_impossible_time_is_recognised(void **state) {
    (void)state;
    struct mf_ingest_offset offset = known(50, 49);
    offset.anchor_timestamp = MF_TIME_NONE; /* what the table gives back */
    assert_true(same(&offset, 49, INT64_C(1700000000000000), "key"));
    assert_true(same(&offset, 49, INT64_MAX, "key"));
    assert_true(same(&offset, 49, MF_TIME_NONE, "key"));
    assert_false(same(&offset, 49, 1000, "key"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_partition_starts_at_its_beginning),
        cmocka_unit_test(a_known_partition_starts_at_its_anchor),
        cmocka_unit_test(retention_up_to_the_next_record_loses_nothing),
        cmocka_unit_test(lost_records_halt),
        cmocka_unit_test(the_anchor_is_offset_time_and_key),
        cmocka_unit_test(an_anchor_with_an_impossible_time_is_recognised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
