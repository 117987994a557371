/* Kafka to PostgreSQL: three threads, one object.
 *
 *     poll      consumes, decodes with schemas that are known, hands over; never waits for anything else
 *     writer    says where partitions start, puts batches into PostgreSQL with their offset in one
 * transaction resolver  asks the schema registry
 *
 * Offsets live in PostgreSQL (40-reliability.md, rules 1 to 5); what is committed to Kafka is telemetry. */
#ifndef MF_WORKER_INGEST_H
#define MF_WORKER_INGEST_H

#include "worker/worker.h"

struct mf_ingest;

/* Makes the consumer and the registry client and starts the threads. Needs neither broker, registry nor
 * database to be there: it waits for each. */
enum mf_status mf_ingest_start(struct mf_worker *worker, struct mf_ingest **ingest, struct mf_error *error);

/* After worker->draining (or stopping) was set: waits until what was handed over is in PostgreSQL (not when
 * stopping), the group is left and the threads have ended. NULL is allowed. */
void mf_ingest_stop(struct mf_ingest *ingest);

#endif
