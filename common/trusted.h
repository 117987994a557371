/* Whether code may be run from a path: could anybody but root and this program's own user have put it there?
 */
#ifndef MF_COMMON_TRUSTED_H
#define MF_COMMON_TRUSTED_H

#include "common/error.h"

/* `path` names a regular file. The file and every folder above it, links resolved, belong to root or to the
 * user of this process and may be written neither by their group nor by others; a folder with the sticky bit
 * (/tmp) may, because nobody can replace what another user has in it. MF_ERROR_PROVIDER_UNAVAILABLE says
 * which component it is, what is wrong with it and how to mend it. *resolved (may be NULL) is the path
 * without links, freed by the caller: use that one. Any thread. */
enum mf_status mf_path_check_trusted(const char *path, char **resolved, struct mf_error *error);

/* The same of a folder and those above it. */
enum mf_status mf_folder_check_trusted(const char *path, struct mf_error *error);

#endif
