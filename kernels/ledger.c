#include "kernels/ledger.h"

#include <stdlib.h>

void mf_ledger_note(void *user, const struct mf_graph *graph, int32_t program, int32_t index,
                    const int32_t *value, double seconds) {
    struct mf_ledger *ledger = user;
    const struct mf_node *node = &graph->program[program]->node[index];
    const struct mf_cost cost = mf_node_cost(graph, node, value);
    const double products = cost.flop / ledger->rates.flop_per_second;
    const double traffic = cost.bytes / ledger->rates.bytes_per_second;
    struct mf_ledger_row *row = &ledger->row[node->op][node->phase];
    row->calls++;
    row->flop += cost.flop;
    row->bytes += cost.bytes;
    row->predicted += products > traffic ? products : traffic;
    row->running += seconds;
}

void mf_ledger_end_step(struct mf_ledger *ledger) {
    for (int op = 0; op < MF_ALL_OPS; op++)
        for (int phase = 0; phase < MF_NODE_PHASES; phase++) {
            struct mf_ledger_row *row = &ledger->row[op][phase];
            if (ledger->steps == 0 || row->running < row->measured)
                row->measured = row->running;
            row->running = 0;
        }
    ledger->steps++;
}

/* A row with its place in the table. */
struct line {
    const struct mf_ledger_row *row;
    enum mf_op op;
    enum mf_node_phase phase;
};
enum { MOST_LINES = MF_ALL_OPS * MF_NODE_PHASES };

static int by_time(const void *left, const void *right) {
    const struct line *a = left, *b = right;
    return (a->row->measured < b->row->measured) - (a->row->measured > b->row->measured);
}

/* Fills `line` with the rows that were called, the longest first; returns how many. */
static size_t sorted(const struct mf_ledger *ledger, struct line line[MOST_LINES]) {
    size_t lines = 0;
    for (int op = 0; op < MF_ALL_OPS; op++)
        for (int phase = 0; phase < MF_NODE_PHASES; phase++)
            if (ledger->row[op][phase].calls)
                line[lines++] =
                    (struct line){&ledger->row[op][phase], (enum mf_op)op, (enum mf_node_phase)phase};
    qsort(line, lines, sizeof *line, by_time);
    return lines;
}

static void print_row(const char *op, const char *phase, const struct mf_ledger_row *row, double steps,
                      double all, FILE *file) {
    fprintf(file, "%-26s %-9s %6.0f %9.2f %9.1f %10.2f %10.2f %6.1f%% %5.0f%%\n", op, phase,
            (double)row->calls / steps, row->flop / steps / 1e9, row->bytes / steps / 1e6,
            1e3 * row->predicted / steps, 1e3 * row->measured, 100 * row->measured / all,
            100 * row->predicted / steps / row->measured);
}

void mf_ledger_print(const struct mf_ledger *ledger, FILE *file) {
    struct line line[MOST_LINES];
    struct mf_ledger_row sum = {0};
    const size_t lines = sorted(ledger, line);
    const double steps = ledger->steps > 0 ? (double)ledger->steps : 1;
    for (size_t i = 0; i < lines; i++) {
        sum.calls += line[i].row->calls;
        sum.flop += line[i].row->flop;
        sum.bytes += line[i].row->bytes;
        sum.predicted += line[i].row->predicted;
        sum.measured += line[i].row->measured;
    }
    fprintf(file, "a step, each row's best of %lld, at %.0f GFLOP/s and %.1f GB/s as measured here\n",
            (long long)ledger->steps, ledger->rates.flop_per_second / 1e9,
            ledger->rates.bytes_per_second / 1e9);
    fprintf(file, "%-26s %-9s %6s %9s %9s %10s %10s %7s %6s\n", "op", "phase", "calls", "GFLOP", "MB",
            "floor ms", "took ms", "share", "floor");
    for (size_t i = 0; i < lines; i++)
        print_row(mf_op_name(line[i].op), mf_node_phase_name(line[i].phase), line[i].row, steps, sum.measured,
                  file);
    print_row("all", "", &sum, steps, sum.measured, file);
}

json_t *mf_ledger_json(const struct mf_ledger *ledger) {
    struct line line[MOST_LINES];
    const size_t lines = sorted(ledger, line);
    const double steps = ledger->steps > 0 ? (double)ledger->steps : 1;
    json_t *list = json_array();
    for (size_t i = 0; i < lines && list; i++) {
        const struct mf_ledger_row *row = line[i].row;
        json_t *item = json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f}", "op", mf_op_name(line[i].op), "phase",
                                 mf_node_phase_name(line[i].phase), "calls", (double)row->calls / steps,
                                 "flop", row->flop / steps, "bytes", row->bytes / steps, "predicted_seconds",
                                 row->predicted / steps, "measured_seconds", row->measured);
        if (json_array_append_new(list, item) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}
