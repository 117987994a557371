/* GET /metrics (Prometheus) and /healthz (JSON; 200 when the worker does its work, 503 with the reasons). */
#ifndef MF_WORKER_STATUS_SERVER_H
#define MF_WORKER_STATUS_SERVER_H

#include "worker/worker.h"

struct mf_status_server;

/* Listens on "address:port" ("[::1]:9464" too); "none" serves nothing (*server is NULL).
 * MF_ERROR_CONFIGURATION for a bad address, MF_ERROR_IO when it is in use. */
enum mf_status mf_status_server_start(struct mf_worker *worker, const char *listen,
                                      struct mf_status_server **server, struct mf_error *error);
void mf_status_server_stop(struct mf_status_server *server); /* NULL is allowed */

#endif
