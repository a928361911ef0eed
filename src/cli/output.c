// stdout behind an own buffer: errno of the first failed write is kept, so that a full disk or a
// closed pipe ends in one line that says so. Plus what makes output pleasant: tables and trees.
#include "cli/output.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/progress.h"

static qn_buf pending;
static int failure; // errno of the first write that failed
static char last = '\n';

static void write_pending(void) {
    const char *p = pending.data;
    size_t n = pending.n;
    if (n && qn_out_is_terminal()) qn_progress_clear_line();
    while (n > 0 && !failure) {
        ssize_t put = write(STDOUT_FILENO, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) {
            failure = errno;
            break;
        }
        p += put;
        n -= (size_t)put;
    }
    qn_buf_clear(&pending);
}

void qn_out_add(const char *data, size_t n) {
    if (!n || failure) return;
    qn_buf_add(&pending, data, n);
    last = data[n - 1];
    if (pending.n > 65536) write_pending();
}

void qn_out_shown(const char *text, size_t n) {
    if (!qn_out_is_terminal()) {
        qn_out_add(text, n);
        return;
    }
    for (size_t i = 0, from = 0; i <= n; i++) {
        unsigned char c = i < n ? (unsigned char)text[i] : 0;
        bool plain = i < n && ((c >= 0x20 && c != 0x7F) || c == '\n' || c == '\t');
        if (plain) continue;
        qn_out_add(text + from, i - from);
        if (i < n) qn_out_addf("\\x%02x", c);
        from = i + 1;
    }
}

static char *visible(const char *text) {
    size_t cap = 4 * strlen(text) + 1;
    char *out = qn_alloc(cap);
    qn_str_visible(text, out, cap);
    return out;
}

void qn_out_name(const char *name) {
    char *shown = visible(name);
    qn_out_add(shown, strlen(shown));
    free(shown);
}

void qn_out_addf(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    char *text = NULL;
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n > 0) qn_out_add(text, (size_t)n);
    free(text);
}

void qn_out_json(const json_t *document) {
    char *text = qn_json_text(document, true);
    if (text) qn_out_addf("%s\n", text);
    free(text);
}

bool qn_out_flush(qn_err *err) {
    write_pending();
    return !failure || qn_fail_errno(err, failure, "cannot write stdout");
}

bool qn_out_failed(void) { return failure != 0; }

bool qn_out_is_terminal(void) { return isatty(STDOUT_FILENO) == 1; }

void qn_out_end_line(void) {
    if (last != '\n' && qn_out_is_terminal()) qn_out_add("\n", 1);
}

size_t qn_out_width(void) {
    struct winsize w;
    const char *columns = getenv("COLUMNS");
    long n = columns ? strtol(columns, NULL, 10) : 0;
    if (n <= 0 && !qn_out_is_terminal()) return 0;
    if (n <= 0) n = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 ? w.ws_col : 0;
    return n <= 0 ? 80 : n < 40 ? 40 : (size_t)n;
}

// ---- tables ----

static bool is_wide(int32_t c) {
    return (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) ||
           (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
           (c >= 0xFFE0 && c <= 0xFFE6) || (c >= 0x1F300 && c <= 0x1FAFF) ||
           (c >= 0x20000 && c <= 0x3FFFD);
}

static bool is_combining(int32_t c) {
    return (c >= 0x300 && c <= 0x36F) || (c >= 0x200B && c <= 0x200F) ||
           (c >= 0x20D0 && c <= 0x20FF) || (c >= 0xFE00 && c <= 0xFE0F);
}

static size_t width_of(const char *s, size_t n) {
    size_t width = 0;
    while (n > 0) {
        int32_t c;
        size_t k = qn_utf8_next(s, n, &c);
        width += is_wide(c) ? 2 : is_combining(c) ? 0 : 1;
        s += k;
        n -= k;
    }
    return width;
}

size_t qn_text_width(const char *s) { return width_of(s, strlen(s)); }

void qn_out_wrapped(const char *words, size_t at, size_t hang) {
    size_t width = qn_out_width();
    char *shown = visible(words);
    const char *text = shown;
    bool fresh = true; // nothing stands in this line yet but its indent
    while (*text) {
        size_t n = strcspn(text, " "), w = width_of(text, n);
        if (!fresh && width && at + 1 + w > width) {
            qn_out_addf("\n%*s", (int)hang, "");
            at = hang;
            fresh = true;
        }
        if (!fresh) qn_out_add(" ", 1), at++;
        qn_out_add(text, n);
        at += w;
        fresh = false;
        text += n;
        while (*text == ' ') text++;
    }
    free(shown);
    qn_out_add("\n", 1);
}

void qn_table_add(qn_table *t, const char *cell) {
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->cells = qn_realloc(t->cells, t->cap * sizeof *t->cells);
    }
    t->cells[t->n++] = visible(cell);
}

void qn_table_addf(qn_table *t, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    char text[1024];
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    qn_table_add(t, text);
}

// Which of the columns are shown, all of them if NULL, and how wide they are.
typedef struct view {
    const bool *shown;
    const size_t *widths;
    size_t cols;
    int indent;
} view;

// The last cell may be a text, which is broken at the width below where it begins.
static void print_row(const qn_table *t, size_t row, const view *v) {
    size_t cols = v->cols, owed = (size_t)v->indent; // blanks are printed before a cell only
    size_t at = 0, width = qn_out_width();
    for (size_t j = 0; j < cols && row * cols + j < t->n; j++) {
        if (v->shown && !v->shown[j]) continue;
        const char *cell = t->cells[row * cols + j];
        size_t wide = qn_text_width(cell), pad = v->widths[j] - wide;
        if (t->align[j] == '>') owed += pad;
        if (*cell) {
            qn_out_addf("%*s", (int)owed, "");
            at += owed;
            if (j + 1 == cols && t->align[j] == '<' && width && at + wide > width) {
                qn_out_wrapped(cell, at, at);
                return;
            }
            qn_out_add(cell, strlen(cell));
            at += wide;
            owed = 0;
        }
        owed += 2 + (t->align[j] == '>' ? 0 : pad);
    }
    qn_out_add("\n", 1);
}

static size_t *widths_of(const qn_table *t, size_t cols) {
    size_t *widths = qn_calloc(cols + 1, sizeof *widths);
    for (size_t i = 0; i < t->n; i++) {
        size_t w = qn_text_width(t->cells[i]);
        if (w > widths[i % cols]) widths[i % cols] = w;
    }
    return widths;
}

static void empty_table(qn_table *t) {
    for (size_t i = 0; i < t->n; i++) free(t->cells[i]);
    free(t->cells);
    t->cells = NULL;
    t->n = t->cap = 0;
}

void qn_table_print(qn_table *t, int indent) {
    size_t cols = strlen(t->align), *widths = widths_of(t, cols);
    const view v = {NULL, widths, cols, indent};
    for (size_t row = 0; row * cols < t->n; row++) print_row(t, row, &v);
    free(widths);
    empty_table(t);
}

// Whether all rows below the heading have the same cell in column j.
static bool is_uniform(const qn_table *t, size_t cols, size_t j) {
    for (size_t i = cols + j; i < t->n; i += cols)
        if (strcmp(t->cells[i], t->cells[cols + j]) != 0) return false;
    return true;
}

// What every row says is said once. todo: the columns that are left.
static void print_uniform(const qn_table *t, size_t cols, int indent, bool *todo) {
    qn_buf line = {0};
    size_t rows = t->n / cols - 1;
    for (size_t j = 1; j < cols; j++) {
        todo[j] = !is_uniform(t, cols, j) || (rows == 1 && *t->cells[cols + j]);
        if (todo[j] || !*t->cells[cols + j]) continue;
        qn_buf_addf(&line, "%s %s: %s", line.n ? ";" : "all rows —", t->cells[j],
                    t->cells[cols + j]);
    }
    if (line.n) {
        qn_out_addf("%*s", indent, "");
        qn_out_wrapped(line.data, (size_t)indent, (size_t)indent + 4);
    }
    qn_buf_done(&line);
}

void qn_table_print_fitted(qn_table *t, int indent) {
    size_t cols = strlen(t->align), *widths = widths_of(t, cols), left = 0, width = qn_out_width();
    bool *todo = qn_calloc(2 * cols, sizeof *todo), *shown = todo + cols;
    const view v = {shown, widths, cols, indent};
    if (!width) width = 100;
    print_uniform(t, cols, indent, todo);
    for (size_t j = 1; j < cols; j++) left += todo[j];
    for (bool first = true; left > 0 || first; first = false) {
        size_t used = (size_t)indent + widths[0], taken = 0;
        for (size_t j = 0; j < cols; j++) {
            shown[j] = j == 0 || (todo[j] && (!taken || used + 2 + widths[j] <= width));
            if (j == 0 || !todo[j]) continue;
            if (!shown[j]) break; // columns keep their order
            used += 2 + widths[j];
            todo[j] = false;
            taken++;
        }
        left -= taken;
        if (!first) qn_out_add("\n", 1);
        for (size_t row = 0; row * cols < t->n; row++) print_row(t, row, &v);
        memset(shown, 0, cols * sizeof *shown);
    }
    free(todo);
    free(widths);
    empty_table(t);
}

void qn_format_bytes(double bytes, char out[32]) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    size_t u = 0;
    while (bytes >= 1000 && u < 5) bytes /= 1000, u++;
    snprintf(out, 32, u && bytes < 100 ? "%.2f %s" : "%.0f %s", bytes, units[u]);
}

void qn_format_count(uint64_t count, char out[32]) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)count), at = 0;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
}

// ---- trees ----

// Keys whose names alone say too little, and what their numbers are.
static const struct words {
    const char *key, *label, *unit;
} words[] = {
    {"gb_s", "read speed", "GB/s"},
    {"seconds", "time", "s"},
    {"allclose_1e3", "allclose at 1e-3", NULL},
    {"seed", "seed", "id"}, // a name, not a count
    {"tp_divisible", "can be shared by devices", NULL},
    {"nonfinite", "values not finite", NULL},
    {"mlp_max_relative_difference", "largest relative difference", NULL},
};

static const struct words *words_of(const char *key) {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].key, key) == 0) return &words[i];
    return NULL;
}

static char *quantity_text(double x, const char *unit) {
    if (strcmp(unit, "s") == 0) return x < 0.01 ? qn_strdup("< 0.01 s") : qn_strf("%.3g s", x);
    return x < 0.1 ? qn_strf("%.3g MB/s", 1000 * x) : qn_strf("%.3g GB/s", x);
}

static char *scalar_text(const char *key, const json_t *v) {
    char text[32];
    const struct words *w = words_of(key);
    if (json_is_string(v)) return qn_strdup(json_string_value(v));
    if (json_is_boolean(v)) return qn_strdup(json_is_true(v) ? "yes" : "no");
    if (json_is_null(v)) return qn_strdup("none");
    if (json_is_real(v) && w && w->unit) return quantity_text(json_real_value(v), w->unit);
    if (json_is_real(v)) return qn_strf("%.4g", json_real_value(v));
    int64_t i = json_integer_value(v);
    if (strstr(key, "bytes") && i >= 10000)
        qn_format_bytes((double)i, text);
    else if (i >= 0 && !(w && w->unit))
        qn_format_count((uint64_t)i, text);
    else
        snprintf(text, sizeof text, "%lld", (long long)i);
    return qn_strdup(text);
}

// "2 yes, 4 no" of an object that has nothing but yes and no; else NULL.
static char *answers_text(const json_t *v) {
    qn_buf line = {0};
    const char *name;
    json_t *x;
    json_object_foreach((json_t *)(uintptr_t)v, name, x) {
        if (!json_is_boolean(x)) {
            qn_buf_done(&line);
            return NULL;
        }
        qn_buf_addf(&line, "%s%s %s", line.n ? ", " : "", name, json_is_true(x) ? "yes" : "no");
    }
    return line.n ? qn_buf_take(&line, NULL) : NULL;
}

// An array of numbers and words, or an object of answers, fits on one line.
static char *flat_text(const char *key, const json_t *v) {
    if (!json_is_array(v) && !json_is_object(v)) return scalar_text(key, v);
    if (json_is_object(v)) return answers_text(v);
    qn_buf line = {0};
    size_t i;
    const json_t *x;
    json_array_foreach(v, i, x) {
        if (json_is_array(x) || json_is_object(x)) goto deep;
        char *s = scalar_text(key, x);
        qn_buf_addf(&line, "%s%s", i ? ", " : "", s);
        free(s);
    }
    if (!line.n) qn_buf_adds(&line, "none");
    return qn_buf_take(&line, NULL);
deep:
    qn_buf_done(&line);
    return NULL;
}

static char *label_of(const char *key) {
    const struct words *w = words_of(key);
    char *label = qn_strdup(w ? w->label : key);
    for (char *p = label; *p; p++)
        if (*p == '_') *p = ' ';
    return label;
}

static void print_member(qn_table *t, const char *key, const json_t *v, int indent) {
    char *text = flat_text(key, v), *label = label_of(key);
    if (text) {
        qn_table_add(t, label);
        qn_table_add(t, text);
    } else {
        qn_table_print(t, indent);
        qn_out_addf("%*s%s\n", indent, "", label);
        if (indent < 40) qn_out_tree(v, indent + 2); // documents are ours; this only ends recursion
    }
    free(text);
    free(label);
}

// {a:{x,y}, b:{x,y}} is one line a member: "a  x 1, y 2".
static bool is_grid(const json_t *document) {
    const char *key, *inner;
    json_t *v, *w;
    json_object_foreach((json_t *)(uintptr_t)document, key, v) {
        if (!json_is_object(v) || json_object_size(v) > 3) return false;
        json_object_foreach(v, inner, w)
            if (json_is_object(w) || json_is_array(w)) return false;
    }
    return json_object_size(document) > 0;
}

static void print_grid(const json_t *document, int indent) {
    qn_table t = {.align = "<<"};
    const char *key, *inner;
    json_t *v, *w;
    json_object_foreach((json_t *)(uintptr_t)document, key, v) {
        qn_buf line = {0};
        json_object_foreach(v, inner, w) {
            char *s = scalar_text(inner, w), *label = label_of(inner);
            qn_buf_addf(&line, "%s%s %s", line.n ? ", " : "", label, s);
            free(s);
            free(label);
        }
        qn_table_add(&t, key);
        qn_table_add(&t, line.data ? line.data : "");
        qn_buf_done(&line);
    }
    qn_table_print(&t, indent);
}

// An array of objects with the same plain members is a table with a heading.
static bool is_records(const json_t *list) {
    const json_t *first = json_array_get(list, 0);
    size_t i;
    const json_t *x;
    const char *key;
    json_t *v;
    json_array_foreach(list, i, x) {
        if (json_object_size(x) != json_object_size(first) || !json_object_size(x)) return false;
        json_object_foreach((json_t *)(uintptr_t)x, key, v)
            if (!json_object_get(first, key) || json_is_object(v) || json_is_array(v)) return false;
    }
    return json_array_size(list) > 0 && json_object_size(first) < 16;
}

static void print_records(const json_t *list, int indent) {
    char align[17] = "";
    qn_table t = {.align = align};
    json_t *first = json_array_get(list, 0), *x, *v;
    const char *key;
    size_t i;
    json_object_foreach(first, key, v) {
        char *label = label_of(key);
        strcat(align, json_is_number(v) ? ">" : "<");
        qn_table_add(&t, label);
        free(label);
    }
    json_array_foreach(list, i, x) json_object_foreach(first, key, v) {
        char *s = scalar_text(key, json_object_get(x, key));
        qn_table_add(&t, s);
        free(s);
    }
    qn_table_print(&t, indent);
}

void qn_out_tree(const json_t *document, int indent) {
    qn_table t = {.align = "<<"};
    const char *key;
    json_t *v;
    size_t i;
    if (is_grid(document) || is_records(document)) {
        (json_is_array(document) ? print_records : print_grid)(document, indent);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)document, key, v) print_member(&t, key, v, indent);
    qn_table_print(&t, indent);
    json_array_foreach(document, i, v) {
        qn_out_tree(v, indent);
        if (i + 1 < json_array_size(document)) qn_out_add("\n", 1);
    }
}
