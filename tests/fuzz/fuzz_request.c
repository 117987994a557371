/* Fuzzing entry of the request's JSON reader. */
#include <stdlib.h>

#include "schemas/request.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mf_request request, again;
    struct mf_error error;
    char hash[MF_SHA256_TEXT_BYTES];
    json_t *object;
    if (!mf_request_from_text((const char *)data, size, "fuzz", &request, &error)) {
        /* what was taken in can be written and read again */
        if (mf_request_hash(&request, hash, &error) || mf_request_to_json(&request, false, &object, &error) ||
            mf_request_from_json(object, false, &again, &error))
            abort();
        json_decref(object);
        mf_request_free(&again);
    }
    mf_request_free(&request);
    return 0;
}
