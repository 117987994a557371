#include "common/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t mf_clock_monotonic_ns(void) {
    return read_clock_ns(CLOCK_MONOTONIC);
}

int64_t mf_clock_monotonic_ms(void) {
    return read_clock_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t mf_clock_boottime_ms(void) {
    return read_clock_ns(CLOCK_BOOTTIME) / 1000000;
}

int64_t mf_clock_realtime_ms(void) {
    return read_clock_ns(CLOCK_REALTIME) / 1000000;
}

char *mf_time_format(int64_t realtime_ms, char text[MF_TIME_TEXT_BYTES]) {
    int64_t seconds = realtime_ms / 1000, rest = realtime_ms % 1000;
    if (rest < 0) {
        rest += 1000;
        seconds--;
    }
    time_t time = (time_t)seconds;
    struct tm parts = {0};
    gmtime_r(&time, &parts);
    snprintf(text, MF_TIME_TEXT_BYTES, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
             (unsigned)(parts.tm_year + 1900) % 10000u, (unsigned)(parts.tm_mon + 1) % 100u,
             (unsigned)parts.tm_mday % 100u, (unsigned)parts.tm_hour % 100u, (unsigned)parts.tm_min % 100u,
             (unsigned)parts.tm_sec % 100u, (unsigned)rest % 1000u);
    return text;
}

/* Exactly `digits` decimal digits at *text, which moves past them; -1 when they are not there. */
static int read_digits(const char **text, int digits) {
    int value = 0;
    for (int i = 0; i < digits; i++, (*text)++) {
        if (**text < '0' || **text > '9')
            return -1;
        value = value * 10 + (**text - '0');
    }
    return value;
}

static bool read_character(const char **text, const char *allowed) {
    for (const char *a = allowed; *a; a++)
        if (**text == *a) {
            (*text)++;
            return true;
        }
    return false;
}

static int days_in_month(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar. */
static int64_t days_from_epoch(int year, int month, int day) {
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400, year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

/* ".25" to 250; 0 when there is no fraction; -1 when it has no digits. */
static int read_fraction_ms(const char **text) {
    if (!read_character(text, "."))
        return 0;
    if (**text < '0' || **text > '9')
        return -1;
    int value = 0;
    for (int scale = 100; **text >= '0' && **text <= '9'; (*text)++, scale /= 10)
        value += (**text - '0') * scale;
    return value;
}

/* "Z" or "+hh:mm" to minutes east of UTC. */
static bool read_zone(const char **text, int *minutes) {
    *minutes = 0;
    if (read_character(text, "Zz"))
        return true;
    bool west = **text == '-';
    if (!read_character(text, "+-"))
        return false;
    int hours = read_digits(text, 2);
    if (hours < 0 || hours > 23 || !read_character(text, ":"))
        return false;
    int rest = read_digits(text, 2);
    if (rest < 0 || rest > 59)
        return false;
    *minutes = (hours * 60 + rest) * (west ? -1 : 1);
    return true;
}

bool mf_time_parse(const char *text, int64_t *realtime_ms) {
    int year, month, day, hour, minute, second, fraction, zone;
    if ((year = read_digits(&text, 4)) < 0 || !read_character(&text, "-") ||
        (month = read_digits(&text, 2)) < 1 || month > 12 || !read_character(&text, "-") ||
        (day = read_digits(&text, 2)) < 1 || day > days_in_month(year, month))
        return false;
    if (!read_character(&text, "Tt ") || (hour = read_digits(&text, 2)) < 0 || hour > 23 ||
        !read_character(&text, ":") || (minute = read_digits(&text, 2)) < 0 || minute > 59 ||
        !read_character(&text, ":") || (second = read_digits(&text, 2)) < 0 || second > 59)
        return false;
    if ((fraction = read_fraction_ms(&text)) < 0 || !read_zone(&text, &zone) || *text)
        return false;
    int64_t minutes = (days_from_epoch(year, month, day) * 24 + hour) * 60 + minute - zone;
    *realtime_ms = (minutes * 60 + second) * 1000 + fraction;
    return true;
}
