#include "worker/trainer/event_order.h"

#include <string.h>

static enum mf_status say_again(const struct mf_event_order *order, const char *what, int64_t now,
                                int64_t before, struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s said %s %lld after %s %lld", order->who,
                        what, (long long)now, what, (long long)before);
}

static enum mf_status take_hello(struct mf_event_order *order, const struct mf_event *event,
                                 struct mf_error *error) {
    if (order->hello && (!order->hands_over || order->plan))
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s said hello again", order->who);
    if (event->hello.protocol != MF_PROTOCOL_VERSION)
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s speaks protocol %lld, this version %d",
                            order->who, (long long)event->hello.protocol, MF_PROTOCOL_VERSION);
    order->hands_over &= !order->hello;
    order->hello = true;
    memset(order->fraction, 0, sizeof order->fraction);
    return MF_OK;
}

static bool is_sha256(const char *text) {
    return strspn(text, "0123456789abcdef") == 64 && !text[64];
}

static enum mf_status take_plan(struct mf_event_order *order, const struct mf_event *event,
                                struct mf_error *error) {
    const struct {
        const char *name, *sha256;
        bool optional;
    } digests[] = {{"numeric_plan_sha256", event->plan.numeric_plan_sha256, false},
                   {"dataset_sha256", event->plan.dataset_sha256, true},
                   {"resumed_plan_sha256", event->plan.resumed_plan_sha256, true}};
    if (order->plan)
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s said plan twice", order->who);
    for (size_t i = 0; i < sizeof digests / sizeof *digests; i++)
        if (!(digests[i].optional && !*digests[i].sha256) && !is_sha256(digests[i].sha256))
            return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL,
                                "plan of the %s: %s is not a sha256 in 64 digits of 0 to 9 and a to f",
                                order->who, digests[i].name);
    order->plan = true;
    return MF_OK;
}

static enum mf_status take_progress(struct mf_event_order *order, const struct mf_event *event,
                                    struct mf_error *error) {
    const enum mf_phase phase = event->progress.phase;
    const double fraction = event->progress.fraction, before = order->fraction[phase];
    if (!(fraction >= 0 && fraction <= 1))
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL,
                            "progress of the %s: fraction %g of phase %s is not in [0, 1]", order->who,
                            fraction, mf_phase_name(phase));
    if (phase != MF_PHASE_EVALUATE && phase != MF_PHASE_SAVE && fraction < before)
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL,
                            "progress of the %s: the fraction of phase %s fell from %g to %g", order->who,
                            mf_phase_name(phase), before, fraction);
    order->fraction[phase] = fraction;
    return MF_OK;
}

static enum mf_status take_artifact(struct mf_event_order *order, const struct mf_event *event,
                                    struct mf_error *error) {
    static const char *const kinds[MF_ORDER_ARTIFACTS] = {"adapter", "model", "merged_16bit", "gguf",
                                                          "training_json"};
    for (size_t i = 0; i < MF_ORDER_ARTIFACTS; i++) {
        if (strcmp(kinds[i], event->artifact.kind) != 0)
            continue;
        if (order->artifact[i])
            return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s named two artifacts of kind %s",
                                order->who, kinds[i]);
        order->artifact[i] = true;
        return MF_OK;
    }
    return mf_error_set(
        error, MF_ERROR_PROVIDER_PROTOCOL,
        "the %s named an artifact of kind '%.64s', which is none of adapter, model, merged_16bit, gguf, "
        "training_json",
        order->who, event->artifact.kind);
}

static enum mf_status take_answer(struct mf_event_order *order, const struct mf_event *event,
                                  struct mf_error *error) {
    const int64_t number = event->number;
    const uint64_t bit = 1ULL << (number & 63);
    const bool recent = order->commands - number < 64;
    if (number < 1 || number > order->commands || (recent && !(order->open & bit)))
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s said %s of command %lld, which %s",
                            order->who, mf_event_type_name(event->type), (long long)number,
                            number < 1 || number > order->commands ? "was not sent" : "it had answered");
    if (recent && (event->type == MF_EVENT_PONG) != ((order->pings & bit) != 0))
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL,
                            "the %s said %s of command %lld: pong answers a ping, ack every other command",
                            order->who, mf_event_type_name(event->type), (long long)number);
    if (recent)
        order->open &= ~bit;
    return MF_OK;
}

/* Those that tell of a run, which the plan has to begin. */
static bool needs_plan(enum mf_event_type type) {
    return type == MF_EVENT_STEP || type == MF_EVENT_EVAL || type == MF_EVENT_CHECKPOINT ||
           type == MF_EVENT_ARTIFACT || type == MF_EVENT_DONE;
}

enum mf_status mf_event_order_take(struct mf_event_order *order, const struct mf_event *event,
                                   struct mf_error *error) {
    const char *name = mf_event_type_name(event->type);
    if (event->type == MF_EVENT_UNKNOWN) /* of a newer version */
        return MF_OK;
    const bool answers = event->type == MF_EVENT_ACK || event->type == MF_EVENT_PONG;
    if (order->terminal != MF_EVENT_UNKNOWN && !answers)
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s said %s after %s", order->who, name,
                            mf_event_type_name(order->terminal));
    if (!order->hello && event->type != MF_EVENT_HELLO)
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s said %s before hello", order->who,
                            name);
    if (needs_plan(event->type) && !order->plan)
        return mf_error_set(error, MF_ERROR_PROVIDER_PROTOCOL, "the %s said %s before plan", order->who,
                            name);
    switch (event->type) {
    case MF_EVENT_HELLO:
        return take_hello(order, event, error);
    case MF_EVENT_PLAN:
        return take_plan(order, event, error);
    case MF_EVENT_PROGRESS:
        return take_progress(order, event, error);
    case MF_EVENT_ARTIFACT:
        return take_artifact(order, event, error);
    case MF_EVENT_ACK:
    case MF_EVENT_PONG:
        return take_answer(order, event, error);
    case MF_EVENT_STEP:
        if (event->step.step <= order->step)
            return say_again(order, name, event->step.step, order->step, error);
        order->step = event->step.step;
        return MF_OK;
    case MF_EVENT_CHECKPOINT:
        if (event->checkpoint.step <= order->checkpoint_step)
            return say_again(order, name, event->checkpoint.step, order->checkpoint_step, error);
        order->checkpoint_step = event->checkpoint.step;
        return MF_OK;
    default:
        if (mf_event_is_terminal(event->type))
            order->terminal = event->type;
        return MF_OK;
    }
}

int64_t mf_event_order_command(struct mf_event_order *order, enum mf_trainer_command_type type) {
    const int64_t number = ++order->commands;
    const uint64_t bit = 1ULL << (number & 63);
    order->open |= bit;
    order->pings = type == MF_TRAINER_PING ? order->pings | bit : order->pings & ~bit;
    return number;
}

int mf_event_exit_status(enum mf_event_type terminal) {
    switch (terminal) {
    case MF_EVENT_DONE:
        return MF_TRAINER_EXIT_DONE;
    case MF_EVENT_PAUSED:
        return MF_TRAINER_EXIT_PAUSED;
    case MF_EVENT_CANCELLED:
        return MF_TRAINER_EXIT_CANCELLED;
    default:
        return MF_TRAINER_EXIT_ERROR;
    }
}
