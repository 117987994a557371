/* A service that submits training requests, built from the installed files alone:
 *
 *     cc service.c $(pkg-config --cflags --libs modelforge-producer) -o service
 *     service BROKERS REGISTRY_URL < requests.jsonl
 *
 * It reads one request a line and prints a line for each: its job id and where Kafka holds it, or why it was
 * not accepted. It shows the three things such a service must do: keep a request until its delivery callback
 * said that it was accepted, slow down when the queue is full, and give the callbacks time to run. */
#define _POSIX_C_SOURCE 200809L /* getline */
#include <producer/client.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLUSH_MS = 30000, BACK_PRESSURE_MS = 100 };

/* What the service remembers of a request on its way. */
struct pending {
    char job_id[MF_UUID_TEXT_BYTES];
    int *refused; /* how many were not accepted */
};

/* Runs inside mf_client_poll and mf_client_flush, once a request. */
static void on_delivery(const struct mf_delivery *delivery, void *user) {
    struct pending *pending = user;
    if (delivery->status == MF_OK) {
        printf("%s accepted at %s/%d/%lld\n", pending->job_id, delivery->topic, (int)delivery->partition,
               (long long)delivery->offset);
    } else {
        printf("%s not accepted: %s\n", pending->job_id, delivery->message);
        ++*pending->refused; /* a real service would send it again: the same request_id is the same job */
    }
    free(pending);
}

static enum mf_status submit(struct mf_client *client, const char *line, int *refused,
                             struct mf_error *error) {
    struct mf_request request;
    struct pending *pending = calloc(1, sizeof *pending);
    if (!pending)
        abort();
    pending->refused = refused;
    enum mf_status status = mf_request_from_text(line, strlen(line), "the line", &request, error);
    if (status)
        goto done;
    while ((status = mf_client_submit(client, &request, on_delivery, pending, pending->job_id, error)) ==
           MF_ERROR_QUEUE_FULL)
        mf_client_poll(client, BACK_PRESSURE_MS);
done:
    if (status)
        free(pending); /* no callback will come for it */
    mf_request_free(&request);
    return status;
}

int main(int argc, char **argv) {
    struct mf_error error;
    struct mf_client *client;
    char *line = NULL, text[MF_ERROR_TEXT_BYTES + 64];
    size_t room = 0;
    int refused = 0;
    if (argc != 3) {
        fprintf(stderr, "usage: service BROKERS REGISTRY_URL < requests.jsonl\n");
        return 2;
    }
    const struct mf_client_property kafka[] = {{"bootstrap.servers", argv[1]},
                                               {"client.id", "example-service"}};
    const struct mf_client_options options = {.kafka = kafka,
                                              .kafka_count = 2,
                                              .registry_url = argv[2],
                                              .requests_topic = getenv("REQUESTS_TOPIC")};
    if (mf_client_create(&options, &client, &error)) {
        fprintf(stderr, "service: %s\n", mf_error_format(&error, text, sizeof text));
        return 1;
    }
    while (getline(&line, &room, stdin) >= 0) {
        if (submit(client, line, &refused, &error)) {
            printf("refused: %s\n", mf_error_format(&error, text, sizeof text));
            refused++;
        }
        mf_client_poll(client, 0);
    }
    if (mf_client_flush(client, FLUSH_MS, &error))
        fprintf(stderr, "service: %s\n", mf_error_format(&error, text, sizeof text));
    free(line);
    mf_client_destroy(client); /* callbacks of what is still on its way run here */
    return refused ? 1 : 0;
}
