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
struct mf_program_builder;  /* the host's, of one call of a function that builds nodes of a program */
struct mf_graph_api;        /* below: programs and ops */

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
                             on a hub: "organisation/name", "hf://organisation/name@revision", or of a file
                             there: "hf://organisation/name/FILE.gguf@revision" */
    const char *revision; /* of a hub's model: branch, tag or commit; NULL: the default */
};

enum mf_model_class { MF_MODEL_CAUSAL_LM = 0 };

/* What numbers are kept or computed in; I32: tokens, positions. */
enum mf_number { MF_NUMBER_F32 = 0, MF_NUMBER_BF16 = 1, MF_NUMBER_F16 = 2, MF_NUMBER_I32 = 3 };

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
    /* Is it a whole GGUF file of a family that modelforge reads? Says what stands against it. Of one on a
     * hub, "hf://organisation/name/FILE.gguf@revision": is it there, and may it be read? Downloads nothing.
     */
    int (*check_gguf)(struct mf_provider_context *context, const char *file, struct mf_error *error);
    /* A model folder, as make_folder()'s, of such a file, its values in `dtype` (enum mf_number, F32
     * or BF16). Asked again for a file in one job it gives the same folder. */
    int (*make_folder_of_gguf)(struct mf_provider_context *context, const char *file, uint32_t dtype,
                               const char **path, struct mf_error *error);

    /* Programs and ops of a provider's own: models whose forward pass the provider builds or changes. */
    const struct mf_graph_api *graph;

    /* A member of `folder`/config.json: "hidden_size", or "text_config.hidden_size" of an object within. 1:
     * it is there and a number (true, false: 1, 0); a text, whose first bytes - 1 bytes are copied with a NUL
     * after them. 0: it is not, and *value, or text, is as it was. */
    int (*config_number)(struct mf_provider_context *context, const char *folder, const char *key,
                         double *value);
    int (*config_text)(struct mf_provider_context *context, const char *folder, const char *key, char *text,
                       size_t bytes);
};

/* ---- programs and ops ----
 *
 * A program (training, evaluation, generation, ...) is a list of nodes: ops over tensors that are known by a
 * number. A provider may let the host build the forward pass that a config.json describes and change nodes of
 * it, or build it all, for a family that the host does not know; in either it may use ops that it registered,
 * with kernels of its own. Backward passes, adapters, the memory plan, checkpoints and exports are the
 * host's.
 *
 * The host may call these functions several times for a model, and once more to look at it: they build the
 * same nodes each time, and read nothing but their arguments and `state`.
 *
 * What such a function is given is good for its one call. Nodes are emitted in the order of the computation;
 * a tensor is a number >= 0. After the first failure every function of the builder does nothing and returns
 * MF_NO_TENSOR; the host says what it was: only other failures need to be returned. */

enum { MF_NO_TENSOR = -1, MF_TENSOR_RANK = 4, MF_OP_INPUTS = 8, MF_OP_OUTPUTS = 4, MF_OP_ATTRIBUTES = 4 };

/* Of a tensor. Row-major; never grows. */
enum { MF_ROWS_VARY = -1 };
struct mf_op_shape {
    uint32_t number, rank;       /* enum mf_number; 1 .. MF_TENSOR_RANK */
    int64_t dim[MF_TENSOR_RANK]; /* dim[0] may be MF_ROWS_VARY: a step chooses it (tokens, sequences) */
    int32_t rows_of; /* of an op's output with MF_ROWS_VARY: the index of the input that has its rows */
    int32_t reserved;
};

/* By name, of an op ("epsilon" of "rms_norm"). Whole numbers are given as such. Never grows. */
struct mf_op_attribute {
    const char *name;
    double value;
};

/* A node as it is told to a provider. */
struct mf_op_node {
    uint32_t size;
    int32_t layer;  /* of the model; -1: outside the layers */
    const char *op; /* "rms_norm" */
    uint32_t inputs, outputs, attributes, reserved;
    const int32_t *in, *out; /* tensors; MF_NO_TENSOR: none */
    const struct mf_op_attribute *attribute;
};

/* A tensor of a step, in the memory of this machine. `stride` in elements: the last dimension is contiguous,
 * the others may be wider (columns of a wider tensor). Never grows. */
struct mf_op_array {
    void *data;
    uint32_t number, rank;
    int64_t dim[MF_TENSOR_RANK], stride[MF_TENSOR_RANK]; /* dim beyond rank: 1 */
};

/* One run of an op. Outputs are contiguous and shared with no input; every element is to be written. */
struct mf_op_call {
    uint32_t size, inputs, outputs, reserved;
    const struct mf_op_array *in;
    struct mf_op_array *out;
    const float *attribute; /* in the order of the definition's names */
    void *state;            /* the definition's */
};

enum mf_op_definition_flag { MF_OP_IS_NOT_DETERMINISTIC = 1 };

/* An op of a provider's own. All that it points to lives as long as the process. */
struct mf_op_definition {
    uint32_t size;
    uint32_t inputs, outputs;     /* 1 .. MF_OP_INPUTS, 1 .. MF_OP_OUTPUTS */
    uint32_t flags;               /* enum mf_op_definition_flag */
    const char *name;             /* "soup.swish": the provider's name, a dot, its own; of [a-z0-9_] */
    const char *const *attribute; /* names, then NULL, at most MF_OP_ATTRIBUTES; NULL: none */
    void *state;
    /* Checks inputs and attributes and fills out[outputs], which is zeroed. Activations are f32 or bf16, as
     * the request asks for: an op that cannot compute in one of them fails, and says so. */
    int (*shape)(void *state, const struct mf_op_node *node, const struct mf_op_shape *in,
                 struct mf_op_shape *out, struct mf_error *error);
    /* The kernel: on any thread, one call at a time. The same inputs give the same bits, or flags says that
     * they do not. NULL: the op always runs as its expansion. */
    int (*compute)(const struct mf_op_call *call, struct mf_error *error);
    /* Emits nodes that compute the gradients of the inputs from output_gradient[outputs] (MF_NO_TENSOR: this
     * output has none) and sets input_gradient[inputs], which are MF_NO_TENSOR; where that is left, nothing
     * flows there. node->in and node->out may be read. NULL: only the expansion has a gradient. */
    int (*gradient)(void *state, struct mf_program_builder *builder, const struct mf_op_node *node,
                    const int32_t *output_gradient, int32_t *input_gradient, struct mf_error *error);
    /* Emits the same computation of other ops and returns the first output of the node that it emitted last.
     * For ops with one output. This is what runs on a GPU and in the host's reference; NULL: the op is
     * refused there, by name. */
    int32_t (*expand)(void *state, struct mf_program_builder *builder, const struct mf_op_node *node,
                      struct mf_error *error);
};

/* A model whose programs a provider builds or changes. The functions are called until close() was. */
struct mf_model_source {
    uint32_t size, reserved;
    /* The whole forward pass of a program, from MF_PROGRAM_TOKENS to head(). NULL: that of config.json. */
    int (*build)(void *state, struct mf_program_builder *builder, struct mf_error *error);
    /* Asked for every node of the forward pass. Emits what stands in for it, and returns the first output of
     * the node that it emitted last; MF_NO_TENSOR: the node stays, and nothing was emitted. NULL: none is
     * changed. */
    int32_t (*rewrite)(void *state, struct mf_program_builder *builder, const struct mf_op_node *node,
                       struct mf_error *error);
    void (*close)(void *state); /* when the model is closed, or could not be opened; may be NULL */
    void *state;
    /* With build(): what config.json would have said. */
    const char *model_type; /* "mygpt": what capabilities call the architecture */
    int64_t vocabulary, hidden, layers, max_positions;
    int64_t end_token; /* -1: the tokenizer's */
};

/* What a step gives, (T) i32: token ids; positions in their rows, 0 at the first. */
enum mf_program_input { MF_PROGRAM_TOKENS = 0, MF_PROGRAM_POSITIONS = 1 };

struct mf_graph_api {
    uint32_t size, reserved;
    /* To be called at any time before the op is emitted; again with the same `definition`: nothing. */
    int (*register_op)(const struct mf_op_definition *definition, struct mf_error *error);
    /* As the host's open_model(), of the folder in options->reference: its safetensors hold the weights. A
     * weight that a program names and the folder lacks, or that the folder holds and no program names, is an
     * error. */
    int (*open_source)(struct mf_provider_context *context, const struct mf_load_options *options,
                       const struct mf_model_source *source, struct mf_model **out, struct mf_error *error);

    /* ---- with a builder ---- */

    /* Appends a node and gives its first output. Ops: those registered, and of the host (formulas in
     * kernels/ops.def, inputs and attributes in this order)
     *   embedding(table, tokens; scale) rms_norm(x, weight; epsilon, variant: 0 Llama, 1 Gemma)
     *   layer_norm(x, weight, bias; epsilon) linear(x, weight, bias; alpha) add(a, b)
     *   rope_table(frequencies, positions; factor) rope(x, table; inverse)
     *   gated_activation(gate, up; activation: 0 SiLU, 1 GELU tanh) activation(x; activation)
     *   gated_activation_gradient(gate, up, dy; activation) activation_gradient(x, dy; activation)
     * Attributes that are not given are 0, but alpha, scale and factor 1. A linear of a model's own module is
     * linear() below, where adapters come along. */
    int32_t (*emit)(struct mf_program_builder *builder, const char *op, const int32_t *in, uint32_t inputs,
                    const struct mf_op_attribute *attribute, uint32_t attributes);
    /* Output `index` of the node that was emitted last. */
    int32_t (*output)(struct mf_program_builder *builder, uint32_t index);
    /* Fills *out; rows_of is -1. */
    void (*shape_of)(struct mf_program_builder *builder, int32_t tensor, struct mf_op_shape *out);
    int32_t (*input)(struct mf_program_builder *builder, uint32_t which); /* enum mf_program_input */
    /* Views: columns first .. first + width - 1 of (T, D); (T, heads * d) as (T, heads, d), as (T * heads,
     * d), and either of them back. */
    int32_t (*columns)(struct mf_program_builder *builder, int32_t x, int32_t first, int32_t width);
    int32_t (*heads)(struct mf_program_builder *builder, int32_t x, int32_t heads);
    int32_t (*head_rows)(struct mf_program_builder *builder, int32_t x, int32_t heads);
    int32_t (*merge_heads)(struct mf_program_builder *builder, int32_t x, int32_t heads);

    /* ---- in build() alone ---- */

    void (*set_layer)(struct mf_program_builder *builder, int32_t layer); /* -1: outside the layers */
    /* A weight of the folder by its name, of rank 1 or 2. */
    int32_t (*weight)(struct mf_program_builder *builder, const char *name, uint32_t rank,
                      const int64_t *dim);
    /* A vector of f32 that is not in the folder (rotary frequencies); copied. */
    int32_t (*constant)(struct mf_program_builder *builder, const char *name, const float *value,
                        uint64_t count);
    /* y (T, columns) = x W^T + b of the module `name`, whose weight is `name`.weight (columns, K) and, with
     * `bias`, `name`.bias: what target_modules chooses, adapters attach to and quantisation reaches. */
    int32_t (*linear)(struct mf_program_builder *builder, int32_t x, const char *name, int64_t columns,
                      uint32_t bias);
    /* Causal attention within each row, through the cache when text is generated: q (T, H, d), k and v (T, G,
     * d)
     * -> (T, H, d). Once a layer. `window`: keys that a query sees, itself included; 0: all. soft_cap 0:
     * none. */
    int32_t (*attention)(struct mf_program_builder *builder, int32_t q, int32_t k, int32_t v, float scale,
                         float soft_cap, int32_t window);
    /* In training x with elements left out at random, elsewhere x. The mask belongs to `name`. */
    int32_t (*dropout)(struct mf_program_builder *builder, int32_t x, float rate, const char *name);
    /* The end: logits = logit_scale * (hidden weight^T + bias), soft-capped where soft_cap > 0, and what the
     * program makes of them. weight (V, D); bias MF_NO_TENSOR: none. */
    int (*head)(struct mf_program_builder *builder, int32_t hidden, int32_t weight, int32_t bias,
                float logit_scale, float soft_cap);
};

/* bf16 and f32, for kernels: round to nearest even. */
static inline float mf_number_from_bf16(uint16_t bits) {
    union {
        uint32_t word;
        float value;
    } number;
    number.word = (uint32_t)bits << 16;
    return number.value;
}
static inline uint16_t mf_number_to_bf16(float value) {
    union {
        uint32_t word;
        float value;
    } number;
    number.value = value;
    if ((number.word & 0x7fffffffU) > 0x7f800000U)
        return (uint16_t)((number.word >> 16) | 0x40U);
    return (uint16_t)((number.word + 0x7fffU + ((number.word >> 16) & 1U)) >> 16);
}

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
