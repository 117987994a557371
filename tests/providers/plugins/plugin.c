/* Plug-ins for tests/providers/test_plugin.c: one that works, and one for each way to do harm, by the macro
 * CASE. Compiled with the header that MF_TEST_PROVIDER_HEADER names. */
#include MF_TEST_PROVIDER_HEADER

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define GOOD           0
#define CRASH_LOADING  1 /* before the entry is called */
#define CRASH_ENTRY    2
#define HANG           3
#define HANG_CLOSED    4 /* after it closed all its descriptors */
#define EXITS          5
#define OTHER_ABI      6
#define SMALL_STRUCT   7
#define NULL_FUNCTION  8
#define OTHER_NAME     9
#define NO_SYMBOL      10
#define REFUSES        11
#define NO_ROWS        12
#define BAD_LEVEL      13
#define NO_DEVICE      14
#define SILENT_FAILURE 15
#define EMPTY_SUCCESS  16
#define CRASH_ROWS     17
#define NOISY          18 /* endless output, on everything that is open */
#define MANY_ROWS      19
#define BEARS          20 /* leaves a process behind */
#define CRASH_MODEL    21 /* behaves until it is to load a model */
#define BAD_TEXT       22 /* says what is no UTF-8, and a code that there is not */
#define STOPS          23 /* stops its process while it is loaded */
#define KILLS          24 /* kills it */
#define WIDE_ROWS      25 /* a garbage size of its rows */
#define EXIT_ROWS      26 /* ends the process when it is asked */

static const struct mf_host_api *host;

#if CASE == CRASH_LOADING
__attribute__((constructor)) static void at_load(void) {
    raise(SIGSEGV);
}
#elif CASE == STOPS || CASE == KILLS
__attribute__((constructor)) static void at_load(void) {
    raise(CASE == STOPS ? SIGSTOP : SIGKILL);
}
#elif CASE == HANG || CASE == HANG_CLOSED || CASE == NOISY
__attribute__((constructor)) static void at_load(void) {
    for (int i = 0; CASE == HANG_CLOSED && i < 64; i++)
        close(i);
    for (;;)
        for (int i = 1; CASE == NOISY && i < 64; i++)
            (void)!write(i, "a loud plug-in\n", 15);
}
#elif CASE == EXITS
__attribute__((constructor)) static void at_load(void) {
    exit(0);
}
#elif CASE == BEARS
__attribute__((constructor)) static void at_load(void) {
    if (fork() == 0)
        for (;;)
            pause();
}
#endif

static const char *get_provider_name(void) {
    return CASE == OTHER_NAME ? "another" : MF_TEST_NAME;
}

static int capabilities(const struct mf_device *device, struct mf_capabilities *out, struct mf_error *error) {
    static const struct mf_capability rows[] = {
        {sizeof rows[0], MF_CAPABILITY_LIMITED, "llama", "text-generation", "sft", "as a test needs it"},
        {sizeof rows[0], CASE == BAD_LEVEL ? 9 : MF_CAPABILITY_UNSUPPORTED, "*", "*", "*", "this is a test"}};
    if (CASE == NO_DEVICE)
        return host->fail(error, "provider_unavailable", "libtest is not installed: apt-get install libtest");
    if (CASE == CRASH_ROWS)
        abort();
    if (CASE == EXIT_ROWS)
        exit(0);
    if (device->kind == MF_DEVICE_CUDA)
        return host->fail(error, "provider_unavailable", MF_TEST_NAME ": computes on CPUs only");
    out->stride = CASE == WIDE_ROWS ? 0xfffffff8U : sizeof rows[0];
    out->row = CASE == NO_ROWS ? NULL : rows;
    out->count = CASE == MANY_ROWS ? (uint64_t)1 << 60 : 2;
    return MF_PROVIDER_OK;
}

static int validate_model_access(struct mf_provider_context *context,
                                 const struct mf_model_reference *reference, struct mf_error *error) {
    if (CASE == BAD_TEXT)
        return host->fail(error, "no_such_code", "the model \xff\xfe is %s", "b\xc3(d");
    return CASE == SILENT_FAILURE ? 77 : host->check_model(context, reference, error);
}

static int load_model(struct mf_provider_context *context, const struct mf_load_options *options,
                      struct mf_model **out, struct mf_error *error) {
    if (CASE == CRASH_MODEL)
        abort();
    return CASE == EMPTY_SUCCESS ? MF_PROVIDER_OK : host->open_model(context, options, out, error);
}

static int load_tokenizer(struct mf_provider_context *context, const struct mf_model_reference *reference,
                          struct mf_tokenizer **out, struct mf_error *error) {
    return host->open_tokenizer(context, reference, out, error);
}

static const struct mf_provider provider = {
    .size = CASE == SMALL_STRUCT ? 12 : sizeof provider,
    .abi_version = CASE == OTHER_ABI ? 7 : MF_PROVIDER_ABI,
    .get_provider_name = get_provider_name,
    .capabilities = capabilities,
    .validate_model_access = CASE == NULL_FUNCTION ? NULL : validate_model_access,
    .load_model = load_model,
    .load_tokenizer = load_tokenizer,
};

#if CASE == NO_SYMBOL
#    define mf_provider_entry mf_provider_entri
MF_PROVIDER_EXPORT mf_provider_entry_function mf_provider_entri;
#endif
const struct mf_provider *mf_provider_entry(uint32_t host_abi, const struct mf_host_api *host_api) {
    if (CASE == CRASH_ENTRY)
        abort();
    if (CASE == REFUSES || host_abi != MF_PROVIDER_ABI || host_api->size < sizeof *host_api)
        return NULL;
    host = host_api;
    return &provider;
}
