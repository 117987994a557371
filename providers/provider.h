/* The provider ABI: how a provider of models reaches modelforge and how modelforge reaches it.
 *
 * A provider turns what a request names (model, quantisation, device) into a model and a tokenizer;
 * strategies do not know who made them. It is a shared library `libmodelforge-provider-NAME.so` with one
 * exported symbol, `mf_provider_entry`. Built-in providers have the same entry under names of their own and
 * use the same host table, nothing else of the host.
 *
 * This header needs nothing else of modelforge: it is all that a provider is compiled with, in C11 or C++.
 *
 * Rules of the ABI, so that both sides may be of different versions:
 *  - A struct begins with its `size` and grows only at its end. Who reads a struct that the other side made
 *    looks at the size before it reads a member that came later: a plug-in returns NULL from its entry when
 *    host->size is less than what it needs; the host never reads beyond provider->size.
 *  - Values of enums are fixed for ever. Integers and pointers only; no enum, bool or struct lies in a
 * struct.
 *  - A function returns MF_PROVIDER_OK, or a failure that host->fail() or another host function returned.
 * Codes of failures are the strings of modelforge's error table ("model_not_found", "out_of_memory", ...).
 *  - Strings are UTF-8, end with NUL and are borrowed for the call, unless said otherwise.
 *  - Handles are the host's: each has a function of the host table that destroys it. NULL is fine there.
 *  - All calls come from one thread; the host's `cancelled` and `log` may be called from any.
 *  - A plug-in is never unloaded. It is first tried in a process of its own, with standard output and error
 *    closed and a time limit: what is done while it is loaded happens twice. */
#ifndef MODELFORGE_PROVIDER_H
#define MODELFORGE_PROVIDER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MF_PROVIDER_ABI = 1, MF_PROVIDER_NAME_BYTES = 33 };

enum { MF_PROVIDER_OK = 0 };

struct mf_error;            /* the host's; a provider fills it with host->fail() */
struct mf_model;            /* the host's */
struct mf_tokenizer;        /* the host's */
struct mf_provider_context; /* the host's, of one job; a provider only hands it back */

/* ---- devices and what can be done on them ---- */

enum mf_device_kind { MF_DEVICE_CPU = 0, MF_DEVICE_CUDA = 1 };

struct mf_device {
    uint32_t size;
    uint32_t kind; /* enum mf_device_kind */
};

enum mf_capability_level {
    MF_CAPABILITY_UNSUPPORTED = 0,
    MF_CAPABILITY_EXPERIMENTAL = 1,
    MF_CAPABILITY_LIMITED = 2,
    MF_CAPABILITY_SUPPORTED = 3
};

/* One row; "*" matches every name. The first row that matches counts; none: unsupported. */
struct mf_capability {
    uint32_t size;
    uint32_t level;                             /* enum mf_capability_level */
    const char *architecture, *task, *strategy; /* "llama" (a model_type), "text-generation", "sft" */
    const char *reason;                         /* why, in a sentence without a full stop; never NULL */
};

/* Rows live as long as the process. `stride` is the provider's sizeof(struct mf_capability). */
struct mf_capabilities {
    uint32_t size;
    uint32_t stride;
    const struct mf_capability *row;
    uint64_t count;
};

/* ---- what a request asks for ---- */

struct mf_model_reference {
    uint32_t size;
    uint32_t reserved;    /* 0 */
    const char *model_id; /* a folder or file of this machine; to validate_model_access also the id of a model
                             on a hub: "organisation/name" or "hf://organisation/name@revision" */
    const char *revision; /* of a hub's model: branch, tag or commit; NULL: the default */
};

enum mf_model_class { MF_MODEL_CAUSAL_LM = 0 };

/* What numbers are kept or computed in. */
enum mf_number { MF_NUMBER_F32 = 0, MF_NUMBER_BF16 = 1, MF_NUMBER_F16 = 2 };

/* Of the weights of linear modules but the head. */
enum mf_weight_bits { MF_WEIGHTS_PLAIN = 0, MF_WEIGHTS_NF4 = 1, MF_WEIGHTS_FP4 = 2, MF_WEIGHTS_INT8 = 3 };

struct mf_load_options {
    uint32_t size;
    uint32_t model_class;   /* enum mf_model_class */
    uint32_t quantization;  /* enum mf_weight_bits */
    uint32_t nested;        /* 1: the scales of 4-bit weights are quantised too */
    uint32_t compute_dtype; /* enum mf_number, F32 or BF16: of weights and activations */
    uint32_t fuse; /* to open_model(): 1: projections of the same activations are one product; else 0 */
    const struct mf_model_reference *reference; /* of a folder or file of this machine */
    const char *device_map;                     /* "auto", "cpu" or "cuda:N"; never NULL */
    /* The request's settings for this provider: pairs of name and value, then NULL. Never NULL itself. A
     * setting that the provider does not know is to be refused ("invalid_field"): none is ignored. */
    const char *const *provider_config;
};

/* ---- weights read and folders made ---- */

struct mf_weights; /* the host's; closed with close_weights() */

enum { MF_WEIGHT_RANK = 4 };

/* One tensor as it is stored, row-major: dim[rank - 1] is contiguous. `name` and `type` ("F32", "BF16",
 * "Q4_K",
 * ...) live as long as the struct mf_weights. */
struct mf_weight {
    uint32_t size, rank;
    int64_t dim[MF_WEIGHT_RANK];
    const char *name, *type;
};

/* A file of a folder to be made: "tokenizer.json" and the like; no '/' in its name. */
struct mf_folder_file {
    uint32_t size, reserved;
    const char *name;
    const void *data;
    uint64_t bytes;
};

/* A weight of a folder to be made, by its Hugging Face name. */
struct mf_folder_weight {
    uint32_t size, rank;
    uint32_t dtype; /* enum mf_number: what it is written in */
    uint32_t reserved;
    int64_t dim[MF_WEIGHT_RANK];
    const char *name;
};

/* A model folder in Hugging Face layout. The strides are the provider's sizes of the two structs above. */
struct mf_folder_source {
    uint32_t size, file_stride, weight_stride, reserved;
    const char *copy_from; /* a model folder: its config.json, generation_config.json and tokenizer are copied
                              first; NULL: none is */
    const struct mf_folder_file *file;
    uint64_t files;
    const struct mf_folder_weight *weight;
    uint64_t weights;
    /* Fills `value` with elements first .. first + count - 1 of weight `index`: whole rows, in order. */
    int (*read)(void *state, uint64_t index, int64_t first, int64_t count, float *value,
                struct mf_error *error);
    void *state; /* the provider's */
};

/* ---- what the host offers; valid for the life of the process ---- */

struct mf_host_api {
    uint32_t size, abi_version;
    /* Fills *error with a code of the error table and a message that says what was wrong, where, and what to
     * do; returns what the provider's function is to return. A code that the host does not know is
     * taken for "provider_unavailable". */
    int (*fail)(struct mf_error *error, const char *code, const char *format, ...)
#if defined(__GNUC__)
        __attribute__((format(printf, 3, 4)))
#endif
        ;
    /* A line of the job's log. */
    void (*log)(struct mf_provider_context *context, const char *message);
    /* 1: the job is to end; return fail(error, "cancelled", ...) soon. */
    int (*cancelled)(struct mf_provider_context *context);
    /* Memory for the provider's own use; NULL when there is none. allocate(0) is not NULL. */
    void *(*allocate)(size_t bytes);
    void (*release)(void *memory);
    /* A Hugging Face folder or hub id: is everything there, and may it be read? Downloads nothing. */
    int (*check_model)(struct mf_provider_context *context, const struct mf_model_reference *reference,
                       struct mf_error *error);
    /* The model and the tokenizer of a Hugging Face folder. */
    int (*open_model)(struct mf_provider_context *context, const struct mf_load_options *options,
                      struct mf_model **out, struct mf_error *error);
    int (*open_tokenizer)(struct mf_provider_context *context, const struct mf_model_reference *reference,
                          struct mf_tokenizer **out, struct mf_error *error);
    void (*close_model)(struct mf_model *model);
    void (*close_tokenizer)(struct mf_tokenizer *tokenizer);

    /* ---- came later: look with MF_HOST_HAS(), or return NULL from the entry when host->size is less ---- */

    /* The weights of a GGUF file, of a safetensors file, or of a folder with safetensors; they stay on disk.
     */
    int (*open_weights)(struct mf_provider_context *context, const char *path, struct mf_weights **out,
                        struct mf_error *error);
    void (*close_weights)(struct mf_weights *weights);
    uint64_t (*weight_count)(const struct mf_weights *weights);
    /* Fills *out as far as out->size reaches. index < weight_count(). */
    void (*weight_at)(const struct mf_weights *weights, uint64_t index, struct mf_weight *out);
    /* The index of a name; -1: there is none. */
    int64_t (*find_weight)(const struct mf_weights *weights, const char *name);
    /* Elements first .. first + count - 1 as f32, dequantised; whole rows can always be read. */
    int (*read_weight)(const struct mf_weights *weights, uint64_t index, int64_t first, int64_t count,
                       float *value, struct mf_error *error);
    /* Metadata by key; 1: it is there and a text (a number). The text does not end with NUL. */
    int (*metadata_text)(const struct mf_weights *weights, const char *key, const char **text,
                         uint64_t *bytes);
    int (*metadata_number)(const struct mf_weights *weights, const char *key, double *value);

    /* Writes a model folder for this job and gives its path, to be opened with open_model() and
     * open_tokenizer(). It is removed when the job is over; *path lives as long. */
    int (*make_folder)(struct mf_provider_context *context, const struct mf_folder_source *source,
                       const char **path, struct mf_error *error);
    /* Is it a whole GGUF file of a family that modelforge reads? Says what stands against it. */
    int (*check_gguf)(struct mf_provider_context *context, const char *file, struct mf_error *error);
    /* A model folder, as make_folder()'s, of such a file, its values in `dtype` (enum mf_number, F32
     * or BF16). Asked again for a file in one job it gives the same folder. */
    int (*make_folder_of_gguf)(struct mf_provider_context *context, const char *file, uint32_t dtype,
                               const char **path, struct mf_error *error);
};

/* Does this host have a member that came after the first version of the table? */
#define MF_HOST_HAS(host, member) \
    ((host)->size >= offsetof(struct mf_host_api, member) + sizeof((host)->member))

/* ---- what a provider offers; valid for the life of the process ---- */

struct mf_provider {
    uint32_t size, abi_version;
    /* [a-z0-9_-]{1,32}; of a plug-in the NAME in its file's name. */
    const char *(*get_provider_name)(void);
    /* Fills stride, row and count. Fails with "provider_unavailable" where the provider cannot run on such a
     * device or on this machine: the message says what is missing and what to do. */
    int (*capabilities)(const struct mf_device *device, struct mf_capabilities *out, struct mf_error *error);
    /* Before anything is loaded or downloaded: can this model be used? */
    int (*validate_model_access)(struct mf_provider_context *context,
                                 const struct mf_model_reference *reference, struct mf_error *error);
    /* *out is closed by the host. */
    int (*load_model)(struct mf_provider_context *context, const struct mf_load_options *options,
                      struct mf_model **out, struct mf_error *error);
    /* *out is closed by the host. */
    int (*load_tokenizer)(struct mf_provider_context *context, const struct mf_model_reference *reference,
                          struct mf_tokenizer **out, struct mf_error *error);
};

/* The entry. NULL when the provider cannot work with this host: another host_abi, or too small a table. */
typedef const struct mf_provider *mf_provider_entry_function(uint32_t host_abi,
                                                             const struct mf_host_api *host);

/* Defined by a plug-in, and exported whatever else it hides. */
#if defined(__GNUC__)
#    define MF_PROVIDER_EXPORT __attribute__((visibility("default")))
#else
#    define MF_PROVIDER_EXPORT
#endif
MF_PROVIDER_EXPORT extern mf_provider_entry_function mf_provider_entry;

#ifdef __cplusplus
}
#endif

#endif
