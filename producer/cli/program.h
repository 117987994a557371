/* Other programs of modelforge that a command asks. */
#ifndef MF_PRODUCER_CLI_PROGRAM_H
#define MF_PRODUCER_CLI_PROGRAM_H

/* Where the program of this name can be run: beside this one, else in PATH. NULL: nowhere. The caller frees
 * it. */
char *mf_program_find(const char *name);

#endif
