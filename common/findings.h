/* What an examination of a system finds, as lines for people or as JSON: `modelforge doctor`,
 * `modelforge-worker check`. */
#ifndef MF_COMMON_FINDINGS_H
#define MF_COMMON_FINDINGS_H

#include <jansson.h>
#include <stdbool.h>

enum mf_finding_level {
    MF_FINDING_OK,
    MF_FINDING_WARNING, /* somebody should look at it; work goes on */
    MF_FINDING_FAULT    /* something does not work, or does not keep what it promised */
};

/* One thread at a time. */
struct mf_findings {
    bool json;
    json_t *list; /* with json: what was found */
    int warnings, faults;
};

void mf_findings_begin(struct mf_findings *findings, bool json);
/* Standard output gets it at once, or the list: `check` is the name of what was looked at ("storage"), the
 * text what was seen, and `mend` (NULL: nothing to say) what to do about it. */
void mf_find(struct mf_findings *findings, enum mf_finding_level level, const char *check, const char *mend,
             const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Takes over what another program's mf_findings_end() printed as JSON; false when it is nothing of that kind.
 */
bool mf_findings_take(struct mf_findings *findings, const json_t *list);
/* Prints the JSON, one array of {"check", "ok", "level", "detail", "mend"}, or a line that sums up. Returns
 * the number of faults. */
int mf_findings_end(struct mf_findings *findings);

#endif
