/* A proxy between a client and a real HTTP server that breaks connections, as networks do. */
#ifndef MF_TESTS_COMMON_FAULT_PROXY_H
#define MF_TESTS_COMMON_FAULT_PROXY_H

#include <stdatomic.h>

struct fault_proxy {
    int listener, port;
    char target_host[256], target_port[16];
    char url[64];           /* what a client is given */
    atomic_int requests;    /* requests that came, over all connections */
    atomic_int cut_answers; /* so many of the next answers are cut after cut_bytes */
    atomic_int cut_bytes;
    atomic_int cut_requests; /* so many of the next requests are cut after cut_bytes */
    atomic_int answer_503;   /* so many of the next requests get 503 SlowDown */
    atomic_int wrong_etags;  /* so many of the next answers with an ETag get another one */
    atomic_int expired;      /* so many of the next requests get 400 ExpiredToken */
    atomic_int full;         /* so many of the next requests get 507 */
};

/* `target`: "http://host:port". Threads of the process serve it until it ends. */
void fault_proxy_start(struct fault_proxy *proxy, const char *target);

#endif
