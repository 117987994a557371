/* Providers that are programs of their own: NAME.conf in the providers' folder.
 *
 *     exec = /opt/venv/bin/python /opt/trainer.py     the program and what it is always given; no quoting
 *     environment.NAME = value                         added to its environment
 *     limit.file_bytes = 0                             no file that it writes may be larger; 0: any size
 *     limit.processes = 0                              of its user at once; 0: any number; not for root
 *
 * It is run as
 *
 *     PROGRAM ... capabilities
 *         says on standard output, in time, as one JSON object of at most 1 MiB
 *             {"protocol": 1, "version": "...", "available": true, "exact_resume": true, "max_gpus": 1,
 *              "capabilities": [{"architecture", "task", "strategy", "level", "reason"}]}
 *         "available": false comes with a "reason" that says what to do, and needs no more; "exact_resume",
 *         true where it is left out: false says that a run which goes on from a checkpoint ends with other
 *         bits than one that nobody interrupted; "max_gpus", 1 where it is left out: how many GPUs a run may
 * ask for with `gpus`, which it then finds in CUDA_VISIBLE_DEVICES PROGRAM ... run REQUEST.json speaks the
 * trainer protocol (worker/trainer/protocol.h)
 *
 * Whatever it starts ends with it, and it ends with the trainer (common/process_guard.h).
 *
 * The file, the program and the files that exec names must be safe from others (common/trusted.h). A program
 * that is not trusted (places.h) runs as another user, or is refused. Any thread, but for the user database.
 * Errors are MF_ERROR_PROVIDER_UNAVAILABLE unless said otherwise. */
#ifndef MF_PROVIDERS_EXTERNAL_H
#define MF_PROVIDERS_EXTERNAL_H

#include "common/error.h"
#include "common/process.h"
#include "providers/provider.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    MF_EXTERNAL_MAX_WORDS = 32,
    MF_EXTERNAL_MAX_LIMITS = 4,
    MF_EXTERNAL_ANSWER_BYTES = 1 << 20,
    MF_EXTERNAL_MAX_GPUS = 64
};

struct mf_external {
    char name[MF_PROVIDER_NAME_BYTES];
    char *path;                            /* of NAME.conf */
    char *words;                           /* storage of argv */
    char *argv[MF_EXTERNAL_MAX_WORDS + 3]; /* room for "run", the request and NULL */
    size_t argc;                           /* of exec's words */
    json_t *environment;                   /* object of strings: of the file */
    struct mf_process_limit limit[MF_EXTERNAL_MAX_LIMITS];
    size_t limits;
    bool switches; /* runs as another user */
    struct mf_process_user user;
    char *home; /* of that user; NULL: as ours */
};

/* How long it may take to say its capabilities, or hello: a minute, or MODELFORGE_TRAINER_PROVIDER_SECONDS.
 */
int64_t mf_external_patience_ms(void);

/* *program is NULL, and the status MF_OK, when the folder has no NAME.conf. Freed with mf_external_free(). */
enum mf_status mf_external_find(const char *name, struct mf_external **program, struct mf_error *error);
void mf_external_free(struct mf_external *program); /* NULL is fine */

/* The names of all NAME.conf, sorted, whether usable or not: an array of strings, a new reference. A folder
 * that is not there has none. NULL when memory runs out. */
json_t *mf_external_names(void);

/* Runs it with "capabilities". *answer, a new reference, has the members above, checked. */
enum mf_status mf_external_ask(const struct mf_external *program, json_t **answer, struct mf_error *error);

int64_t mf_external_max_gpus(const json_t *answer); /* of mf_external_ask(); 1: it did not say */
/* MF_OK when the answer says that the program can be used for this; else with its own reason, or
 * MF_ERROR_PROVIDER_UNSUPPORTED. */
enum mf_status mf_external_require(const struct mf_external *program, const json_t *answer,
                                   const char *architecture, const char *task, const char *strategy,
                                   struct mf_error *error);

/* Its environment: of ours what names places, languages and devices, never a token, key or password; HOME of
 * its user; what its file adds; MODELFORGE_PROVIDER and, where `more` (NULL: nothing) names them, further
 * members. Ends with NULL; freed with mf_external_environment_free(). NULL when memory runs out. */
char **mf_external_environment(const struct mf_external *program, const json_t *more);
void mf_external_environment_free(char **environment);

/* What mf_process_spawn() and mf_process_replace() take for it: `last` (may be NULL) follow exec's words. The
 * program must outlive the options; the caller adds descriptors and environment. */
struct mf_process_options mf_external_options(struct mf_external *program, const char *command,
                                              const char *argument);

#endif
