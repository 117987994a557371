#include "worker/partition.h"

#include <string.h>

struct mf_position mf_position_decide(const struct mf_ingest_offset *known, int64_t low, int64_t high) {
    struct mf_position position = {.kind = MF_POSITION_BEGINNING, .fetch = low, .expected = MF_OFFSET_NONE};
    if (!known)
        return position;
    position.known = *known;
    position.expected = known->next;
    position.kind = MF_POSITION_HALT;
    if (known->halted)
        return position;
    if (low > known->next) { /* retention deleted records that were never taken */
        position.halt_kind = "low_watermark";
        position.halt_found = low;
    } else if (high < known->next) { /* cut off or made anew */
        position.halt_kind = "out_of_range";
        position.halt_found = high;
    } else if (known->anchor_offset == MF_OFFSET_NONE || low > known->anchor_offset) {
        position.kind = MF_POSITION_NEXT;
        position.fetch = known->next;
    } else {
        position.kind = MF_POSITION_ANCHOR;
        position.fetch = known->anchor_offset;
    }
    return position;
}

enum mf_status mf_position_verify(const struct mf_ingest_offset *known, int64_t offset, int64_t timestamp,
                                  const void *key, size_t key_size, bool *same, struct mf_error *error) {
    unsigned char hash[MF_SHA256_BYTES];
    enum mf_status status = mf_store_key_hash(key, key_size, hash, error);
    if (!mf_time_storable(timestamp)) /* any number can stand in a record; such an anchor has no time */
        timestamp = MF_TIME_NONE;
    *same = !status && offset == known->anchor_offset && timestamp == known->anchor_timestamp &&
            !memcmp(hash, known->anchor_key_hash, sizeof hash);
    return status;
}
