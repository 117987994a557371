/* Preloaded (LD_PRELOAD) into a process whose clock is to jump: what CLOCK_REALTIME says is moved by as many
 * seconds as the file MF_TEST_CLOCK says in its first 20 bytes, from the moment that it says so. Write it in
 * place. Other clocks are left alone, as by a jump. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *shift_text; /* the file, mapped; NULL: the clock is left alone */

__attribute__((constructor)) static void map_file(void) {
    const char *path = getenv("MF_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0); /* zeros beyond the end of the file */
    close(fd);
    if (mapped != MAP_FAILED)
        shift_text = mapped;
}

static time_t shift(void) {
    return shift_text ? strtol(shift_text, NULL, 10) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact))
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact = {0};
    (void)clock_gettime(CLOCK_REALTIME, &exact);
    if (out)
        *out = exact.tv_sec;
    return exact.tv_sec;
}
