#include "producer/cli/pace.h"

#include <stdio.h>
#include <string.h>

bool mf_pace_allows(struct mf_pace *pace, const char *phase, int64_t now_ms) {
    char cut[sizeof pace->phase];
    snprintf(cut, sizeof cut, "%s", phase);
    if (!strcmp(cut, pace->phase) && now_ms - pace->printed_ms < MF_PACE_MS)
        return false;
    memcpy(pace->phase, cut, sizeof cut);
    pace->printed_ms = now_ms;
    return true;
}
