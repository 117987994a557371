#include "producer/cli/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 200, MAX_ROWS = 40 };

struct canvas {
    int columns, rows;
    const char *cell[MAX_ROWS][MAX_COLUMNS]; /* NULL: blank */
    double low, high;                        /* losses at the bottom and the top row */
    int64_t last_step;
};

static void plot(struct canvas *canvas, int column, double loss, const char *mark) {
    double place = (canvas->high - loss) / (canvas->high - canvas->low) * (canvas->rows - 1);
    int row = (int)(place + 0.5);
    if (row >= 0 && row < canvas->rows && column >= 0 && column < canvas->columns)
        canvas->cell[row][column] = mark;
}

static int column_of(const struct canvas *canvas, int64_t step) {
    return canvas->last_step > 1 ? (int)((step - 1) * (canvas->columns - 1) / (canvas->last_step - 1)) : 0;
}

static void widen(struct canvas *canvas, double loss, int64_t step) {
    if (!isfinite(loss))
        return;
    canvas->low = fmin(canvas->low, loss);
    canvas->high = fmax(canvas->high, loss);
    if (step > canvas->last_step)
        canvas->last_step = step;
}

static void print_canvas(FILE *out, const struct canvas *canvas, bool evals) {
    for (int row = 0; row < canvas->rows; row++) {
        double value = canvas->high - (canvas->high - canvas->low) * row / (canvas->rows - 1);
        if (row % 3 == 0 || row == canvas->rows - 1)
            fprintf(out, "%9.3f ┤", value);
        else
            fprintf(out, "%9s │", "");
        int last = canvas->columns - 1;
        while (last >= 0 && !canvas->cell[row][last])
            last--;
        for (int column = 0; column <= last; column++)
            fputs(canvas->cell[row][column] ? canvas->cell[row][column] : " ", out);
        fputc('\n', out);
    }
    fprintf(out, "%9s └", "");
    for (int column = 0; column < canvas->columns; column++)
        fputs("─", out);
    char last[32];
    int width = snprintf(last, sizeof last, "%lld", (long long)canvas->last_step);
    fprintf(out, "\n%10s 1%*s%s\n%10s step    • training loss%s\n", "", canvas->columns - 1 - width, "", last,
            "", evals ? "    ◆ evaluation loss" : "");
}

void mf_chart_loss(FILE *out, const struct mf_step_metric *steps, size_t step_count,
                   const struct mf_eval_metric *evals, size_t eval_count, int columns, int rows) {
    struct canvas *canvas = calloc(1, sizeof *canvas);
    double sum[MAX_COLUMNS] = {0};
    int count[MAX_COLUMNS] = {0};
    if (!canvas)
        return;
    canvas->columns = columns < 10 ? 10 : columns > MAX_COLUMNS ? MAX_COLUMNS : columns;
    canvas->rows = rows < 4 ? 4 : rows > MAX_ROWS ? MAX_ROWS : rows;
    canvas->low = INFINITY;
    canvas->high = -INFINITY;
    for (size_t i = 0; i < step_count; i++)
        widen(canvas, steps[i].loss, steps[i].step);
    for (size_t i = 0; i < eval_count; i++)
        widen(canvas, evals[i].loss, evals[i].step);
    if (canvas->last_step > 0) {
        if (canvas->high - canvas->low < 1e-6) { /* a flat curve stands in the middle */
            canvas->high += 0.5;
            canvas->low -= 0.5;
        }
        for (size_t i = 0; i < step_count; i++)
            if (isfinite(steps[i].loss)) {
                int column = column_of(canvas, steps[i].step);
                sum[column] += steps[i].loss;
                count[column]++;
            }
        for (int column = 0; column < canvas->columns; column++)
            if (count[column])
                plot(canvas, column, sum[column] / count[column], "•");
        for (size_t i = 0; i < eval_count; i++)
            if (isfinite(evals[i].loss))
                plot(canvas, column_of(canvas, evals[i].step), evals[i].loss, "◆");
        print_canvas(out, canvas, eval_count > 0);
    }
    free(canvas);
}
