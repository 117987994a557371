#include "providers/huggingface/huggingface.h"

#include "providers/built_in.h"

#define TRAINS(architecture)                                                                 \
    MF_ROWS_TRAINED(architecture, "the reference path, compared with Transformers and PEFT", \
                    "the reference path, compared with bitsandbytes and PEFT")

static const struct mf_capability rows[] = {
    MF_ROWS_REFUSED,  TRAINS("llama"), TRAINS("mistral"), TRAINS("qwen2"),
    TRAINS("qwen3"),  TRAINS("gemma"), TRAINS("gemma2"),  TRAINS("gemma3_text"),
    TRAINS("gemma3"), TRAINS("phi"),   TRAINS("phi3"),
};

static const struct mf_built_in own = {
    .name = "huggingface", .row = rows, .rows = sizeof rows / sizeof *rows, .fuse = false};

MF_BUILT_IN_PROVIDER(mf_huggingface_entry, own)
