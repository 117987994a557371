/* modelforge-trainer: one request in, one trained model out; and the tools around a model. */
#include "common/log.h"
#include "worker/trainer/commands.h"
#include "worker/trainer/protocol.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How generate, evaluate and score compute. */
#define COMPUTED                                                                                   \
    "                   [--provider NAME] [--device auto|cpu|cuda] [--dtype auto|f32|bf16]\n"      \
    "                   [--quantization none|nf4|fp4|int8 [--nested-quantization]] [--reference] " \
    "[--json]\n"
#define QUANTIZED "\n      --quantization: the values that linear weights have in qlora, or with use_8bit"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"run", mf_command_run,
     "REQUEST.json [--output DIR] [--resume CHECKPOINT]\n      train; artifacts go to DIR "
     "(./modelforge-output)"},
    {"plan", mf_command_plan,
     "REQUEST.json [--json] [--no-probe] [--ledger]\n      what run would do, without doing it: rows, "
     "tokens, steps, memory by kind, first sample with its\n"
     "      labels, and the time it would take, told by two passes that are timed (--no-probe: not)\n"
     "      --ledger: also where the time of a pass goes, op by op"},
    {"convert", mf_command_convert,
     "IN.gguf OUT_DIR [--dtype f32|bf16]\n      GGUF file to Hugging Face folder"},
    {"merge", mf_command_merge,
     "--model DIR --adapter DIR --output DIR [--gguf q8_0|f16] [--dtype 16bit|f32]\n"
     "      the model with the adapter in its weights, as a Hugging Face folder; --gguf: and as "
     "DIR/model.gguf"},
    {"generate", mf_command_generate,
     "--model DIR --prompt TEXT [--adapter DIR] [--max-new-tokens N] [--template chat|text|none]\n" COMPUTED
     "      greedy answer; the chat template is used where the tokenizer has one" QUANTIZED},
    {"evaluate", mf_command_evaluate,
     "--model DIR --dataset FILE [--adapter DIR] [--chat] [--train-on completion|all]\n"
     "                   [--max-length N]\n" COMPUTED
     "      loss and perplexity over the labels of all rows, in f32 unless --dtype says otherwise" QUANTIZED},
    {"score", mf_command_score,
     "--model DIR --text FILE [--adapter DIR]\n" COMPUTED
     "      mean negative log-likelihood of a text's tokens, in f32 unless --dtype says otherwise; --json: "
     "each\n"
     "      token's log-probability too" QUANTIZED},
    {"access", mf_command_access,
     "--model MODEL [--revision REVISION] [--provider NAME]\n      may the provider use this folder, file or "
     "model "
     "of a hub? Nothing is downloaded"},
    {"providers", mf_command_providers,
     "[--json]\n      what can be trained here, by provider, those of the folder for providers too"},
    {"check", mf_command_check,
     "NAME [--trust]\n      runs a provider's program through the trainer protocol on a tiny model, and says "
     "what it breaks;\n      --trust: as this user, though it is not named in providers.trusted"},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

int mf_command_failed(const struct mf_error *error) {
    char text[MF_ERROR_TEXT_BYTES + 64];
    fprintf(stderr, "%s\n", mf_error_format(error, text, sizeof text));
    return 1;
}

const char *mf_command_help(const char *command) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, command))
            return commands[i].help;
    return "";
}

int mf_command_usage(const char *command, const char *problem, const char *argument) {
    fprintf(stderr, "modelforge-trainer %s: %s%s%s\nusage: modelforge-trainer %s %s\n", command, problem,
            argument ? ": " : "", argument ? argument : "", command, mf_command_help(command));
    return MF_EXIT_USAGE;
}

static void print_usage(FILE *file) {
    fprintf(file,
            "modelforge-trainer %s: trains one model; run by modelforge-worker, or by hand.\n\n"
            "usage: modelforge-trainer COMMAND ...\n\n",
            MF_VERSION);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(file, "  %-9s %s\n", commands[i].name, commands[i].help);
    fprintf(file, "\n--reference computes with the oracle's plain kernels: slow, to check the fast ones.\n");
}

/* Threads that wait for each other spin only briefly and then sleep: on processors that others use too,
 * OpenMP's default of spinning for long makes a step many times slower. The library reads its settings before
 * main(), so the program starts itself once more with them; a setting of the user's own is left alone. */
static void limit_spinning(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || setenv("GOMP_SPINCOUNT", "1000", 1) != 0)
        return;
    execv("/proc/self/exe", argv); /* without /proc it goes on as it is */
}

int main(int argc, char **argv) {
    limit_spinning(argv);
    signal(SIGXFSZ, SIG_IGN);    /* a file beyond a limit is an error of write(2), not the end */
    if (!mf_protocol_attached()) /* a person reads standard error */
        mf_log_set_level(MF_LOG_WARNING);
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) != 0)
            continue;
        if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
            printf("usage: modelforge-trainer %s %s\n", name, commands[i].help);
            return 0;
        }
        return commands[i].run(argc - 1, argv + 1);
    }
    if (!strcmp(name, "--version")) {
        printf("modelforge-trainer %s\n", MF_VERSION);
        return 0;
    }
    const bool asked = !strcmp(name, "--help") || !strcmp(name, "-h");
    if (!asked && *name)
        fprintf(stderr, "modelforge-trainer: there is no command '%s'\n\n", name);
    print_usage(asked ? stdout : stderr);
    return asked ? 0 : MF_EXIT_USAGE;
}
