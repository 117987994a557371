#include "tests/common/unit.h"

#include "common/digest.h"

static void known_digests(void **state) {
    (void)state;
    struct mf_error error;
    char text[MF_SHA256_TEXT_BYTES];
    uint8_t sha1[MF_SHA1_BYTES];
    assert_status(mf_sha256_text("abc", 3, text, &error), MF_OK);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_status(mf_sha256_text("", 0, text, &error), MF_OK);
    assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_status(mf_sha1("abc", 3, sha1, &error), MF_OK);
    assert_string_equal(mf_hex(sha1, sizeof sha1, text), "a9993e364706816aba3e25717850c26c9cd0d89d");
}

static void pieces_give_the_digest_of_the_whole(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_digest *digest;
    uint8_t whole[MF_SHA256_BYTES], pieces[MF_SHA256_BYTES];
    assert_status(mf_sha256("hello world", 11, whole, &error), MF_OK);
    assert_status(mf_digest_begin(MF_DIGEST_SHA256, &digest, &error), MF_OK);
    assert_status(mf_digest_update(digest, "hello ", 6, &error), MF_OK);
    assert_status(mf_digest_update(digest, "world", 5, &error), MF_OK);
    assert_status(mf_digest_finish(digest, pieces, &error), MF_OK);
    assert_memory_equal(whole, pieces, sizeof whole);
    mf_digest_cancel(NULL);
}

static void version_5_is_the_standard_one(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_uuid dns, uuid;
    char text[MF_UUID_TEXT_BYTES];
    assert_true(mf_uuid_parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8", &dns));
    assert_status(mf_uuid_v5(dns, "www.example.com", 15, &uuid, &error), MF_OK);
    assert_string_equal(mf_uuid_format(uuid, text), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
}

static void version_4_is_random_and_marked(void **state) {
    (void)state;
    struct mf_uuid a = mf_uuid_random(), b = mf_uuid_random(), c;
    char text[MF_UUID_TEXT_BYTES];
    assert_memory_not_equal(a.bytes, b.bytes, sizeof a.bytes);
    mf_uuid_format(a, text);
    assert_int_equal(text[14], '4');
    assert_non_null(strchr("89ab", text[19]));
    assert_true(mf_uuid_parse(text, &c));
    assert_memory_equal(a.bytes, c.bytes, sizeof a.bytes);
    assert_int_not_equal(mf_random_u64(), mf_random_u64());
}

static void only_the_form_is_accepted(void **state) {
    (void)state;
    struct mf_uuid uuid;
    assert_true(mf_uuid_parse("6BA7B810-9DAD-11D1-80B4-00C04FD430C8", &uuid));
    assert_false(mf_uuid_parse("", &uuid));
    assert_false(mf_uuid_parse("6ba7b8109dad11d180b400c04fd430c8", &uuid));
    assert_false(mf_uuid_parse("6ba7b810-9dad-11d1-80b4-00c04fd430cg", &uuid));
    assert_false(mf_uuid_parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8 ", &uuid));
    assert_false(mf_uuid_parse("6ba7b810x9dad-11d1-80b4-00c04fd430c8", &uuid));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_digests),
        cmocka_unit_test(pieces_give_the_digest_of_the_whole),
        cmocka_unit_test(version_5_is_the_standard_one),
        cmocka_unit_test(version_4_is_random_and_marked),
        cmocka_unit_test(only_the_form_is_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
