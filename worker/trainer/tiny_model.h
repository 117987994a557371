/* A model and rows small enough to try a trainer on within seconds: a Llama of two layers with random weights
 * and a tokenizer whose tokens are bytes. */
#ifndef MF_WORKER_TRAINER_TINY_MODEL_H
#define MF_WORKER_TRAINER_TINY_MODEL_H

#include "common/error.h"

enum { MF_TINY_ROWS = 16 };

/* Writes a Hugging Face folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json. */
enum mf_status mf_tiny_model_write(const char *folder, struct mf_error *error);

/* Writes MF_TINY_ROWS rows {"input", "output"} as JSONL. */
enum mf_status mf_tiny_rows_write(const char *path, struct mf_error *error);

#endif
