/* "modelforge-worker check": whether this host, with this configuration, can do its work. */
#ifndef MF_WORKER_CHECK_H
#define MF_WORKER_CHECK_H

#include "common/findings.h"
#include "worker/worker.h"

/* Writes, reads back and removes an object of the storage, looks at work.dir, the folders of tenants.roots
 * and the user of providers.user, asks the trainer for its providers, Kafka and the registry whether they
 * know this configuration's logins, and PostgreSQL for the rights of its own. `development`: a superuser's
 * login is fine. Touches no job and may run beside a worker; run by the user that the worker runs as. */
void mf_check_worker(const struct mf_settings *settings, bool development, struct mf_findings *findings);

#endif
