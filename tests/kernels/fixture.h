/* What the tests of kernels/ share: a graph with one program over small odd sizes, run on the oracle. */
#ifndef MF_TESTS_KERNELS_FIXTURE_H
#define MF_TESTS_KERNELS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cpu/backend.h"
#include "kernels/executor.h"
#include "kernels/gradient.h"
#include "kernels/graph.h"

/* Odd, so that nothing falls on a vector's edge; sequences of 4, 1 and 2 tokens. */
enum { TOKENS = 7, SEQUENCES = 3, LABELLED = 3, CACHE = 11, WIDTH = 6, VOCABULARY = 13 };

struct fixture {
    struct mf_graph *graph;
    struct mf_builder builder;
    struct mf_backend *backend;
    struct mf_plan *plan;
    struct mf_executor *executor;
    struct mf_step step;
    int32_t program;
    uint64_t random;
};

/* Aborts the test with the error's text. */
void require_ok(enum mf_status status, const struct mf_error *error);

/* A graph, a training program of slot 0 in f32 with bounds, a step at the sizes above. */
void fixture_begin(struct fixture *fixture);
/* The same on a backend that the fixture then owns, with activations of `dtype`. */
void fixture_begin_on(struct fixture *fixture, struct mf_backend *backend, enum mf_dtype dtype);
/* Plans and makes the executor; fills the common inputs with a valid batch. */
void fixture_realize(struct fixture *fixture, const struct mf_executor_options *options);
void fixture_run(struct fixture *fixture);
void fixture_end(struct fixture *fixture);

struct mf_dim symbol_dim(enum mf_symbol symbol, int32_t multiplier);
/* A new f32 input. */
int32_t fixture_input(struct fixture *fixture, const char *name, int rank, struct mf_dim d0, struct mf_dim d1,
                      struct mf_dim d2);
int32_t fixture_matrix(struct fixture *fixture, const char *name); /* (T, WIDTH) f32 input */
/* A weight (rows, columns), or (rows) when columns is 0, that fixture_realize binds to random numbers. */
int32_t fixture_weight(struct fixture *fixture, const char *name, int64_t rows, int64_t columns);
int32_t fixture_parameter(struct fixture *fixture, const char *name, int64_t rows, int64_t columns);
/* A small decoder of the Llama family: embedding, `layers` layers (norm, attention with 2 query heads over 1
 * key head, gated feed-forward), norm, and in training and evaluation programs head and loss. Modules
 * "layers.<n>.<q|k|v|o|gate| up|down>"; weights are found by name, so several programs share them. Returns
 * the last hidden state, or the loss. */
int32_t fixture_decoder(struct mf_builder *builder, int layers);
/* LoRA of rank 2 on q, v and down of layers first .. layers - 1. */
void fixture_adapters(struct fixture *fixture, int first, int layers, float dropout);

/* The same on every module of all layers. */
void fixture_adapters_on_all(struct fixture *fixture, int layers, float dropout);

/* Every weight of the decoder, and a bias for each module, is trained whole; the head is the embedding. */
void fixture_train_all(struct fixture *fixture, int layers);

/* In [-1, 1), the same sequence each time. */
float fixture_random(struct fixture *fixture);
/* Fills a persistent f32 tensor with random numbers. */
void fixture_fill(struct fixture *fixture, int32_t tensor);
/* Elements of a tensor at the step's sizes, and its data. */
int64_t fixture_elements(const struct fixture *fixture, int32_t tensor);
float *fixture_data(struct fixture *fixture, int32_t tensor);

#endif
