#include "common/digest.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct mf_digest {
    EVP_MD_CTX *context;
};

static enum mf_status no_memory(struct mf_error *error) {
    mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a digest");
    return MF_ERROR_OUT_OF_MEMORY;
}

enum mf_status mf_digest_begin(enum mf_digest_kind kind, struct mf_digest **result, struct mf_error *error) {
    struct mf_digest *digest = calloc(1, sizeof *digest);
    *result = NULL;
    if (!digest)
        return no_memory(error);
    digest->context = EVP_MD_CTX_new();
    if (!digest->context ||
        !EVP_DigestInit_ex(digest->context, kind == MF_DIGEST_SHA1 ? EVP_sha1() : EVP_sha256(), NULL)) {
        mf_digest_cancel(digest);
        return no_memory(error);
    }
    *result = digest;
    return MF_OK;
}

enum mf_status mf_digest_update(struct mf_digest *digest, const void *bytes, size_t length,
                                struct mf_error *error) {
    if (!EVP_DigestUpdate(digest->context, bytes, length))
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "libcrypto cannot go on with a digest");
    return MF_OK;
}

enum mf_status mf_digest_finish(struct mf_digest *digest, uint8_t *result, struct mf_error *error) {
    int done = EVP_DigestFinal_ex(digest->context, result, NULL);
    mf_digest_cancel(digest);
    return done ? MF_OK : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "libcrypto cannot finish a digest");
}

void mf_digest_cancel(struct mf_digest *digest) {
    if (!digest)
        return;
    EVP_MD_CTX_free(digest->context);
    free(digest);
}

/* The digest of two pieces, one after the other. */
static enum mf_status digest_pieces(enum mf_digest_kind kind, const void *first, size_t first_length,
                                    const void *second, size_t second_length, uint8_t *result,
                                    struct mf_error *error) {
    struct mf_digest *digest;
    enum mf_status status = mf_digest_begin(kind, &digest, error);
    if (status)
        return status;
    if ((status = mf_digest_update(digest, first, first_length, error)) ||
        (status = mf_digest_update(digest, second, second_length, error))) {
        mf_digest_cancel(digest);
        return status;
    }
    return mf_digest_finish(digest, result, error);
}

enum mf_status mf_sha1(const void *bytes, size_t length, uint8_t result[MF_SHA1_BYTES],
                       struct mf_error *error) {
    return digest_pieces(MF_DIGEST_SHA1, bytes, length, "", 0, result, error);
}

enum mf_status mf_sha256(const void *bytes, size_t length, uint8_t result[MF_SHA256_BYTES],
                         struct mf_error *error) {
    return digest_pieces(MF_DIGEST_SHA256, bytes, length, "", 0, result, error);
}

enum mf_status mf_sha256_text(const void *bytes, size_t length, char text[MF_SHA256_TEXT_BYTES],
                              struct mf_error *error) {
    uint8_t result[MF_SHA256_BYTES];
    enum mf_status status = mf_sha256(bytes, length, result, error);
    if (!status)
        mf_hex(result, sizeof result, text);
    return status;
}

static const char hexadecimal[] = "0123456789abcdef";

char *mf_hex(const void *bytes, size_t length, char *text) {
    const uint8_t *b = bytes;
    for (size_t i = 0; i < length; i++) {
        text[2 * i] = hexadecimal[b[i] >> 4];
        text[2 * i + 1] = hexadecimal[b[i] & 15];
    }
    text[2 * length] = 0;
    return text;
}

static void fill_random(void *bytes, size_t length) {
    if (getrandom(bytes, length, 0) != (ssize_t)length)
        abort();
}

uint64_t mf_random_u64(void) {
    uint64_t value;
    fill_random(&value, sizeof value);
    return value;
}

/* RFC 4122: the version in the high half of byte 6, the variant 10 in the top bits of byte 8. */
static void set_version(struct mf_uuid *uuid, unsigned version) {
    uuid->bytes[6] = (uint8_t)((uuid->bytes[6] & 0x0F) | (version << 4));
    uuid->bytes[8] = (uint8_t)((uuid->bytes[8] & 0x3F) | 0x80);
}

struct mf_uuid mf_uuid_random(void) {
    struct mf_uuid uuid;
    fill_random(uuid.bytes, sizeof uuid.bytes);
    set_version(&uuid, 4);
    return uuid;
}

enum mf_status mf_uuid_v5(struct mf_uuid name_space, const void *name, size_t length, struct mf_uuid *result,
                          struct mf_error *error) {
    uint8_t digest[MF_SHA1_BYTES];
    enum mf_status status =
        digest_pieces(MF_DIGEST_SHA1, name_space.bytes, sizeof name_space.bytes, name, length, digest, error);
    if (status)
        return status;
    memcpy(result->bytes, digest, sizeof result->bytes);
    set_version(result, 5);
    return MF_OK;
}

/* Byte i of a uuid is written at this column: hyphens stand after bytes 3, 5, 7 and 9. */
static size_t uuid_column(size_t i) {
    return 2 * i + (i > 3) + (i > 5) + (i > 7) + (i > 9);
}

char *mf_uuid_format(struct mf_uuid uuid, char text[MF_UUID_TEXT_BYTES]) {
    memset(text, '-', MF_UUID_TEXT_BYTES - 1);
    text[MF_UUID_TEXT_BYTES - 1] = 0;
    for (size_t i = 0; i < sizeof uuid.bytes; i++) {
        text[uuid_column(i)] = hexadecimal[uuid.bytes[i] >> 4];
        text[uuid_column(i) + 1] = hexadecimal[uuid.bytes[i] & 15];
    }
    return text;
}

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool mf_uuid_parse(const char *text, struct mf_uuid *uuid) {
    if (strlen(text) != MF_UUID_TEXT_BYTES - 1 || text[8] != '-' || text[13] != '-' || text[18] != '-' ||
        text[23] != '-')
        return false;
    for (size_t i = 0; i < sizeof uuid->bytes; i++) {
        int high = hex_value(text[uuid_column(i)]), low = hex_value(text[uuid_column(i) + 1]);
        if (high < 0 || low < 0)
            return false;
        uuid->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
