#include "producer/cli/table.h"

#include <stdlib.h>
#include <string.h>

enum { CELL_CELLS = 60, LEAST_CELLS = 10, LAST_CELLS = 24, GAP_CELLS = 2 };

int mf_json_print(json_t *value) {
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    if (!text)
        return mf_usage("", "out of memory");
    puts(text);
    free(text);
    return MF_EXIT_OK;
}

json_t *mf_table_json(const struct mf_text_table *table) {
    json_t *rows = json_array();
    for (size_t r = 0; r < table->rows; r++) {
        json_t *row = json_object();
        for (size_t c = 0; c < table->columns; c++) {
            const char *cell = table->cell[r * table->columns + c];
            json_object_set_new(row, table->column[c], cell ? json_string(cell) : json_null());
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

/* Columns that are printed, and how wide: all but the last are padded and cut to their width. */
struct layout {
    const struct mf_text_table *table;
    size_t *column;
    int *width;
    size_t columns;
    int screen; /* cells of a line; 0: no terminal */
};

static const char *cell_of(const struct layout *layout, size_t row, size_t at) {
    const char *cell = layout->table->cell[row * layout->table->columns + layout->column[at]];
    return cell ? cell : "";
}

static const char *title_of(const struct layout *layout, size_t at) {
    return layout->table->column[layout->column[at]];
}

static int cells(const char *text) {
    return mf_text_cells(text, strlen(text));
}

/* Where the n-th cell begins. */
static const char *cell_at(const char *text, int n) {
    for (; *text; text++)
        if (((unsigned char)*text & 0xC0) != 0x80 && n-- == 0)
            break;
    return text;
}

static size_t copy_plain(char *out, size_t bytes, const char *text, const char *end) {
    size_t used = 0;
    for (; text < end && used + 1 < bytes; text++)
        out[used++] = *text == '\n' || *text == '\r' || *text == '\t' ? ' ' : *text;
    out[used] = 0;
    return used;
}

/* Copies with line ends as spaces, cut to `most` cells (0: whole): of a path the end is kept, of all else
 * both ends. */
static void cell_text(const char *text, int most, char *out, size_t bytes) {
    static const char ellipsis[] = "…";
    const int all = cells(text);
    if (most <= 0 || all <= most) {
        copy_plain(out, bytes, text, text + strlen(text));
        return;
    }
    const int head = *text == '/' ? 0 : most / 2, tail = most - 1 - head;
    size_t used = copy_plain(out, bytes - sizeof ellipsis, text, cell_at(text, head));
    used = (size_t)(stpcpy(out + used, ellipsis) - out);
    const char *rest = cell_at(text, all - tail);
    copy_plain(out + used, bytes - used, rest, rest + strlen(rest));
}

static bool is_empty(const struct layout *layout, size_t at) {
    for (size_t row = 0; row < layout->table->rows; row++)
        if (*cell_of(layout, row, at))
            return false;
    return true;
}

/* The columns for people, or all; on a terminal none that is empty. */
static void choose_columns(struct layout *layout, const char *people) {
    const struct mf_text_table *table = layout->table;
    const char *names = layout->screen ? people : NULL;
    for (const char *name = names; name && *name; name += *name == ',') {
        const size_t length = strcspn(name, ",");
        for (size_t c = 0; c < table->columns; c++)
            if (strlen(table->column[c]) == length && !strncmp(table->column[c], name, length))
                layout->column[layout->columns++] = c;
        name += length;
    }
    for (size_t c = 0; !names && c < table->columns; c++)
        layout->column[layout->columns++] = c;
    size_t kept = 0;
    for (size_t at = 0; layout->screen && at < layout->columns; at++)
        if (!is_empty(layout, at))
            layout->column[kept++] = layout->column[at];
    if (kept)
        layout->columns = kept;
}

static void measure(struct layout *layout) {
    for (size_t at = 0; at < layout->columns; at++) {
        layout->width[at] = cells(title_of(layout, at));
        for (size_t row = 0; row < layout->table->rows; row++) {
            const int width = cells(cell_of(layout, row, at));
            layout->width[at] = width > layout->width[at] ? width : layout->width[at];
        }
        if (!layout->screen && at + 1 < layout->columns && layout->width[at] > CELL_CELLS)
            layout->width[at] = CELL_CELLS;
    }
}

/* Cells before the last column. */
static int indent_of(const struct layout *layout) {
    int indent = 0;
    for (size_t at = 0; at + 1 < layout->columns; at++)
        indent += layout->width[at] + GAP_CELLS;
    return indent;
}

/* A time says nothing when it is cut. */
static bool may_shrink(const struct layout *layout, size_t at) {
    const char *title = title_of(layout, at), *end = strstr(title, "_at");
    return layout->width[at] > LEAST_CELLS && (!end || end[3]);
}

/* Makes the widest columns narrower until the last one has room; false when it will not have any. */
static bool fit(struct layout *layout) {
    const size_t last = layout->columns - 1;
    const int least = layout->width[last] < LAST_CELLS ? layout->width[last] : LAST_CELLS;
    while (layout->screen && indent_of(layout) + least > layout->screen) {
        size_t widest = last;
        for (size_t at = 0; at < last; at++)
            if (may_shrink(layout, at) && (widest == last || layout->width[at] > layout->width[widest]))
                widest = at;
        if (widest == last)
            return false;
        layout->width[widest]--;
    }
    return true;
}

static void print_cell(const char *cell, int width) {
    char text[4096];
    cell_text(cell, width, text, sizeof text);
    printf("%s%*s", text, width - cells(text) + GAP_CELLS, "");
}

static void print_side_by_side(const struct layout *layout) {
    char text[4096];
    const size_t last = layout->columns - 1;
    const int indent = indent_of(layout);
    fputs(mf_colour(stdout, MF_BOLD), stdout);
    for (size_t at = 0; at < last; at++)
        print_cell(title_of(layout, at), layout->width[at]);
    printf("%s%s\n", title_of(layout, last), mf_colour(stdout, MF_RESET));
    for (size_t row = 0; row < layout->table->rows; row++) {
        for (size_t at = 0; at < last; at++)
            print_cell(cell_of(layout, row, at), layout->width[at]);
        cell_text(cell_of(layout, row, last), 0, text, sizeof text);
        mf_print_wrapped(stdout, text, indent, indent);
    }
}

static void print_lists(const struct layout *layout) {
    char text[4096];
    int widest = 0;
    for (size_t at = 0; at < layout->columns; at++)
        widest = cells(title_of(layout, at)) > widest ? cells(title_of(layout, at)) : widest;
    for (size_t row = 0; row < layout->table->rows; row++) {
        printf("%s", row ? "\n" : "");
        for (size_t at = 0; at < layout->columns; at++) {
            cell_text(cell_of(layout, row, at), 0, text, sizeof text);
            if (!*text)
                continue;
            printf("%s%-*s%s", mf_colour(stdout, MF_BOLD), widest + GAP_CELLS, title_of(layout, at),
                   mf_colour(stdout, MF_RESET));
            mf_print_wrapped(stdout, text, widest + GAP_CELLS, widest + GAP_CELLS);
        }
    }
}

void mf_table_print(const struct mf_text_table *table, const char *people) {
    struct layout layout = {.table = table,
                            .column = calloc(table->columns + 1, sizeof *layout.column),
                            .width = calloc(table->columns + 1, sizeof *layout.width),
                            .screen = mf_terminal_columns(stdout)};
    if (layout.column && layout.width && table->columns) {
        choose_columns(&layout, people);
        measure(&layout);
        if (fit(&layout))
            print_side_by_side(&layout);
        else
            print_lists(&layout);
    }
    free(layout.column);
    free(layout.width);
}

int mf_table_give(struct mf_settings *settings, struct mf_text_table *table, const char *people,
                  const char *none) {
    int result = MF_EXIT_OK;
    if (settings->json)
        result = mf_json_print(mf_table_json(table));
    else if (!table->rows)
        puts(none);
    else
        mf_table_print(table, people);
    mf_text_table_free(table);
    return result;
}
