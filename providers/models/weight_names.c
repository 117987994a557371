#include "providers/models/weight_names.h"

#include <stdio.h>
#include <string.h>

/* Beginnings of names, of models whose names are MF_NAMES_LANGUAGE_MODEL. */
static const struct {
    const char *old, *name, *text;
} parts[] = {
    {"language_model.model.", "model.language_model.", "model."},
    {"language_model.lm_head.", "lm_head.", "lm_head."},
};

static const char *const carried[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                      "model.multi_modal_projector."};

static bool begins(const char *text, const char *with) {
    return !strncmp(text, with, strlen(with));
}

static const char *changed(const char *text, const char *from, const char *to,
                           char buffer[MF_WEIGHT_NAME_BYTES]) {
    const int bytes = snprintf(buffer, MF_WEIGHT_NAME_BYTES, "%s%s", to, text + strlen(from));
    return bytes < MF_WEIGHT_NAME_BYTES ? buffer : text; /* no weight has so long a name */
}

static bool has_parts(const struct mf_architecture *architecture) {
    return architecture->names == MF_NAMES_LANGUAGE_MODEL;
}

const char *mf_weight_name(const struct mf_architecture *architecture, const char *stored,
                           char buffer[MF_WEIGHT_NAME_BYTES]) {
    for (size_t i = 0; has_parts(architecture) && i < sizeof parts / sizeof *parts; i++)
        if (begins(stored, parts[i].old))
            return changed(stored, parts[i].old, parts[i].name, buffer);
    return stored;
}

const char *mf_weight_old_name(const struct mf_architecture *architecture, const char *name,
                               char buffer[MF_WEIGHT_NAME_BYTES]) {
    for (size_t i = 0; has_parts(architecture) && i < sizeof parts / sizeof *parts; i++)
        if (begins(name, parts[i].name))
            return changed(name, parts[i].name, parts[i].old, buffer);
    return name;
}

const char *mf_weight_text_name(const struct mf_architecture *architecture, const char *stored,
                                char buffer[MF_WEIGHT_NAME_BYTES]) {
    for (size_t i = 0; has_parts(architecture) && i < sizeof parts / sizeof *parts; i++) {
        const char *const spelling[] = {parts[i].old, parts[i].name};
        for (size_t j = 0; j < sizeof spelling / sizeof *spelling; j++)
            if (begins(stored, spelling[j]))
                return changed(stored, spelling[j], parts[i].text, buffer);
    }
    return stored;
}

bool mf_weight_is_carried(const struct mf_architecture *architecture, const char *stored) {
    for (size_t i = 0; has_parts(architecture) && i < sizeof carried / sizeof *carried; i++)
        if (begins(stored, carried[i]))
            return true;
    return false;
}
