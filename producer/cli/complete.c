/* complete, completion: what a shell may offer next, and the few lines that teach a shell to ask. */
#include "producer/cli/command.h"

#include "schemas/request.h"

#include <stdlib.h>
#include <string.h>

static const char bash[] =
    "_modelforge() {\n"
    "  local IFS=$'\\n'\n"
    "  COMPREPLY=($(\"${COMP_WORDS[0]}\" complete \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null))\n"
    "  if [[ ${#COMPREPLY[@]} == 0 ]]; then\n"
    "    compopt -o default\n"
    "  elif [[ ${COMPREPLY[0]} == *= ]]; then\n"
    "    compopt -o nospace\n"
    "  fi\n"
    "}\n"
    "complete -F _modelforge modelforge\n";
static const char zsh[] = "#compdef modelforge\n"
                          "_modelforge() {\n"
                          "  local -a offers\n"
                          "  offers=(${(f)\"$(${words[1]} complete ${words[2,CURRENT]} 2>/dev/null)\"})\n"
                          "  if (( $#offers )); then compadd -- $offers; else _files; fi\n"
                          "}\n"
                          "compdef _modelforge modelforge\n";
static const char fish[] =
    "function __modelforge_complete\n"
    "    set -l words (commandline -opc) (commandline -ct)\n"
    "    set -l offers ($words[1] complete $words[2..-1] 2>/dev/null)\n"
    "    if test (count $offers) -gt 0; string join \\n $offers; else; __fish_complete_path $words[-1]; end\n"
    "end\n"
    "complete -c modelforge -f -a '(__modelforge_complete)'\n";

int mf_command_completion(struct mf_settings *settings, int argc, char **argv) {
    static const struct {
        const char *shell, *script;
    } scripts[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    (void)settings;
    for (size_t i = 0; argc == 2 && i < sizeof scripts / sizeof *scripts; i++)
        if (!strcmp(argv[1], scripts[i].shell)) {
            fputs(scripts[i].script, stdout);
            return MF_EXIT_OK;
        }
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        mf_print_help(
            stdout,
            "usage: modelforge completion bash | zsh | fish\n\n"
            "Prints what teaches the shell to complete modelforge's commands, flags, fields and their "
            "values:\n\n"
            "  bash   eval \"$(modelforge completion bash)\"           in ~/.bashrc\n"
            "  zsh    eval \"$(modelforge completion zsh)\"            in ~/.zshrc, after compinit\n"
            "  fish   modelforge completion fish | source            in ~/.config/fish/config.fish\n\n"
            "An installed modelforge has done that for every user.");
        return MF_EXIT_OK;
    }
    return mf_usage("completion", "which shell: bash, zsh or fish?");
}

static void offer(const char *word, const char *beginning) {
    if (!strncmp(word, beginning, strlen(beginning)))
        puts(word);
}

/* "a b c" */
static void offer_each(const char *words, const char *beginning) {
    char word[64];
    for (; *(words += strspn(words, " ")); words += strcspn(words, " ")) {
        snprintf(word, sizeof word, "%.*s", (int)strcspn(words, " "), words);
        offer(word, beginning);
    }
}

/* learning_rate -> --learning-rate */
static void flag_of_field(const struct mf_field *field, char flag[64]) {
    snprintf(flag, 64, "--%s", field->name);
    for (char *c = flag; *c; c++)
        if (*c == '_')
            *c = '-';
}

static void offer_fields(const char *beginning) {
    const struct mf_field *fields = mf_request_fields();
    char flag[64];
    for (int i = 0; i < MF_REQUEST_FIELD_COUNT; i++) {
        flag_of_field(&fields[i], flag);
        if (!fields[i].refusal)
            offer(flag, beginning);
    }
}

/* What the field of a flag allows. False: it is no field. */
static bool offer_values(const char *flag, const char *beginning) {
    const struct mf_field *fields = mf_request_fields();
    char name[64];
    int i = 0;
    for (; i < MF_REQUEST_FIELD_COUNT; i++)
        if (!strcmp((flag_of_field(&fields[i], name), name), flag))
            break;
    if (i == MF_REQUEST_FIELD_COUNT)
        return false;
    if (fields[i].kind == MF_KIND_BOOLEAN || fields[i].kind == MF_KIND_OPTIONAL_BOOLEAN)
        offer_each("true false", beginning);
    size_t count;
    const struct mf_field_choice *choices = mf_request_choices(&count);
    for (size_t c = 0; c < count; c++)
        if ((int)choices[c].field == i && !choices[c].refusal)
            offer(choices[c].value, beginning);
    return true;
}

/* argv[0] is "complete", then the words after the program's name; the last is the one being typed. */
int mf_command_complete(struct mf_settings *settings, int argc, char **argv) {
    (void)settings;
    const char *typed = argc > 1 ? argv[argc - 1] : "", *before = argc > 2 ? argv[argc - 2] : "";
    const struct mf_cli_command *command = NULL;
    size_t commands;
    const struct mf_cli_command *all = mf_cli_commands(&commands);
    for (int i = 1; i < argc - 1 && !command; i++) {
        if (!strcmp(argv[i], "--config") || !strcmp(argv[i], "--set"))
            i++; /* its value */
        else if (argv[i][0] != '-')
            command = mf_cli_command_find(argv[i]);
    }
    if (!command) {
        if (!strcmp(before, "--config") || !strcmp(before, "--set"))
            return MF_EXIT_OK;
        if (*typed == '-')
            offer_each("--config --set --json --help --version", typed);
        for (size_t i = 0; i < commands && *typed != '-'; i++)
            if (all[i].summary)
                offer(all[i].name, typed);
        return MF_EXIT_OK;
    }
    if (!strncmp(before, "--", 2) && command->fields && offer_values(before, typed))
        return MF_EXIT_OK;
    if (*typed == '-') {
        offer_each(command->flags, typed);
        if (command->fields)
            offer_fields(typed);
    } else {
        offer_each(command->words, typed);
    }
    return MF_EXIT_OK;
}
