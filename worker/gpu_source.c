#include "worker/gpu_source.h"

#include "common/json.h"
#include "worker/nvml.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES = 1 << 20 };

struct mf_gpu_source {
    struct mf_nvml *nvml;
    char *file; /* instead of nvml */
};

enum mf_status mf_gpu_source_open(const char *file, struct mf_gpu_source **source,
                                  char why[MF_GPU_FAULT_BYTES], struct mf_error *error) {
    struct mf_nvml *nvml = NULL;
    struct mf_error absent = {.status = MF_OK};
    *source = NULL;
    *why = 0;
    enum mf_status status = mf_nvml_open(&nvml, &absent);
    if (!status && file) {
        mf_nvml_close(nvml);
        return mf_error_set(
            error, MF_ERROR_CONFIGURATION,
            "gpu.inventory_file: this machine has GPUs; the file is for tests where there are none");
    }
    if (status && !file) {
        snprintf(why, MF_GPU_FAULT_BYTES, "%.150s", absent.message);
        return status == MF_ERROR_PROVIDER_UNAVAILABLE ? MF_OK
                                                       : mf_error_set(error, status, "%s", absent.message);
    }
    struct mf_gpu_source *made = calloc(1, sizeof *made);
    char *copy = file ? strdup(file) : NULL;
    if (!made || (file && !copy)) {
        free(made);
        free(copy);
        mf_nvml_close(nvml);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to watch GPUs");
    }
    made->nvml = nvml;
    made->file = copy;
    *source = made;
    return MF_OK;
}

void mf_gpu_source_close(struct mf_gpu_source *source) {
    if (!source)
        return;
    mf_nvml_close(source->nvml);
    free(source->file);
    free(source);
}

/* ---- the file ----------------------------------------------------------------------------------------- */

static enum mf_status read_gpu(const json_t *item, const char *where, struct mf_gpu *gpu,
                               struct mf_error *error) {
    const char *uuid = NULL, *name = NULL, *fault = "";
    enum mf_status status;
    *gpu = (struct mf_gpu){.uuid = ""};
    if (!json_is_object(item))
        return mf_error_set(error, MF_ERROR_CONFIGURATION, "%s: an item of \"gpus\" is not an object", where);
    if ((status = mf_json_string(item, where, "uuid", MF_GPU_UUID_BYTES - 1, &uuid, error)) ||
        (status = mf_json_string(item, where, "name", MF_GPU_NAME_BYTES - 1, &name, error)) ||
        (status = mf_json_optional_string(item, where, "fault", MF_GPU_FAULT_BYTES - 1, &fault, error)) ||
        (status = mf_json_integer(item, where, "memory_bytes", 1, INT64_MAX, &gpu->memory_bytes, error)) ||
        (status = mf_json_optional_integer(item, where, "used_bytes", 0, INT64_MAX, &gpu->used_bytes, error)))
        return status;
    (void)stpncpy(gpu->uuid, uuid, sizeof gpu->uuid - 1);
    (void)stpncpy(gpu->name, name, sizeof gpu->name - 1);
    (void)stpncpy(gpu->fault, fault ? fault : "", sizeof gpu->fault - 1);
    return MF_OK;
}

static enum mf_status read_file(const char *file, struct mf_gpu gpus[MF_MAX_GPUS], size_t *count,
                                struct mf_error *error) {
    json_t *object = NULL, *list = NULL;
    const json_t *item;
    size_t i;
    enum mf_status status = mf_json_read_file(file, FILE_BYTES, &object, error);
    if (!status)
        status = mf_json_array(object, file, "gpus", MF_MAX_GPUS, &list, error);
    if (!status)
        json_array_foreach(list, i, item) {
            if ((status = read_gpu(item, file, &gpus[i], error)))
                break;
            *count = i + 1;
        }
    json_decref(object);
    if (status) {
        mf_error_prefix(error, "gpu.inventory_file");
        error->status = MF_ERROR_CONFIGURATION;
    }
    return status ? MF_ERROR_CONFIGURATION : MF_OK;
}

enum mf_status mf_gpu_source_read(struct mf_gpu_source *source, struct mf_gpu gpus[MF_MAX_GPUS],
                                  size_t *count, struct mf_error *error) {
    *count = 0;
    enum mf_status status = source->file ? read_file(source->file, gpus, count, error)
                                         : mf_nvml_read(source->nvml, gpus, count, error);
    for (size_t i = 0; !status && i < *count; i++) /* it becomes a file's name and a program's environment */
        if (!*gpus[i].uuid ||
            gpus[i].uuid[strspn(gpus[i].uuid,
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")])
            status = mf_error_set(error, MF_ERROR_CONFIGURATION,
                                  "a GPU's uuid '%.90s' is not of [A-Za-z0-9-]", gpus[i].uuid);
    return status;
}
