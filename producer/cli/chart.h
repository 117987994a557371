/* A loss curve in characters. */
#ifndef MF_PRODUCER_CLI_CHART_H
#define MF_PRODUCER_CLI_CHART_H

#include "sql/store.h"

#include <stdio.h>

/* Draws training loss over steps ('•', the mean of the steps that share a column) and, where there are any,
 * evaluation losses ('◆'), `columns` x `rows` cells beside a labelled axis. Values that are not finite are
 * left out; nothing is drawn when none is left. */
void mf_chart_loss(FILE *out, const struct mf_step_metric *steps, size_t step_count,
                   const struct mf_eval_metric *evals, size_t eval_count, int columns, int rows);

#endif
