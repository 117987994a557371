/* Clocks, and times as people write them. All functions: any thread. */
#ifndef MF_COMMON_CLOCK_H
#define MF_COMMON_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Never jumps; stops while the machine sleeps. For time-outs and durations inside one process. */
int64_t mf_clock_monotonic_ms(void);
int64_t mf_clock_monotonic_ns(void);
/* Never jumps; counts while the machine sleeps. For judging another host's lease. */
int64_t mf_clock_boottime_ms(void);
/* Milliseconds since 1970-01-01T00:00:00Z. For display and records only: it can jump. */
int64_t mf_clock_realtime_ms(void);

enum { MF_TIME_TEXT_BYTES = 32 };

/* RFC 3339 in UTC with milliseconds, "2026-11-25T02:50:00.000Z"; returns `text`. Years 0000 to 9999. */
char *mf_time_format(int64_t realtime_ms, char text[MF_TIME_TEXT_BYTES]);
/* Reads RFC 3339 ("2026-11-25T02:50:00Z", "2026-11-25 03:50:00.25+01:00"); a zone is required; finer than a
 * millisecond is cut off. False when it is not such a time (February 30th too). */
bool mf_time_parse(const char *text, int64_t *realtime_ms);

#endif
