#include "worker/nvml.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what of nvml.h is used, as the library's ABI has it ---------------------------------------------- */

typedef struct mf_nvml_device_handle *device_handle;
typedef struct mf_nvml_event_set *event_set;

enum { NVML_SUCCESS = 0, NVML_GPU_IS_LOST = 15, NVML_RESET_REQUIRED = 16 };
enum { NVML_UNCORRECTED = 1, NVML_VOLATILE = 0, NVML_MIG_ENABLED = 1 };
static const unsigned long long xid_events = 0x8;

struct memory {
    unsigned long long total, free, used;
};
struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct event {
    device_handle device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

struct functions {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int);
    int (*count)(unsigned *);
    int (*handle)(unsigned, device_handle *);
    int (*uuid)(device_handle, char *, unsigned);
    int (*name)(device_handle, char *, unsigned);
    int (*memory)(device_handle, struct memory *);
    /* may be missing in an old driver */
    int (*memory_v2)(device_handle, struct memory_v2 *);
    int (*ecc)(device_handle, int, int, unsigned long long *);
    int (*remapped)(device_handle, unsigned *, unsigned *, unsigned *, unsigned *);
    int (*retired)(device_handle, int *);
    int (*mig)(device_handle, unsigned *, unsigned *);
    int (*event_new)(event_set *);
    int (*event_register)(device_handle, unsigned long long, event_set);
    int (*event_wait)(event_set, struct event *, unsigned);
    int (*event_free)(event_set);
};

static const struct {
    const char *name;
    size_t offset;
    bool required;
} symbols[] = {
    {"nvmlInit_v2", offsetof(struct functions, init), true},
    {"nvmlShutdown", offsetof(struct functions, shutdown), true},
    {"nvmlErrorString", offsetof(struct functions, error_string), true},
    {"nvmlDeviceGetCount_v2", offsetof(struct functions, count), true},
    {"nvmlDeviceGetHandleByIndex_v2", offsetof(struct functions, handle), true},
    {"nvmlDeviceGetUUID", offsetof(struct functions, uuid), true},
    {"nvmlDeviceGetName", offsetof(struct functions, name), true},
    {"nvmlDeviceGetMemoryInfo", offsetof(struct functions, memory), true},
    {"nvmlDeviceGetMemoryInfo_v2", offsetof(struct functions, memory_v2), false},
    {"nvmlDeviceGetTotalEccErrors", offsetof(struct functions, ecc), false},
    {"nvmlDeviceGetRemappedRows", offsetof(struct functions, remapped), false},
    {"nvmlDeviceGetRetiredPagesPendingStatus", offsetof(struct functions, retired), false},
    {"nvmlDeviceGetMigMode", offsetof(struct functions, mig), false},
    {"nvmlEventSetCreate", offsetof(struct functions, event_new), false},
    {"nvmlDeviceRegisterEvents", offsetof(struct functions, event_register), false},
    {"nvmlEventSetWait_v2", offsetof(struct functions, event_wait), false},
    {"nvmlEventSetFree", offsetof(struct functions, event_free), false},
};

struct mf_nvml {
    void *library;
    struct functions call;
    bool ready; /* init succeeded */
    event_set events;
    unsigned count;
    device_handle device[MF_MAX_GPUS];
    unsigned long long xid[MF_MAX_GPUS]; /* the first that quarantines; 0: none */
};

/* ---- opening ------------------------------------------------------------------------------------------ */

static enum mf_status fail(const struct mf_nvml *nvml, int code, const char *what, struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "%s: %s", what, nvml->call.error_string(code));
}

static enum mf_status load(struct mf_nvml *nvml, struct mf_error *error) {
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!nvml->library)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "no NVIDIA driver: %s", dlerror());
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(nvml->library, symbols[i].name);
        if (!symbol && symbols[i].required)
            return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                                "libnvidia-ml.so.1 is too old: it has no %s", symbols[i].name);
        memcpy((char *)&nvml->call + symbols[i].offset, &symbol, sizeof symbol);
    }
    return MF_OK;
}

/* Asks for Xids where the driver can tell them (not under WSL). */
static void register_events(struct mf_nvml *nvml) {
    const struct functions *call = &nvml->call;
    if (!call->event_new || !call->event_register || !call->event_wait || !call->event_free ||
        call->event_new(&nvml->events) != NVML_SUCCESS) {
        nvml->events = NULL;
        return;
    }
    for (unsigned i = 0; i < nvml->count; i++)
        (void)call->event_register(nvml->device[i], xid_events, nvml->events);
}

static enum mf_status start(struct mf_nvml *nvml, struct mf_error *error) {
    if (!nvml->call.init || !nvml->call.count || !nvml->call.handle) /* load() told which */
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "libnvidia-ml.so.1 is too old");
    int code = nvml->call.init();
    if (code != NVML_SUCCESS)
        return fail(nvml, code, "the NVIDIA driver cannot be used", error);
    nvml->ready = true;
    if ((code = nvml->call.count(&nvml->count)) != NVML_SUCCESS)
        return fail(nvml, code, "counting GPUs", error);
    if (nvml->count == 0)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "the NVIDIA driver sees no GPU");
    if (nvml->count > MF_MAX_GPUS)
        nvml->count = MF_MAX_GPUS;
    for (unsigned i = 0; i < nvml->count; i++)
        if (nvml->call.handle(i, &nvml->device[i]) != NVML_SUCCESS)
            nvml->device[i] = NULL; /* read as lost */
    register_events(nvml);
    return MF_OK;
}

enum mf_status mf_nvml_open(struct mf_nvml **nvml, struct mf_error *error) {
    struct mf_nvml *made = calloc(1, sizeof *made);
    *nvml = NULL;
    if (!made)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to watch GPUs");
    enum mf_status status = load(made, error);
    if (!status)
        status = start(made, error);
    if (status)
        mf_nvml_close(made);
    else
        *nvml = made;
    return status;
}

void mf_nvml_close(struct mf_nvml *nvml) {
    if (!nvml)
        return;
    if (nvml->events)
        (void)nvml->call.event_free(nvml->events);
    if (nvml->ready)
        (void)nvml->call.shutdown();
    if (nvml->library)
        dlclose(nvml->library);
    free(nvml);
}

/* ---- health ------------------------------------------------------------------------------------------- */

/* Xids that the GPU is to blame for, not a program on it. */
static bool quarantines(unsigned long long xid) {
    static const unsigned short list[] = {48, 62, 64, 74, 79, 92, 95, 119, 120, 140, 143, 154};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (xid == list[i])
            return true;
    return false;
}

static void take_events(struct mf_nvml *nvml) {
    struct event event = {0};
    for (int i = 0; nvml->events && i < 256 && nvml->call.event_wait(nvml->events, &event, 0) == NVML_SUCCESS;
         i++)
        for (unsigned k = 0; k < nvml->count; k++)
            if (nvml->device[k] == event.device && event.type == xid_events && !nvml->xid[k] &&
                quarantines(event.data))
                nvml->xid[k] = event.data;
}

/* Whether a call that every GPU must answer failed: then that is its fault. */
static bool lost(const struct mf_nvml *nvml, int code, struct mf_gpu *gpu) {
    if (code != NVML_SUCCESS && !*gpu->fault)
        snprintf(gpu->fault, sizeof gpu->fault, "the driver does not answer for it: %s",
                 nvml->call.error_string(code));
    return code != NVML_SUCCESS;
}

/* Whether a call about health was answered; many GPUs do not support one or the other. */
static bool told(const struct mf_nvml *nvml, int code, struct mf_gpu *gpu) {
    if (code == NVML_GPU_IS_LOST || code == NVML_RESET_REQUIRED)
        (void)lost(nvml, code, gpu);
    return code == NVML_SUCCESS;
}

static void read_memory(const struct mf_nvml *nvml, device_handle device, struct mf_gpu *gpu) {
    struct memory_v2 exact = {.version = (unsigned)sizeof exact | 2U << 24};
    struct memory memory = {0};
    if (nvml->call.memory_v2 && nvml->call.memory_v2(device, &exact) == NVML_SUCCESS) {
        gpu->memory_bytes = (int64_t)exact.total;
        gpu->used_bytes = (int64_t)exact.used; /* without what the driver keeps for itself */
    } else if (!lost(nvml, nvml->call.memory(device, &memory), gpu)) {
        gpu->memory_bytes = (int64_t)memory.total;
        gpu->used_bytes = (int64_t)memory.used;
    }
}

static void read_faults(const struct mf_nvml *nvml, unsigned index, struct mf_gpu *gpu) {
    const struct functions *call = &nvml->call;
    device_handle device = nvml->device[index];
    unsigned corrected, uncorrected, pending = 0, failed = 0, mig = 0, mig_next;
    unsigned long long errors = 0;
    int retiring = 0;
    if (nvml->xid[index]) {
        snprintf(gpu->fault, sizeof gpu->fault, "Xid %llu", nvml->xid[index]);
        return;
    }
    if (call->mig && told(nvml, call->mig(device, &mig, &mig_next), gpu) && mig == NVML_MIG_ENABLED)
        snprintf(gpu->fault, sizeof gpu->fault, "it is split by MIG, which is not supported");
    else if (call->remapped &&
             told(nvml, call->remapped(device, &corrected, &uncorrected, &pending, &failed), gpu) &&
             (pending || failed))
        snprintf(gpu->fault, sizeof gpu->fault, "%s",
                 failed ? "rows of its memory could not be remapped: replace it"
                        : "rows of its memory wait to be remapped: reset it");
    else if (call->retired && told(nvml, call->retired(device, &retiring), gpu) && retiring)
        snprintf(gpu->fault, sizeof gpu->fault, "pages of its memory wait to be retired: reset it");
    else if (call->ecc && told(nvml, call->ecc(device, NVML_UNCORRECTED, NVML_VOLATILE, &errors), gpu) &&
             errors)
        snprintf(gpu->fault, sizeof gpu->fault,
                 "%llu memory errors that could not be corrected since the driver was loaded: reset it",
                 errors);
}

enum mf_status mf_nvml_read(struct mf_nvml *nvml, struct mf_gpu gpus[MF_MAX_GPUS], size_t *count,
                            struct mf_error *error) {
    (void)error;
    take_events(nvml);
    *count = nvml->count;
    for (unsigned i = 0; i < nvml->count; i++) {
        struct mf_gpu *gpu = &gpus[i];
        device_handle device = nvml->device[i];
        *gpu = (struct mf_gpu){.uuid = ""};
        if (!device || lost(nvml, nvml->call.uuid(device, gpu->uuid, sizeof gpu->uuid), gpu) ||
            lost(nvml, nvml->call.name(device, gpu->name, sizeof gpu->name), gpu)) {
            if (!*gpu->uuid)
                snprintf(gpu->uuid, sizeof gpu->uuid, "GPU-lost-%u", i);
            if (!*gpu->fault)
                snprintf(gpu->fault, sizeof gpu->fault, "the driver lost it");
            continue;
        }
        read_memory(nvml, device, gpu);
        read_faults(nvml, i, gpu);
    }
    return MF_OK;
}
