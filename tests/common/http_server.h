/* A small HTTP server in the test's own process, for what a real server will not do on demand. */
#ifndef MF_TESTS_COMMON_HTTP_SERVER_H
#define MF_TESTS_COMMON_HTTP_SERVER_H

#include <stddef.h>

struct http_exchange {
    /* the request */
    const char *method, *path, *authorization, *content_type;
    const char *body;
    int number; /* of this request, from 1 */
    /* the answer, filled by the handler */
    int status;
    char answer[16384];
    const char *header, *header_value; /* one more header, or NULL */
};

typedef void http_handler(void *context, struct http_exchange *exchange);

struct http_server;

/* Listens on a free port of the loopback interface. The handler runs in the server's thread. */
struct http_server *http_server_start(http_handler *handler, void *context);
/* "http://127.0.0.1:PORT"; lives as long as the server. */
const char *http_server_url(const struct http_server *server);
void http_server_stop(struct http_server *server);

#endif
