#include "common/findings.h"

#include "common/error.h"
#include "common/terminal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 3, CHECK_CELLS = 25, INDENT = 8 + CHECK_CELLS + 1 };

static const struct {
    const char *name, *shown, *colour;
} levels[LEVELS] = {{"ok", "ok", MF_GREEN}, {"warning", "warning", MF_YELLOW}, {"fault", "FAULT", MF_RED}};

void mf_findings_begin(struct mf_findings *findings, bool json) {
    *findings = (struct mf_findings){.json = json, .list = json ? json_array() : NULL};
}

static void print(enum mf_finding_level level, const char *check, const char *mend, const char *detail) {
    const int padding = 7 - (int)strlen(levels[level].shown);
    printf("%s%s%s%*s %-*s ", mf_colour(stdout, levels[level].colour), levels[level].shown,
           mf_colour(stdout, MF_RESET), padding, "", CHECK_CELLS, check);
    if (strlen(check) > CHECK_CELLS && mf_terminal_columns(stdout))
        printf("\n%*s", INDENT, "");
    mf_print_wrapped(stdout, detail, INDENT, INDENT);
    if (mend) {
        printf("%*sto mend: ", INDENT, "");
        mf_print_wrapped(stdout, mend, INDENT + 9, INDENT);
    }
    fflush(stdout);
}

static void add(struct mf_findings *findings, enum mf_finding_level level, const char *check,
                const char *mend, const char *detail) {
    findings->warnings += level == MF_FINDING_WARNING;
    findings->faults += level == MF_FINDING_FAULT;
    if (findings->json)
        json_array_append_new(findings->list, json_pack("{s:s, s:b, s:s, s:s, s:s?}", "check", check, "ok",
                                                        level != MF_FINDING_FAULT, "level",
                                                        levels[level].name, "detail", detail, "mend", mend));
    else
        print(level, check, mend, detail);
}

void mf_find(struct mf_findings *findings, enum mf_finding_level level, const char *check, const char *mend,
             const char *format, ...) {
    char text[MF_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    add(findings, level, check, mend, text);
}

bool mf_findings_take(struct mf_findings *findings, const json_t *list) {
    size_t i;
    const json_t *found;
    if (!json_is_array(list))
        return false;
    json_array_foreach(list, i, found) {
        const char *check = json_string_value(json_object_get(found, "check"));
        const char *detail = json_string_value(json_object_get(found, "detail"));
        const char *name = json_string_value(json_object_get(found, "level"));
        for (int level = 0; check && detail && name && level < LEVELS; level++)
            if (!strcmp(levels[level].name, name))
                add(findings, (enum mf_finding_level)level, check,
                    json_string_value(json_object_get(found, "mend")), detail);
    }
    return true;
}

int mf_findings_end(struct mf_findings *findings) {
    if (findings->json) {
        char *text = json_dumps(findings->list, JSON_COMPACT);
        puts(text ? text : "[]");
        free(text);
    } else if (findings->faults + findings->warnings) {
        printf("\n%d fault%s, %d warning%s\n", findings->faults, findings->faults == 1 ? "" : "s",
               findings->warnings, findings->warnings == 1 ? "" : "s");
    } else {
        puts("\nnothing to mend");
    }
    json_decref(findings->list);
    return findings->faults;
}
