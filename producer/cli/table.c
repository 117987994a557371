#include "producer/cli/table.h"

#include <stdlib.h>
#include <string.h>

enum { CELL_CELLS = 60 };

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

/* Terminal cells of a UTF-8 text, one a character. */
static int cells(const char *text) {
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

/* Copies with line ends as spaces, cut to CELL_CELLS cells; the last column is left whole. */
static void cell_text(const char *text, bool whole, char *out, size_t bytes) {
    int n = 0;
    size_t used = 0;
    for (; *text && used + 8 < bytes; text++) {
        bool starts = ((unsigned char)*text & 0xC0) != 0x80;
        if (starts && !whole && n == CELL_CELLS - 1) {
            memcpy(out + used, "…", sizeof "…");
            return;
        }
        n += starts;
        out[used++] = *text == '\n' || *text == '\r' || *text == '\t' ? ' ' : *text;
    }
    out[used] = 0;
}

void mf_table_print(const struct mf_text_table *table) {
    char text[4096];
    int *width = calloc(table->columns + 1, sizeof *width);
    if (!width)
        return;
    for (size_t c = 0; c < table->columns; c++) {
        width[c] = cells(table->column[c]);
        for (size_t r = 0; r < table->rows; r++) {
            const char *cell = table->cell[r * table->columns + c];
            cell_text(cell ? cell : "", c + 1 == table->columns, text, sizeof text);
            if (cells(text) > width[c])
                width[c] = cells(text);
        }
    }
    fputs(mf_colour(stdout, MF_BOLD), stdout);
    for (size_t c = 0; c < table->columns; c++)
        printf("%s%*s", table->column[c],
               c + 1 == table->columns ? 0 : width[c] - cells(table->column[c]) + 2, "");
    printf("%s\n", mf_colour(stdout, MF_RESET));
    for (size_t r = 0; r < table->rows; r++) {
        for (size_t c = 0; c < table->columns; c++) {
            const char *cell = table->cell[r * table->columns + c];
            cell_text(cell ? cell : "", c + 1 == table->columns, text, sizeof text);
            printf("%s%*s", text, c + 1 == table->columns ? 0 : width[c] - cells(text) + 2, "");
        }
        putchar('\n');
    }
    free(width);
}

int mf_table_give(struct mf_settings *settings, struct mf_text_table *table, const char *none) {
    int result = MF_EXIT_OK;
    if (settings->json)
        result = mf_json_print(mf_table_json(table));
    else if (!table->rows)
        puts(none);
    else
        mf_table_print(table);
    mf_text_table_free(table);
    return result;
}
