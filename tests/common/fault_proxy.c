#include "tests/common/fault_proxy.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    struct fault_proxy *proxy;
    int client;
};

/* One of a number of faults to be done, if one is left. */
static bool take(atomic_int *count) {
    int left = atomic_load(count);
    while (left > 0 && !atomic_compare_exchange_weak(count, &left, left - 1)) {
    }
    return left > 0;
}

static int dial(const struct fault_proxy *proxy) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found = NULL;
    if (getaddrinfo(proxy->target_host, proxy->target_port, &hints, &found))
        return -1;
    int server = socket(found->ai_family, found->ai_socktype, 0);
    if (server >= 0 && connect(server, found->ai_addr, found->ai_addrlen)) {
        close(server);
        server = -1;
    }
    freeaddrinfo(found);
    return server;
}

static bool send_all(int to, const char *bytes, size_t length) {
    while (length) {
        ssize_t n = send(to, bytes, length, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

/* Lets a client that is still sending see the answer instead of a reset. */
static void answer(int client, const char *status, const char *code) {
    char body[256], text[512], rest[4096];
    snprintf(body, sizeof body, "<Error><Code>%s</Code><Message>the proxy says so</Message></Error>", code);
    snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status,
             strlen(body), body);
    send_all(client, text, strlen(text));
    shutdown(client, SHUT_WR);
    struct pollfd more = {.fd = client, .events = POLLIN};
    while (poll(&more, 1, 2000) > 0 && recv(client, rest, sizeof rest, 0) > 0) {
    }
}

/* Another letter in the value of an ETag header of the same length. */
static void spoil_etag(char *bytes, size_t length) {
    for (size_t i = 0; i + 8 < length; i++)
        if (bytes[i] == '\n' && !strncasecmp(bytes + i + 1, "etag:", 5)) {
            char *letter = bytes + i + 8;
            *letter = *letter == 'f' ? '0' : 'f';
            return;
        }
}

static bool has_etag(char *bytes, size_t length) {
    for (size_t i = 0; i + 8 < length; i++)
        if (bytes[i] == '\n' && !strncasecmp(bytes + i + 1, "etag:", 5))
            return true;
    return false;
}

/* Faults that come with the first bytes of a request; false when the connection is done. */
static bool begin_request(struct fault_proxy *proxy, int client) {
    atomic_fetch_add(&proxy->requests, 1);
    if (take(&proxy->answer_503))
        return answer(client, "503 Slow Down", "SlowDown"), false;
    if (take(&proxy->expired))
        return answer(client, "400 Bad Request", "ExpiredToken"), false;
    if (take(&proxy->full))
        return answer(client, "507 Insufficient Storage", "InsufficientCapacity"), false;
    return true;
}

static void *serve(void *argument) {
    struct connection connection = *(struct connection *)argument;
    struct fault_proxy *proxy = connection.proxy;
    int client = connection.client, server = dial(proxy);
    static const size_t room = 65536;
    char *bytes = malloc(room);
    free(argument);
    long budget = -1;                        /* bytes until the connection is cut */
    bool waiting = true, cut_answer = false; /* a request has not begun yet */
    while (server >= 0 && bytes) {
        struct pollfd fds[2] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};
        if (poll(fds, 2, 30000) <= 0)
            break;
        const bool up = fds[0].revents != 0;
        ssize_t n = recv(up ? client : server, bytes, room, 0);
        if (n <= 0)
            break;
        if (up && waiting) {
            waiting = false;
            budget = -1;
            if (!begin_request(proxy, client))
                break;
            cut_answer = false;
            if (take(&proxy->cut_requests))
                budget = atomic_load(&proxy->cut_bytes);
        } else if (!up && !waiting) {
            waiting = true; /* an answer begins: the next bytes of the client are another request */
            if (take(&proxy->cut_answers)) {
                cut_answer = true;
                budget = atomic_load(&proxy->cut_bytes);
            }
            if (has_etag(bytes, (size_t)n) && take(&proxy->wrong_etags))
                spoil_etag(bytes, (size_t)n);
        }
        const bool counts = budget >= 0 && up != cut_answer;
        if (counts && n >= budget) {
            send_all(up ? server : client, bytes, (size_t)budget);
            break;
        }
        if (counts)
            budget -= n;
        if (!send_all(up ? server : client, bytes, (size_t)n))
            break;
    }
    free(bytes);
    if (server >= 0)
        close(server);
    close(client);
    return NULL;
}

static void *listen_for(void *argument) {
    struct fault_proxy *proxy = argument;
    for (int client; (client = accept(proxy->listener, NULL, NULL)) >= 0;) {
        struct connection *connection = malloc(sizeof *connection);
        pthread_t thread;
        if (!connection)
            abort();
        *connection = (struct connection){proxy, client};
        if (pthread_create(&thread, NULL, serve, connection))
            abort();
        pthread_detach(thread);
    }
    return NULL;
}

void fault_proxy_start(struct fault_proxy *proxy, const char *target) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    pthread_t thread;
    memset(proxy, 0, sizeof *proxy);
    if (sscanf(target, "http://%255[^:/]:%15[0-9]", proxy->target_host, proxy->target_port) != 2)
        abort();
    proxy->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(proxy->listener, (struct sockaddr *)&address, sizeof address) || listen(proxy->listener, 64) ||
        getsockname(proxy->listener, (struct sockaddr *)&address, &length) ||
        pthread_create(&thread, NULL, listen_for, proxy))
        abort();
    pthread_detach(thread);
    proxy->port = ntohs(address.sin_port);
    snprintf(proxy->url, sizeof proxy->url, "http://127.0.0.1:%d", proxy->port);
}
