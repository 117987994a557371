/* Model folders that providers make for one job: written below context->scratch, removed when it is over. */
#ifndef MF_PROVIDERS_MADE_FOLDER_H
#define MF_PROVIDERS_MADE_FOLDER_H

#include "common/error.h"
#include "kernels/tensor.h"
#include "providers/registry.h"

/* As make_folder of provider.h: *path lives until mf_made_folders_remove(). MF_ERROR_PROVIDER_UNAVAILABLE for
 * a source that breaks the ABI, MF_ERROR_BAD_WEIGHTS for a value that has no finite form in its dtype. */
enum mf_status mf_made_folder_write(struct mf_provider_context *context,
                                    const struct mf_folder_source *source, const char **path,
                                    struct mf_error *error);

/* As make_folder_of_gguf; statuses of mf_convert_gguf(). */
enum mf_status mf_made_folder_of_gguf(struct mf_provider_context *context, const char *file,
                                      enum mf_dtype dtype, const char **path, struct mf_error *error);

/* MF_OK for a path that this job may read: one that context->allow allows, or in a folder that was made. */
enum mf_status mf_made_folders_allow(const struct mf_provider_context *context, const char *path,
                                     struct mf_error *error);

/* No model that was opened from one may be open. NULL is fine. */
void mf_made_folders_remove(struct mf_provider_context *context);

#endif
