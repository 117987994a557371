/* Fuzzing entry of the safetensors reader. The first byte chooses what the rest is:
 *     'r'   a file as it is
 *     'h'   a header, up to a NUL, and the data behind it; its length is put before it, so that what is
 * inside the header is reached 'i'   the index of a folder with one shard */
#include "providers/weights/safetensors.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every promise of an opened file: names in order, bytes inside the file, dtype x shape = bytes. */
static void read_all(const struct mf_safetensors *file) {
    unsigned sum = 0;
    for (size_t i = 0; i < mf_safetensors_count(file); i++) {
        const struct mf_stored_tensor *tensor = mf_safetensors_at(file, i);
        size_t elements = 1;
        for (int32_t d = 0; d < tensor->rank; d++)
            elements *= (size_t)tensor->dim[d];
        if (tensor->floating && elements * mf_dtype_bytes(tensor->dtype) != tensor->bytes)
            abort();
        if (i && strcmp(mf_safetensors_at(file, i - 1)->name, tensor->name) >= 0)
            abort();
        if (mf_safetensors_find(file, tensor->name) != tensor)
            abort();
        for (size_t b = 0; b < tensor->bytes; b++)
            sum += ((const uint8_t *)tensor->data)[b];
    }
    const char *format = mf_safetensors_metadata(file, "format");
    volatile size_t kept = sum + (format ? strlen(format) : 0); /* the reads are not optimised away */
    (void)kept;
}

static const char *put_with_length(const uint8_t *data, size_t size) {
    const uint8_t *end = memchr(data, 0, size);
    const size_t header = end ? (size_t)(end - data) : size, rest = end ? size - header - 1 : 0;
    uint8_t *file = malloc(8 + size);
    if (!file)
        abort();
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)header >> 8 * i);
    memcpy(file + 8, data, header);
    if (rest)
        memcpy(file + 8 + header, end + 1, rest);
    const char *path = fuzz_put("file.safetensors", file, 8 + header + rest);
    free(file);
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mf_safetensors *file = NULL;
    struct mf_error error;
    enum mf_status status = MF_ERROR_BAD_WEIGHTS;
    if (!size)
        return 0;
    if (*data == 'i') {
        static bool prepared;
        if (!prepared)
            fuzz_copy("tests/golden/weights_python.safetensors", "a.safetensors");
        prepared = true;
        fuzz_put("model.safetensors.index.json", data + 1, size - 1);
        char folder[512];
        snprintf(folder, sizeof folder, "%s", fuzz_path("model.safetensors.index.json"));
        *strrchr(folder, '/') = 0;
        status = mf_safetensors_open_folder(folder, &file, &error);
    } else {
        status = mf_safetensors_open_file(*data == 'h' ? put_with_length(data + 1, size - 1)
                                                       : fuzz_put("file.safetensors", data + 1, size - 1),
                                          &file, &error);
    }
    if (status == MF_OK)
        read_all(file);
    else if (!*error.message || error.status != status)
        abort();
    mf_safetensors_close(status == MF_OK ? file : NULL);
    return 0;
}
