/* Models of a hub: Hugging Face's API and its cache folder, shared with Hugging Face's own libraries.
 *
 *     CACHE/models--ORGANISATION--NAME/refs/REVISION         the commit that it was
 *                                      blobs/ETAG            files by content
 *                                      snapshots/COMMIT/...  links to them: a model folder
 *                                      .locks/ beside it: one download of a blob at a time
 *
 * What is in the cache by its commit is never asked for again. */
#ifndef MF_PROVIDERS_HUB_H
#define MF_PROVIDERS_HUB_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    MF_HUB_ID_BYTES = 200,
    MF_HUB_FILE_BYTES = 200,
    MF_HUB_REVISION_BYTES = 201,
    MF_HUB_COMMIT_BYTES = 41
};

struct mf_hub_reference {
    char id[MF_HUB_ID_BYTES];     /* "organisation/name" or "name" */
    char file[MF_HUB_FILE_BYTES]; /* the one file of it that is meant: a .gguf; "": the model folder */
    char revision[MF_HUB_REVISION_BYTES]; /* branch, tag or commit; "main" when nothing is said */
};

/* Whether a model's name means a hub: "hf://organisation/name@revision" and
 * "hf://organisation/name/FILE.gguf@revision" always, "organisation/name" when there is no such folder or
 * file.
 */
bool mf_hub_is_id(const char *model_name);

/* MF_ERROR_INVALID_FIELD for an id or revision of a wrong form, MF_ERROR_CONFLICTING_FIELDS when the name
 * holds another revision than `revision` (NULL: not given). */
enum mf_status mf_hub_parse(const char *model_name, const char *revision, struct mf_hub_reference *reference,
                            struct mf_error *error);

/* What the caller wants to know and may end. */
struct mf_hub_watch {
    bool (*cancelled)(void *context); /* may be NULL */
    void (*progress)(void *context, const char *file, int64_t done_bytes,
                     int64_t total_bytes);         /* may be NULL */
    void (*note)(void *context, const char *text); /* a line for the job's log; may be NULL */
    void *context;
};

/* May the model be read, and are the files there that training needs? Downloads nothing. Statuses as
 * hub_client.h, MF_ERROR_MODEL_INCOMPLETE for a repository without config.json, tokenizer.json or
 * safetensors, MF_ERROR_MODEL_NOT_FOUND for one without reference->file, and in offline mode
 * MF_ERROR_MODEL_NOT_FOUND for what is not in the cache. */
enum mf_status mf_hub_check(const struct mf_hub_reference *reference, const struct mf_hub_watch *watch,
                            struct mf_error *error);

/* A model folder with the files that training needs, or reference->file, downloaded where they are not in the
 * cache; *folder is freed by the caller and stays as it is. `commit` is what the revision was. A branch or
 * tag is asked for at the hub each time; when that cannot be reached the commit it last was is used, with a
 * note. A download that broke off goes on where it stopped, in a later process, too; every file is checked
 * against its hash. */
enum mf_status mf_hub_snapshot(const struct mf_hub_reference *reference, const struct mf_hub_watch *watch,
                               char **folder, char commit[MF_HUB_COMMIT_BYTES], struct mf_error *error);

#endif
