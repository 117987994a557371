/* How often progress goes to a file or pipe: a line at every change of phase, else one every two seconds. */
#ifndef MF_PRODUCER_CLI_PACE_H
#define MF_PRODUCER_CLI_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum { MF_PACE_MS = 2000 };

struct mf_pace { /* zeroed: nothing was printed */
    char phase[512];
    int64_t printed_ms;
};

/* May a line of this phase be printed at this monotonic time? When it may, it counts as printed. */
bool mf_pace_allows(struct mf_pace *pace, const char *phase, int64_t now_ms);

#endif
