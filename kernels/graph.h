/* The graph of a model: one table of tensors, the modules as stored on disk, the adapters on them, and the
 * programs (train, evaluate, score, prefill, decode, update) that compute over this one weight set.
 *
 * Reading order: struct mf_tensor (tensor.h) -> struct mf_node -> struct mf_program -> struct mf_graph ->
 * builder.
 *
 * Rules that every part keeps:
 *  1. One writer a tensor. Persistent tensors change only through ops that write state; each write makes the
 * next version (a new row that views the same storage), so the order of nodes is the order of writes.
 *  2. Views are the only aliasing; only the planner makes an op in-place, at a last use.
 *  3. Kernels read sizes and whatever changes from step to step from struct mf_step.
 *  4. Adapters attach to modules as stored on disk, so fusing changes neither names nor export. A weight that
 * a slot trains as a whole stands in for the one on disk in the slot's programs alone.
 *
 * Life: make weights, modules and inputs; add adapters; build programs; expand and differentiate
 * (passes/expand.h, gradient.h); plan (passes/plan.h); execute (executor.h). Adapters must be added before
 * the first program of their slot is built. A graph is built by one thread; once planned it is read only and
 * may be shared. */
#ifndef MF_KERNELS_GRAPH_H
#define MF_KERNELS_GRAPH_H

#include <stdio.h>

#include "common/error.h"
#include "kernels/ops.h"
#include "kernels/quantize.h"
#include "kernels/tensor.h"

/* What changes from step to step; written once before a run. */
struct mf_step {
    float learning_rate;     /* of this optimiser step */
    float inverse_count;     /* 1 / labelled tokens of the whole accumulation window */
    float clip;              /* greatest gradient norm; 0: no clipping */
    uint32_t step;           /* keys random ops: the same for all passes of an accumulation window */
    uint32_t optimizer_step; /* 1 at the first update */
    uint64_t seed;
    int32_t value[MF_SYMBOLS]; /* sizes; MF_OFFSETS and MF_CONST are derived, not read */
};

enum mf_node_phase { MF_FORWARD, MF_RECOMPUTE, MF_OFFLOAD, MF_BACKWARD, MF_UPDATE, MF_NODE_PHASES };

struct mf_node {
    uint16_t op;                  /* enum mf_op */
    int16_t layer;                /* of the model; -1: outside the layers */
    uint8_t phase;                /* enum mf_node_phase */
    int32_t in[MF_NODE_INPUTS];   /* tensor ids; -1: none */
    int32_t out[MF_NODE_OUTPUTS]; /* -1: none */
    /* [0] by the op's rule, [1] by the backend's (set when planned); -1: none */
    int32_t workspace[MF_NODE_WORKSPACES];
    int32_t twin;          /* RECOMPUTE: the forward node it repeats, else -1 */
    union mf_attributes a; /* the member that the op's row names; the rest zero */
};

enum mf_purpose { MF_TRAIN, MF_EVALUATE, MF_SCORE, MF_PREFILL, MF_DECODE, MF_UPDATE_STEP, MF_PURPOSES };

struct mf_program {
    int32_t id;      /* index in its graph */
    uint8_t purpose; /* enum mf_purpose; only MF_TRAIN has dropout */
    uint8_t dtype;   /* of activations: MF_F32 or MF_BF16 */
    int16_t slot;    /* adapters in use; -1: none, the program is the reference model */
    struct mf_node *node;
    int32_t nodes, capacity;
    int32_t bound[MF_SYMBOLS]; /* greatest sizes of a run; set by mf_program_set_bound */
    size_t arena_bytes;        /* set by the plan */
    size_t host_bytes;         /* the same: of what is offloaded */
    bool sealed;               /* its numbers are settled: mf_program_seal */
    int32_t numeric_nodes;     /* nodes when it was sealed */
    uint8_t fingerprint[32];   /* sha256 of the nodes, shapes and attributes when it was sealed */
};

/* A weight that has the values of its quantised form. It is kept dequantised; or as that form, in weights of
 * their own, for programs that dequantise it when they need it (passes/dequantize.h). */
struct mf_quantized_weight {
    int32_t weight;
    int32_t rows[MF_QUANTIZED_PARTS];   /* of the parts that were quantised each by itself; 0: no such part */
    int32_t codes, scales, scale_codes; /* mf_quantized_layout; -1: no program dequantises it; not nested */
};

/* A linear layer as stored on disk: what adapters attach to. */
struct mf_module {
    int32_t id;
    const char *name;       /* "model.layers.0.self_attn.q_proj" */
    int32_t weight, bias;   /* tensors (N, K) and (N); bias -1: none */
    uint32_t random_stream; /* mf_random_stream of the name: the same however a provider fuses */
};

struct mf_adapter {
    int16_t slot;
    int32_t module;
    int32_t a, b;  /* (r, K) and (N, r), f32 masters */
    float scale;   /* alpha / r, or alpha / sqrt(r) */
    float dropout; /* 0: none */
};

/* A weight of the model that a slot trains as a whole: programs of the slot compute with it instead of the
 * frozen one. */
struct mf_trained {
    int16_t slot;
    bool beside; /* the frozen weight stays: other modules that share it (a tied head) go on with that one */
    const char *weight; /* the name of the weight that it stands for */
    int32_t parameter;  /* the master, f32, in the slot's bucket */
    int32_t computed;   /* what programs read: the master, or its copy rounded to what they compute in */
};

/* One module inside a (fused) linear of one program. */
struct mf_segment {
    int32_t module;
    int32_t first, width;   /* columns of y */
    int32_t lora_a, lora_b; /* -1: this module has no adapter in the program's slot */
    uint32_t random_stream;
    float scale, dropout;
};

/* What an optimiser keeps of a slot's parameters; each a tensor of its own. */
enum mf_optimizer_state {
    MF_FIRST_MOMENT,       /* (n) f32 */
    MF_SECOND_MOMENT,      /* (n) f32 */
    MF_FIRST_MOMENT_CODE,  /* (n) u8, in blocks of MF_BUCKET_BLOCK */
    MF_SECOND_MOMENT_CODE, /* (n) u8 */
    MF_MOMENT_SCALES,      /* (n / MF_BUCKET_BLOCK, 2) f32: of the first and of the second moment's block */
    MF_OPTIMIZER_STATES
};
const char *mf_optimizer_state_name(enum mf_optimizer_state state); /* "first_moment" */

/* The parts of a bucket, one after the other, each a multiple of MF_BUCKET_BLOCK. Large: of MF_BUCKET_LARGE
 * elements and more, and not MF_TENSOR_EXACT_MOMENTS. */
enum mf_bucket_part {
    MF_LARGE_DECAYED,
    MF_SMALL_DECAYED,
    MF_LARGE_NOT_DECAYED,
    MF_SMALL_NOT_DECAYED,
    MF_BUCKET_PARTS
};
enum { MF_BUCKET_LARGE = 4096, MF_BUCKET_BLOCK = 256, MF_BUCKET_ALIGNMENT = 16 };

/* All trainable parameters of a slot in one storage, so that norm, update and all-reduce are one pass. A
 * large parameter starts at a multiple of MF_BUCKET_BLOCK elements, so that no block holds two of them; a
 * small one at a multiple of MF_BUCKET_ALIGNMENT. The padding is 0 and stays 0. */
struct mf_bucket {
    int16_t slot;
    int32_t parameter, gradient; /* owners, (elements) f32 */
    int32_t
        state[MF_OPTIMIZER_STATES]; /* owners; -1: the optimiser has none, or there is no update program */
    int32_t copy; /* owner, (elements) of the dtype that trained weights are computed in, where that is not
                     f32: each element rounded; -1: none */
    int64_t elements;
    int64_t end[MF_BUCKET_PARTS]; /* of each part, in elements */
};

/* Inputs that the host writes before a run, shared by all programs. i32 unless said. */
enum mf_graph_input {
    MF_INPUT_TOKENS,        /* (T) token ids */
    MF_INPUT_POSITIONS,     /* (T) position in the row, 0 at its first token */
    MF_INPUT_ROWS,          /* (T) dataset row id: keys dropout */
    MF_INPUT_OFFSETS,       /* (S + 1) first token of each sequence; offsets[0] = 0 */
    MF_INPUT_LABEL_ROWS,    /* (L) token whose hidden state predicts labels[i], ascending */
    MF_INPUT_LABELS,        /* (L) token ids to be predicted */
    MF_INPUT_COEFFICIENTS,  /* (L) f32; 1 for SFT */
    MF_INPUT_LAST_ROWS,     /* (S) last token of each sequence */
    MF_INPUT_CACHE_SLOTS,   /* (T) row of the cache that each token's key and value go to */
    MF_INPUT_CACHE_OFFSETS, /* (S + 1) first cache row of each sequence */
    MF_INPUT_CACHE_LENGTHS, /* (S) keys of each sequence in the cache after this run's writes */
    MF_INPUTS
};

struct mf_graph {
    struct mf_tensor *tensor;
    struct mf_module *module;
    struct mf_adapter *adapter;
    struct mf_trained *trained;
    struct mf_segment *segment;
    struct mf_bucket *bucket;
    struct mf_quantized_weight *quantized;
    struct mf_program **program;
    char **text; /* owned names */
    int32_t tensors, modules, adapters, trains, segments, buckets, quantizeds, programs, texts;
    int32_t tensor_capacity, module_capacity, adapter_capacity, trained_capacity, segment_capacity,
        bucket_capacity, quantized_capacity, program_capacity, text_capacity;
    int32_t input[MF_INPUTS]; /* tensor ids, made with the graph */
    int32_t head_chunk_rows;  /* of a HEAD that asks for none; 0: MF_HEAD_CHUNK_ROWS. Set before programs are
                                 built */
    bool expand_registered;   /* registered ops that can run as primitive ones do: for a backend that has no
                                 kernels of plug-ins, and for the oracle. Set before programs are built */
    bool planned;             /* set by the plan: no more tensors or nodes */
};

/* The caller owns *graph and destroys it after every plan and executor made of it. */
enum mf_status mf_graph_create(struct mf_graph **graph, struct mf_error *error);
void mf_graph_destroy(struct mf_graph *graph); /* NULL is allowed */

/* Functions that make a row give its id in *id; names are copied. */

/* A weight bound from outside later (executor.h). Asking again for a name gives the same id; another shape or
 * dtype for it is MF_ERROR_WEIGHT_MISMATCH. `dim`[rank] are constants. */
enum mf_status mf_graph_weight(struct mf_graph *graph, const char *name, enum mf_dtype dtype, int rank,
                               const int64_t *dim, int32_t *id, struct mf_error *error);
/* Says that a weight, which is no view, has the values of its quantised form: its parts, rows[i] rows each
 * and at most MF_QUANTIZED_PARTS, were quantised each by itself. What it is kept in does not change. */
enum mf_status mf_graph_mark_quantized(struct mf_graph *graph, int32_t weight,
                                       enum mf_quantization quantization, bool nested, const int32_t *rows,
                                       int parts, struct mf_error *error);
/* Makes what quantised weight `row` of the table is kept in, where that is not done. */
enum mf_status mf_graph_keep_quantized(struct mf_graph *graph, int32_t row, struct mf_error *error);
/* Rows first .. first + rows - 1 of a weight as a weight of their own: the parts of a fused one. */
enum mf_status mf_graph_weight_rows(struct mf_graph *graph, const char *name, int32_t weight, int64_t first,
                                    int64_t rows, int32_t *id, struct mf_error *error);
/* Persistent state, zero at first (key / value caches: symbol MF_CACHE). Same rule for names. */
enum mf_status mf_graph_state(struct mf_graph *graph, const char *name, enum mf_dtype dtype, int rank,
                              const struct mf_dim *dim, int32_t *id, struct mf_error *error);
/* An input beside the common ones. Same rule for names. */
enum mf_status mf_graph_extra_input(struct mf_graph *graph, const char *name, enum mf_dtype dtype, int rank,
                                    const struct mf_dim *dim, int32_t *id, struct mf_error *error);
/* A trainable f32 tensor of a slot. flags: MF_TENSOR_NO_DECAY, MF_TENSOR_EXACT_MOMENTS. MF_ERROR_INTERNAL
 * once the slot's bucket exists or the name is taken. */
enum mf_status mf_graph_parameter(struct mf_graph *graph, int16_t slot, const char *name, int rank,
                                  const int64_t *dim, uint8_t flags, int32_t *id, struct mf_error *error);
/* The module `name` with weight (N, K) and bias (N) or -1; asking again gives the same id. */
enum mf_status mf_graph_module(struct mf_graph *graph, const char *name, int32_t weight, int32_t bias,
                               int32_t *id, struct mf_error *error);
/* LoRA on a module: parameters "base_model.model.<module>.lora_A.weight" (r, K) and "...lora_B.weight" (N, r)
 * (PEFT's keys on disk). One adapter a module and slot. Values are 0 until the caller writes them. */
enum mf_status mf_graph_add_adapter(struct mf_graph *graph, int16_t slot, int32_t module, int32_t rank,
                                    float scale, float dropout, int32_t *adapter, struct mf_error *error);
/* Trains `weight` whole in `slot`: makes the parameter `name` (flags as mf_graph_parameter), and its copy
 * where programs compute in another dtype than f32, which mf_executor_round_copies fills at first and the
 * update program from then on. One a weight and slot; before the first program of the slot. */
enum mf_status mf_graph_train_weight(struct mf_graph *graph, int16_t slot, const char *weight,
                                     const char *name, enum mf_dtype compute, int rank, const int64_t *dim,
                                     uint8_t flags, bool beside, struct mf_error *error);
/* The bucket of `slot`, made on the first call (mf_gradient_build calls it); no parameter can follow. */
enum mf_status mf_graph_bucket(struct mf_graph *graph, int16_t slot, int32_t *bucket, struct mf_error *error);
/* A view of the slot's bucket, described by `wanted` (view_of and view_offset set), and its gradient's; found
 * or made. */
enum mf_status mf_graph_parameters_view(struct mf_graph *graph, const struct mf_tensor *wanted, int32_t *id,
                                        struct mf_error *error);

/* -1: there is none. */
int32_t mf_graph_find_tensor(const struct mf_graph *graph, const char *name);
/* One of no slot: what a slot trains in the place of a weight may have its name. */
int32_t mf_graph_find_shared(const struct mf_graph *graph, const char *name);
int32_t mf_graph_find_module(const struct mf_graph *graph, const char *name);
int32_t mf_graph_find_adapter(const struct mf_graph *graph, int16_t slot, int32_t module);
int32_t mf_graph_find_bucket(const struct mf_graph *graph, int16_t slot);
/* The row of what `slot` trains in the place of `weight`. NULL: there is none. Good until the next one is
 * made. */
const struct mf_trained *mf_graph_find_trained(const struct mf_graph *graph, int16_t slot,
                                               const char *weight);

/* The row of `id` (asserted). The pointer is good until the next tensor is made. */
const struct mf_tensor *mf_graph_tensor(const struct mf_graph *graph, int32_t id);
/* The tensor that owns the storage of `id`. */
int32_t mf_graph_owner(const struct mf_graph *graph, int32_t id);

/* An empty program. bound[] is 0 until set; a program without a symbol needs no bound for it. */
enum mf_status mf_program_create(struct mf_graph *graph, enum mf_purpose purpose, int16_t slot,
                                 enum mf_dtype dtype, int32_t *program, struct mf_error *error);
void mf_program_set_bound(struct mf_graph *graph, int32_t program, enum mf_symbol symbol, int32_t bound);
const char *mf_purpose_name(enum mf_purpose purpose);
/* Checks the rules above on a whole program: every input is made before it is used, one writer a tensor, no
 * read of an old version, nothing of another program. MF_ERROR_INTERNAL names the node. */
enum mf_status mf_program_check(const struct mf_graph *graph, int32_t program, struct mf_error *error);
/* Takes the fingerprint. From here on the program may change only in ways that change no bit of its results:
 * the memory passes (passes/memory.h), which seal it themselves; the plan seals what is not. Again: nothing.
 */
enum mf_status mf_program_seal(struct mf_graph *graph, int32_t program, struct mf_error *error);
const char *mf_node_phase_name(enum mf_node_phase phase);
/* One line a node: "12 backward layer 3 linear_input_gradient (T, 576) bf16 <- 101 7". */
void mf_program_print(const struct mf_graph *graph, int32_t program, FILE *file);

/* --- builder
 * --------------------------------------------------------------------------------------------------- Appends
 * nodes to one program. Errors are sticky: after the first failure every call returns -1 and does nothing;
 * mf_builder_finish reports it, prefixed by layer and op. So builders read like the model's forward pass. */
struct mf_builder {
    struct mf_graph *graph;
    int32_t program;
    int16_t layer; /* set by the caller: nodes carry it; -1 outside the layers */
    uint8_t phase; /* enum mf_node_phase; MF_FORWARD at first */
    int32_t twin;  /* for RECOMPUTE; -1 */
    enum mf_status status;
    struct mf_error error;
};

struct mf_builder mf_builder_begin(struct mf_graph *graph, int32_t program);
/* The sticky error, or mf_program_check. */
enum mf_status mf_builder_finish(struct mf_builder *builder, struct mf_error *error);
void mf_builder_fail(struct mf_builder *builder, enum mf_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The one way to make a node: applies the op's shape rule, makes its outputs and workspace, appends it. `in`
 * has `inputs` ids (optional ones may be -1 or left out at the end); `attributes` NULL: none. Returns out[0].
 */
int32_t mf_emit(struct mf_builder *builder, enum mf_op op, const int32_t *in, int inputs,
                const union mf_attributes *attributes);
/* out[index] of the node emitted last; -1: none. */
int32_t mf_builder_output(const struct mf_builder *builder, int index);

/* Views: the only aliasing. reshape keeps all elements of a contiguous tensor; columns takes columns first ..
 * first + width - 1 of a rank-2 tensor. */
int32_t mf_build_reshape(struct mf_builder *builder, int32_t x, int rank, const struct mf_dim *dim);
int32_t mf_build_columns(struct mf_builder *builder, int32_t x, int32_t first, int32_t width);
/* (T, heads * head_size) -> (T, heads, head_size) and, for norms over a head, (heads * T, head_size). */
int32_t mf_build_heads(struct mf_builder *builder, int32_t x, int32_t heads);
int32_t mf_build_head_rows(struct mf_builder *builder, int32_t x, int32_t heads);
/* Either form back to (T, heads * head_size). */
int32_t mf_build_merge_heads(struct mf_builder *builder, int32_t x, int32_t heads);

/* Ops; formulas and shapes in ops.def. Each returns its first output. */
int32_t mf_build_embedding(struct mf_builder *builder, int32_t table, int32_t tokens, float scale);
int32_t mf_build_rms_norm(struct mf_builder *builder, int32_t x, int32_t weight, float epsilon,
                          enum mf_norm_variant variant);
int32_t mf_build_layer_norm(struct mf_builder *builder, int32_t x, int32_t weight, int32_t bias,
                            float epsilon);
/* Dropout whose mask belongs to `name`, unlike any other name of the program; rate in (0, 1). */
int32_t mf_build_dropout(struct mf_builder *builder, int32_t x, float rate, const char *name);
/* y = x Wᵀ + bias of `count` modules. One: its weight. Several: their weights must be row views, one after
 * another, of one weight (and their biases alike), and y holds their columns side by side. Adapters of the
 * program's slot come along by themselves. */
int32_t mf_build_linear(struct mf_builder *builder, int32_t x, const int32_t *modules, int count);
int32_t mf_build_add(struct mf_builder *builder, int32_t a, int32_t b);
/* `factor` multiplies cos and sin (1: none); once a program, shared by all layers. */
int32_t mf_build_rope_table(struct mf_builder *builder, int32_t inverse_frequency, int32_t positions,
                            float factor);
int32_t mf_build_rope(struct mf_builder *builder, int32_t x, int32_t table);
/* key_lengths -1: lengths follow from the offsets. */
int32_t mf_build_attention(struct mf_builder *builder, int32_t q, int32_t k, int32_t v, int32_t query_offsets,
                           int32_t key_offsets, int32_t key_lengths,
                           struct mf_attention_attributes attributes);
/* Writes rows into a cache; returns the cache's next version, which attention must read. */
int32_t mf_build_cache_write(struct mf_builder *builder, int32_t cache, int32_t rows, int32_t slots);
int32_t mf_build_gated_activation(struct mf_builder *builder, int32_t gate, int32_t up,
                                  enum mf_activation activation);

int32_t mf_build_activation(struct mf_builder *builder, int32_t x, enum mf_activation activation);

struct mf_head_outputs {
    int32_t log_probability; /* (L) f32 */
    int32_t lse;             /* (L) f32 */
    int32_t gradient;        /* (L, D); -1 outside training */
};
enum { MF_HEAD_CHUNK_ROWS = 128 };
/* Over the common inputs LABEL_ROWS and LABELS; bias -1: none. attributes.with_gradient is set by the
 * program's purpose, chunk_rows 0 becomes the graph's head_chunk_rows. */
struct mf_head_outputs mf_build_head(struct mf_builder *builder, int32_t hidden, int32_t weight, int32_t bias,
                                     struct mf_head_attributes attributes);
/* -Σ coefficient log p / count over the common input COEFFICIENTS; the result is an output. */
int32_t mf_build_loss(struct mf_builder *builder, int32_t log_probability);
/* Logits (S, V) of `rows`, bias -1: none; and the greedy choice. */
int32_t mf_build_logits(struct mf_builder *builder, int32_t hidden, int32_t weight, int32_t bias,
                        int32_t rows, struct mf_head_attributes attributes);
int32_t mf_build_argmax(struct mf_builder *builder, int32_t logits);
/* Marks a tensor as read by the host after the run. */
int32_t mf_build_output(struct mf_builder *builder, int32_t tensor);

enum mf_optimizer_kind { MF_ADAMW, MF_ADAMW_8BIT, MF_SGD };
struct mf_optimizer {
    enum mf_optimizer_kind kind;
    /* MF_SGD takes its weight_decay alone. Parameters that do not decay get 0 for it. */
    struct mf_adamw_attributes adamw;
};

/* The update program of a slot: norm, clip, the optimiser over the bucket, its copy made new, gradients to
 * zero. MF_ADAMW_8BIT keeps the moments of large parameters in 8 bits, of small ones in f32. Makes the
 * program and the optimiser's state; `norm` gets the tensor (1) f32 of the gradient norm before clipping. */
enum mf_status mf_graph_build_update(struct mf_graph *graph, int16_t slot,
                                     const struct mf_optimizer *optimizer, int32_t *program, int32_t *norm,
                                     struct mf_error *error);

#endif
