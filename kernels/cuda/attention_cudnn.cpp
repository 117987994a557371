/* Graphs of cuDNN's fused attention by the header-only cudnn-frontend (Apache-2.0 and MIT). One graph serves every
 * step of a program: sequences lie one behind another, offsets and lengths are read from the device. */
#include <cudnn_frontend.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <unordered_map>
#include <vector>

extern "C" {
#include "kernels/cuda/cudnn_library.h"
#include "kernels/cuda/fused_attention.h"
}

namespace {

namespace fe = cudnn_frontend;
using fe::graph::Tensor_attributes;
using tensor = std::shared_ptr<Tensor_attributes>;

/* Names of tensors to cuDNN: a tensor's own, its offsets', and the lengths'. */
enum { OFFSETS_OF = 100, LENGTHS = 200, KEY_LENGTHS = 201 };

/* All that a plan is made from. No padding. */
struct shape {
    mf_cuda_fused_rows rows;
    int64_t H, G, d, window, causal, sequences, longest, tokens, gradient;
    double scale;
};

struct plan {
    shape of;
    std::shared_ptr<fe::graph::Graph> graph; /* none: cuDNN cannot */
    int64_t bytes;
};

} // namespace

struct mf_cuda_fused {
    cudnnHandle_t handle;
    std::vector<plan> plans;
    size_t most_bytes;
    int capability;
};

namespace {

size_t aligned(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

size_t offsets_bytes(const mf_cuda_fused_bound &bound) {
    return aligned(((size_t)bound.sequences + 1) * sizeof(int64_t));
}

size_t front_bytes(const mf_cuda_fused_bound &bound) {
    return MF_CUDA_FUSED_OFFSETS * offsets_bytes(bound) + aligned((size_t)bound.sequences * sizeof(int32_t));
}

shape shape_of(const mf_cuda_heads &a, const mf_cuda_fused_rows &rows, const mf_cuda_fused_bound &bound,
               bool gradient) {
    return {rows,     a.H,     a.G,          a.d,      a.window, a.causal, bound.sequences, bound.longest,
            bound.tokens, gradient, (double)a.scale};
}

tensor index(fe::graph::Graph &graph, int64_t name, int64_t length, fe::DataType_t type) {
    return graph.tensor(
        Tensor_attributes().set_uid(name).set_dim({length, 1, 1, 1}).set_stride({1, 1, 1, 1}).set_data_type(type));
}

/* Sizes and strides of `at`, an array (tokens, heads, d) of sequences one behind another. */
void lay_out(Tensor_attributes &made, const shape &s, int at, int64_t heads, const tensor &offsets) {
    made.set_uid(at + 1)
        .set_dim({s.sequences, heads, s.longest, s.d})
        .set_stride({s.longest * s.rows.row[at], s.rows.head[at], s.rows.row[at], 1})
        .set_ragged_offset(offsets);
}

struct making {
    const shape &s;
    fe::graph::Graph &graph;
    tensor lengths, key_lengths;

    tensor offsets(int at) {
        return index(graph, OFFSETS_OF + at, s.sequences + 1, fe::DataType_t::INT64);
    }
    tensor input(int at, int64_t heads) {
        Tensor_attributes made;
        lay_out(made, s, at, heads, offsets(at));
        return graph.tensor(made);
    }
    void output(const tensor &made, int at, int64_t heads) {
        lay_out(*made, s, at, heads, offsets(at));
        made->set_output(true);
    }
    void lay_out_lse(Tensor_attributes &lse) {
        lse.set_uid(MF_CUDA_FUSED_LSE + 1)
            .set_data_type(fe::DataType_t::FLOAT)
            .set_dim({s.sequences, s.H, s.longest, 1})
            .set_stride({s.H * s.longest, 1, s.H, 1})
            .set_ragged_offset(offsets(MF_CUDA_FUSED_LSE));
    }
    template <typename A> void set_mask(A &attributes) {
        attributes.set_attn_scale((float)s.scale)
            .set_padding_mask(true)
            .set_seq_len_q(lengths)
            .set_seq_len_kv(key_lengths)
            .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT);
        if (s.causal)
            attributes.set_diagonal_band_right_bound(0);
        if (s.window > 0) /* the diagonal included, as ours */
            attributes.set_diagonal_band_left_bound(s.window);
    }

    void forward() {
        auto attributes = fe::graph::SDPA_attributes().set_generate_stats(true);
        set_mask(attributes);
        auto [y, lse] = graph.sdpa(input(MF_CUDA_FUSED_QUERY, s.H), input(MF_CUDA_FUSED_KEY, s.G),
                                   input(MF_CUDA_FUSED_VALUE, s.G), attributes);
        output(y, MF_CUDA_FUSED_OUT, s.H);
        lay_out_lse(*lse);
        lse->set_output(true);
    }

    void backward() {
        auto attributes = fe::graph::SDPA_backward_attributes()
                              .set_max_total_seq_len_q(s.tokens)
                              .set_max_total_seq_len_kv(s.tokens)
                              .set_deterministic_algorithm(true);
        set_mask(attributes);
        Tensor_attributes lse;
        lay_out_lse(lse);
        auto [dq, dk, dv] = graph.sdpa_backward(
            input(MF_CUDA_FUSED_QUERY, s.H), input(MF_CUDA_FUSED_KEY, s.G), input(MF_CUDA_FUSED_VALUE, s.G),
            input(MF_CUDA_FUSED_OUT, s.H), input(MF_CUDA_FUSED_OUT_SLOPE, s.H), graph.tensor(lse), attributes);
        output(dq, MF_CUDA_FUSED_QUERY_SLOPE, s.H);
        output(dk, MF_CUDA_FUSED_KEY_SLOPE, s.G);
        output(dv, MF_CUDA_FUSED_VALUE_SLOPE, s.G);
    }
};

/* A graph with its kernels; none where cuDNN has none. */
void make(const mf_cuda_fused &fused, plan &made) {
    auto graph = std::make_shared<fe::graph::Graph>();
    graph->set_sm_version(fused.capability);
    graph->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    making maker{made.of, *graph, index(*graph, LENGTHS, made.of.sequences, fe::DataType_t::INT32),
                 index(*graph, KEY_LENGTHS, made.of.sequences, fe::DataType_t::INT32)};
    if (made.of.gradient)
        maker.backward();
    else
        maker.forward();
    if (graph->build(fused.handle, {fe::HeurMode_t::A}).is_bad() ||
        graph->get_workspace_size(made.bytes).is_bad())
        return;
    made.graph = graph;
}

const plan *find(const mf_cuda_fused &fused, const shape &wanted) {
    for (const plan &one : fused.plans)
        if (memcmp(&one.of, &wanted, sizeof wanted) == 0)
            return &one;
    return nullptr;
}

} // namespace

extern "C" struct mf_cuda_fused *mf_cuda_fused_create(const struct mf_cuda_backend *backend, char *reason,
                                                      size_t bytes) {
    if (backend->device.capability < 80) {
        (void)snprintf(reason, bytes, "this GPU has no bf16 products");
        return nullptr;
    }
    if (!mf_cudnn_open(reason, bytes))
        return nullptr;
    mf_cuda_fused *fused = new (std::nothrow) mf_cuda_fused{};
    if (fused)
        fused->handle = (cudnnHandle_t)mf_cudnn_handle_create(backend->stream);
    if (!fused || !fused->handle) {
        (void)snprintf(reason, bytes, "it gave no handle");
        delete fused;
        return nullptr;
    }
    fused->capability = backend->device.capability;
    fused->most_bytes = backend->device.memory_bytes / 16;
    return fused;
}

extern "C" size_t mf_cuda_fused_version(const struct mf_cuda_fused *) {
    return mf_cudnn_version();
}

extern "C" void mf_cuda_fused_destroy(struct mf_cuda_fused *fused) {
    if (!fused)
        return;
    fused->plans.clear();
    mf_cudnn_handle_destroy(fused->handle);
    delete fused;
}

extern "C" size_t mf_cuda_fused_workspace(struct mf_cuda_fused *fused, const struct mf_cuda_heads *attention,
                                          const struct mf_cuda_fused_rows *rows,
                                          const struct mf_cuda_fused_bound *bound, bool gradient) {
    const shape wanted = shape_of(*attention, *rows, *bound, gradient);
    if (attention->soft_cap > 0 || attention->d > 128 || attention->d % 8 || !bound->longest ||
        !bound->sequences || !bound->tokens)
        return 0;
    try {
        if (!find(*fused, wanted)) {
            plan made{wanted, nullptr, 0};
            make(*fused, made);
            fused->plans.push_back(made);
        }
    } catch (const std::exception &) { /* as where cuDNN cannot */
        return 0;
    }
    const plan *found = find(*fused, wanted);
    if (!found->graph || found->bytes < 0 || (size_t)found->bytes > fused->most_bytes)
        return 0;
    return front_bytes(*bound) + aligned((size_t)found->bytes + 1);
}

extern "C" int64_t *mf_cuda_fused_offsets(void *workspace, const struct mf_cuda_fused_bound *bound, int index) {
    return (int64_t *)((char *)workspace + (size_t)index * offsets_bytes(*bound));
}

extern "C" int32_t *mf_cuda_fused_lengths(void *workspace, const struct mf_cuda_fused_bound *bound) {
    return (int32_t *)((char *)workspace + MF_CUDA_FUSED_OFFSETS * offsets_bytes(*bound));
}

extern "C" enum mf_status mf_cuda_fused_run(struct mf_cuda_fused *fused, const struct mf_cuda_heads *attention,
                                            const struct mf_cuda_fused_rows *rows,
                                            const struct mf_cuda_fused_bound *bound, void *y, float *lse,
                                            void *dq, void *dk, void *dv, void *workspace,
                                            struct mf_error *error) {
    const plan *found = find(*fused, shape_of(*attention, *rows, *bound, dq != nullptr));
    if (!found || !found->graph)
        return mf_error_set(error, MF_ERROR_INTERNAL, "attention was not planned for cuDNN");
    void *const data[] = {(void *)attention->q, (void *)attention->k, (void *)attention->v, y,
                          (void *)attention->dy, dq, dk, dv, lse};
    const int first = dq ? MF_CUDA_FUSED_OUT_SLOPE : MF_CUDA_FUSED_LSE;
    try {
        std::unordered_map<int64_t, void *> pack;
        for (int at = 0; at < MF_CUDA_FUSED_OFFSETS; at++)
            if (at <= MF_CUDA_FUSED_OUT || at >= first) {
                pack[at + 1] = data[at];
                pack[OFFSETS_OF + at] = mf_cuda_fused_offsets(workspace, bound, at);
            }
        pack[LENGTHS] = pack[KEY_LENGTHS] = mf_cuda_fused_lengths(workspace, bound);
        auto status = found->graph->execute(fused->handle, pack, (char *)workspace + front_bytes(*bound));
        if (status.is_bad())
            return mf_error_set(error, MF_ERROR_DEVICE, "cuDNN: attention%s: %s", dq ? "_gradient" : "",
                                status.get_message().c_str());
    } catch (const std::exception &fault) {
        return mf_error_set(error, MF_ERROR_DEVICE, "cuDNN: attention: %s", fault.what());
    }
    return MF_OK;
}
