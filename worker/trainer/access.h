/* What a tenant's job may read: the roots that its worker gives (run.roots), and fetching what lies at a URL.
 *
 * A root is a folder ("/data/team-a"), or the beginning of a URL: "s3://bucket/team-a", "https://host/sets",
 * "hf://" or "hf://organisation". It covers itself and what is below it, never a neighbour whose name begins
 * alike. Without roots (a run without a worker) every folder, https:// and s3:// is open. */
#ifndef MF_WORKER_TRAINER_ACCESS_H
#define MF_WORKER_TRAINER_ACCESS_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

struct mf_access {
    const json_t *roots;                           /* array of strings, borrowed; NULL: everything */
    const char *s3_endpoint, *s3_region, *ca_file; /* NULL: the defaults; borrowed */
    bool (*cancelled)(void *context);
    void *context;
};

/* The model to open: a folder's real path, or a hub's id as it is; freed by the caller. A folder and every
 * file in it, links resolved, must lie below a root. MF_ERROR_MODEL_FORBIDDEN. One that is not there is left
 * to those who say so better, unless it would be forbidden. */
enum mf_status mf_access_model(const struct mf_access *access, const char *model_name, char **allowed,
                               struct mf_error *error);

/* A dataset that is open: read it at `path`, which lives as long as this; closed by mf_access_close(). */
struct mf_opened {
    int descriptor;
    char path[64];
};

/* A file below a root, with links resolved and held against being changed on the way; https:// and s3:// are
 * fetched into `folder` first, at most `limit_bytes`, with redirects only to what a root covers.
 * MF_ERROR_DATASET_FORBIDDEN, MF_ERROR_DATASET_NOT_FOUND (also 401, 403, 404 and 410 of a server),
 * MF_ERROR_HTTP, MF_ERROR_DISK_FULL. */
enum mf_status mf_access_dataset(const struct mf_access *access, const char *dataset, const char *folder,
                                 int64_t limit_bytes, struct mf_opened *opened, struct mf_error *error);
void mf_access_close(struct mf_opened *opened); /* a zeroed one too */

/* Whether a root covers a URL or hub's id; for tests and messages. */
bool mf_access_covers(const char *root, const char *url);

#endif
