/* Printing what the store reads: tables that fit, or JSON. */
#ifndef MF_PRODUCER_CLI_TABLE_H
#define MF_PRODUCER_CLI_TABLE_H

#include "producer/cli/settings.h"
#include "sql/store.h"

/* One line of JSON; takes the reference. Returns an enum mf_exit. */
int mf_json_print(json_t *value);
/* An array of objects, cells as strings or null. New reference. */
json_t *mf_table_json(const struct mf_text_table *table);
/* Columns side by side. Into a file or pipe: every column, all but the last cut to 60 cells. On a terminal:
 * those that `people` names ("state,loss"; NULL: all), without the ones that are empty, made to fit: cells
 * are cut, the last column goes on in further lines, and where even that has no room each row is printed as a
 * list. */
void mf_table_print(const struct mf_text_table *table, const char *people);
/* The table, or JSON (always all columns) as --json says, or `none` when there are no rows; frees the table.
 * Returns an enum mf_exit. */
int mf_table_give(struct mf_settings *settings, struct mf_text_table *table, const char *people,
                  const char *none);

#endif
