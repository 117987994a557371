/* Is a model folder usable, before anything is loaded? And what making another folder from it needs. */
#ifndef MF_PROVIDERS_FOLDER_H
#define MF_PROVIDERS_FOLDER_H

#include "common/error.h"
#include "providers/provider.h"

/* A Hugging Face folder with config.json, tokenizer.json and safetensors (single or every shard of the
 * index), all readable. MF_ERROR_MODEL_NOT_FOUND / MF_ERROR_MODEL_INCOMPLETE say what is missing and what to
 * do. Opens nothing but the index. */
enum mf_status mf_folder_check(const struct mf_model_reference *reference, struct mf_error *error);

/* Copies a file of one folder to another; a file that is not there is fine. */
enum mf_status mf_folder_copy(const char *from, const char *name, const char *to, struct mf_error *error);
/* Every file that belongs to a tokenizer and is there. */
enum mf_status mf_folder_copy_tokenizer(const char *from, const char *to, struct mf_error *error);

/* Puts the complete folder `made` in the place of `folder`; what stood there before is removed. Both lie
 * beside each other. At every moment `folder` is the old or the new one, where the file system can exchange
 * names; a crash may leave the old one under the name `made`. */
enum mf_status mf_folder_replace(const char *made, const char *folder, struct mf_error *error);

#endif
