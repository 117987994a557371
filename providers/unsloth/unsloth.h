/* The provider `unsloth`: our own engine at its fastest, no code of the Python package of that name. The same
 * families as `huggingface`; what is multiplied by the same activations is one product. */
#ifndef MF_PROVIDERS_UNSLOTH_UNSLOTH_H
#define MF_PROVIDERS_UNSLOTH_UNSLOTH_H

#include "providers/provider.h"

mf_provider_entry_function mf_unsloth_entry;

#endif
