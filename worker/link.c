#include "worker/worker.h"

#include "common/clock.h"
#include "common/digest.h"
#include "common/log.h"

void mf_link_init(struct mf_link *link, struct mf_worker *worker, const char *name,
                  int statement_timeout_ms) {
    *link = (struct mf_link){.worker = worker, .name = name, .statement_timeout_ms = statement_timeout_ms};
}

void mf_link_close(struct mf_link *link) {
    mf_database_close(link->database);
    link->database = NULL;
}

static void note_failure(struct mf_link *link, const char *what, const struct mf_error *error) {
    enum { FIRST_MS = 100, LAST_MS = 2000, DOUBLINGS = 5 };
    int64_t delay = link->failures < DOUBLINGS ? FIRST_MS << link->failures : LAST_MS;
    if (delay > LAST_MS)
        delay = LAST_MS;
    delay = delay / 2 + (int64_t)(mf_random_u64() % (uint64_t)delay);
    if (link->failures++ % 10 == 0) /* an outage is told once in a while, not at every try */
        mf_log_warning("PostgreSQL cannot be used now", MF_LOG_TEXT("connection", link->name),
                       MF_LOG_TEXT("doing", what), MF_LOG_FAILURE(error));
    link->next_try_ms = mf_clock_monotonic_ms() + delay;
    mf_counter_set(&link->worker->counters, MF_COUNTER_DATABASE_UP, 0);
}

bool mf_link_ready(struct mf_link *link) {
    struct mf_error error;
    enum mf_status status;
    if (link->database && !link->failures && mf_database_connected(link->database))
        return true;
    if (mf_clock_monotonic_ms() < link->next_try_ms)
        return false;
    if (link->database) {
        status = mf_database_reconnect(link->database, &error);
    } else {
        struct mf_database_options options = {.url = link->worker->settings->database_url,
                                              .application_name = link->name,
                                              .connect_timeout_s = 5,
                                              .tcp_user_timeout_ms = 5000,
                                              .statement_timeout_ms = link->statement_timeout_ms};
        status = mf_database_open(&options, &link->database, &error);
    }
    if (status) {
        note_failure(link, "connecting", &error);
        return false;
    }
    if (link->failures)
        mf_log_info("PostgreSQL can be used again", MF_LOG_TEXT("connection", link->name));
    link->failures = 0;
    mf_counter_set(&link->worker->counters, MF_COUNTER_DATABASE_UP, 1);
    return true;
}

int64_t mf_link_delay_ms(const struct mf_link *link) {
    if (!link->failures)
        return 0;
    int64_t left = link->next_try_ms - mf_clock_monotonic_ms();
    return left > 0 ? left : 0;
}

enum mf_status mf_link_note(struct mf_link *link, enum mf_status status, const char *what,
                            struct mf_error *error) {
    if (status == MF_ERROR_DATABASE || status == MF_ERROR_COMMIT_UNKNOWN || status == MF_ERROR_INTERNAL)
        note_failure(link, what, error);
    return status;
}
