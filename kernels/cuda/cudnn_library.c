#include "kernels/cuda/cudnn_library.h"

#include <cudnn.h>
#include <dlfcn.h>
#include <nvrtc.h>
#include <stdio.h>
#include <string.h>

/* All that is called of the two libraries. */
static struct {
    void *cudnn, *nvrtc;
    bool ready;
    __typeof__(cudnnCreate) *create;
    __typeof__(cudnnDestroy) *destroy;
    __typeof__(cudnnSetStream) *set_stream;
    __typeof__(cudnnGetStream) *get_stream;
    __typeof__(cudnnGetVersion) *version;
    __typeof__(cudnnGetErrorString) *error_string;
    __typeof__(cudnnGetLastErrorString) *last_error_string;
    __typeof__(cudnnBackendCreateDescriptor) *descriptor_create;
    __typeof__(cudnnBackendDestroyDescriptor) *descriptor_destroy;
    __typeof__(cudnnBackendSetAttribute) *set_attribute;
    __typeof__(cudnnBackendGetAttribute) *get_attribute;
    __typeof__(cudnnBackendFinalize) *finalize;
    __typeof__(cudnnBackendExecute) *execute;
    __typeof__(nvrtcCreateProgram) *program_create;
    __typeof__(nvrtcDestroyProgram) *program_destroy;
    __typeof__(nvrtcCompileProgram) *program_compile;
    __typeof__(nvrtcGetCUBIN) *cubin;
    __typeof__(nvrtcGetCUBINSize) *cubin_bytes;
    __typeof__(nvrtcGetProgramLog) *program_log;
    __typeof__(nvrtcGetProgramLogSize) *program_log_bytes;
} library;

static bool find_functions(char *reason, size_t bytes) {
    const struct {
        void *function; /* where the pointer goes */
        void *handle;
        const char *name;
    } wanted[] = {{&library.create, library.cudnn, "cudnnCreate"},
                  {&library.destroy, library.cudnn, "cudnnDestroy"},
                  {&library.set_stream, library.cudnn, "cudnnSetStream"},
                  {&library.get_stream, library.cudnn, "cudnnGetStream"},
                  {&library.version, library.cudnn, "cudnnGetVersion"},
                  {&library.error_string, library.cudnn, "cudnnGetErrorString"},
                  {&library.last_error_string, library.cudnn, "cudnnGetLastErrorString"},
                  {&library.descriptor_create, library.cudnn, "cudnnBackendCreateDescriptor"},
                  {&library.descriptor_destroy, library.cudnn, "cudnnBackendDestroyDescriptor"},
                  {&library.set_attribute, library.cudnn, "cudnnBackendSetAttribute"},
                  {&library.get_attribute, library.cudnn, "cudnnBackendGetAttribute"},
                  {&library.finalize, library.cudnn, "cudnnBackendFinalize"},
                  {&library.execute, library.cudnn, "cudnnBackendExecute"},
                  {&library.program_create, library.nvrtc, "nvrtcCreateProgram"},
                  {&library.program_destroy, library.nvrtc, "nvrtcDestroyProgram"},
                  {&library.program_compile, library.nvrtc, "nvrtcCompileProgram"},
                  {&library.cubin, library.nvrtc, "nvrtcGetCUBIN"},
                  {&library.cubin_bytes, library.nvrtc, "nvrtcGetCUBINSize"},
                  {&library.program_log, library.nvrtc, "nvrtcGetProgramLog"},
                  {&library.program_log_bytes, library.nvrtc, "nvrtcGetProgramLogSize"}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(wanted[i].handle, wanted[i].name);
        if (!found) {
            (void)snprintf(reason, bytes, "no function %s", wanted[i].name);
            return false;
        }
        memcpy(wanted[i].function, &found, sizeof found);
    }
    return true;
}

bool mf_cudnn_open(char *reason, size_t bytes) {
    if (library.ready)
        return true;
    if (!library.nvrtc)
        library.nvrtc =
            dlopen(CUDART_VERSION >= 13000 ? "libnvrtc.so.13" : "libnvrtc.so.12", RTLD_NOW | RTLD_GLOBAL);
    if (library.nvrtc && !library.cudnn)
        library.cudnn = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (!library.cudnn) {
        const char *words = dlerror();
        (void)snprintf(reason, bytes, "%s", words ? words : "cannot be opened");
        return false;
    }
    library.ready = find_functions(reason, bytes);
    return library.ready;
}

size_t mf_cudnn_version(void) {
    return library.version();
}

void *mf_cudnn_handle_create(cudaStream_t stream) {
    cudnnHandle_t handle = NULL;
    if (library.create(&handle) != CUDNN_STATUS_SUCCESS)
        return NULL;
    if (library.set_stream(handle, stream) == CUDNN_STATUS_SUCCESS)
        return handle;
    (void)library.destroy(handle);
    return NULL;
}

void mf_cudnn_handle_destroy(void *handle) {
    if (handle)
        (void)library.destroy(handle);
}

/* ---- what cudnn-frontend calls
 * --------------------------------------------------------------------------------- */

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *stream) {
    return library.get_stream(handle, stream);
}
size_t cudnnGetVersion(void) {
    return library.version();
}
const char *cudnnGetErrorString(cudnnStatus_t status) {
    return library.error_string(status);
}
void cudnnGetLastErrorString(char *message, size_t bytes) {
    library.last_error_string(message, bytes);
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *descriptor) {
    return library.descriptor_create(type, descriptor);
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    return library.descriptor_destroy(descriptor);
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    return library.set_attribute(descriptor, name, type, count, values);
}
cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                       int64_t wanted, int64_t *count, void *values) {
    return library.get_attribute(descriptor, name, type, wanted, count, values);
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    return library.finalize(descriptor);
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
    return library.execute(handle, plan, pack);
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int headers,
                               const char *const *header, const char *const *include) {
    return library.program_create(program, source, name, headers, header, include);
}
nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program) {
    return library.program_destroy(program);
}
nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int options, const char *const *option) {
    return library.program_compile(program, options, option);
}
nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *cubin) {
    return library.cubin(program, cubin);
}
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes) {
    return library.cubin_bytes(program, bytes);
}
nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log) {
    return library.program_log(program, log);
}
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes) {
    return library.program_log_bytes(program, bytes);
}
