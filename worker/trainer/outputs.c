#include "worker/trainer/outputs.h"

#include "common/files.h"
#include "providers/export.h"
#include "worker/trainer/record.h"

#include <stdlib.h>
#include <string.h>

/* The artifact kinds in the order in which they are written. */
enum kind { ADAPTER, MODEL, MERGED, GGUF, RECORD, KINDS };

static const struct {
    const char *kind, *name; /* as the request and the protocol call it; what it is called in the folder */
} kinds[KINDS] = {
    [ADAPTER] = {"adapter", "adapter"},
    [MODEL] = {"model", "model"}, /* what "adapter" means where every weight is trained */
    [MERGED] = {"merged_16bit", "merged_16bit"},
    [GGUF] = {"gguf", "model.gguf"},
    [RECORD] = {"training_json", "training.json"},
};

static bool wanted(const struct mf_request *request, enum kind kind) {
    const bool full = mf_request_trains_all(request);
    if (kind == (full ? ADAPTER : MODEL))
        return false;
    const char *name = kinds[kind == MODEL ? ADAPTER : kind].kind;
    for (size_t i = 0; i < request->output.count; i++)
        if (!strcmp(request->output.item[i], name))
            return true;
    return kind == RECORD;
}

enum mf_status mf_outputs_check(const struct mf_request *request, const struct mf_model *model,
                                struct mf_error *error) {
    return wanted(request, GGUF) ? mf_export_gguf_check(mf_model_folder(model), error) : MF_OK;
}

enum mf_status mf_outputs_check_trained(const struct mf_job *job, struct mf_error *error) {
    return wanted(&job->request, GGUF) && mf_adapter_unties_head(job->runtime.graph, MF_POLICY_SLOT)
               ? mf_export_gguf_check_untied(mf_model_folder(job->runtime.model), error)
               : MF_OK;
}

/* Where the writing of one kind stands among all. */
struct stage {
    struct mf_report *report;
    int first, kinds;
};

static bool proceed(void *argument, double fraction) {
    const struct stage *stage = argument;
    mf_report_progress(stage->report, MF_PHASE_SAVE, (stage->first + fraction) / stage->kinds);
    return !mf_report_cancelled(stage->report);
}

static enum mf_status write_merged(struct mf_job *job, enum kind kind, const char *path, struct stage *stage,
                                   struct mf_error *error) {
    struct mf_adapter_deltas deltas = {0};
    enum mf_status status =
        mf_adapter_deltas(job->runtime.graph, MF_POLICY_SLOT, job->runtime.executor, &deltas, error);
    const struct mf_export_options options = {.folder = mf_model_folder(job->runtime.model),
                                              .architecture = mf_model_architecture(job->runtime.model),
                                              .delta = deltas.delta,
                                              .deltas = deltas.count,
                                              .value = deltas.value,
                                              .values = deltas.whole,
                                              .untie_head = deltas.untie_head,
                                              .proceed = proceed,
                                              .argument = stage};
    if (status == MF_OK)
        status = kind == GGUF
                     ? mf_export_gguf(&options, MF_GGUF_Q8_0, path, error)
                     : mf_export_huggingface(&options, kind == MODEL ? MF_EXPORT_STORED : MF_EXPORT_16BIT,
                                             path, error);
    mf_adapter_deltas_destroy(&deltas);
    return status;
}

static enum mf_status write_kind(struct mf_job *job, const struct mf_history *history, enum kind kind,
                                 const char *path, struct stage *stage, struct mf_error *error) {
    switch (kind) {
    case ADAPTER:
        return mf_adapter_save(path, job->runtime.graph, MF_POLICY_SLOT, job->runtime.executor, &job->adapter,
                               job->request.model_name, mf_model_folder(job->runtime.model), error);
    case RECORD:
        return mf_record_write(path, job, history, error);
    default:
        return write_merged(job, kind, path, stage, error);
    }
}

static enum mf_status report_artifact(const struct mf_job *job, const char *kind, const char *path,
                                      struct mf_error *error) {
    uint64_t bytes = 0;
    enum mf_status status = mf_tree_size(path, &bytes, error);
    if (status == MF_OK)
        mf_report_event(job->report, &(struct mf_event){.type = MF_EVENT_ARTIFACT,
                                                        .artifact = {kind, path, (int64_t)bytes}});
    return status;
}

/* training.json speaks for all that lies beside it. Where a folder has one, of an earlier run, the outputs
 * that this run does not write go, and at last it goes itself: it comes back when everything is there. A
 * folder without one may hold files of the same names that are no run's. */
static enum mf_status drop_earlier(const struct mf_job *job, struct mf_error *error) {
    char *record = mf_path_join(job->output_dir, kinds[RECORD].name);
    enum mf_status status =
        record ? MF_OK : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
    const bool earlier = record && mf_path_exists(record);
    for (int kind = 0; status == MF_OK && earlier && kind < KINDS; kind++) {
        char *path = mf_path_join(job->output_dir, kinds[kind].name);
        if (path && mf_path_exists(path) && !wanted(&job->request, (enum kind)kind)) {
            mf_report_log(job->report, "info", "%s is of an earlier run: removed", path);
            status = mf_tree_remove(path, error);
        }
        free(path);
    }
    if (status == MF_OK && earlier)
        status = mf_tree_remove(record, error);
    if (status == MF_OK && earlier)
        status = mf_directory_sync(job->output_dir, error);
    free(record);
    return status;
}

enum mf_status mf_outputs_write(struct mf_job *job, const struct mf_history *history,
                                struct mf_error *error) {
    struct stage stage = {.report = job->report};
    enum mf_status status = drop_earlier(job, error);
    for (int kind = 0; kind < KINDS; kind++)
        stage.kinds += wanted(&job->request, (enum kind)kind);
    mf_report_progress(job->report, MF_PHASE_SAVE, 0);
    for (int kind = 0; kind < KINDS && status == MF_OK; kind++) {
        if (!wanted(&job->request, (enum kind)kind))
            continue;
        char *path = mf_path_join(job->output_dir, kinds[kind].name);
        status = path ? write_kind(job, history, (enum kind)kind, path, &stage, error)
                      : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "trainer: out of memory");
        if (status == MF_OK)
            status = report_artifact(job, kinds[kind].kind, path, error);
        free(path);
        stage.first++;
        mf_report_progress(job->report, MF_PHASE_SAVE, (double)stage.first / stage.kinds);
    }
    return status;
}
