// fork, exec, and temporary files for what comes out: no pipe can fill up and hang a test.
#include "cli/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/str.h"

static char folder[64];

char *scratch(const char *name) {
    if (!folder[0]) {
        strcpy(folder, "/tmp/quern-test-XXXXXX");
        assert_non_null(mkdtemp(folder));
    }
    return qn_path_join(folder, name);
}

void scratch_done(void) {
    if (!folder[0]) return;
    char *command = qn_strf("rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    free(command);
    folder[0] = 0;
}

void write_file(const char *path, const char *text) {
    qn_err err = {0};
    if (!qn_file_write(path, text, strlen(text), &err)) fail_msg("%s", err.text);
}

static void limit(int what, long value) {
    struct rlimit l = {(rlim_t)value, (rlim_t)value};
    if (value) setrlimit((__rlimit_resource_t)what, &l);
}

static void become(const surroundings *s, const char *const *args, const int fds[3]) {
    const char *words[64] = {getenv("QUERN")};
    size_t n = 1;
    for (; *args && n < 63; args++) words[n++] = *args;
    for (int i = 0; i < 3; i++) dup2(fds[i], i);
    if (s->stdout_to && strcmp(s->stdout_to, "-") == 0) close(1);
    limit(RLIMIT_FSIZE, s->file_size);
    limit(RLIMIT_AS, s->memory);
    if (words[0]) execv(words[0], (char *const *)(uintptr_t)words);
    _exit(127);
}

static char *contents(const char *path, size_t *n) {
    qn_buf b = {0};
    qn_err err = {0};
    if (!qn_file_read(path, (size_t)1 << 30, &b, &err)) fail_msg("%s", err.text);
    return qn_buf_take(&b, n);
}

static void interrupt(pid_t pid, const char *out) {
    const struct timespec pause = {0, 20000000};
    for (int i = 0; i < 3000 && qn_file_size(out) <= 0; i++) nanosleep(&pause, NULL);
    kill(pid, SIGINT);
}

outcome spawn(const surroundings *s, const char *const *args) {
    static const surroundings plain;
    if (!s) s = &plain;
    char *in = scratch("in"), *out = scratch("out"), *err = scratch("err");
    write_file(in, s->input ? s->input : "");
    bool to_file = s->stdout_to && strcmp(s->stdout_to, "-") != 0;
    const int fresh = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
    int fds[3] = {open(in, O_RDONLY | O_CLOEXEC),
                  open(to_file ? s->stdout_to : out, fresh, 0600), open(err, fresh, 0600)};
    pid_t pid = fork();
    if (pid == 0) become(s, args, fds);
    assert_true(pid > 0);
    if (s->interrupt) interrupt(pid, out);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    for (int i = 0; i < 3; i++) close(fds[i]);
    outcome o = {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status)};
    if (to_file) o.out = qn_strdup("");
    else o.out = contents(out, &o.n_out);
    o.err = contents(err, &o.n_err);
    free(in);
    free(out);
    free(err);
    return o;
}

void outcome_done(outcome *o) {
    free(o->out);
    free(o->err);
    *o = (outcome){0};
}

void expect_error(const surroundings *s, int status, const char *text, const char *const *args) {
    outcome o = spawn(s, args);
    if (o.status != status)
        fail_msg("%s %s: exit %d, expected %d; stderr: %s", args[0], args[1] ? args[1] : "",
                 o.status, status, o.err);
    if (!strstr(o.err, text)) fail_msg("stderr lacks \"%s\": %s", text, o.err);
    const char *line = strstr(o.err, "quern: ");
    if (status > 1 && (!line || strchr(line, '\n') != o.err + o.n_err - 1))
        fail_msg("not one line at the end of stderr: %s", o.err);
    outcome_done(&o);
}

char *output_of(const surroundings *s, const char *const *args) {
    outcome o = spawn(s, args);
    if (o.status != 0)
        fail_msg("%s %s: exit %d: %s", args[0], args[1] ? args[1] : "", o.status, o.err);
    char *out = o.out;
    o.out = NULL;
    outcome_done(&o);
    return out;
}

json_t *json_of(const surroundings *s, const char *const *args) {
    char *out = output_of(s, args);
    json_error_t why;
    json_t *j = json_loads(out, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!j) fail_msg("%s: not one JSON document: %s: %s", args[0], why.text, out);
    free(out);
    return j;
}
