/* Update programs: from the gradients of a bucket to its parameters. */
#include "kernels/graph.h"
#include "kernels/graph_rows.h"

const char *mf_optimizer_state_name(enum mf_optimizer_state state) {
    static const char *const name[MF_OPTIMIZER_STATES] = {
        [MF_FIRST_MOMENT] = "first_moment",           [MF_SECOND_MOMENT] = "second_moment",
        [MF_FIRST_MOMENT_CODE] = "first_moment_code", [MF_SECOND_MOMENT_CODE] = "second_moment_code",
        [MF_MOMENT_SCALES] = "moment_scales",
    };
    return name[state];
}

/* What is being built, and how much of the state the parts so far took: all rows of it are in order. */
struct update {
    struct mf_builder builder;
    struct mf_bucket bucket;
    struct mf_adamw_attributes attributes;
    int32_t coefficient;
    int64_t moments, blocks; /* elements of the f32 moments; blocks of the 8-bit ones */
};

/* Rows first .. first + count - 1 of a persistent tensor. */
static int32_t rows_of(struct mf_builder *builder, int32_t owner, int64_t first, int64_t count) {
    struct mf_tensor view;
    int32_t id = -1;
    if (builder->status != MF_OK)
        return -1;
    view = *mf_graph_tensor(builder->graph, owner);
    if (count == view.dim[0].multiplier)
        return owner;
    view.view_of = owner;
    view.view_offset = first * view.stride[0];
    view.dim[0] = mf_dim_const(count);
    view.program = builder->program;
    builder->status = mf_graph_append_tensor(builder->graph, &view, &id, &builder->error);
    return id;
}

/* What programs compute with of these parameters follows them. */
static void build_copy(struct update *update, int32_t updated, int64_t first, int64_t count) {
    if (update->bucket.copy < 0)
        return;
    const int32_t in[] = {updated, rows_of(&update->builder, update->bucket.copy, first, count)};
    mf_emit(&update->builder, MF_OP_ROUND_COPY, in, 2, NULL);
}

static int32_t build_sgd(struct update *update, int64_t first, int64_t count) {
    const int32_t in[] = {rows_of(&update->builder, update->bucket.parameter, first, count),
                          rows_of(&update->builder, update->bucket.gradient, first, count),
                          update->coefficient};
    const union mf_attributes attributes = {.sgd = {.weight_decay = update->attributes.weight_decay}};
    return mf_emit(&update->builder, MF_OP_SGD, in, 3, &attributes);
}

static int32_t build_adamw(struct update *update, int64_t first, int64_t count) {
    const struct mf_bucket *bucket = &update->bucket;
    struct mf_builder *builder = &update->builder;
    const int32_t in[] = {rows_of(builder, bucket->parameter, first, count),
                          rows_of(builder, bucket->state[MF_FIRST_MOMENT], update->moments, count),
                          rows_of(builder, bucket->state[MF_SECOND_MOMENT], update->moments, count),
                          rows_of(builder, bucket->gradient, first, count), update->coefficient};
    update->moments += count;
    return mf_emit(builder, MF_OP_ADAMW, in, 5, &(union mf_attributes){.adamw = update->attributes});
}

static int32_t build_adamw_8bit(struct update *update, int64_t first, int64_t count) {
    const struct mf_bucket *bucket = &update->bucket;
    struct mf_builder *builder = &update->builder;
    const int64_t blocks = count / MF_BUCKET_BLOCK, code = update->blocks * MF_BUCKET_BLOCK;
    const int32_t in[] = {rows_of(builder, bucket->parameter, first, count),
                          rows_of(builder, bucket->state[MF_FIRST_MOMENT_CODE], code, count),
                          rows_of(builder, bucket->state[MF_SECOND_MOMENT_CODE], code, count),
                          rows_of(builder, bucket->state[MF_MOMENT_SCALES], update->blocks, blocks),
                          rows_of(builder, bucket->gradient, first, count),
                          update->coefficient};
    update->blocks += blocks;
    return mf_emit(builder, MF_OP_ADAMW_8BIT, in, 6, &(union mf_attributes){.adamw = update->attributes});
}

/* Elements that a bucket has in its large parts. */
static int64_t large_elements(const struct mf_bucket *bucket) {
    return bucket->end[MF_LARGE_DECAYED] + bucket->end[MF_LARGE_NOT_DECAYED] - bucket->end[MF_SMALL_DECAYED];
}

/* One tensor of a bucket's state, made once; none of no rows. */
static enum mf_status add_state(struct mf_graph *graph, struct mf_bucket *bucket,
                                enum mf_optimizer_state state, enum mf_dtype dtype, int rank, int64_t rows,
                                struct mf_error *error) {
    struct mf_tensor tensor = *mf_graph_tensor(graph, bucket->gradient);
    if (rows == 0 || bucket->state[state] >= 0)
        return MF_OK;
    tensor.storage = MF_OPTIMIZER;
    tensor.dtype = (uint8_t)dtype;
    tensor.rank = (uint8_t)rank;
    tensor.dim[0] = mf_dim_const(rows);
    if (rank > 1)
        tensor.dim[1] = mf_dim_const(2);
    mf_tensor_set_contiguous(&tensor);
    return mf_graph_append_tensor(graph, &tensor, &bucket->state[state], error);
}

static enum mf_status add_states(struct mf_graph *graph, struct mf_bucket *bucket,
                                 enum mf_optimizer_kind kind, struct mf_error *error) {
    const int64_t large = kind == MF_ADAMW_8BIT ? large_elements(bucket) : 0;
    const int64_t moments = kind == MF_SGD ? 0 : bucket->elements - large;
    enum mf_status status = add_state(graph, bucket, MF_FIRST_MOMENT, MF_F32, 1, moments, error);
    if (status == MF_OK)
        status = add_state(graph, bucket, MF_SECOND_MOMENT, MF_F32, 1, moments, error);
    if (status == MF_OK)
        status = add_state(graph, bucket, MF_FIRST_MOMENT_CODE, MF_U8, 1, large, error);
    if (status == MF_OK)
        status = add_state(graph, bucket, MF_SECOND_MOMENT_CODE, MF_U8, 1, large, error);
    if (status == MF_OK)
        status = add_state(graph, bucket, MF_MOMENT_SCALES, MF_F32, 2, large / MF_BUCKET_BLOCK, error);
    return status;
}

static void build_parts(struct update *update, const struct mf_optimizer *optimizer) {
    int64_t first = 0;
    for (int part = 0; part < MF_BUCKET_PARTS; part++) {
        const bool large = part == MF_LARGE_DECAYED || part == MF_LARGE_NOT_DECAYED;
        const bool joined = large && optimizer->kind != MF_ADAMW_8BIT; /* goes with the small ones */
        const int64_t count = update->bucket.end[part] - first;
        if (joined || count == 0)
            continue;
        update->attributes = optimizer->adamw;
        if (part == MF_LARGE_NOT_DECAYED || part == MF_SMALL_NOT_DECAYED)
            update->attributes.weight_decay = 0;
        const int32_t updated = optimizer->kind == MF_SGD ? build_sgd(update, first, count)
                                : optimizer->kind == MF_ADAMW_8BIT && large
                                    ? build_adamw_8bit(update, first, count)
                                    : build_adamw(update, first, count);
        build_copy(update, updated, first, count);
        first += count;
    }
}

enum mf_status mf_graph_build_update(struct mf_graph *graph, int16_t slot,
                                     const struct mf_optimizer *optimizer, int32_t *program, int32_t *norm,
                                     struct mf_error *error) {
    struct update update = {.moments = 0};
    int32_t id;
    enum mf_status status = mf_graph_bucket(graph, slot, &id, error);
    if (status == MF_OK)
        status = add_states(graph, &graph->bucket[id], optimizer->kind, error);
    if (status == MF_OK)
        status = mf_program_create(graph, MF_UPDATE_STEP, slot, MF_F32, program, error);
    if (status != MF_OK)
        return status;
    update.bucket = graph->bucket[id];
    update.builder = mf_builder_begin(graph, *program);
    update.builder.phase = MF_UPDATE;
    *norm = mf_build_output(&update.builder,
                            mf_emit(&update.builder, MF_OP_GRADIENT_NORM, &update.bucket.gradient, 1, NULL));
    update.coefficient = mf_builder_output(&update.builder, 1);
    build_parts(&update, optimizer);
    mf_emit(&update.builder, MF_OP_ZERO, &update.bucket.gradient, 1, NULL);
    return mf_builder_finish(&update.builder, error);
}
