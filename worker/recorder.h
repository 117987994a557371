/* The thread that writes what supervisors learned into PostgreSQL: details, metrics, artifacts, the end.
 * While PostgreSQL is away everything waits in the jobs; nothing is written twice and nothing after the lease
 * is lost. */
#ifndef MF_WORKER_RECORDER_H
#define MF_WORKER_RECORDER_H

#include "worker/worker.h"

void *mf_recorder_main(void *worker); /* struct mf_worker *; returns when worker->stopping */

#endif
