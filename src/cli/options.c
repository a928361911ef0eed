// The one option parser. Every command is a list of tables; a word is looked up there, its value
// is checked against kind and range, and what remains are arguments. Values are kept as text and
// converted on demand: they were proven to convert when they were read.
#include "cli/options.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

typedef struct given {
    const qn_option *option; // never an alias
    const char *text;        // NULL for a flag
} given;

struct qn_args {
    const qn_command *command;
    given *given;
    size_t n_given;
    const char **words; // arguments
    size_t n_words;
    const char **lists; // texts of all options, option by option, for qn_args_list
};

static const qn_option *table_of(const qn_command *c, size_t i) {
    return i == QN_OPT_TABLES ? qn_common_table : c->tables[i];
}

static const qn_option *by_name(const qn_command *c, const char *name, size_t n) {
    for (size_t t = 0; t <= QN_OPT_TABLES; t++)
        for (const qn_option *o = table_of(c, t); o && o->name; o++)
            if (strlen(o->name) == n && memcmp(o->name, name, n) == 0) return o;
    return NULL;
}

static const qn_option *by_letter(const qn_command *c, char letter) {
    for (size_t t = 0; t <= QN_OPT_TABLES; t++)
        for (const qn_option *o = table_of(c, t); o && o->name; o++)
            if (o->letter == letter) return o;
    return NULL;
}

const qn_option *qn_option_find(const qn_command *c, const char *word, const char **value) {
    *value = NULL;
    if (word[0] != '-' || !word[1]) return NULL;
    if (word[1] == '-') {
        const char *name = word + 2, *equals = strchr(name, '=');
        *value = equals ? equals + 1 : NULL;
        return by_name(c, name, equals ? (size_t)(equals - name) : strlen(name));
    }
    const qn_option *o = by_letter(c, word[1]);
    if (word[2]) *value = word + 2;
    return o && word[2] && o->kind == QN_OPT_FLAG ? NULL : o;
}

// ---- what is wrong with a word ----

static bool unknown(const qn_command *c, const char *word, qn_err *err) {
    const char *names[128];
    size_t n = 0;
    for (size_t t = 0; t <= QN_OPT_TABLES; t++)
        for (const qn_option *o = table_of(c, t); o && o->name && n < 128; o++)
            if (o->help) names[n++] = o->name;
    char *bare = qn_strndup(word, strcspn(word, "="));
    const char *near = qn_str_nearest(bare + strspn(bare, "-"), names, n);
    if (near)
        qn_fail(err, QN_USAGE, "unknown option %s for quern %s; did you mean --%s?", bare, c->name,
                near);
    else
        qn_fail(err, QN_USAGE, "unknown option %s; `quern help %s` lists what there is (a text "
                "that starts with - goes behind --)", bare, c->name);
    free(bare);
    return false;
}

static bool is_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *p = choices; n; p++) {
        size_t m = strcspn(p, "|");
        if (m == n && memcmp(p, text, n) == 0) return true;
        p += m;
        if (!*p) break;
    }
    return false;
}

static bool parse_int(const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long x = strtoll(text, &end, 10);
    *out = x;
    return !errno && end != text && !*end && !strchr(" \t\n\v\f\r", *text);
}

static bool parse_real(const char *text, double *out) {
    char *end;
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false; // no "nan", no hex
    *out = strtod(text, &end);
    return !*end && isfinite(*out);
}

static bool check_value(const qn_option *o, const char *text, qn_err *err) {
    int64_t i;
    double x;
    size_t bad;
    switch (o->kind) {
    case QN_OPT_INT:
        if (parse_int(text, &i) && (double)i >= o->lo && (double)i <= o->hi) return true;
        return qn_fail(err, QN_USAGE, "--%s is \"%s\", expected an integer from %.0f to %.0f",
                       o->name, text, o->lo, o->hi);
    case QN_OPT_REAL:
        if (parse_real(text, &x) && x >= o->lo && x <= o->hi) return true;
        return qn_fail(err, QN_USAGE, "--%s is \"%s\", expected a number from %g to %g", o->name,
                       text, o->lo, o->hi);
    case QN_OPT_CHOICE:
        if (is_choice(o->value, text)) return true;
        return qn_fail(err, QN_USAGE, "--%s is \"%s\", expected %s", o->name, text, o->value);
    case QN_OPT_TEXT:
        bad = qn_utf8_valid(text, strlen(text));
        if (!text[bad]) return true;
        return qn_fail(err, QN_INPUT, "--%s: the text is not UTF-8 at byte %zu (0x%02x)", o->name,
                       bad, (unsigned char)text[bad]);
    case QN_OPT_FILE:
        if (*text) return true;
        return qn_fail(err, QN_USAGE, "--%s is empty, expected a file name", o->name);
    default: return true;
    }
}

// ---- reading ----

static bool give(qn_args *a, const qn_option *o, const char *text, qn_err *err) {
    if (o->same_as) o = by_name(a->command, o->same_as, strlen(o->same_as));
    assert(o);
    if (o->kind != QN_OPT_FLAG && !check_value(o, text, err)) return false;
    for (size_t i = 0; i < a->n_given; i++) {
        if (a->given[i].option != o || o->many) continue;
        if (o->kind == QN_OPT_FLAG) return true;
        return qn_fail(err, QN_USAGE, "--%s is given twice (\"%s\" and \"%s\")", o->name,
                       a->given[i].text, text);
    }
    a->given[a->n_given++] = (given){o, text};
    return true;
}

// Reads the option at words[*i] and moves *i over a value that stands in the next word.
static bool read_option(qn_args *a, char **words, size_t n, size_t *i, qn_err *err) {
    const char *word = words[*i], *value;
    const qn_option *o = qn_option_find(a->command, word, &value);
    if (!o) return unknown(a->command, word, err);
    if (o->kind == QN_OPT_FLAG) {
        if (value)
            return qn_fail(err, QN_USAGE, "--%s takes no value, found \"%s\"", o->name, value);
        return give(a, o, NULL, err);
    }
    if (!value) {
        const char *ignored;
        if (*i + 1 >= n)
            return qn_fail(err, QN_USAGE, "%s needs a value: %s", word, o->value);
        value = words[++*i];
        if (o->kind == QN_OPT_FILE && qn_option_find(a->command, value, &ignored))
            return qn_fail(err, QN_USAGE, "%s needs a value (%s), found the option %s", word,
                           o->value, value);
    }
    return give(a, o, value, err);
}

// "-5" is a number and "-" is stdin, unless some command takes the letter.
static bool is_option(const qn_command *c, const char *word) {
    if (word[0] != '-' || !word[1]) return false;
    return !(word[1] >= '0' && word[1] <= '9') || by_letter(c, word[1]);
}

static bool read_words(qn_args *a, char **words, size_t n, qn_err *err) {
    bool plain = false; // behind --
    for (size_t i = 0; i < n; i++) {
        if (!plain && strcmp(words[i], "--") == 0) {
            plain = true;
        } else if (!plain && is_option(a->command, words[i])) {
            if (!read_option(a, words, n, &i, err)) return false;
        } else {
            a->words[a->n_words++] = words[i];
        }
    }
    return true;
}

static bool check_count(const qn_args *a, qn_err *err) {
    const qn_command *c = a->command;
    if (a->n_words < (size_t)c->min_args)
        return qn_fail(err, QN_USAGE, "%s is missing; usage: quern %s %s",
                       a->n_words == 0 && strncmp(c->usage, "MODEL", 5) == 0 ? "MODEL" :
                       "an argument", c->name, c->usage);
    if (a->n_words > (size_t)c->max_args)
        return qn_fail(err, QN_USAGE, "unexpected argument \"%s\" (is a text not quoted?); usage: "
                       "quern %s %s", a->words[c->max_args], c->name, c->usage);
    return true;
}

// Texts of the same option side by side, so that a list is a plain array.
static void collect_lists(qn_args *a) {
    a->lists = qn_calloc(a->n_given + 1, sizeof *a->lists);
    size_t n = 0;
    for (size_t i = 0; i < a->n_given; i++) {
        bool first = true;
        for (size_t j = 0; j < i; j++)
            if (a->given[j].option == a->given[i].option) first = false;
        for (size_t j = i; first && j < a->n_given; j++)
            if (a->given[j].option == a->given[i].option) a->lists[n++] = a->given[j].text;
    }
}

qn_args *qn_args_parse(const qn_command *c, char **words, size_t n, qn_err *err) {
    qn_args *a = QN_NEW(qn_args);
    a->command = c;
    a->given = qn_calloc(n + 1, sizeof *a->given);
    a->words = qn_calloc(n + 1, sizeof *a->words);
    bool ok = read_words(a, words, n, err);
    collect_lists(a);
    if (ok && (qn_args_has(a, "help") || check_count(a, err))) return a;
    qn_args_free(a);
    return NULL;
}

void qn_args_free(qn_args *a) {
    if (!a) return;
    free(a->given);
    free(a->words);
    free(a->lists);
    free(a);
}

// ---- asking ----

static const given *find_given(const qn_args *a, const char *name) {
    assert(by_name(a->command, name, strlen(name)));
    for (size_t i = 0; i < a->n_given; i++)
        if (strcmp(a->given[i].option->name, name) == 0) return &a->given[i];
    return NULL;
}

bool qn_args_has(const qn_args *a, const char *name) { return find_given(a, name) != NULL; }

const char *qn_args_text(const qn_args *a, const char *name, const char *otherwise) {
    const given *g = find_given(a, name);
    return g ? g->text : otherwise;
}

int64_t qn_args_int(const qn_args *a, const char *name, int64_t otherwise) {
    const given *g = find_given(a, name);
    int64_t x = otherwise;
    if (g) parse_int(g->text, &x);
    return x;
}

double qn_args_real(const qn_args *a, const char *name, double otherwise) {
    const given *g = find_given(a, name);
    double x = otherwise;
    if (g) parse_real(g->text, &x);
    return x;
}

const char *const *qn_args_list(const qn_args *a, const char *name, size_t *n) {
    const given *g = find_given(a, name);
    *n = 0;
    if (!g) return NULL;
    size_t at = 0; // texts of options that were first given earlier stand in front
    for (const given *p = a->given; p < g; p++) {
        bool first = true;
        for (const given *q = a->given; q < p; q++)
            if (q->option == p->option) first = false;
        for (const given *q = p; first && q < a->given + a->n_given; q++)
            if (q->option == p->option) at++;
    }
    for (const given *q = g; q < a->given + a->n_given; q++)
        if (q->option == g->option) ++*n;
    return a->lists + at;
}

size_t qn_args_count(const qn_args *a) { return a->n_words; }

const char *qn_args_at(const qn_args *a, size_t i) { return i < a->n_words ? a->words[i] : NULL; }

bool qn_args_exclude(const qn_args *a, const char *const *names, qn_err *err) {
    const char *first = NULL;
    for (; *names; names++) {
        if (!qn_args_has(a, *names)) continue;
        if (first)
            return qn_fail(err, QN_USAGE, "--%s and --%s exclude each other", first, *names);
        first = *names;
    }
    return true;
}

int qn_args_threads(const qn_args *a) { return (int)qn_args_int(a, "threads", 0); }

qn_precision qn_args_precision(const qn_args *a, qn_precision otherwise) {
    const char *s = qn_args_text(a, "precision", NULL);
    return !s ? otherwise : strcmp(s, "exact") == 0 ? QN_EXACT : QN_FAST;
}

qn_weights qn_args_weights(const qn_args *a) {
    static const char *const words[] = {"stored", "f32", "bf16", "q8", "q4"}; // as in qn_weights
    const char *s = qn_args_text(a, "weights", "stored");
    for (int i = 0; i < 5; i++)
        if (strcmp(s, words[i]) == 0) return (qn_weights)i;
    return QN_STORED;
}
