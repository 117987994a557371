#include "worker/trainer/memory.h"

#include "common/text.h"
#include "worker/trainer/best.h"

#include <math.h>
#include <string.h>

/* Fewer tokens than this are no row to train on. */
enum { SHORTEST_LENGTH = 16 };

static const double gibibyte = 1073741824.0;

size_t mf_job_budget(const struct mf_job *job) {
    const size_t machine = mf_runtime_budget(&job->runtime);
    if (job->budget_bytes)
        return job->budget_bytes;
    if (!job->request.memory_budget_gib.set)
        return machine;
    const double asked = job->request.memory_budget_gib.value * gibibyte;
    return asked < (double)machine ? (size_t)asked : machine;
}

/* What one plan takes. */
struct fit {
    size_t bytes;
    double cost; /* of its passes */
};

/* Plans the job anew. */
static enum mf_status plan(struct mf_job *job, mf_job_builder *build, int32_t pass,
                           struct mf_memory_choice choice, struct fit *fit, struct mf_error *error) {
    enum mf_status status = MF_OK;
    job->pass_tokens = pass;
    job->memory = choice;
    if (job->runtime.graph->programs || job->runtime.plan)
        status = mf_runtime_discard(&job->runtime, error);
    if (status == MF_OK)
        status = build(job, error);
    if (status == MF_OK)
        status = mf_runtime_plan(&job->runtime, error);
    if (status == MF_OK)
        *fit = (struct fit){
            .bytes = mf_plan_bytes(job->runtime.plan) + mf_best_bytes(job),
            .cost = mf_memory_cost(job->runtime.graph, job->programs.train.program, job->runtime.backend)};
    return status;
}

/* Every choice there is but for how weights are kept, the one that takes least memory last. The first are
 * tried with every size of a pass. */
static const struct mf_memory_choice choices[] = {
    {.recompute = MF_RECOMPUTE_NONE},
    {.recompute = MF_RECOMPUTE_CHEAP},
    {.recompute = MF_RECOMPUTE_FEED_FORWARD},
    {.recompute = MF_RECOMPUTE_FEED_FORWARD, .chunk = true},
    {.recompute = MF_RECOMPUTE_PROJECTIONS},
    {.recompute = MF_RECOMPUTE_PROJECTIONS, .chunk = true},
    {.recompute = MF_RECOMPUTE_ATTENTION},
    {.recompute = MF_RECOMPUTE_ATTENTION, .chunk = true},
    {.recompute = MF_RECOMPUTE_CHEAP, .offload = true},
    {.recompute = MF_RECOMPUTE_FEED_FORWARD, .offload = true},
    {.recompute = MF_RECOMPUTE_FEED_FORWARD, .chunk = true, .offload = true},
    {.recompute = MF_RECOMPUTE_ATTENTION, .offload = true},
    {.recompute = MF_RECOMPUTE_ATTENTION, .chunk = true, .offload = true},
};
enum { CHOICES = sizeof choices / sizeof *choices, QUICK_CHOICES = 2 };

/* Those that mean something for a job and change no bit of it. */
struct possible {
    struct mf_memory_choice choice[2 * CHOICES]; /* the one that takes least memory last */
    size_t count, quick;                         /* quick: the first of them */
};

static void add_choices(const struct mf_backend *backend, bool recompute, bool quantized, size_t first,
                        size_t end, struct possible *possible) {
    for (size_t i = first; i < end; i++) {
        struct mf_memory_choice choice = choices[i];
        choice.quantized = quantized;
        if ((!choice.offload || backend->bytes_per_host_byte > 0) && (!choice.chunk || backend->rows_alone) &&
            (recompute || i == 0))
            possible->choice[possible->count++] = choice;
    }
}

/* recompute: is what can be computed again not kept? */
static struct possible possible_choices(const struct mf_job *job, bool recompute) {
    const struct mf_backend *backend = job->runtime.backend;
    struct possible possible = {.count = 0};
    bool nested;
    const bool quantized =
        backend->dequantizes && mf_model_quantization(job->runtime.model, &nested) != MF_QUANTIZATION_NONE;
    for (int kept = 0; kept <= quantized; kept++)
        add_choices(backend, recompute, kept, 0, QUICK_CHOICES, &possible);
    possible.quick = possible.count;
    for (int kept = 0; kept <= quantized; kept++)
        add_choices(backend, recompute, kept, QUICK_CHOICES, CHOICES, &possible);
    return possible;
}

static struct possible allowed_choices(const struct mf_job *job) {
    return possible_choices(job, job->request.gradient_checkpointing);
}

static enum mf_status plan_smallest(struct mf_job *job, mf_job_builder *build, int32_t pass, struct fit *fit,
                                    struct mf_error *error) {
    const struct possible allowed = allowed_choices(job);
    return plan(job, build, pass, allowed.choice[allowed.count - 1], fit, error);
}

static enum mf_status try_passes(struct mf_job *job, mf_job_builder *build, bool *fits,
                                 struct mf_error *error) {
    const size_t budget = mf_job_budget(job);
    const struct possible allowed = allowed_choices(job);
    const int32_t longest = mf_job_longest(job);
    for (int32_t pass = job->pass_tokens;; pass = pass / 2 > longest ? pass / 2 : longest) {
        for (size_t i = 0; i < allowed.quick; i++) {
            struct fit fit;
            const enum mf_status status = plan(job, build, pass, allowed.choice[i], &fit, error);
            *fits = status == MF_OK && fit.bytes <= budget;
            if (status != MF_OK || *fits)
                return status;
        }
        if (pass == longest)
            return MF_OK;
    }
}

/* The cheapest choice that fits at the longest row. */
static enum mf_status try_choices(struct mf_job *job, mf_job_builder *build, bool *fits,
                                  struct mf_error *error) {
    const size_t budget = mf_job_budget(job);
    const struct possible allowed = allowed_choices(job);
    const int32_t longest = mf_job_longest(job);
    size_t best = allowed.count;
    double least = INFINITY;
    struct fit fit;
    for (size_t i = allowed.quick; i < allowed.count; i++) {
        const enum mf_status status = plan(job, build, longest, allowed.choice[i], &fit, error);
        if (status != MF_OK)
            return status;
        if (fit.bytes <= budget && fit.cost < least) {
            least = fit.cost;
            best = i;
        }
    }
    *fits = best < allowed.count;
    return *fits ? plan(job, build, longest, allowed.choice[best], &fit, error) : MF_OK;
}

/* ---- when nothing fits: what would
 * --------------------------------------------------------------------------------- */

/* The longest row, a multiple of SHORTEST_LENGTH, with which the smallest plan fits; 0: none. */
static enum mf_status fitting_length(struct mf_job *job, mf_job_builder *build, int32_t *length,
                                     struct mf_error *error) {
    int32_t low = 0, high = (mf_job_longest(job) - 1) / SHORTEST_LENGTH;
    while (low < high) {
        const int32_t middle = low + (high - low + 1) / 2;
        struct fit fit;
        const enum mf_status status = plan_smallest(job, build, middle * SHORTEST_LENGTH, &fit, error);
        if (status != MF_OK)
            return status;
        if (fit.bytes <= mf_job_budget(job))
            low = middle;
        else
            high = middle - 1;
    }
    *length = low * SHORTEST_LENGTH;
    return MF_OK;
}

static double rounded_up(size_t bytes) {
    return ceil((double)bytes / gibibyte * 1000) / 1000;
}

/* A budget, or a machine where the machine is what limits. */
static void suggest_memory(const struct mf_job *job, size_t bytes, struct mf_text *text) {
    if (mf_job_budget(job) < mf_runtime_budget(&job->runtime))
        mf_text_printf(text, "memory_budget_gib %.3f", rounded_up(bytes));
    else
        mf_text_printf(
            text, "a %s with %.3f GiB of memory",
            job->runtime.device.kind == MF_DEVICE_CUDA ? "GPU" : "machine",
            rounded_up(job->runtime.device.kind == MF_DEVICE_CUDA ? bytes / 9 * 10 : bytes / 4 * 5));
}

/* Settings that take less memory and train something else: the user's to choose. */
struct variant {
    const char *name;
    bool (*apply)(struct mf_request *request); /* false: it is so already, or means nothing here */
};

static bool use_8_bit_moments(struct mf_request *request) {
    static char name[] = "adamw_8bit";
    const bool other = strncmp(request->optim, "sgd", 3) != 0 && strcmp(request->optim, name) != 0;
    request->optim = name;
    return other;
}

static bool use_adapters(struct mf_request *request) {
    static char name[] = "lora";
    const bool other = mf_request_trains_all(request);
    request->finetuning = name;
    return other;
}

static bool halve_rank(struct mf_request *request) {
    request->lora_r /= 2;
    return request->lora_r > 0 && !request->adapter_name_or_path && !mf_request_trains_all(request);
}

static bool keep_last_model(struct mf_request *request) {
    const bool other = request->load_best_model_at_end;
    request->load_best_model_at_end = false;
    return other;
}

/* Adds what would fit of them, each alone. The request is what it was afterwards. */
static enum mf_status suggest_variants(struct mf_job *job, mf_job_builder *build, struct mf_text *text,
                                       struct mf_error *error) {
    static const struct variant variants[] = {{"optim adamw_8bit", use_8_bit_moments},
                                              {"finetuning lora", use_adapters},
                                              {"lora_r", halve_rank},
                                              {"load_best_model_at_end false", keep_last_model}};
    const struct mf_request request = job->request;
    enum mf_status status = MF_OK;
    for (size_t i = 0; status == MF_OK && i < sizeof variants / sizeof *variants; i++) {
        struct fit fit;
        if (variants[i].apply(&job->request)) {
            status = plan_smallest(job, build, mf_job_longest(job), &fit, error);
            if (status == MF_OK && fit.bytes <= mf_job_budget(job))
                mf_text_printf(text, ", %s", variants[i].name);
            if (status == MF_OK && fit.bytes <= mf_job_budget(job) && job->request.lora_r != request.lora_r)
                mf_text_printf(text, " %lld", (long long)job->request.lora_r);
        }
        job->request = request;
    }
    return status;
}

/* What training a parameter takes: its value, rounded too where programs are not in f32, gradient, moments.
 */
static size_t trained_bytes(const struct mf_plan *plan) {
    return plan->storage_bytes[MF_ADAPTER] + plan->storage_bytes[MF_GRADIENT] +
           plan->storage_bytes[MF_OPTIMIZER] + plan->storage_bytes[MF_STATE];
}

static enum mf_status refuse(struct mf_job *job, mf_job_builder *build, struct mf_error *error) {
    const int32_t longest = mf_job_longest(job);
    struct fit smallest, recomputed;
    struct mf_text text = {0};
    int32_t length = 0;
    const struct possible possible = possible_choices(job, true);
    enum mf_status status = plan_smallest(job, build, longest, &smallest, error);
    const bool all = mf_request_trains_all(&job->request);
    size_t weights = 0;
    if (status == MF_OK)
        weights = all ? trained_bytes(job->runtime.plan)
                      : job->runtime.plan->weight_bytes + job->runtime.plan->copy_bytes;
    if (status == MF_OK)
        status = plan(job, build, longest, possible.choice[possible.count - 1], &recomputed, error);
    if (status == MF_OK)
        status = fitting_length(job, build, &length, error);
    if (status != MF_OK)
        return status;
    suggest_memory(job, smallest.bytes, &text);
    if (length)
        mf_text_printf(&text, ", max_seq_length %d (the longest row has %d tokens)", length, longest);
    if (recomputed.bytes <= mf_job_budget(job))
        mf_text_printf(&text, ", gradient_checkpointing true");
    status = suggest_variants(job, build, &text, error);
    if (status == MF_OK)
        status = mf_text_status(&text, error);
    if (status == MF_OK)
        status = mf_error_set(
            error, MF_ERROR_PLAN_TOO_LARGE,
            "the smallest plan of this job needs %.3f GiB (%.3f for %s), %.3f may be used; any of "
            "these would fit: %s",
            rounded_up(smallest.bytes), rounded_up(weights),
            all ? "weights, gradients and optimizer" : "weights and their copies",
            floor((double)mf_job_budget(job) / gibibyte * 1000) / 1000, mf_text_string(&text));
    mf_text_free(&text);
    return status;
}

enum mf_status mf_job_fit_memory(struct mf_job *job, mf_job_builder *build, struct mf_error *error) {
    bool fits = false;
    enum mf_status status = try_passes(job, build, &fits, error);
    if (status == MF_OK && !fits)
        status = try_choices(job, build, &fits, error);
    return status == MF_OK && !fits ? refuse(job, build, error) : status;
}
