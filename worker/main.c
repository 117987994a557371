/* modelforge-worker: the daemon. */
#include "common/clock.h"
#include "common/files.h"
#include "common/log.h"
#include "common/terminal.h"
#include "sql/migrate.h"
#include "sql/store.h"
#include "worker/attempt.h"
#include "worker/check.h"
#include "worker/claim.h"
#include "worker/collector.h"
#include "worker/gpus.h"
#include "worker/ingest.h"
#include "worker/job.h"
#include "worker/kafka.h"
#include "worker/outbox.h"
#include "worker/providers.h"
#include "worker/recorder.h"
#include "worker/spawner.h"
#include "worker/status_server.h"
#include "worker/storage.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, MAX_OVERRIDES = 64, OUTBOX_FLUSH_MS = 3000, WAIT_MS = 50 };

/* Everything that main starts and ends. */
struct daemon {
    struct mf_settings settings;
    struct mf_worker worker;
    struct mf_ingest *ingest;
    struct mf_status_server *status_server;
    pthread_t claim, heartbeat, recorder, outbox, collector;
    int lock_fd;
};

/* ---- command line ----------------------------------------------------------------------------------- */

static void usage(void) {
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return;
    fprintf(
        out,
        "modelforge-worker %s: runs the fine-tuning jobs that Kafka brings\n\n"
        "Takes training requests from Kafka, runs them, keeps the record in PostgreSQL.\n\n"
        "    modelforge-worker [--config FILE] [--set NAME=VALUE]...\n"
        "    modelforge-worker collect [--dry-run] [--config FILE] [--set NAME=VALUE]...\n"
        "        removes from the storage what it need not keep, once, as the daemon does by itself every\n"
        "        storage.collect_seconds; --dry-run only says what that would be\n"
        "    modelforge-worker check [--json] [--development] [--config FILE] [--set NAME=VALUE]...\n"
        "        says what is wrong with this host as a worker's and how to mend it: storage (written, read "
        "back\n"
        "        and removed), folders, trainer, devices, logins; exit status 1 when there is a fault.\n"
        "        --development exempts a superuser's login; 'modelforge doctor' looks at everything else\n\n"
        "    --config FILE       properties file (else $MODELFORGE_CONFIG, else none)\n"
        "    --set NAME=VALUE    one option, over file and environment\n"
        "    --print-config      print the values in force and end\n"
        "    --version, --help\n\n"
        "SIGTERM drains: running jobs are given back without charge; a second one ends at once.\n\n",
        MF_VERSION);
    mf_config_print_options(&mf_settings_table, out);
    if (fclose(out) == 0)
        mf_print_help(stdout, text);
    free(text);
}

struct arguments {
    const char *path;
    struct mf_config_override override[MAX_OVERRIDES];
    size_t override_count;
    bool print_config, collect, dry_run, check, json, development;
};

/* Returns -1 to go on, else the exit status. */
static int parse_arguments(int argc, char **argv, struct arguments *arguments) {
    static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                          {"set", required_argument, NULL, 's'},
                                          {"print-config", no_argument, NULL, 'p'},
                                          {"version", no_argument, NULL, 'v'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"dry-run", no_argument, NULL, 'd'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"development", no_argument, NULL, 'D'},
                                          {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        char *equals;
        switch (option) {
        case 'c':
            arguments->path = optarg;
            break;
        case 's':
            if (!(equals = strchr(optarg, '=')) || arguments->override_count == MAX_OVERRIDES) {
                fprintf(stderr, "modelforge-worker: --set wants NAME=VALUE, at most %d times\n",
                        MAX_OVERRIDES);
                return EXIT_USAGE;
            }
            *equals = 0;
            arguments->override[arguments->override_count++] =
                (struct mf_config_override){optarg, equals + 1};
            break;
        case 'p':
            arguments->print_config = true;
            break;
        case 'd':
            arguments->dry_run = true;
            break;
        case 'j':
            arguments->json = true;
            break;
        case 'D':
            arguments->development = true;
            break;
        case 'v':
            puts(MF_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            usage();
            return EXIT_SUCCESS;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind < argc && !strcmp(argv[optind], "collect")) {
        arguments->collect = true;
        optind++;
    } else if (optind < argc && !strcmp(argv[optind], "check")) {
        arguments->check = true;
        optind++;
    }
    if (arguments->dry_run && !arguments->collect) {
        fprintf(stderr, "modelforge-worker: --dry-run belongs to collect\n");
        return EXIT_USAGE;
    }
    if ((arguments->json || arguments->development) && !arguments->check) {
        fprintf(stderr, "modelforge-worker: --json and --development belong to check\n");
        return EXIT_USAGE;
    }
    if (optind == argc)
        return -1;
    fprintf(stderr, "modelforge-worker: unexpected argument '%s' (see --help)\n", argv[optind]);
    return EXIT_USAGE;
}

/* ---- start ------------------------------------------------------------------------------------------ */

static enum mf_status take_instance_lock(struct daemon *daemon, struct mf_error *error) {
    char *path = mf_path_join(daemon->settings.work_dir, "worker.lock");
    if (!path)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a path");
    enum mf_status status = MF_OK;
    daemon->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (daemon->lock_fd < 0)
        status = mf_error_errno(error, errno, "%s", path);
    else if (flock(daemon->lock_fd, LOCK_EX | LOCK_NB))
        status =
            mf_error_set(error, MF_ERROR_CONFIGURATION,
                         "work.dir: another worker runs on '%s'; give each its own work.dir and worker.id",
                         daemon->settings.work_dir);
    free(path);
    return status;
}

static void read_boot_id(struct mf_worker *worker) {
    struct mf_error error;
    char *text = NULL;
    if (!mf_file_read("/proc/sys/kernel/random/boot_id", 128, &text, NULL, &error)) {
        text[strcspn(text, "\n")] = 0;
        (void)stpncpy(worker->boot_id, text, sizeof worker->boot_id - 1);
    }
    free(text);
}

/* Waits for a usable database of this version, and learns whether leases under this name are of this boot.
 * MF_ERROR_CONFIGURATION when the schema does not fit; MF_OK too when a signal came first. */
static enum mf_status wait_for_database(struct daemon *daemon, const sigset_t *signals,
                                        struct mf_error *error) {
    struct mf_worker *worker = &daemon->worker;
    struct mf_link link;
    enum mf_status status = MF_ERROR_DATABASE;
    mf_link_init(&link, worker, "modelforge-worker start", 10000);
    while (status) {
        if (mf_link_ready(&link)) {
            status = mf_migrate_check(link.database, error);
            if (!status)
                status = mf_store_worker_of_boot(link.database, worker->settings->worker_id, worker->boot_id,
                                                 &worker->same_boot, error);
            if (status == MF_ERROR_CONFIGURATION)
                break;
            mf_link_note(&link, status, "checking the schema", error);
        }
        struct timespec wait = {0, WAIT_MS * 1000000L};
        if (status && sigtimedwait(signals, NULL, &wait) > 0) {
            atomic_store(&worker->draining, true);
            status = MF_OK;
        }
    }
    mf_link_close(&link);
    return status;
}

static void init_worker(struct daemon *daemon) {
    struct mf_worker *worker = &daemon->worker;
    worker->settings = &daemon->settings;
    atomic_store(&worker->last_beat_ms, mf_clock_boottime_ms());
    mf_wakeup_init(&worker->claim_wakeup);
    mf_wakeup_init(&worker->recorder_wakeup);
    mf_wakeup_init(&worker->heartbeat_wakeup);
    mf_wakeup_init(&worker->outbox_wakeup);
    mf_wakeup_init(&worker->writer_wakeup);
    mf_wakeup_init(&worker->collector_wakeup);
    mf_counter_set(&worker->counters, MF_COUNTER_SLOTS, daemon->settings.slots);
    read_boot_id(worker);
}

static enum mf_status start_thread(pthread_t *thread, void *(*function)(void *), struct mf_worker *worker,
                                   struct mf_error *error) {
    int failure = pthread_create(thread, NULL, function, worker);
    return failure ? mf_error_errno(error, failure, "a thread") : MF_OK;
}

static enum mf_status open_gpus(struct daemon *daemon, struct mf_error *error) {
    const struct mf_settings *settings = &daemon->settings;
    const struct mf_gpus_options options = {
        .inventory_file = settings->gpu_inventory_file,
        .choice = settings->gpus,
        .lock_dir = settings->gpu_lock_dir,
        .poll_ms = settings->gpu_poll_ms,
        .foreign_bytes = settings->gpu_foreign_bytes,
        .changed = {&daemon->worker.claim_wakeup, &daemon->worker.heartbeat_wakeup}};
    return settings->slots ? mf_gpus_open(&options, &daemon->worker.gpus, error) : MF_OK;
}

/* All but the threads. */
static enum mf_status prepare(struct daemon *daemon, struct mf_error *error) {
    struct mf_worker *worker = &daemon->worker;
    const struct mf_storage_options storage = mf_settings_storage(&daemon->settings);
    enum mf_status status;
    if ((status = take_instance_lock(daemon, error)) || (status = mf_kafka_check(worker, error)) ||
        (status = mf_storage_open(&storage, &worker->storage, error)) ||
        (status = mf_job_table_new(&worker->jobs, error)) ||
        (status = mf_spawner_start(&worker->spawner, error)) || (status = open_gpus(daemon, error)) ||
        (status =
             mf_status_server_start(worker, daemon->settings.http_listen, &daemon->status_server, error)))
        return status;
    mf_attempt_sweep(&daemon->settings);
    return daemon->settings.slots ? mf_providers_ask(worker, error) : MF_OK;
}

static enum mf_status start_threads(struct daemon *daemon, struct mf_error *error) {
    struct mf_worker *worker = &daemon->worker;
    enum mf_status status;
    (void)((status = start_thread(&daemon->recorder, mf_recorder_main, worker, error)) ||
           (status = start_thread(&daemon->heartbeat, mf_heartbeat_main, worker, error)) ||
           (status = start_thread(&daemon->claim, mf_claim_main, worker, error)) ||
           (status = start_thread(&daemon->outbox, mf_outbox_main, worker, error)) ||
           (status = start_thread(&daemon->collector, mf_collector_main, worker, error)) ||
           (status = mf_ingest_start(worker, &daemon->ingest, error)));
    return status;
}

/* ---- end -------------------------------------------------------------------------------------------- */

static void wake_all(struct mf_worker *worker) {
    mf_wakeup_raise(&worker->claim_wakeup);
    mf_wakeup_raise(&worker->recorder_wakeup);
    mf_wakeup_raise(&worker->heartbeat_wakeup);
    mf_wakeup_raise(&worker->outbox_wakeup);
    mf_wakeup_raise(&worker->writer_wakeup);
    mf_wakeup_raise(&worker->collector_wakeup);
}

/* Kills the trainers and leaves; their leases are taken back at the next start or rescued. */
static _Noreturn void end_at_once(struct daemon *daemon) {
    mf_log_warning("ending at once");
    mf_job_table_kill_all(daemon->worker.jobs);
    _exit(1); /* the spawner ends with the process: every trainer gets SIGKILL */
}

/* Asks the jobs to stop and waits until they are given back, at most drain.seconds and what follows from it.
 */
static void drain_jobs(struct daemon *daemon, const sigset_t *signals) {
    struct mf_worker *worker = &daemon->worker;
    int64_t kill_ms = mf_clock_monotonic_ms() + daemon->settings.drain_ms;
    int64_t leave_ms = kill_ms + daemon->settings.drain_ms + 1000;
    while (mf_job_table_count(worker->jobs)) {
        struct timespec wait = {0, WAIT_MS * 1000000L};
        mf_job_table_stop_all(worker->jobs, MF_STOP_DRAIN); /* also what was claimed while the signal came */
        if (sigtimedwait(signals, NULL, &wait) > 0)
            end_at_once(daemon);
        if (mf_clock_monotonic_ms() > kill_ms)
            mf_job_table_kill_all(worker->jobs);
        if (mf_clock_monotonic_ms() > leave_ms)
            end_at_once(daemon);
    }
}

static void drain(struct daemon *daemon, const sigset_t *signals) {
    struct mf_worker *worker = &daemon->worker;
    mf_log_info("draining");
    atomic_store(&worker->draining, true);
    wake_all(worker);
    drain_jobs(daemon, signals);
    int64_t until_ms = mf_clock_monotonic_ms() + OUTBOX_FLUSH_MS;
    atomic_store(&worker->outbox_idle, false);
    while (!atomic_load(&worker->outbox_idle) && mf_clock_monotonic_ms() < until_ms) {
        struct timespec wait = {0, WAIT_MS * 1000000L};
        mf_wakeup_raise(&worker->outbox_wakeup);
        if (sigtimedwait(signals, NULL, &wait) > 0)
            end_at_once(daemon);
    }
    if (mf_counter_get(&worker->counters, MF_COUNTER_DATABASE_UP) == 0)
        atomic_store(&worker->stopping, true); /* nothing to wait for */
    mf_ingest_stop(daemon->ingest);
    atomic_store(&worker->stopping, true);
    wake_all(worker);
    pthread_join(daemon->claim, NULL);
    pthread_join(daemon->heartbeat, NULL);
    pthread_join(daemon->recorder, NULL);
    pthread_join(daemon->outbox, NULL);
    pthread_join(daemon->collector, NULL);
    mf_log_info("drained");
}

static void clean_up(struct daemon *daemon) {
    struct mf_worker *worker = &daemon->worker;
    mf_status_server_stop(daemon->status_server);
    mf_spawner_stop(worker->spawner);
    mf_job_table_free(worker->jobs);
    mf_gpus_close(worker->gpus);
    mf_storage_close(worker->storage);
    mf_providers_free(worker);
    mf_settings_free(&daemon->settings);
    if (daemon->lock_fd >= 0)
        close(daemon->lock_fd);
}

/* Tenants that share a worker without roots read each other's folders. */
static void warn_of_open_roots(const struct mf_settings *settings) {
    bool many = false;
    for (size_t i = 0; i < settings->topic_count; i++)
        many |= strcmp(settings->topic[i].tenants, ",default,") != 0;
    if (many && !mf_config_given(settings->config, "tenants.roots"))
        mf_log_warning(
            "tenants.roots is not set: every tenant may name every folder that this user can read");
}

static int run(struct daemon *daemon, const sigset_t *signals) {
    struct mf_error error;
    warn_of_open_roots(&daemon->settings);
    enum mf_status status = prepare(daemon, &error);
    if (!status)
        status = wait_for_database(daemon, signals, &error);
    if (!status && atomic_load(&daemon->worker.draining))
        return EXIT_SUCCESS;
    if (!status)
        status = start_threads(daemon, &error);
    if (status) {
        mf_log_error("modelforge-worker cannot start", MF_LOG_FAILURE(&error));
        return status == MF_ERROR_CONFIGURATION ? EXIT_USAGE : EXIT_FAILURE;
    }
    mf_log_info("modelforge-worker runs", MF_LOG_TEXT("version", MF_VERSION),
                MF_LOG_TEXT("worker", daemon->settings.worker_id),
                MF_LOG_INTEGER("slots", daemon->settings.slots));
    int number;
    while (sigwait(signals, &number) || number == SIGHUP) {
    }
    drain(daemon, signals);
    return EXIT_SUCCESS;
}

/* `loaded`: how reading the configuration ended. */
static int check(const struct arguments *arguments, const struct mf_settings *settings, enum mf_status loaded,
                 const struct mf_error *error) {
    struct mf_findings findings;
    mf_log_set_level(MF_LOG_ERROR);
    mf_findings_begin(&findings, arguments->json);
    if (loaded)
        mf_find(&findings, MF_FINDING_FAULT, "worker's configuration", NULL, "%s", error->message);
    else
        mf_check_worker(settings, arguments->development, &findings);
    return mf_findings_end(&findings) ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    static struct daemon daemon = {.lock_fd = -1};
    struct arguments arguments = {0};
    struct mf_error error;
    enum mf_log_level level;
    sigset_t signals;
    int exit_status = parse_arguments(argc, argv, &arguments);
    if (exit_status >= 0)
        return exit_status;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* every thread: main waits for them */
    (void)prctl(PR_SET_DUMPABLE, 0);            /* the process holds passwords */
    curl_global_init(CURL_GLOBAL_DEFAULT);
    enum mf_status status = mf_settings_load(arguments.path, arguments.override, arguments.override_count,
                                             &daemon.settings, &error);
    if (!status)
        status = mf_attempt_tell_providers(&daemon.settings, &error);
    if (arguments.check) {
        exit_status = check(&arguments, &daemon.settings, status, &error);
        mf_settings_free(&daemon.settings);
        return exit_status;
    }
    if (status) {
        fprintf(stderr, "modelforge-worker: %s\n", error.message);
        mf_settings_free(&daemon.settings);
        return status == MF_ERROR_CONFIGURATION ? EXIT_USAGE : EXIT_FAILURE;
    }
    if (arguments.print_config) {
        mf_config_print_values(daemon.settings.config, stdout);
        mf_settings_free(&daemon.settings);
        return EXIT_SUCCESS;
    }
    if (mf_log_level_parse(mf_config_string(daemon.settings.config, "log.level"), &level))
        mf_log_set_level(level);
    if (arguments.collect) {
        exit_status = mf_collect_command(&daemon.settings, arguments.dry_run);
        mf_settings_free(&daemon.settings);
        return exit_status;
    }
    init_worker(&daemon);
    exit_status = run(&daemon, &signals);
    if (exit_status == EXIT_SUCCESS)
        clean_up(&daemon);
    return exit_status;
}
