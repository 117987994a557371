/* modelforge-fields: prints what is generated from the field table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/request.h"

int main(int argc, char **argv) {
    struct mf_error error;
    char *text = NULL;
    enum mf_status status;
    if (argc == 2 && !strcmp(argv[1], "markdown")) {
        status = mf_request_fields_markdown(&text, &error);
    } else if (argc == 2 && !strcmp(argv[1], "avro")) {
        status = mf_request_avro_schema(&text, &error);
    } else {
        fprintf(stderr, "usage: modelforge-fields markdown > schemas/FIELDS.md\n"
                        "       modelforge-fields avro > schemas/TrainingRequest.avsc\n");
        return 2;
    }
    if (status) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    int written = fputs(text, stdout);
    free(text);
    return written < 0 || fflush(stdout) ? 1 : 0;
}
