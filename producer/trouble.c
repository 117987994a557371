#include "producer/trouble.h"

#include <stdio.h>
#include <string.h>

/* librdkafka before 2.6.1 cannot log in by SCRAM at Kafka 4 and later, with the right password too. */
enum { SCRAM_MENDED = 0x020601ff };

void mf_kafka_trouble_init(struct mf_kafka_trouble *trouble) {
    memset(trouble, 0, sizeof *trouble);
    pthread_mutex_init(&trouble->lock, NULL);
}

void mf_kafka_trouble_destroy(struct mf_kafka_trouble *trouble) {
    pthread_mutex_destroy(&trouble->lock);
}

static bool is_refusal(rd_kafka_resp_err_t code) {
    return code == RD_KAFKA_RESP_ERR__AUTHENTICATION || code == RD_KAFKA_RESP_ERR__SSL ||
           code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
}

static int gravity(rd_kafka_resp_err_t code) {
    return is_refusal(code)                     ? 3
           : code == RD_KAFKA_RESP_ERR__RESOLVE ? 2
           : code != RD_KAFKA_RESP_ERR_NO_ERROR ? 1
                                                : 0;
}

static void on_error(rd_kafka_t *kafka, int code, const char *reason, void *opaque) {
    struct mf_kafka_trouble *trouble = opaque;
    (void)kafka;
    pthread_mutex_lock(&trouble->lock);
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        trouble->all_down = true;
    } else if (gravity((rd_kafka_resp_err_t)code) >= gravity(trouble->code)) {
        const char *end = strstr(reason, " (after "); /* how long it took is no news */
        trouble->code = (rd_kafka_resp_err_t)code;
        snprintf(trouble->text, sizeof trouble->text, "%.*s",
                 (int)(end ? end - reason : (long)strlen(reason)), reason);
    }
    pthread_mutex_unlock(&trouble->lock);
}

static void on_log(const rd_kafka_t *kafka, int level, const char *facility, const char *text) {
    (void)kafka, (void)level, (void)facility, (void)text; /* on_error hears of what matters */
}

void mf_kafka_trouble_watch(struct mf_kafka_trouble *trouble, rd_kafka_conf_t *conf) {
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_opaque(conf, trouble);
}

void mf_kafka_trouble_over(struct mf_kafka_trouble *trouble) {
    pthread_mutex_lock(&trouble->lock);
    trouble->code = RD_KAFKA_RESP_ERR_NO_ERROR;
    trouble->all_down = false;
    pthread_mutex_unlock(&trouble->lock);
}

static const char *remedy(rd_kafka_resp_err_t code, const char *text) {
    if (strstr(text, "invalid credentials with SASL mechanism SCRAM") && rd_kafka_version() < SCRAM_MENDED)
        return " (this librdkafka is older than 2.6.1 and cannot log in by SCRAM at Kafka 4 or later: use "
               "PLAIN "
               "over TLS, a client certificate, or a newer librdkafka)";
    if (code == RD_KAFKA_RESP_ERR__SSL)
        return " (see kafka.security.protocol and kafka.ssl.ca.location)";
    return is_refusal(code) ? " (see kafka.sasl.username, kafka.sasl.password and kafka.sasl.mechanism)" : "";
}

const char *mf_kafka_trouble_text(struct mf_kafka_trouble *trouble, char text[MF_TROUBLE_TEXT_BYTES]) {
    *text = 0;
    pthread_mutex_lock(&trouble->lock);
    if (trouble->code)
        snprintf(text, MF_TROUBLE_TEXT_BYTES, "; %s%s", trouble->text, remedy(trouble->code, trouble->text));
    pthread_mutex_unlock(&trouble->lock);
    return text;
}

bool mf_kafka_trouble_hopeless(struct mf_kafka_trouble *trouble) {
    pthread_mutex_lock(&trouble->lock);
    bool hopeless = trouble->all_down && is_refusal(trouble->code);
    pthread_mutex_unlock(&trouble->lock);
    return hopeless;
}
