#include "kernels/cuda/gemm.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CACHED = 1024, ALIGNMENT = 16 };

/* The functions of cuBLASLt that are used, by their own names. */
struct library {
    void *handle;
    __typeof__(cublasLtCreate) *create;
    __typeof__(cublasLtDestroy) *destroy;
    __typeof__(cublasLtGetVersion) *version;
    __typeof__(cublasLtGetStatusString) *status_string;
    __typeof__(cublasLtMatmulDescCreate) *description_create;
    __typeof__(cublasLtMatmulDescDestroy) *description_destroy;
    __typeof__(cublasLtMatmulDescSetAttribute) *description_set;
    __typeof__(cublasLtMatrixLayoutCreate) *layout_create;
    __typeof__(cublasLtMatrixLayoutDestroy) *layout_destroy;
    __typeof__(cublasLtMatrixLayoutSetAttribute) *layout_set;
    __typeof__(cublasLtMatmulPreferenceCreate) *preference_create;
    __typeof__(cublasLtMatmulPreferenceDestroy) *preference_destroy;
    __typeof__(cublasLtMatmulPreferenceSetAttribute) *preference_set;
    __typeof__(cublasLtMatmulAlgoGetHeuristic) *heuristic;
    __typeof__(cublasLtMatmul) *matmul;
};

/* Tokens are counted in steps of this when an algorithm is chosen: every batch has another number, and the
 * heuristics take longer than a small product. */
enum { TOKENS_ALIKE = 128 };

/* All that an algorithm is chosen by. No padding: 8-byte fields first. */
struct shape {
    int64_t M, N, K, a_row, b_row, c_row, c0_row;
    uint32_t a_alignment, b_alignment, c_alignment, c0_alignment;
    uint8_t dtype, c_dtype, a_transposed, b_transposed, bias, accumulate, exact, unused;
};

struct choice {
    struct shape shape;
    cublasLtMatmulDesc_t description;
    cublasLtMatrixLayout_t a, b, c0, c; /* as cuBLASLt sees them: by columns, so that its first is our B */
    cublasLtMatmulAlgo_t algorithm;
    bool used, found;
};

struct mf_cuda_gemm {
    struct library library;
    cublasLtHandle_t handle;
    struct choice choice[CACHED]; /* by hash, open addressing; the last that no longer fits is made anew */
    int choices;
};

static enum mf_status check(const struct mf_cuda_gemm *gemm, cublasStatus_t code, const char *what,
                            struct mf_error *error) {
    if (code == CUBLAS_STATUS_ALLOC_FAILED)
        return mf_cuda_check(cudaErrorMemoryAllocation, what, error);
    return code == CUBLAS_STATUS_SUCCESS ? MF_OK
                                         : mf_error_set(error, MF_ERROR_DEVICE, "cuBLASLt: %s: %s", what,
                                                        gemm->library.status_string(code));
}

/* ---- the library
 * --------------------------------------------------------------------------------------------- */

static enum mf_status open_library(struct library *library, struct mf_error *error) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    const struct {
        void *function; /* where the pointer goes */
        const char *name;
    } wanted[] = {{&library->create, "cublasLtCreate"},
                  {&library->destroy, "cublasLtDestroy"},
                  {&library->version, "cublasLtGetVersion"},
                  {&library->status_string, "cublasLtGetStatusString"},
                  {&library->description_create, "cublasLtMatmulDescCreate"},
                  {&library->description_destroy, "cublasLtMatmulDescDestroy"},
                  {&library->description_set, "cublasLtMatmulDescSetAttribute"},
                  {&library->layout_create, "cublasLtMatrixLayoutCreate"},
                  {&library->layout_destroy, "cublasLtMatrixLayoutDestroy"},
                  {&library->layout_set, "cublasLtMatrixLayoutSetAttribute"},
                  {&library->preference_create, "cublasLtMatmulPreferenceCreate"},
                  {&library->preference_destroy, "cublasLtMatmulPreferenceDestroy"},
                  {&library->preference_set, "cublasLtMatmulPreferenceSetAttribute"},
                  {&library->heuristic, "cublasLtMatmulAlgoGetHeuristic"},
                  {&library->matmul, "cublasLtMatmul"}};
    /* Opaque structs of one major version are laid out alike: the one that was compiled for. */
    library->handle = dlopen(names[CUBLAS_VER_MAJOR == 12], RTLD_NOW | RTLD_LOCAL);
    if (!library->handle)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE,
                            "matrix products on a GPU need cuBLASLt: %s; put its folder into LD_LIBRARY_PATH",
                            dlerror());
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(library->handle, wanted[i].name);
        if (!found)
            return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "cuBLASLt has no function %s",
                                wanted[i].name);
        memcpy(wanted[i].function, &found, sizeof found);
    }
    return MF_OK;
}

enum mf_status mf_cuda_gemm_create(struct mf_cuda_gemm **result, char *library, size_t bytes,
                                   struct mf_error *error) {
    struct mf_cuda_gemm *gemm = calloc(1, sizeof *gemm);
    *result = gemm; /* destroyed by the caller, whatever comes */
    if (!gemm)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the CUDA backend");
    enum mf_status status = open_library(&gemm->library, error);
    if (status == MF_OK)
        status = check(gemm, gemm->library.create(&gemm->handle), "cublasLtCreate", error);
    if (status == MF_OK)
        (void)snprintf(library, bytes, "cublaslt %zu, cuda %d", gemm->library.version(), CUDART_VERSION);
    return status;
}

static void forget(struct mf_cuda_gemm *gemm, struct choice *choice) {
    const struct library *library = &gemm->library;
    const cublasLtMatrixLayout_t layouts[] = {choice->a, choice->b, choice->c0, choice->c};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i])
            (void)library->layout_destroy(layouts[i]);
    if (choice->description)
        (void)library->description_destroy(choice->description);
    memset(choice, 0, sizeof *choice);
}

void mf_cuda_gemm_destroy(struct mf_cuda_gemm *gemm) {
    if (!gemm)
        return;
    for (int i = 0; i < CACHED; i++)
        forget(gemm, &gemm->choice[i]);
    if (gemm->handle)
        (void)gemm->library.destroy(gemm->handle);
    if (gemm->library.handle)
        (void)dlclose(gemm->library.handle);
    free(gemm);
}

/* ---- choosing
 * ------------------------------------------------------------------------------------------------ */

/* Never more than ALIGNMENT: what lies better by chance of the memory plan must not choose another algorithm.
 */
static uint32_t alignment_of(const void *data, int64_t row, size_t width) {
    const uintptr_t both = (uintptr_t)data | (uintptr_t)((size_t)row * width) | ALIGNMENT;
    return (uint32_t)(both & -both);
}

static struct shape shape_of(const struct mf_cuda_product *p) {
    const size_t width = mf_dtype_bytes((enum mf_dtype)p->dtype);
    const size_t c_width = mf_dtype_bytes((enum mf_dtype)p->c_dtype);
    const struct shape shape = {.M = p->M,
                                .N = p->N,
                                .K = p->K,
                                .a_row = p->a_row,
                                .b_row = p->b_row,
                                .c_row = p->c_row,
                                .c0_row = p->c0 ? p->c0_row : p->c_row,
                                .a_alignment = alignment_of(p->a, p->a_row, width),
                                .b_alignment = alignment_of(p->b, p->b_row, width),
                                .c_alignment = alignment_of(p->c, p->c_row, c_width),
                                .c0_alignment = p->c0 ? alignment_of(p->c0, p->c0_row, c_width)
                                                      : alignment_of(p->c, p->c_row, c_width),
                                .dtype = p->dtype,
                                .c_dtype = p->c_dtype,
                                .a_transposed = p->a_transposed,
                                .b_transposed = p->b_transposed,
                                .bias = p->bias != NULL,
                                .accumulate = p->c0 != NULL};
    return shape;
}

/* The dimension that counts tokens: K of a weight's gradient, else M. */
static int64_t *tokens_of(struct shape *shape) {
    return shape->a_transposed ? &shape->K : &shape->M;
}

/* The shape that this one's algorithm is chosen for. */
static struct shape alike(struct shape shape) {
    int64_t *tokens = tokens_of(&shape);
    if (*tokens > TOKENS_ALIKE)
        *tokens = (*tokens + TOKENS_ALIKE - 1) / TOKENS_ALIKE * TOKENS_ALIKE;
    return shape;
}

static uint64_t hash(const struct shape *shape) {
    const unsigned char *byte = (const unsigned char *)shape;
    uint64_t value = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *shape; i++)
        value = (value ^ byte[i]) * 1099511628211u;
    return value;
}

static cudaDataType_t data_type(uint8_t dtype) {
    return dtype == MF_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* A row-major matrix of rows `row` elements apart is a column-major one of `columns` rows. */
static cublasStatus_t make_layout(const struct library *library, cublasLtMatrixLayout_t *layout,
                                  uint8_t dtype, int64_t rows, int64_t columns, int64_t row) {
    return library->layout_create(layout, data_type(dtype), (uint64_t)columns, (uint64_t)rows, row);
}

static cublasStatus_t describe(const struct library *library, struct choice *choice) {
    const struct shape *s = &choice->shape;
    const cublasOperation_t first = s->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = s->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t bias = data_type(s->c_dtype);
    cublasStatus_t code = library->description_create(&choice->description, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!code)
        code =
            library->description_set(choice->description, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
    if (!code)
        code = library->description_set(choice->description, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                        sizeof second);
    if (!code && s->bias)
        code = library->description_set(choice->description, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                        sizeof epilogue);
    if (!code && s->bias)
        code = library->description_set(choice->description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias,
                                        sizeof bias);
    if (!code)
        code = make_layout(library, &choice->b, s->dtype, s->b_transposed ? s->N : s->K,
                           s->b_transposed ? s->K : s->N, s->b_row);
    if (!code)
        code = make_layout(library, &choice->a, s->dtype, s->a_transposed ? s->K : s->M,
                           s->a_transposed ? s->M : s->K, s->a_row);
    if (!code)
        code = make_layout(library, &choice->c0, s->c_dtype, s->M, s->N, s->c0_row);
    if (!code)
        code = make_layout(library, &choice->c, s->c_dtype, s->M, s->N, s->c_row);
    return code;
}

static cublasStatus_t prefer(const struct library *library, const struct shape *s,
                             cublasLtMatmulPreference_t preference) {
    const size_t workspace = MF_CUDA_GEMM_WORKSPACE - 256;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* in workspace, in a fixed order */
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } set[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
               {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &s->b_alignment, sizeof s->b_alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &s->a_alignment, sizeof s->a_alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &s->c0_alignment, sizeof s->c0_alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s->c_alignment, sizeof s->c_alignment}};
    cublasStatus_t code = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof set / sizeof *set && !code; i++)
        code = library->preference_set(preference, set[i].attribute, set[i].value, set[i].bytes);
    return code;
}

/* Fills a choice for `shape`; not found: the heuristics name no algorithm. */
static enum mf_status choose(struct mf_cuda_gemm *gemm, const struct shape *shape, struct choice *choice,
                             struct mf_error *error) {
    const struct library *library = &gemm->library;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int results = 0;
    *choice = (struct choice){.shape = *shape, .used = true};
    cublasStatus_t code = describe(library, choice);
    if (!code)
        code = library->preference_create(&preference);
    if (!code)
        code = prefer(library, shape, preference);
    if (!code) {
        code = library->heuristic(gemm->handle, choice->description, choice->b, choice->a, choice->c0,
                                  choice->c, preference, 1, &result, &results);
        choice->found = !code && results == 1 && result.state == CUBLAS_STATUS_SUCCESS;
        if (choice->found)
            choice->algorithm = result.algo;
        else if (code == CUBLAS_STATUS_NOT_SUPPORTED || code == CUBLAS_STATUS_INVALID_VALUE)
            code = CUBLAS_STATUS_SUCCESS; /* ours multiplies it */
    }
    if (preference)
        (void)library->preference_destroy(preference);
    const enum mf_status status = check(gemm, code, "choosing an algorithm", error);
    if (status != MF_OK)
        forget(gemm, choice);
    return status;
}

static enum mf_status find(struct mf_cuda_gemm *gemm, const struct shape *shape, struct choice **found,
                           struct mf_error *error) {
    size_t at = hash(shape) % CACHED;
    while (gemm->choice[at].used && memcmp(&gemm->choice[at].shape, shape, sizeof *shape) != 0)
        at = (at + 1) % CACHED;
    *found = &gemm->choice[at];
    if (gemm->choice[at].used)
        return MF_OK;
    if (gemm->choices == CACHED / 2) { /* many sizes came by: begin again, the same choices come back */
        for (int i = 0; i < CACHED; i++)
            forget(gemm, &gemm->choice[i]);
        gemm->choices = 0;
        *found = &gemm->choice[hash(shape) % CACHED];
    }
    gemm->choices++;
    return choose(gemm, shape, *found, error);
}

/* The layouts of what has a row a token, for this many. */
static cublasStatus_t set_tokens(const struct library *library, struct choice *choice, int64_t tokens) {
    const bool gradient = choice->shape.a_transposed;
    cublasLtMatrixLayout_t layouts[] = {choice->a, gradient ? choice->b : choice->c,
                                        gradient ? NULL : choice->c0};
    const uint64_t count = (uint64_t)tokens;
    cublasStatus_t code = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts && !code; i++)
        if (layouts[i])
            code = library->layout_set(layouts[i], CUBLASLT_MATRIX_LAYOUT_COLS, &count, sizeof count);
    return code;
}

/* Multiplies by the algorithm of `shape`; *fits false: it has none for this product. */
static enum mf_status multiply(const struct mf_cuda_backend *backend, const struct mf_cuda_product *p,
                               const struct shape *shape, bool *fits, struct mf_error *error) {
    struct mf_cuda_gemm *gemm = backend->gemm;
    const struct library *library = &gemm->library;
    const float beta = p->c0 ? 1 : 0;
    struct choice *choice;
    const enum mf_status status = find(gemm, shape, &choice, error);
    *fits = status == MF_OK && choice->found;
    if (!*fits)
        return status;
    cublasStatus_t code = set_tokens(library, choice, p->a_transposed ? p->K : p->M);
    if (!code && p->bias)
        code = library->description_set(choice->description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias,
                                        sizeof p->bias);
    void *workspace = (void *)(((uintptr_t)p->workspace + 255) / 256 * 256);
    if (!code)
        code = library->matmul(gemm->handle, choice->description, &p->alpha, p->b, choice->b, p->a, choice->a,
                               &beta, p->c0 ? p->c0 : p->c, choice->c0, p->c, choice->c, &choice->algorithm,
                               workspace, MF_CUDA_GEMM_WORKSPACE - 256, backend->stream);
    *fits = code != CUBLAS_STATUS_NOT_SUPPORTED && code != CUBLAS_STATUS_INVALID_VALUE;
    return *fits ? check(gemm, code, "a matrix product", error) : MF_OK;
}

enum mf_status mf_cuda_gemm_run(const struct mf_cuda_backend *backend, const struct mf_cuda_product *p,
                                struct mf_error *error) {
    struct shape exact = shape_of(p);
    const struct shape rounded = alike(exact);
    bool fits = false;
    if (p->M == 0 || p->N == 0)
        return MF_OK;
    if (p->K == 0)
        return mf_cuda_plain_product(backend, p, error);
    enum mf_status status = multiply(backend, p, &rounded, &fits, error);
    exact.exact = 1;
    if (status == MF_OK && !fits)
        status = multiply(backend, p, &exact, &fits, error);
    return status == MF_OK && !fits ? mf_cuda_plain_product(backend, p, error) : status;
}
