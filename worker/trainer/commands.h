/* The subcommands of modelforge-trainer. Each gets its own arguments, argv[0] being its name, and returns the
 * exit status of the program: 0, 1 for an error (printed on standard error), 2 for wrong usage, or those of
 * the trainer protocol. */
#ifndef MF_WORKER_TRAINER_COMMANDS_H
#define MF_WORKER_TRAINER_COMMANDS_H

#include "common/error.h"
#include "worker/trainer/adapter.h"
#include "worker/trainer/runtime.h"

enum { MF_EXIT_USAGE = 2 };

int mf_command_run(int argc, char **argv);
int mf_command_plan(int argc, char **argv);
int mf_command_merge(int argc, char **argv);
int mf_command_convert(int argc, char **argv);
int mf_command_generate(int argc, char **argv);
int mf_command_evaluate(int argc, char **argv);
int mf_command_score(int argc, char **argv);
int mf_command_access(int argc, char **argv);
int mf_command_providers(int argc, char **argv);
int mf_command_check(int argc, char **argv);

/* Prints "Class: message" on standard error; returns 1. */
int mf_command_failed(const struct mf_error *error);
/* Prints what is wrong with an argument and how the subcommand is used; returns MF_EXIT_USAGE. */
int mf_command_usage(const char *command, const char *problem, const char *argument);
const char *mf_command_help(const char *command); /* its line of the usage text */

#endif
