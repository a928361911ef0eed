// libedit with our manners. While a line is edited the terminal makes no signals: Ctrl-C is a key
// that abandons the line. Signals from elsewhere end the reading, so characters are read by our own
// function. History lies in XDG_STATE_HOME/quern/history; failing to keep it is nobody's problem.
#include "cli/line_input.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "base/err.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/mem.h"
#include "cli/prompt.h"

#define CTRL_C 3

struct qn_line_input {
    EditLine *edit; // NULL: stdin is no terminal
    FILE *screen;   // where the editor draws
    History *history;
    char *history_path; // NULL: no place to keep it
    bool abandoned, continued;
    qn_lines lines;
};

static qn_line_input *self(EditLine *e) {
    void *in = NULL;
    el_get(e, EL_CLIENTDATA, &in);
    return in;
}

static char *prompt(EditLine *e) {
    static char first[] = "> ", next[] = "… ";
    return self(e)->continued ? next : first;
}

// One character; 0 is the end of input, also when a signal asks us to stop. Ctrl-C ends the line:
// what was typed stays visible, and a fresh line begins.
static int read_character(EditLine *e, wchar_t *out) {
    char bytes[8];
    for (size_t n = 0; n < sizeof bytes;) {
        if (qn_interrupted()) return 0; // before the reading began
        ssize_t got = read(STDIN_FILENO, bytes + n, 1);
        if (got < 0 && errno == EINTR && !qn_interrupted()) continue;
        if (got <= 0) return 0;
        int32_t c;
        size_t k = qn_utf8_next(bytes, ++n, &c);
        bool incomplete = c < 0 && k == n && n < 4 && (unsigned char)bytes[0] >= 0xC2;
        if (incomplete) continue;
        if (c == CTRL_C) self(e)->abandoned = true;
        *out = c < 0 ? 0xFFFD : c == CTRL_C ? '\n' : (wchar_t)c;
        return 1;
    }
    return 0;
}

static char *state_file(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *base = NULL;
    if (state && state[0] == '/') base = qn_strdup(state);
    else if (home && home[0] == '/') base = qn_path_join(home, ".local/state");
    if (!base) return NULL;
    char *dir = qn_path_join(base, "quern");
    for (char *p = dir + 1;; p++) { // like mkdir -p
        if (*p && *p != '/') continue;
        char c = *p;
        *p = 0;
        mkdir(dir, 0700);
        *p = c;
        if (!c) break;
    }
    char *path = qn_path_join(dir, "history");
    free(base);
    free(dir);
    return path;
}

static void open_history(qn_line_input *in) {
    HistEvent event;
    in->history = history_init();
    in->history_path = state_file();
    if (!in->history) return;
    history(in->history, &event, H_SETSIZE, 1000);
    history(in->history, &event, H_SETUNIQUE, 1);
    if (in->history_path) history(in->history, &event, H_LOAD, in->history_path);
    el_set(in->edit, EL_HIST, history, in->history);
}

static void open_editor(qn_line_input *in) {
    setlocale(LC_CTYPE, ""); // libedit counts characters as the locale does
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    in->screen = isatty(STDOUT_FILENO) ? stdout : stderr;
    in->edit = el_init("quern", stdin, in->screen, stderr);
    if (!in->edit) return;
    el_set(in->edit, EL_CLIENTDATA, in);
    el_set(in->edit, EL_PROMPT, prompt);
    el_set(in->edit, EL_EDITOR, "emacs");
    el_set(in->edit, EL_SIGNAL, 0);
    el_set(in->edit, EL_GETCFN, read_character);
    el_set(in->edit, EL_SETTY, "-d", "-isig", NULL);
    el_set(in->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    open_history(in);
}

qn_line_input *qn_line_input_new(void) {
    qn_line_input *in = QN_NEW(qn_line_input);
    if (isatty(STDIN_FILENO)) open_editor(in);
    return in;
}

void qn_line_input_free(qn_line_input *in) {
    if (!in) return;
    if (in->history) history_end(in->history);
    if (in->edit) el_end(in->edit);
    qn_lines_done(&in->lines);
    free(in->history_path);
    free(in);
}

bool qn_line_input_is_terminal(const qn_line_input *in) { return in->edit != NULL; }

static void remember(qn_line_input *in, const char *line) {
    HistEvent event;
    if (!in->history || !*line) return;
    history(in->history, &event, H_ENTER, line);
    if (in->history_path) history(in->history, &event, H_SAVE, in->history_path);
}

static bool read_raw(qn_line_input *in, const char **text, size_t *n, qn_err *err) {
    if (!in->edit) return qn_lines_next(&in->lines, text, n, err);
    int count = 0;
    el_resize(in->edit);
    el_set(in->edit, EL_PREP_TERM, 1); // before the prompt shows: Ctrl-C is a key from there on
    *text = el_gets(in->edit, &count);
    *n = *text && count > 0 ? strlen(*text) : 0;
    while (*n && ((*text)[*n - 1] == '\n' || (*text)[*n - 1] == '\r')) --*n;
    if (in->abandoned || !*text) { // the editor leaves the cursor in the line then
        fputs(in->abandoned ? "^C\n" : "\n", in->screen);
        fflush(in->screen);
    }
    return true;
}

bool qn_line_input_next(qn_line_input *in, qn_buf *line, qn_line_kind *kind, qn_err *err) {
    const char *text;
    size_t n = 0;
    qn_buf_clear(line);
    in->abandoned = in->continued = false;
    for (;;) {
        if (!read_raw(in, &text, &n, err)) return false;
        *kind = in->abandoned ? QN_LINE_ABANDONED : text ? QN_LINE_TEXT : QN_LINE_END;
        if (*kind == QN_LINE_END && line->n) *kind = QN_LINE_TEXT;
        if (*kind == QN_LINE_ABANDONED || !text) break;
        in->continued = n && text[n - 1] == '\\';
        qn_buf_add(line, text, in->continued ? n - 1 : n);
        if (!in->continued) break;
        qn_buf_addc(line, '\n');
    }
    if (*kind == QN_LINE_TEXT) remember(in, line->data ? line->data : "");
    return true;
}
