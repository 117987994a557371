/* The provider `huggingface`: the reference path. Plain ops, nothing fused. */
#ifndef MF_PROVIDERS_HUGGINGFACE_HUGGINGFACE_H
#define MF_PROVIDERS_HUGGINGFACE_HUGGINGFACE_H

#include "providers/provider.h"

mf_provider_entry_function mf_huggingface_entry;

#endif
