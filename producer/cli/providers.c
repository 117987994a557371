/* providers: what live workers can train, by provider, as their trainers said it. */
#include "producer/cli/table.h"

#include "common/text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 4, PROVIDER_INDENT = 31 };

static const char help[] = "usage: modelforge providers [--markdown]\n\n"
                           "Which providers the live workers have, and what each can do: its level for every "
                           "combination of architecture,\n"
                           "task and strategy that some provider trains. Workers with the same providers are "
                           "shown once. --markdown prints\n"
                           "the best level by architecture, by task and by strategy as tables, over all live "
                           "workers.\n"
                           "A provider that is there but cannot be used is listed with the reason.";

static const char *const level_names[LEVELS] = {"unsupported", "experimental", "limited", "supported"};

/* ---- what workers said ---- */

/* [{"worker_id", "host", "version", "trainer": what `modelforge-trainer providers --json` says}] */
static enum mf_status read_workers(struct mf_settings *settings, json_t **out, struct mf_error *error) {
    struct mf_database *database;
    struct mf_text_table table = {0};
    json_t *workers = json_array();
    enum mf_status status = mf_settings_database(settings, false, &database, error);
    if (status == MF_OK)
        status = mf_store_live_workers(database, &table, error);
    for (size_t row = 0; status == MF_OK && row < table.rows; row++) {
        const char *const *cell = (const char *const *)table.cell + row * table.columns;
        json_t *trainer = json_loads(cell[3] ? cell[3] : "null", JSON_DECODE_ANY, NULL);
        json_array_append_new(workers, json_pack("{s:s, s:s, s:s, s:o?}", "worker_id", cell[0], "host",
                                                 cell[1], "version", cell[2], "trainer", trainer));
    }
    mf_text_table_free(&table);
    if (status == MF_OK)
        *out = workers;
    else
        json_decref(workers);
    return status;
}

static const json_t *providers_of(const json_t *worker) {
    return json_object_get(json_object_get(worker, "trainer"), "providers");
}

static const char *text_of(const json_t *object, const char *member) {
    const char *text = json_string_value(json_object_get(object, member));
    return text ? text : "";
}

static bool has_text(const json_t *array, const char *text) {
    size_t i;
    const json_t *item;
    json_array_foreach(array, i, item) if (!strcmp(json_string_value(item), text)) return true;
    return false;
}

static void add_text(json_t *array, const char *text) {
    if (text && *text && strcmp(text, "*") != 0 && !has_text(array, text))
        json_array_append_new(array, json_string(text));
}

/* The values of a dimension ("architecture") that any worker knows, in its order: new reference. */
static json_t *values_of(const json_t *workers, const char *list, const char *member) {
    json_t *values = json_array();
    size_t w, i, p, r;
    const json_t *worker, *item, *provider, *row, *device;
    const char *name;
    json_array_foreach(workers, w, worker) {
        json_array_foreach(json_object_get(json_object_get(worker, "trainer"), list), i, item)
            add_text(values, json_string_value(item));
    }
    json_array_foreach(workers, w, worker) {
        json_array_foreach(providers_of(worker), p, provider) {
            json_object_foreach(json_object_get(provider, "devices"), name, device) {
                json_array_foreach(json_object_get(device, "capabilities"), r, row)
                    add_text(values, text_of(row, member));
            }
        }
    }
    return values;
}

static json_t *provider_names(const json_t *workers) {
    json_t *names = json_array();
    size_t w, p;
    const json_t *worker, *provider;
    json_array_foreach(workers, w, worker) {
        json_array_foreach(providers_of(worker), p, provider) add_text(names, text_of(provider, "name"));
    }
    return names;
}

/* ---- levels ---- */

static bool covers(const json_t *row, const char *member, const char *name) {
    const char *pattern = text_of(row, member);
    return !strcmp(pattern, "*") || !strcmp(pattern, name);
}

/* The first row that matches counts; none: unsupported. */
static int level_by_rows(const json_t *rows, const char *architecture, const char *task,
                         const char *strategy) {
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row) {
        if (!covers(row, "architecture", architecture) || !covers(row, "task", task) ||
            !covers(row, "strategy", strategy))
            continue;
        for (int level = 0; level < LEVELS; level++)
            if (!strcmp(level_names[level], text_of(row, "level")))
                return level;
        return 0;
    }
    return 0;
}

/* The best over workers and kinds of device. */
static int level_of(const json_t *workers, const char *provider_name, const char *architecture,
                    const char *task, const char *strategy) {
    int best = 0;
    size_t w, p;
    const json_t *worker, *provider, *device;
    const char *name;
    json_array_foreach(workers, w, worker) {
        json_array_foreach(providers_of(worker), p, provider) {
            if (strcmp(text_of(provider, "name"), provider_name) != 0)
                continue;
            json_object_foreach(json_object_get(provider, "devices"), name, device) {
                const int level =
                    level_by_rows(json_object_get(device, "capabilities"), architecture, task, strategy);
                best = level > best ? level : best;
            }
        }
    }
    return best;
}

struct dimensions {
    json_t *providers, *architectures, *tasks, *strategies; /* arrays of strings */
};

static struct dimensions dimensions_of(const json_t *workers) {
    return (struct dimensions){provider_names(workers), values_of(workers, "architectures", "architecture"),
                               values_of(workers, "tasks", "task"),
                               values_of(workers, "strategies", "strategy")};
}

static void free_dimensions(struct dimensions *dimensions) {
    json_decref(dimensions->providers);
    json_decref(dimensions->architectures);
    json_decref(dimensions->tasks);
    json_decref(dimensions->strategies);
}

static const char *item(const json_t *array, size_t index) {
    return json_string_value(json_array_get(array, index));
}

/* ---- as tables for people ---- */

static void print_provider(const json_t *provider) {
    struct mf_text text = {0};
    const char *version = text_of(provider, "version"), *path = text_of(provider, "path");
    printf("%-20s %-9s ", text_of(provider, "name"), text_of(provider, "kind"));
    if (json_is_false(json_object_get(provider, "available")))
        mf_text_printf(&text, "cannot be used: %s", text_of(provider, "reason"));
    else
        mf_text_printf(&text, "%s%s%s", *version ? version : "ready", *path ? "  " : "", path);
    mf_print_wrapped(stdout, mf_text_string(&text), PROVIDER_INDENT, PROVIDER_INDENT);
    mf_text_free(&text);
}

/* One row: what each provider can do with this combination; false, and no row, when none can do anything.
 * Cells are borrowed. */
static bool fill_levels(const json_t *workers, const struct dimensions *d, const char *const of[3],
                        char **cell) {
    bool any = false;
    for (size_t i = 0; i < 3; i++)
        cell[i] = (char *)of[i];
    for (size_t p = 0; p < json_array_size(d->providers); p++) {
        const int level = level_of(workers, item(d->providers, p), of[0], of[1], of[2]);
        cell[3 + p] = (char *)(level ? level_names[level] : "-");
        any |= level > 0;
    }
    return any;
}

static void print_levels(const json_t *workers, const struct dimensions *d) {
    const size_t providers = json_array_size(d->providers), columns = 3 + providers;
    const size_t most =
        json_array_size(d->architectures) * json_array_size(d->tasks) * json_array_size(d->strategies);
    struct mf_text_table table = {.column = calloc(columns, sizeof *table.column),
                                  .columns = columns,
                                  .cell = calloc(columns * most + 1, sizeof *table.cell)};
    static char *const titles[] = {"architecture", "task", "strategy"};
    for (size_t i = 0; table.column && i < columns; i++)
        table.column[i] = i < 3 ? titles[i] : (char *)item(d->providers, i - 3);
    for (size_t a = 0; table.cell && a < json_array_size(d->architectures); a++)
        for (size_t t = 0; t < json_array_size(d->tasks); t++)
            for (size_t s = 0; s < json_array_size(d->strategies); s++) {
                const char *const of[] = {item(d->architectures, a), item(d->tasks, t),
                                          item(d->strategies, s)};
                table.rows += fill_levels(workers, d, of, table.cell + table.rows * columns);
            }
    if (table.column && table.cell && table.rows) {
        putchar('\n');
        mf_table_print(&table, NULL);
    }
    free(table.column); /* the texts are the JSON's */
    free(table.cell);
}

/* Workers whose trainers say the same, at once. */
static void print_groups(json_t *workers) {
    bool first = true;
    while (json_array_size(workers)) {
        json_t *group = json_array(), *others = json_array(), *worker, *provider;
        size_t w, p;
        const json_t *leader = providers_of(json_array_get(workers, 0));
        json_array_foreach(workers, w, worker) {
            const json_t *providers = providers_of(worker);
            const bool same = !leader ? !providers : json_equal((json_t *)leader, (json_t *)providers);
            json_array_append(same ? group : others, worker);
        }
        printf("%s", first ? "" : "\n");
        json_array_foreach(group, w, worker)
            printf("%s%s (%s)", w ? ", " : "worker ", text_of(worker, "worker_id"), text_of(worker, "host"));
        printf("\n");
        json_array_foreach(leader, p, provider) print_provider(provider);
        struct dimensions d = dimensions_of(group);
        print_levels(group, &d);
        free_dimensions(&d);
        json_array_clear(workers);
        json_array_extend(workers, others);
        json_decref(group);
        json_decref(others);
        first = false;
    }
}

/* ---- as Markdown ---- */

enum dimension { ARCHITECTURE, TASK, STRATEGY };

static int best_level(const json_t *workers, const struct dimensions *d, const char *provider,
                      enum dimension of, const char *value) {
    int best = 0;
    for (size_t a = 0; a < (of == ARCHITECTURE ? 1 : json_array_size(d->architectures)); a++)
        for (size_t t = 0; t < (of == TASK ? 1 : json_array_size(d->tasks)); t++)
            for (size_t s = 0; s < (of == STRATEGY ? 1 : json_array_size(d->strategies)); s++) {
                const int level = level_of(
                    workers, provider, of == ARCHITECTURE ? value : item(d->architectures, a),
                    of == TASK ? value : item(d->tasks, t), of == STRATEGY ? value : item(d->strategies, s));
                best = level > best ? level : best;
            }
    return best;
}

static void print_markdown_table(const json_t *workers, const struct dimensions *d, enum dimension of,
                                 const char *title, const json_t *values) {
    printf("| %s |", title);
    for (size_t p = 0; p < json_array_size(d->providers); p++)
        printf(" `%s` |", item(d->providers, p));
    printf("\n| --- |");
    for (size_t p = 0; p < json_array_size(d->providers); p++)
        printf(" --- |");
    printf("\n");
    for (size_t v = 0; v < json_array_size(values); v++) {
        printf("| %s |", item(values, v));
        for (size_t p = 0; p < json_array_size(d->providers); p++)
            printf(" %s |", level_names[best_level(workers, d, item(d->providers, p), of, item(values, v))]);
        printf("\n");
    }
}

static void print_markdown(const json_t *workers) {
    struct dimensions d = dimensions_of(workers);
    print_markdown_table(workers, &d, ARCHITECTURE, "architecture", d.architectures);
    printf("\n");
    print_markdown_table(workers, &d, TASK, "task", d.tasks);
    printf("\n");
    print_markdown_table(workers, &d, STRATEGY, "strategy", d.strategies);
    free_dimensions(&d);
}

int mf_command_providers(struct mf_settings *settings, int argc, char **argv) {
    struct mf_error error;
    json_t *workers = NULL;
    const bool markdown = argc == 2 && !strcmp(argv[1], "--markdown");
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        mf_print_help(stdout, help);
        return MF_EXIT_OK;
    }
    if (argc > 1 && !markdown)
        return mf_usage("providers", "unexpected argument '%s'", argv[1]);
    if (read_workers(settings, &workers, &error) != MF_OK)
        return mf_fail(&error);
    int result = MF_EXIT_OK;
    if (settings->json) {
        result = mf_json_print(json_pack("{s:O}", "workers", workers));
    } else if (!json_array_size(workers)) {
        mf_error_set(&error, MF_ERROR_NOT_FOUND, "no worker lives: start one, then its providers are known");
        result = mf_fail(&error);
    } else if (markdown) {
        print_markdown(workers);
    } else {
        print_groups(workers);
    }
    json_decref(workers);
    return result;
}
