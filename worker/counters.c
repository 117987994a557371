#include "worker/counters.h"

#include <inttypes.h>
#include <string.h>

static const struct {
    const char *family, *labels, *type, *help;
} table[MF_COUNTER_COUNT] = {
#define MF_COUNTER(name, family, labels, type, help) [MF_COUNTER_##name] = {family, labels, type, help},
#include "worker/counters.def"
#undef MF_COUNTER
};

void mf_counter_add(struct mf_counters *counters, enum mf_counter counter, int64_t amount) {
    atomic_fetch_add_explicit(&counters->value[counter], amount, memory_order_relaxed);
}

void mf_counter_set(struct mf_counters *counters, enum mf_counter counter, int64_t value) {
    atomic_store_explicit(&counters->value[counter], value, memory_order_relaxed);
}

int64_t mf_counter_get(const struct mf_counters *counters, enum mf_counter counter) {
    return atomic_load_explicit(&counters->value[counter], memory_order_relaxed);
}

void mf_counters_print(const struct mf_counters *counters, struct mf_text *text) {
    const char *family = "";
    for (int i = 0; i < MF_COUNTER_COUNT; i++) {
        if (strcmp(family, table[i].family) != 0)
            mf_text_printf(text, "# HELP %s %s.\n# TYPE %s %s\n", table[i].family, table[i].help,
                           table[i].family, table[i].type);
        family = table[i].family;
        bool labelled = *table[i].labels;
        mf_text_printf(text, "%s%s%s%s %" PRId64 "\n", family, labelled ? "{" : "", table[i].labels,
                       labelled ? "}" : "", mf_counter_get(counters, (enum mf_counter)i));
    }
}
