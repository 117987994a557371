/* The spool: first in, first out, whatever lies in memory and whatever on disk; bounded; what it drops it
 * counts. */
#include "worker/spool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/modelforge-spool-XXXXXX";
static char path[128];
static struct mf_spool *spool;

struct seen {
    uint32_t next; /* expected number of the next record */
    size_t count;
};

static void open_spool(int64_t file_bytes) {
    struct mf_error error;
    struct mf_spool_limits limits = {1, file_bytes}; /* memory: the least it takes, about two large records */
    assert_int_equal(mf_spool_open(path, &limits, &spool, &error), MF_OK);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/spool", folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    mf_spool_close(spool);
    spool = NULL;
    bool left = access(path, F_OK) == 0;
    rmdir(folder);
    snprintf(strrchr(folder, '-') + 1, 7, "XXXXXX");
    return left; /* the file must go with the spool */
}

static void append(uint32_t number, size_t bytes, enum mf_spool_class class_) {
    char record[MF_SPOOL_RECORD_BYTES];
    memset(record, (int)number, sizeof record);
    memcpy(record, &number, sizeof number);
    mf_spool_append(spool, class_, record, bytes);
}

static void expect_next(void *context, const void *record, size_t bytes) {
    struct seen *seen = context;
    uint32_t number;
    assert_true(bytes >= sizeof number);
    memcpy(&number, record, sizeof number);
    assert_int_equal(number, seen->next);
    for (size_t i = sizeof number; i < bytes; i++)
        assert_int_equal(((const unsigned char *)record)[i], number & 0xff);
    seen->next++;
    seen->count++;
}

static void order_is_kept_through_memory_and_disk(void **state) {
    (void)state;
    uint32_t written = 0, taken = 0;
    open_spool(64 << 20);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 30; i++, written++)
            append(written, 8 + (size_t)(written * 7919 % 9000), MF_SPOOL_THIN);
        struct seen peeked = {taken, 0}, again = {taken, 0};
        size_t want = (size_t)(round % 7) * 6;
        size_t got = mf_spool_peek(spool, want, expect_next, &peeked);
        assert_int_equal(got, peeked.count);
        assert_int_equal(mf_spool_peek(spool, got, expect_next, &again), got); /* peeking removes nothing */
        mf_spool_remove(spool, got);
        taken += (uint32_t)got;
        assert_int_equal(mf_spool_depth(spool), written - taken);
    }
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    while (taken < written) {
        struct seen seen = {taken, 0};
        size_t got = mf_spool_peek(spool, 100, expect_next, &seen);
        assert_true(got > 0);
        mf_spool_remove(spool, got);
        taken += (uint32_t)got;
    }
    assert_int_equal(mf_spool_depth(spool), 0);
    assert_int_equal(mf_spool_take_dropped(spool), 0);
}

static void disk_use_is_bounded_and_the_rest_counted(void **state) {
    (void)state;
    enum { LIMIT = 200000, RECORDS = 1000, BYTES = 1000 };
    open_spool(LIMIT);
    for (uint32_t i = 0; i < RECORDS; i++)
        append(i, BYTES, MF_SPOOL_THIN);
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    assert_true(about.st_size <= LIMIT + BYTES);
    size_t kept = mf_spool_depth(spool);
    assert_int_equal(mf_spool_take_dropped(spool), (int64_t)(RECORDS - kept));
    assert_int_equal(mf_spool_take_dropped(spool), 0);
    assert_true(kept > LIMIT / 2 / BYTES); /* half of it unthinned */
    assert_true(kept < LIMIT / BYTES); /* then only every 16th: unthinned it would be more, with the memory */
    append(1, BYTES, MF_SPOOL_KEEP);   /* what must not be thinned still goes in */
    assert_int_equal(mf_spool_depth(spool), kept + 1);
}

static void an_unwritable_file_drops_and_counts(void **state) {
    struct mf_error error;
    (void)state;
    struct mf_spool_limits limits = {1, 1 << 20};
    assert_int_equal(mf_spool_open("/nonexistent/spool", &limits, &spool, &error), MF_OK);
    for (uint32_t i = 0; i < 100; i++)
        append(i, 1000, MF_SPOOL_KEEP);
    size_t kept = mf_spool_depth(spool);
    assert_true(kept >= 30 && kept < 100);
    assert_int_equal(mf_spool_take_dropped(spool), (int64_t)(100 - kept));
    struct seen seen = {0, 0};
    assert_int_equal(mf_spool_peek(spool, 1000, expect_next, &seen), kept);
}

static void without_a_file_memory_still_holds_records(void **state) {
    (void)state;
    open_spool(0);
    for (uint32_t i = 0; i < 100; i++)
        append(i, 1000, MF_SPOOL_THIN);
    size_t kept = mf_spool_depth(spool);
    assert_true(kept >= 30 && kept < 100);
    assert_int_equal(mf_spool_take_dropped(spool), (int64_t)(100 - kept));
    assert_int_equal(access(path, F_OK), -1);
    struct seen seen = {0, 0};
    assert_int_equal(mf_spool_peek(spool, 1000, expect_next, &seen), kept);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(order_is_kept_through_memory_and_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(disk_use_is_bounded_and_the_rest_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_unwritable_file_drops_and_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_file_memory_still_holds_records, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
