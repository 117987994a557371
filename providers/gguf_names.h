/* Model types, names and row order in GGUF and in Hugging Face. Private to providers/. */
#ifndef MF_PROVIDERS_GGUF_NAMES_H
#define MF_PROVIDERS_GGUF_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MF_GGUF_NAME_BYTES = 300 };

/* A model type that is written as GGUF and read back. */
struct mf_gguf_family {
    const char *name; /* `model_type`, `general.architecture` and the first part of the metadata's keys */
    const char *class_name;
    bool interleaved;    /* rows of q and k change places, see below */
    bool query_bias;     /* q, k and v have a bias in every model */
    bool query_key_norm; /* so have their heads norms */
};

/* The words of the pre-tokenizer that llama.cpp calls qwen2. tokenizer.json brings text to NFC before;
 * llama.cpp does not, whoever wrote the file. */
#define MF_QWEN2_WORDS                                                                                  \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* By a name of `length` bytes; NULL: none of them. Static. */
const struct mf_gguf_family *mf_gguf_family(const char *name, size_t length);

/* "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; false for a name that no family has.
 * `part` gets the middle ("attn_q"), "" outside the layers. */
bool mf_huggingface_name_of(const char *gguf, char name[MF_GGUF_NAME_BYTES], char part[MF_GGUF_NAME_BYTES]);
/* The way back. */
bool mf_gguf_name_of(const char *huggingface, char name[MF_GGUF_NAME_BYTES]);

/* Query and key rows of a head of an `interleaved` family are interleaved pairs (2i, 2i + 1) in GGUF and
 * halves (i, d / 2 + i) in Hugging Face. Which row of the one stands at row `row` of the other. */
int64_t mf_gguf_row_to_huggingface(int64_t rows, int64_t heads, int64_t row);
int64_t mf_huggingface_row_to_gguf(int64_t rows, int64_t heads, int64_t row);

#endif
