/* What this host can run: asked of the trainer program itself, so that the daemon needs no provider and no
 * GPU. */
#ifndef MF_WORKER_PROVIDERS_H
#define MF_WORKER_PROVIDERS_H

#include "worker/worker.h"

/* Runs `trainer.path providers --json` and fills worker->providers, provider_count and details. Its answer is
 * {"devices": {"cpu": 1, "cuda": 2}, "providers": [{"name": "huggingface", "available": true,
 *   "devices": {"cpu": {"available": true, ...}, "cuda": {...}}, "max_gpus": 1, ...}, ...], ...}
 * One whose "available" is false is not advertised; without "devices" it runs on the CPU, and without
 * "max_gpus" on one GPU. MF_ERROR_CONFIGURATION when the program is missing, fails, or answers something
 * else. */
enum mf_status mf_providers_ask(struct mf_worker *worker, struct mf_error *error);
void mf_providers_free(struct mf_worker *worker);

#endif
