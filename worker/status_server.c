#include "worker/status_server.h"

#include "common/clock.h"
#include "common/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

struct mf_status_server {
    struct mf_worker *worker;
    struct MHD_Daemon *daemon;
    int64_t started_ms;
};

static double beat_age_seconds(const struct mf_worker *worker) {
    return (double)(mf_clock_boottime_ms() - atomic_load(&worker->last_beat_ms)) / 1000;
}

static void print_metrics(const struct mf_status_server *server, struct mf_text *text) {
    mf_counters_print(&server->worker->counters, text);
    mf_text_printf(text,
                   "# HELP modelforge_heartbeat_age_seconds Time since PostgreSQL took a heartbeat.\n"
                   "# TYPE modelforge_heartbeat_age_seconds gauge\n"
                   "modelforge_heartbeat_age_seconds %.3f\n",
                   beat_age_seconds(server->worker));
    mf_text_printf(text,
                   "# HELP modelforge_uptime_seconds Time since the worker started.\n"
                   "# TYPE modelforge_uptime_seconds gauge\n"
                   "modelforge_uptime_seconds %.3f\n",
                   (double)(mf_clock_boottime_ms() - server->started_ms) / 1000);
    mf_text_printf(text,
                   "# HELP modelforge_build_info Version of this worker.\n"
                   "# TYPE modelforge_build_info gauge\n"
                   "modelforge_build_info{version=\"%s\"} 1\n",
                   MF_VERSION);
}

/* Returns the HTTP status. */
static unsigned print_health(const struct mf_worker *worker, struct mf_text *text) {
    double age = beat_age_seconds(worker);
    bool database = age * 1000 < (double)worker->settings->lease_ms;
    bool halted = mf_counter_get(&worker->counters, MF_COUNTER_PARTITIONS_HALTED) > 0;
    bool registry = mf_counter_get(&worker->counters, MF_COUNTER_REGISTRY_UP) == 1;
    bool draining = atomic_load(&worker->draining);
    bool fine = database && registry && !halted && !draining;
    mf_text_printf(text,
                   "{\"status\":\"%s\",\"database\":%s,\"registry\":%s,\"halted_partitions\":%" PRId64
                   ",\"draining\":%s,\"heartbeat_age_seconds\":%.3f,\"running\":%" PRId64 "}\n",
                   fine ? "ok" : "unavailable", database ? "true" : "false", registry ? "true" : "false",
                   mf_counter_get(&worker->counters, MF_COUNTER_PARTITIONS_HALTED),
                   draining ? "true" : "false", age, mf_counter_get(&worker->counters, MF_COUNTER_RUNNING));
    return fine ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
}

static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **request) {
    const struct mf_status_server *server = context;
    struct mf_text text = {0};
    unsigned status = MHD_HTTP_OK;
    const char *type = "text/plain; version=0.0.4; charset=utf-8";
    (void)version;
    (void)upload;
    (void)request;
    *upload_size = 0;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        status = MHD_HTTP_METHOD_NOT_ALLOWED;
        mf_text_puts(&text, "only GET\n");
    } else if (!strcmp(url, "/metrics")) {
        print_metrics(server, &text);
    } else if (!strcmp(url, "/healthz")) {
        status = print_health(server->worker, &text);
        type = "application/json";
    } else {
        status = MHD_HTTP_NOT_FOUND;
        mf_text_puts(&text, "/metrics and /healthz\n");
    }
    char *body = mf_text_take(&text);
    if (!body)
        return MHD_NO;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(body), body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(body);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* "127.0.0.1:9464" or "[::1]:9464". */
static bool parse_address(const char *listen, struct sockaddr_storage *address) {
    char host[64];
    const char *colon = strrchr(listen, ':');
    char *end;
    if (!colon || (size_t)(colon - listen) >= sizeof host)
        return false;
    memcpy(host, listen, (size_t)(colon - listen));
    host[colon - listen] = 0;
    errno = 0;
    long port = strtol(colon + 1, &end, 10);
    if (errno || end == colon + 1 || *end || port < 1 || port > 65535)
        return false;
    memset(address, 0, sizeof *address);
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    size_t length = strlen(host);
    if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = 0;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        return inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1;
    }
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1;
}

enum mf_status mf_status_server_start(struct mf_worker *worker, const char *listen,
                                      struct mf_status_server **server, struct mf_error *error) {
    struct sockaddr_storage address;
    *server = NULL;
    if (!strcmp(listen, "none"))
        return MF_OK;
    if (!parse_address(listen, &address))
        return mf_error_set(error, MF_ERROR_CONFIGURATION,
                            "http.listen: '%s' is not of the form 127.0.0.1:9464 or [::1]:9464", listen);
    struct mf_status_server *made = calloc(1, sizeof *made);
    if (!made)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the status server");
    made->worker = worker;
    made->started_ms = mf_clock_boottime_ms();
    unsigned flags =
        MHD_USE_INTERNAL_POLLING_THREAD | (address.ss_family == AF_INET6 ? (unsigned)MHD_USE_IPv6 : 0);
    made->daemon = MHD_start_daemon(flags, 0, NULL, NULL, answer, made, MHD_OPTION_SOCK_ADDR,
                                    (struct sockaddr *)&address, MHD_OPTION_CONNECTION_LIMIT, 32u,
                                    MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_END);
    if (!made->daemon) {
        free(made);
        return mf_error_errno(error, errno, "http.listen: %s", listen);
    }
    *server = made;
    return MF_OK;
}

void mf_status_server_stop(struct mf_status_server *server) {
    if (!server)
        return;
    MHD_stop_daemon(server->daemon);
    free(server);
}
