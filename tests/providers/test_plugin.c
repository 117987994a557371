/* Providers from shared libraries: found, tried, loaded, and refused with the exact words. */
#include "common/files.h"
#include "providers/models/model.h"
#include "providers/registry.h"
#include "providers/tokenizer/tokenizer.h"
#include "tests/providers/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define MODEL "tests/golden/models/tied-gqa"

/* The plug-ins that this test knows by name may be tried. */
static const char all_of_them[] =
    "good previous mine crash_loading crash_entry crash_rows hang hang_closed noisy bears exits other_abi "
    "small_struct null_function other_name no_symbol no_rows many_rows bad_level no_device silent_failure "
    "empty_success stops kills wide_rows exit_rows";

static char built[4096]; /* where the build has put the plug-ins */

/* A folder with these plug-ins becomes the plug-in folder. */
static const char *install(const char *const *names, size_t count) {
    const char *folder = scratch_folder();
    for (size_t i = 0; i < count; i++) {
        char from[4400], file[128], *data = NULL;
        size_t bytes = 0;
        struct mf_error error;
        snprintf(file, sizeof file, "libmodelforge-provider-%s.so", names[i]);
        snprintf(from, sizeof from, "%s/%s", built, file);
        if (mf_file_read(from, 64 << 20, &data, &bytes, &error) ||
            mf_file_write_atomic(scratch_path(file), data, bytes, 0644, &error))
            fail_msg("%s", error.message);
        free(data);
    }
    assert_int_equal(setenv("MODELFORGE_TRAINER_PROVIDERS_FOLDER", folder, 1), 0);
    return folder;
}

static const char *library(const char *name) {
    static char file[128];
    snprintf(file, sizeof file, "libmodelforge-provider-%s.so", name);
    return scratch_path(file);
}

static void loads_and_serves(const char *name) {
    const char *const none[] = {NULL};
    const struct mf_model_reference reference = {.size = sizeof reference, .model_id = MODEL};
    const struct mf_load_options options = {
        .size = sizeof options, .reference = &reference, .device_map = "auto", .provider_config = none};
    const struct mf_provider *provider, *again;
    struct mf_device device = {.size = sizeof device, .kind = MF_DEVICE_CPU};
    struct mf_tokenizer *tokenizer;
    struct mf_model *model;
    struct mf_error error;
    install(&name, 1);
    if (mf_provider_find(name, &provider, &error))
        fail_msg("%s", error.message);
    assert_string_equal(provider->get_provider_name(), name);
    assert_int_equal(mf_provider_find(name, &again, &error), MF_OK);
    assert_ptr_equal(provider, again);
    assert_int_equal(mf_provider_require(provider, &device, "llama", "text-generation", "sft", &error),
                     MF_OK);
    assert_int_equal(mf_provider_require(provider, &device, "llama", "text-generation", "qlora", &error),
                     MF_ERROR_PROVIDER_UNSUPPORTED);
    assert_int_equal(mf_provider_validate_model_access(provider, NULL, &reference, &error), MF_OK);
    assert_int_equal(mf_provider_load_model(provider, NULL, &options, &model, &error), MF_OK);
    assert_string_equal(mf_model_architecture(model)->model_type, "llama");
    mf_model_close(model);
    assert_int_equal(mf_provider_load_tokenizer(provider, NULL, &reference, &tokenizer, &error), MF_OK);
    mf_tokenizer_close(tokenizer);
    device.kind = MF_DEVICE_CUDA;
    assert_int_equal(mf_provider_require(provider, &device, "llama", "text-generation", "sft", &error),
                     MF_ERROR_PROVIDER_UNAVAILABLE);
}

static void a_plug_in_is_loaded_by_name(void **state) {
    (void)state;
    loads_and_serves("good");
}

/* Compiled with the frozen copy of the header. */
static void one_built_with_the_previous_header_loads(void **state) {
    (void)state;
    loads_and_serves("previous");
}

static const struct {
    const char *name, *reason;
} hostile[] = {
    {"crash_loading", " crashed while it was loaded: killed by signal 11 (Segmentation fault)"},
    {"crash_entry", " crashed while it was loaded: killed by signal 6 (Aborted)"},
    {"crash_rows", " crashed while it was loaded: killed by signal 6 (Aborted)"},
    {"hang", " was not loaded within 1 s"},
    {"hang_closed", " was not loaded within 1 s"},
    {"noisy", " was not loaded within 1 s"},
    {"bears", " was not loaded within 1 s"},
    {"stops", " was not loaded within 1 s"},
    {"kills", " crashed while it was loaded: killed by signal 9 (Killed)"},
    {"wide_rows", " crashed while it was loaded: killed by signal 11 (Segmentation fault)"},
    {"exit_rows", " ended the process while it was loaded: exit code 0"},
    {"exits", " ended the process while it was loaded: exit code 0"},
    {"other_abi", " has version 7 of the provider ABI, this program version 1: rebuild it"},
    {"small_struct", " offers a struct mf_provider of 12 bytes, fewer than the 48 of the ABI"},
    {"null_function", " lacks a function of struct mf_provider"},
    {"other_name", " calls itself 'another', not 'other_name' as its file does"},
    {"no_symbol", " exports no symbol mf_provider_entry"},
    {"no_rows",
     ": its table of capabilities has 0 rows of 40 bytes; 1 to 4096 rows of at least 40 bytes are allowed"},
    {"many_rows",
     ": its table of capabilities has 1152921504606846976 rows of 40 bytes; 1 to 4096 rows of at "
     "least 40 bytes are allowed"},
    {"bad_level", ": row 2 of its capabilities lacks a text, is not UTF-8, or has a level that there is not"},
};

static void expect(const char *name, enum mf_status status, const char *wanted) {
    const struct mf_provider *provider;
    struct mf_error error = {0};
    const enum mf_status got = mf_provider_find(name, &provider, &error);
    if (got != status || strcmp(error.message, wanted) != 0)
        fail_msg("expected %s '%s', got %s '%s'", mf_status_code(status), wanted, mf_status_code(got),
                 error.message);
    assert_null(provider);
}

static void hostile_ones_are_refused_by_reason(void **state) {
    (void)state;
    assert_int_equal(setenv("MODELFORGE_TRAINER_PROVIDER_SECONDS", "1", 1), 0);
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        char wanted[1024];
        install(&hostile[i].name, 1);
        snprintf(wanted, sizeof wanted,
                 "provider '%s' cannot be used: %s%s. Valid providers: huggingface, unsloth", hostile[i].name,
                 library(hostile[i].name), hostile[i].reason);
        expect(hostile[i].name, MF_ERROR_PROVIDER_UNAVAILABLE, wanted);
        assert_int_equal(unlink(library(hostile[i].name)), 0);
    }
}

/* Whoever may write the file, or a folder above it, may run code here. */
static void files_of_others_are_refused(void **state) {
    static const char *const name[] = {"mine"};
    char wanted[1024], *real;
    (void)state;
    install(name, 1);
    const char *path = library("mine");
    static const struct {
        mode_t file, folder;
        const char *who;
    } modes[] = {{0664, 0700, "its group"}, {0646, 0700, "everybody"}, {0644, 0770, "its group"}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        const bool file = modes[i].file != 0644;
        assert_int_equal(chmod(path, modes[i].file), 0);
        assert_int_equal(chmod(scratch_folder(), modes[i].folder), 0);
        snprintf(wanted, sizeof wanted,
                 "provider 'mine' cannot be used: %s may be written by %s (mode %04o): chmod go-w it. Valid "
                 "providers: huggingface, unsloth",
                 file ? path : scratch_folder(), modes[i].who,
                 (unsigned)(file ? modes[i].file : modes[i].folder));
        expect("mine", MF_ERROR_PROVIDER_UNAVAILABLE, wanted);
        path = library("mine");
    }
    assert_int_equal(chmod(scratch_folder(), 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, 12345), 0);
        snprintf(
            wanted, sizeof wanted,
            "provider 'mine' cannot be used: %s belongs to uid 12345, neither to root nor to the user of "
            "this program (uid 0): chown it. Valid providers: huggingface, unsloth",
            path);
        expect("mine", MF_ERROR_PROVIDER_UNAVAILABLE, wanted);
    }
    /* A link counts as what it leads to. */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc", path), 0);
    real = realpath(path, NULL);
    snprintf(
        wanted, sizeof wanted,
        "provider 'mine' cannot be used: %s is not a regular file. Valid providers: huggingface, unsloth",
        real);
    free(real);
    expect("mine", MF_ERROR_PROVIDER_UNAVAILABLE, wanted);
    /* No library at all. The loader's own words follow. */
    assert_int_equal(unlink(library("mine")), 0);
    scratch_puts("libmodelforge-provider-mine.so", "not a library");
    const struct mf_provider *provider;
    struct mf_error error;
    assert_int_equal(mf_provider_find("mine", &provider, &error), MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_non_null(strstr(error.message, "libmodelforge-provider-mine.so cannot be loaded: "));
    assert_non_null(strstr(error.message, "Valid providers: huggingface, unsloth"));
}

/* Nothing of it runs before it is named. */
static void only_trusted_ones_are_tried(void **state) {
    static const char *const names[] = {"hang", "mine"};
    char wanted[1024];
    (void)state;
    install(names, 2);
    assert_int_equal(setenv("MODELFORGE_TRAINER_PROVIDERS_TRUSTED", "gguf, good", 1), 0);
    snprintf(
        wanted, sizeof wanted,
        "provider 'hang' cannot be used: %s is not tried: a shared library runs as the user of this "
        "program; name 'hang' in providers.trusted (MODELFORGE_TRAINER_PROVIDERS_TRUSTED) if it may. Valid "
        "providers: huggingface, unsloth",
        library("hang"));
    expect("hang", MF_ERROR_PROVIDER_UNAVAILABLE, wanted);
    assert_int_equal(setenv("MODELFORGE_TRAINER_PROVIDERS_TRUSTED", all_of_them, 1), 0);
}

/* What a name may not do: leave the folder. */
static void names_are_no_paths(void **state) {
    static const char *const names[] = {
        "../evil", "a/b", "", ".", "..", "Good", "good.so", "a b", "x23456789012345678901234567890123"};
    static const char *const good[] = {"good"};
    (void)state;
    install(good, 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char wanted[256];
        snprintf(wanted, sizeof wanted, "Unknown provider '%s'. Valid providers: huggingface, unsloth, good",
                 names[i]);
        expect(names[i], MF_ERROR_UNKNOWN_PROVIDER, wanted);
    }
}

/* One that runs on no device here is there, and says what is missing. */
static void the_list_says_what_is_there(void **state) {
    static const char *const names[] = {"good", "no_device", "other_abi", "exits"};
    struct mf_provider_listing *list;
    struct mf_error error;
    size_t count;
    (void)state;
    install(names, sizeof names / sizeof *names);
    scratch_puts("libmodelforge-provider-huggingface.so", "in the shade of the built-in one");
    scratch_puts("libmodelforge-provider-Bad.so", "no name of a provider");
    scratch_puts("notes.txt", "no plug-in");
    assert_int_equal(mf_provider_list(&list, &count, &error), MF_OK);
    assert_int_equal(count, 6);
    assert_string_equal(list[0].name, "huggingface");
    assert_string_equal(list[1].name, "unsloth");
    assert_string_equal(list[2].name, "exits");
    assert_string_equal(list[3].name, "good");
    assert_string_equal(list[4].name, "no_device");
    assert_string_equal(list[5].name, "other_abi");
    assert_non_null(list[0].devices);
    assert_null(list[2].devices);
    assert_int_equal(list[2].error.status, MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_null(list[5].devices);
    const json_t *cpu = json_object_get(list[4].devices, "cpu");
    assert_string_equal(json_string_value(json_object_get(cpu, "reason")),
                        "libtest is not installed: apt-get install libtest");
    assert_true(json_is_true(json_object_get(json_object_get(list[3].devices, "cpu"), "available")));
    mf_provider_list_free(list, count);
}

static void functions_that_lie_are_told(void **state) {
    static const char *const names[] = {"silent_failure", "empty_success"};
    const struct mf_model_reference reference = {.size = sizeof reference, .model_id = MODEL};
    const struct mf_load_options options = {.size = sizeof options, .reference = &reference};
    const struct mf_provider *provider;
    struct mf_model *model;
    struct mf_error error;
    (void)state;
    install(names, 2);
    assert_int_equal(mf_provider_find("silent_failure", &provider, &error), MF_OK);
    assert_int_equal(mf_provider_validate_model_access(provider, NULL, &reference, &error),
                     MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_string_equal(error.message, "provider 'silent_failure' breaks the ABI: validate_model_access "
                                       "returned 77 and did not say why");
    assert_int_equal(mf_provider_find("empty_success", &provider, &error), MF_OK);
    assert_int_equal(mf_provider_load_model(provider, NULL, &options, &model, &error),
                     MF_ERROR_PROVIDER_UNAVAILABLE);
    assert_string_equal(error.message,
                        "provider 'empty_success' breaks the ABI: load_model succeeded without a result");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_make, scratch_remove)

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        TEST(a_plug_in_is_loaded_by_name),        TEST(one_built_with_the_previous_header_loads),
        TEST(hostile_ones_are_refused_by_reason), TEST(files_of_others_are_refused),
        TEST(only_trusted_ones_are_tried),        TEST(names_are_no_paths),
        TEST(the_list_says_what_is_there),        TEST(functions_that_lie_are_told),
    };
    (void)argc;
    if (setenv("MODELFORGE_TRAINER_PROVIDERS_TRUSTED", all_of_them, 1))
        return 1;
    char *slash = strrchr(argv[0], '/');
    snprintf(built, sizeof built, "%.*s/plugins", slash ? (int)(slash - argv[0]) : 1, slash ? argv[0] : ".");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
