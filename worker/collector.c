#include "worker/collector.h"

#include "common/clock.h"
#include "common/log.h"
#include "sql/migrate.h"
#include "sql/store.h"
#include "worker/storage.h"

#include <stdlib.h>

enum { ENTRIES = 500, STATEMENT_MS = 60000, SLICE_MS = 200 };

struct collecting {
    struct mf_database *database;
    struct mf_storage *storage;
    struct mf_collection *collection;
    struct mf_storage_entries entries;
};

/* Removes one object, or says that it would. False when the storage does not let it go. */
static bool let_go(struct collecting *collecting, const char *uri, const char *bytes, const char *reason) {
    struct mf_collection *collection = collecting->collection;
    struct mf_error error;
    if (!collection->dry_run && mf_storage_remove(collecting->storage, uri, &error)) {
        collection->failed++;
        mf_log_warning("the storage does not remove an object", MF_LOG_TEXT("uri", uri),
                       MF_LOG_FAILURE(&error));
        return false;
    }
    if (collection->report)
        fprintf(collection->report, "%s\t%s bytes\t%s\t%s\n",
                collection->dry_run ? "would remove" : "removed", bytes, reason, uri);
    return true;
}

static void count(int64_t *objects, int64_t *bytes, const char *size) {
    ++*objects;
    *bytes += strtoll(size, NULL, 10);
}

static enum mf_status preview_checkpoints(struct collecting *collecting, struct mf_error *error) {
    struct mf_collection *collection = collecting->collection;
    struct mf_text_table table = {0};
    enum mf_status status = mf_store_superseded(collecting->database, collection->keep_s, &table, error);
    for (size_t i = 0; !status && i < table.rows; i++) {
        char **cell = table.cell + i * table.columns;
        let_go(collecting, cell[0], cell[1], cell[2]);
        count(&collection->checkpoints, &collection->checkpoint_bytes, cell[1]);
    }
    mf_text_table_free(&table);
    return status;
}

/* Marks, then removes, page by page, what is marked: also what an interrupted collector left. */
static enum mf_status remove_checkpoints(struct collecting *collecting, struct mf_error *error) {
    struct mf_collection *collection = collecting->collection;
    enum mf_status status = mf_store_collect_mark(collecting->database, collection->keep_s, error);
    for (size_t removed = 1; !status && removed && !collection->failed;) {
        struct mf_text_table table = {0};
        struct mf_array uris = {0};
        removed = 0;
        status = mf_store_collect_marked(collecting->database, &table, error);
        for (size_t i = 0; !status && i < table.rows; i++) {
            char **cell = table.cell + i * table.columns;
            if (!let_go(collecting, cell[0], cell[1], "superseded checkpoint"))
                continue;
            mf_array_text(&uris, cell[0]);
            count(&collection->checkpoints, &collection->checkpoint_bytes, cell[1]);
            removed++;
        }
        if (!status && removed)
            status = mf_store_collect_removed(collecting->database, &uris, error);
        mf_array_free(&uris);
        mf_text_table_free(&table);
    }
    return status;
}

static enum mf_status judge_entries(struct collecting *collecting, struct mf_error *error) {
    struct mf_collection *collection = collecting->collection;
    struct mf_text_table table = {0};
    enum mf_status status = MF_OK;
    if (collecting->entries.count)
        status =
            mf_store_orphans(collecting->database, &collecting->entries, collection->keep_s, &table, error);
    for (size_t i = 0; !status && i < table.rows; i++) {
        char **cell = table.cell + i * table.columns;
        if (let_go(collecting, cell[0], cell[1], "named by no row"))
            count(&collection->orphans, &collection->orphan_bytes, cell[1]);
    }
    mf_text_table_free(&table);
    mf_storage_entries_free(&collecting->entries);
    return status;
}

static enum mf_status take_entry(void *context, const struct mf_storage_entry *entry,
                                 struct mf_error *error) {
    struct collecting *collecting = context;
    mf_storage_entries_add(&collecting->entries, entry->attempt_id, entry->uri, entry->size_bytes);
    return collecting->entries.count < ENTRIES ? MF_OK : judge_entries(collecting, error);
}

enum mf_status mf_collect(struct mf_database *database, struct mf_storage *storage,
                          struct mf_collection *collection, bool *busy, struct mf_error *error) {
    struct collecting collecting = {.database = database, .storage = storage, .collection = collection};
    bool held = false;
    enum mf_status status = mf_store_collect_lock(database, &held, error);
    *busy = !status && !held;
    if (status || !held)
        return status;
    status = collection->dry_run ? preview_checkpoints(&collecting, error)
                                 : remove_checkpoints(&collecting, error);
    if (!status && !collection->checkpoints_only)
        status = mf_storage_each(storage, take_entry, &collecting, error);
    if (!status)
        status = judge_entries(&collecting, error);
    mf_storage_entries_free(&collecting.entries);
    if (!status)
        status = mf_store_collect_unlock(database, error);
    else
        (void)mf_store_collect_unlock(database, NULL);
    return status;
}

/* ---- the daemon's thread ----------------------------------------------------------------------------- */

static void one_look(struct mf_link *link, struct mf_worker *worker, bool checkpoints_only) {
    struct mf_collection collection = {.keep_s = worker->settings->keep_s,
                                       .checkpoints_only = checkpoints_only};
    struct mf_error error;
    bool busy = false;
    enum mf_status status = mf_collect(link->database, worker->storage, &collection, &busy, &error);
    if (status == MF_ERROR_IO || status == MF_ERROR_DISK_FULL || status == MF_ERROR_CONFIGURATION)
        mf_log_warning("the storage could not be looked through", MF_LOG_FAILURE(&error));
    else if (mf_link_note(link, status, "collecting", &error))
        return;
    if (collection.checkpoints + collection.orphans)
        mf_log_info("removed what the storage need not keep",
                    MF_LOG_INTEGER("checkpoints", collection.checkpoints),
                    MF_LOG_INTEGER("checkpoint_bytes", collection.checkpoint_bytes),
                    MF_LOG_INTEGER("left_overs", collection.orphans),
                    MF_LOG_INTEGER("left_over_bytes", collection.orphan_bytes));
}

void *mf_collector_main(void *argument) {
    struct mf_worker *worker = argument;
    struct mf_link link;
    const int64_t period_ms = worker->settings->collect_ms;
    int64_t next_ms = mf_clock_monotonic_ms() + period_ms;
    mf_link_init(&link, worker, "modelforge-worker collector", STATEMENT_MS);
    while (!atomic_load(&worker->stopping)) {
        const bool all = period_ms && mf_clock_monotonic_ms() >= next_ms;
        if ((all || atomic_load(&worker->collect_checkpoints)) && mf_link_ready(&link)) {
            atomic_store(&worker->collect_checkpoints, false);
            one_look(&link, worker, !all);
            mf_link_close(&link); /* an idle connection is a waste */
        }
        if (all)
            next_ms = mf_clock_monotonic_ms() + period_ms;
        mf_wakeup_wait(&worker->collector_wakeup, SLICE_MS);
    }
    mf_link_close(&link);
    return NULL;
}

/* ---- the command ------------------------------------------------------------------------------------- */

int mf_collect_command(const struct mf_settings *settings, bool dry_run) {
    const struct mf_storage_options storage_options = mf_settings_storage(settings);
    const struct mf_database_options database_options = {.url = settings->database_url,
                                                         .application_name = "modelforge-worker collect",
                                                         .statement_timeout_ms = STATEMENT_MS};
    struct mf_collection collection = {.dry_run = dry_run, .keep_s = settings->keep_s, .report = stdout};
    struct mf_storage *storage = NULL;
    struct mf_database *database = NULL;
    struct mf_error error;
    bool busy = false;
    enum mf_status status = mf_storage_open(&storage_options, &storage, &error);
    if (!status)
        status = mf_database_open(&database_options, &database, &error);
    if (!status)
        status = mf_migrate_check(database, &error);
    if (!status)
        status = mf_collect(database, storage, &collection, &busy, &error);
    mf_database_close(database);
    mf_storage_close(storage);
    if (status || busy) {
        fprintf(stderr, "modelforge-worker collect: %s\n",
                busy ? "another collector is at work" : error.message);
        return EXIT_FAILURE;
    }
    printf("%s %lld checkpoints (%lld bytes) and %lld left-overs (%lld bytes)\n",
           dry_run ? "would remove" : "removed", (long long)collection.checkpoints,
           (long long)collection.checkpoint_bytes, (long long)collection.orphans,
           (long long)collection.orphan_bytes);
    return collection.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
