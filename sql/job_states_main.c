/* modelforge-job-states: prints what is generated from the state table. */
#include <stdio.h>
#include <stdlib.h>

#include "sql/job_state.h"

int main(void) {
    struct mf_error error;
    char *text;
    if (mf_job_states_markdown(&text, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    int written = fputs(text, stdout);
    free(text);
    return written < 0 || fflush(stdout) ? 1 : 0;
}
