/* Names and row order of a llama model in GGUF and in Hugging Face. Private to providers/. */
#ifndef MF_PROVIDERS_GGUF_NAMES_H
#define MF_PROVIDERS_GGUF_NAMES_H

#include <stdbool.h>
#include <stdint.h>

enum { MF_GGUF_NAME_BYTES = 300 };

/* "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; false for a name that does not belong to
 * a llama model. `part` gets the middle ("attn_q"), "" outside the layers. */
bool mf_huggingface_name_of(const char *gguf, char name[MF_GGUF_NAME_BYTES], char part[MF_GGUF_NAME_BYTES]);
/* The way back. */
bool mf_gguf_name_of(const char *huggingface, char name[MF_GGUF_NAME_BYTES]);

/* Query and key rows of a head are interleaved pairs (2i, 2i + 1) in GGUF and halves (i, d / 2 + i) in
 * Hugging Face. Which row of the one stands at row `row` of the other. */
int64_t mf_gguf_row_to_huggingface(int64_t rows, int64_t heads, int64_t row);
int64_t mf_huggingface_row_to_gguf(int64_t rows, int64_t heads, int64_t row);

#endif
