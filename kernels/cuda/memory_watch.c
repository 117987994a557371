#include "kernels/cuda/memory_watch.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what of nvml.h is used, as the library's ABI has it ---- */

typedef struct mf_nvml_gpu *gpu_handle;

enum { NVML_SUCCESS = 0, MOST_PROCESSES = 256 };
static const unsigned long long not_available = ~0ULL;

struct gpu_memory {
    unsigned long long total, free, used;
};
struct gpu_process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

struct functions {
    int (*init)(void);
    int (*shutdown)(void);
    int (*handle)(const char *, gpu_handle *);
    int (*memory)(gpu_handle, struct gpu_memory *);
    int (*processes)(gpu_handle, unsigned *, struct gpu_process *); /* NULL: an old driver */
};

static const struct {
    const char *name;
    size_t offset;
    bool required;
} symbols[] = {{"nvmlInit_v2", offsetof(struct functions, init), true},
               {"nvmlShutdown", offsetof(struct functions, shutdown), true},
               {"nvmlDeviceGetHandleByUUID", offsetof(struct functions, handle), true},
               {"nvmlDeviceGetMemoryInfo", offsetof(struct functions, memory), true},
               {"nvmlDeviceGetComputeRunningProcesses_v3", offsetof(struct functions, processes), false}};

struct mf_cuda_memory_watch {
    void *library;
    struct functions call;
    gpu_handle gpu;
    bool ready;                /* init succeeded */
    unsigned long long before; /* used of the whole GPU when the watch was made */
};

static bool load(struct mf_cuda_memory_watch *watch) {
    watch->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!watch->library)
        return false;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(watch->library, symbols[i].name);
        if (!symbol && symbols[i].required)
            return false;
        memcpy((char *)&watch->call + symbols[i].offset, &symbol, sizeof symbol);
    }
    return true;
}

static bool start(struct mf_cuda_memory_watch *watch, const char *uuid) {
    struct gpu_memory memory;
    if (!watch->call.init || !watch->call.handle || !watch->call.memory) /* load() saw to it */
        return false;
    watch->ready = watch->call.init() == NVML_SUCCESS;
    if (!watch->ready || watch->call.handle(uuid, &watch->gpu) != NVML_SUCCESS ||
        watch->call.memory(watch->gpu, &memory) != NVML_SUCCESS)
        return false;
    watch->before = memory.used;
    return true;
}

struct mf_cuda_memory_watch *mf_cuda_memory_watch_create(const char *uuid) {
    struct mf_cuda_memory_watch *watch = calloc(1, sizeof *watch);
    if (watch && load(watch) && start(watch, uuid))
        return watch;
    mf_cuda_memory_watch_destroy(watch);
    return NULL;
}

void mf_cuda_memory_watch_destroy(struct mf_cuda_memory_watch *watch) {
    if (!watch)
        return;
    if (watch->ready)
        (void)watch->call.shutdown();
    if (watch->library)
        dlclose(watch->library);
    free(watch);
}

/* Of this process; 0: it is not among those that the driver names. */
static unsigned long long own_bytes(const struct mf_cuda_memory_watch *watch) {
    struct gpu_process process[MOST_PROCESSES];
    unsigned count = MOST_PROCESSES;
    if (!watch->call.processes || watch->call.processes(watch->gpu, &count, process) != NVML_SUCCESS)
        return 0;
    for (unsigned i = 0; i < count; i++)
        if (process[i].pid == (unsigned)getpid() && process[i].used != not_available)
            return process[i].used;
    return 0;
}

struct mf_memory_use mf_cuda_memory_watch_read(const struct mf_cuda_memory_watch *watch) {
    struct gpu_memory memory;
    const unsigned long long own = watch ? own_bytes(watch) : 0;
    if (own)
        return (struct mf_memory_use){.bytes = (size_t)own, .of_process = true};
    if (!watch || watch->call.memory(watch->gpu, &memory) != NVML_SUCCESS || memory.used <= watch->before)
        return (struct mf_memory_use){.bytes = 0};
    return (struct mf_memory_use){.bytes = (size_t)(memory.used - watch->before)};
}
