// The program: finds the command, reads its options, runs it, and turns what happened into one line
// on stderr and an exit status. Everything else is in the commands.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/err.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/map_guard.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"

char *qn_find_model(const char *model, qn_err *err) {
    char *path = NULL;
    return qn_resolve(model, &path, err) ? path : NULL;
}

// A standard stream that the caller closed is opened, so that no file of ours gets its number. What
// is written to such a stdout fails, as it should.
static void guard_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY) != fd)
            return;
}

// Where the command stands: options may come before it, with values of their own.
static size_t command_position(char **words, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (words[i][0] != '-' || !words[i][1]) return i;
        if (strcmp(words[i], "--") == 0) return n;
        const char *value = NULL;
        const qn_option *o = NULL;
        for (const qn_command *const *c = qn_commands; *c && !o; c++)
            o = qn_option_find(*c, words[i], &value);
        if (o && o->kind != QN_OPT_FLAG && !value) i++;
    }
    return n;
}

static bool is_among(char **words, size_t n, const char *a, const char *b) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i], a) == 0 || strcmp(words[i], b) == 0) return true;
    return false;
}

static int without_command(char **words, size_t n, qn_err *err) {
    if (is_among(words, n, "--version", "-V"))
        qn_out_addf("quern %s\n", qn_version());
    else if (is_among(words, n, "--help", "-h"))
        qn_help_overview();
    else if (n && strcmp(words[0], "--") != 0)
        return qn_fail(err, QN_USAGE, "unknown option %s without a command; `quern help` lists the "
                       "commands", words[0]) - 1;
    else
        return qn_fail(err, QN_USAGE, "no command given; `quern help` lists them") - 1;
    return 0;
}

static int run_command(const qn_command *c, char **words, size_t n, qn_err *err) {
    qn_args *a = qn_args_parse(c, words, n, err);
    if (!a) return -1;
    int status = 0;
    if (qn_args_has(a, "help")) {
        qn_help_command(c);
    } else {
        qn_log_set_quiet(qn_args_has(a, "quiet"));
        status = qn_cpu_init(err) ? c->run(a, err) : -1;
    }
    qn_args_free(a);
    return status;
}

static int run(char **words, size_t n, qn_err *err) {
    size_t at = command_position(words, n);
    if (at >= n) return without_command(words, n, err);
    const char *name = words[at];
    const qn_command *c = qn_command_find(name);
    if (!c) {
        qn_command_unknown(name, err);
        return -1;
    }
    memmove(words + at, words + at + 1, (n - at - 1) * sizeof *words);
    return run_command(c, words, n - 1, err);
}

int main(int argc, char **argv) {
    guard_streams();
    signal(SIGPIPE, SIG_IGN); // a closed pipe and a file that is too large are errors like others
    signal(SIGXFSZ, SIG_IGN);
    qn_interrupt_install();
    qn_map_guard_install();
    qn_err err = {0};
    int status = run(argv + 1, argc > 0 ? (size_t)argc - 1 : 0, &err);
    // A file that changed while it was read explains whatever else went wrong, and spoils a result.
    qn_err changed = {0};
    if (!qn_maps_never_changed(&changed)) {
        err = changed;
        status = -1;
    }
    if (!qn_out_flush(status < 0 ? NULL : &err)) status = -1;
    if (status < 0) {
        qn_progress_clear_line();
        // A failed name look-up carries the download commands in further lines.
        if (qn_log_quiet()) err.text[strcspn(err.text, "\n")] = 0;
        fprintf(stderr, "quern: %s\n", err.text);
        status = qn_exit_status(err.code);
        if (status == 0) status = 3; // a failure that forgot to say so is still one
    }
    return status;
}
