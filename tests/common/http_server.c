#include "tests/common/http_server.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

struct http_server {
    struct MHD_Daemon *daemon;
    http_handler *handler;
    void *context;
    char url[64];
    int requests;
};

static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **request) {
    (void)version;
    struct http_server *server = context;
    struct mf_text *body = *request;
    if (!body)
        return (*request = calloc(1, sizeof *body)) ? MHD_YES : MHD_NO;
    if (*upload_bytes) {
        mf_text_append(body, upload, *upload_bytes);
        *upload_bytes = 0;
        return MHD_YES;
    }
    struct http_exchange exchange = {
        .method = method,
        .path = path,
        .authorization = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization"),
        .content_type = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Type"),
        .body = mf_text_string(body),
        .number = ++server->requests,
        .status = 200,
    };
    server->handler(server->context, &exchange);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(exchange.answer), exchange.answer, MHD_RESPMEM_MUST_COPY);
    if (exchange.header)
        MHD_add_response_header(response, exchange.header, exchange.header_value);
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)exchange.status, response);
    MHD_destroy_response(response);
    return result;
}

static void forget(void *context, struct MHD_Connection *connection, void **request,
                   enum MHD_RequestTerminationCode code) {
    (void)context, (void)connection, (void)code;
    if (*request) {
        mf_text_free(*request);
        free(*request);
        *request = NULL;
    }
}

struct http_server *http_server_start(http_handler *handler, void *context) {
    struct http_server *server = calloc(1, sizeof *server);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (!server)
        return NULL;
    server->handler = handler;
    server->context = context;
    server->daemon =
        MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, answer, server, MHD_OPTION_SOCK_ADDR,
                         &address, MHD_OPTION_NOTIFY_COMPLETED, forget, NULL, MHD_OPTION_END);
    if (!server->daemon) {
        free(server);
        return NULL;
    }
    snprintf(server->url, sizeof server->url, "http://127.0.0.1:%u",
             (unsigned)MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    return server;
}

const char *http_server_url(const struct http_server *server) {
    return server->url;
}

void http_server_stop(struct http_server *server) {
    MHD_stop_daemon(server->daemon);
    free(server);
}
