#include "worker/trainer/strategies/strategy.h"

#include <string.h>

enum mf_status mf_strategy_find(const char *name, const struct mf_strategy **out, struct mf_error *error) {
    static const struct mf_strategy *const strategies[] = {&mf_strategy_sft, &mf_strategy_qlora, NULL};
    for (size_t i = 0; strategies[i]; i++) {
        if (!strcmp(name, strategies[i]->name)) {
            *out = strategies[i];
            return MF_OK;
        }
    }
    return mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD,
                        "strategy: '%s' cannot be trained by this version; sft and qlora can", name);
}
