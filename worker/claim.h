/* Taking jobs, keeping them, and ending the leases of workers that vanished. */
#ifndef MF_WORKER_CLAIM_H
#define MF_WORKER_CLAIM_H

#include "worker/worker.h"

/* Claims while slots are free: on a notification, when a slot becomes free, and after a jittered poll time.
 * Also reaps, makes partitions, and gives back leases of this worker that no trainer of this process stands
 * for. */
void *mf_claim_main(void *worker); /* struct mf_worker *; returns when worker->stopping */

/* Beats all leases in one statement, carries out what is desired of them, registers the worker, and rescues
 * leases whose beat stands still. */
void *mf_heartbeat_main(void *worker);

#endif
