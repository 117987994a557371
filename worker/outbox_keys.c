#include "worker/outbox_keys.h"

#include <stdio.h>
#include <string.h>

enum { FIRST_DELAY_MS = 500 };

void mf_outbox_keys_clear(struct mf_outbox_keys *keys) {
    for (int32_t i = 0; i < MF_OUTBOX_KEYS; i++) {
        keys->bucket[i] = -1;
        keys->key[i].next = i + 1 < MF_OUTBOX_KEYS ? i + 1 : -1;
    }
    keys->free = 0;
    keys->failing = 0;
}

static int32_t *bucket_of(struct mf_outbox_keys *keys, const char *name) {
    uint64_t hash = 14695981039346656037U; /* FNV-1a */
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 1099511628211U;
    return &keys->bucket[(hash ^ hash >> 32) % MF_OUTBOX_KEYS];
}

/* Where the index of this key stands, or the end of its bucket. */
static int32_t *find(struct mf_outbox_keys *keys, const char *name) {
    int32_t *at = bucket_of(keys, name);
    while (*at >= 0 && strcmp(keys->key[*at].name, name) != 0)
        at = &keys->key[*at].next;
    return at;
}

bool mf_outbox_keys_failing(struct mf_outbox_keys *keys, const char *name) {
    int32_t index = *find(keys, name);
    return index >= 0 && keys->key[index].delay_ms > 0;
}

bool mf_outbox_keys_take(struct mf_outbox_keys *keys, const char *name, int32_t together, bool probe,
                         int64_t now_ms) {
    int32_t *at = find(keys, name);
    if (*at < 0) {
        int32_t fresh = keys->free;
        if (fresh < 0)
            return false;
        keys->free = keys->key[fresh].next;
        keys->key[fresh] = (struct mf_outbox_key){.next = -1};
        snprintf(keys->key[fresh].name, sizeof keys->key[fresh].name, "%s", name);
        *at = fresh;
    }
    struct mf_outbox_key *key = &keys->key[*at];
    if (key->under_way >= (key->delay_ms ? 1 : together) ||
        (key->delay_ms && (!probe || now_ms < key->retry_ms)))
        return false;
    key->under_way++;
    return true;
}

void mf_outbox_keys_give(struct mf_outbox_keys *keys, const char *name, bool delivered, int64_t now_ms,
                         int64_t limit_ms) {
    int32_t *at = find(keys, name), index = *at;
    if (index < 0)
        return;
    struct mf_outbox_key *key = &keys->key[index];
    const bool failed = key->delay_ms > 0;
    key->under_way--;
    if (delivered) {
        key->delay_ms = 0;
    } else if (!key->delay_ms || now_ms >= key->retry_ms) { /* of rows that failed together, the first */
        key->delay_ms = key->delay_ms ? key->delay_ms * 2 : FIRST_DELAY_MS;
        key->delay_ms = key->delay_ms < limit_ms ? key->delay_ms : limit_ms;
        key->retry_ms = now_ms + key->delay_ms;
    }
    keys->failing += (key->delay_ms > 0) - failed;
    if (!key->under_way && !key->delay_ms) {
        *at = key->next;
        key->next = keys->free;
        keys->free = index;
    }
}
