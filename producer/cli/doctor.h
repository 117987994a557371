/* What doctor's examinations share. */
#ifndef MF_PRODUCER_CLI_DOCTOR_H
#define MF_PRODUCER_CLI_DOCTOR_H

#include "common/findings.h"
#include "producer/cli/settings.h"

struct mf_examination {
    struct mf_settings *settings;
    struct mf_findings findings;
    bool development;          /* a single broker, a superuser's login and no worker are fine */
    const char *worker_config; /* NULL: the configuration that this command was given */
    struct mf_admin *admin;    /* NULL: no broker answered */
};

/* What `modelforge-worker check` finds on this host: storage, work folder, trainer, logins. Where neither
 * storage.url nor worker_config is given, this host is no worker's, and nothing is looked at. */
void mf_doctor_worker(struct mf_examination *examination);

#endif
