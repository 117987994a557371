#include "worker/trainer/steps_file.h"

#include "common/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum mf_status out_of_memory(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "checkpoint: out of memory");
}

static char *block_path(const char *folder, int64_t block) {
    char name[64];
    snprintf(name, sizeof name, "steps-%08lld.bin", (long long)block);
    return mf_path_join(folder, name);
}

static size_t block_bytes(const struct mf_history *history, int64_t block) {
    const int64_t rest = history->steps - block * MF_STEPS_BLOCK;
    return (size_t)(rest < MF_STEPS_BLOCK ? rest : MF_STEPS_BLOCK) * sizeof *history->step;
}

static enum mf_status write_block(const struct mf_history *history, const char *folder, int64_t block,
                                  struct mf_error *error) {
    char *path = block_path(folder, block);
    enum mf_status status = path ? mf_file_write_atomic(path, history->step + block * MF_STEPS_BLOCK,
                                                        block_bytes(history, block), 0644, error)
                                 : out_of_memory(error);
    free(path);
    return status;
}

/* Under a second name; as a file of its own where there are no links. */
static enum mf_status link_block(const struct mf_history *history, const char *once, const char *folder,
                                 int64_t block, struct mf_error *error) {
    char *from = block_path(once, block), *to = block_path(folder, block);
    enum mf_status status = MF_OK;
    if (!from || !to)
        status = out_of_memory(error);
    else if (link(from, to) != 0)
        status = write_block(history, folder, block, error);
    free(from);
    free(to);
    return status;
}

/* Whole blocks that this process has not written yet, and their digests. */
static enum mf_status keep_whole(struct mf_history *history, const char *once, struct mf_error *error) {
    const int64_t whole = history->steps / MF_STEPS_BLOCK;
    if (history->blocks_kept == whole)
        return MF_OK;
    char(*digest)[MF_SHA256_TEXT_BYTES] = realloc(history->block_sha256, (size_t)whole * sizeof *digest);
    if (!digest)
        return out_of_memory(error);
    history->block_sha256 = digest;
    enum mf_status status = mf_directory_create(once, 0755, error);
    while (status == MF_OK && history->blocks_kept < whole) {
        const int64_t block = history->blocks_kept;
        status = write_block(history, once, block, error);
        if (status == MF_OK)
            status = mf_sha256_text(history->step + block * MF_STEPS_BLOCK, block_bytes(history, block),
                                    digest[block], error);
        if (status == MF_OK)
            history->blocks_kept++;
    }
    return status;
}

enum mf_status mf_steps_write(struct mf_history *history, const char *once, const char *folder,
                              json_t **blocks, struct mf_error *error) {
    char digest[MF_SHA256_TEXT_BYTES];
    *blocks = json_array();
    enum mf_status status = *blocks ? keep_whole(history, once, error) : out_of_memory(error);
    for (int64_t block = 0; status == MF_OK && block * MF_STEPS_BLOCK < history->steps; block++) {
        const bool whole = block < history->blocks_kept;
        status = whole ? link_block(history, once, folder, block, error)
                       : write_block(history, folder, block, error);
        if (status == MF_OK && !whole)
            status = mf_sha256_text(history->step + block * MF_STEPS_BLOCK, block_bytes(history, block),
                                    digest, error);
        if (status == MF_OK &&
            json_array_append_new(*blocks, json_string(whole ? history->block_sha256[block] : digest)) != 0)
            status = out_of_memory(error);
    }
    return status;
}

static enum mf_status read_block(struct mf_history *history, const char *folder, int64_t block,
                                 const char *sha256, struct mf_error *error) {
    char *path = block_path(folder, block), *data = NULL, digest[MF_SHA256_TEXT_BYTES];
    const size_t wanted = block_bytes(history, block);
    size_t bytes = 0;
    if (!path)
        return out_of_memory(error);
    enum mf_status status = mf_file_read(path, MF_STEPS_BLOCK * sizeof *history->step, &data, &bytes, error);
    if (status == MF_OK)
        status = mf_sha256_text(data, bytes, digest, error);
    if (status == MF_OK && (bytes != wanted || !sha256 || strcmp(digest, sha256) != 0))
        status = mf_error_set(error, MF_ERROR_BAD_CHECKPOINT,
                              "%s: the file is damaged: its sha256 is not the one in checkpoint.json", path);
    if (status == MF_OK && data)
        memcpy(history->step + block * MF_STEPS_BLOCK, data, bytes);
    free(data);
    free(path);
    return status;
}

enum mf_status mf_steps_read(struct mf_history *history, const char *folder, const json_t *blocks,
                             const char *where, struct mf_error *error) {
    const int64_t count = (history->steps + MF_STEPS_BLOCK - 1) / MF_STEPS_BLOCK;
    enum mf_status status = MF_OK;
    if (json_array_size(blocks) != (size_t)count)
        return mf_error_set(error, MF_ERROR_BAD_CHECKPOINT, "%s: steps names %zu blocks, not %lld", where,
                            json_array_size(blocks), (long long)count);
    for (int64_t block = 0; status == MF_OK && block < count; block++)
        status = read_block(history, folder, block, json_string_value(json_array_get(blocks, (size_t)block)),
                            error);
    return status;
}
