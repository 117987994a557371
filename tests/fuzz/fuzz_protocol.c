/* Fuzzing entry of the trainer protocol: a stream of lines, read as events of a trainer and as commands of a
 * worker. An event that was understood can be written and is understood again. */
#include "tests/fuzz/fuzz.h"
#include "worker/trainer/protocol.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void send_again(const struct mf_event *event) {
    struct mf_protocol_writer writer;
    struct mf_protocol_reader reader;
    struct mf_error error;
    struct mf_event again;
    const char *line = NULL;
    size_t length;
    int fd = open(fuzz_put("again", "", 0), O_RDWR | O_CLOEXEC);
    if (fd < 0)
        abort();
    mf_protocol_writer_init(&writer, fd);
    if (mf_protocol_send_event(&writer, event, &error) || lseek(fd, 0, SEEK_SET) ||
        mf_protocol_reader_init(&reader, fd, &error))
        abort();
    mf_protocol_reader_fill(&reader, &error);
    while (!(line = mf_protocol_reader_next(&reader, &length)) &&
           mf_protocol_reader_fill(&reader, &error) == MF_READ_DATA)
        ;
    if (!line || mf_event_decode(line, length, &again, &error) || again.type != event->type)
        abort();
    mf_event_destroy(&again);
    mf_protocol_reader_destroy(&reader);
    mf_protocol_writer_destroy(&writer);
    close(fd);
}

static void decode(const char *line, size_t length) {
    struct mf_event event;
    struct mf_trainer_command command;
    struct mf_error error;
    if (!mf_event_decode(line, length, &event, &error)) {
        if (event.type != MF_EVENT_UNKNOWN)
            send_again(&event);
        mf_event_destroy(&event);
    } else if (!*error.message) {
        abort();
    }
    if (mf_trainer_command_decode(line, length, &command, &error) && !*error.message)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mf_protocol_reader reader;
    struct mf_error error;
    int fd = open(fuzz_put("stream", data, size), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || mf_protocol_reader_init(&reader, fd, &error))
        abort();
    while (mf_protocol_reader_fill(&reader, &error) == MF_READ_DATA) {
        size_t length;
        for (const char *line; (line = mf_protocol_reader_next(&reader, &length));)
            decode(line, length);
    }
    mf_protocol_reader_destroy(&reader);
    close(fd);
    return 0;
}
