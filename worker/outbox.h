/* PostgreSQL's outbox to Kafka's events and dead-letter topics: at least once, in order for each job. */
#ifndef MF_WORKER_OUTBOX_H
#define MF_WORKER_OUTBOX_H

#include "worker/worker.h"

void *mf_outbox_main(void *worker); /* struct mf_worker *; returns when worker->stopping */

#endif
