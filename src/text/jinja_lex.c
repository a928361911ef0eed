// Cuts a template into tokens. Most of the work is white space: {%- and -%} strip, lines that hold
// nothing but a block lose their indentation and line end (lstrip_blocks, trim_blocks), one line
// end at the template's end is dropped, and every line end becomes \n.
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/char_case.h"
#include "text/jinja_ast.h"
#include "text/jinja_number.h"
#include "text/unicode.h"

typedef struct lexer {
    qn_arena *arena;
    qn_jtokens *out;
    const char *s;
    size_t n, at;
    int line;
    size_t counted; // line ends are counted up to here
    bool line_starting; // what was matched last ended a line
    qn_err *err;
} lexer;

static int line_of(lexer *x) {
    for (; x->counted < x->at && x->counted < x->n; x->counted++)
        x->line += x->s[x->counted] == '\n';
    return x->line;
}

static bool emit(lexer *x, int kind, qn_value value) {
    qn_jtokens *o = x->out;
    if (o->n == o->cap) {
        size_t cap = o->cap ? 2 * o->cap : 256;
        qn_jtoken *v = qn_arena_alloc(x->arena, cap * sizeof *v);
        if (!v) return qn_fail(x->err, QN_LIMIT, "template: too many tokens");
        if (o->n) memcpy(v, o->v, o->n * sizeof *v);
        o->v = v;
        o->cap = cap;
    }
    o->v[o->n++] = (qn_jtoken){kind, line_of(x), value};
    return true;
}

static bool looking_at(const lexer *x, size_t at, const char *text) {
    size_t n = strlen(text);
    return x->n - at >= n && memcmp(x->s + at, text, n) == 0;
}

static size_t find(const lexer *x, size_t from, const char *text) { // x->n when there is none
    const char *p = from < x->n ? memmem(x->s + from, x->n - from, text, strlen(text)) : NULL;
    return p ? (size_t)(p - x->s) : x->n;
}

static size_t skip_space(const lexer *x, size_t at) {
    size_t len;
    while (at < x->n && qn_char_space(qn_uni_decode(x->s + at, &len))) at += len;
    return at;
}

static size_t rstrip(const char *s, size_t from, size_t to) { // the new end
    while (to > from) {
        size_t at = to - 1, len;
        while (at > from && ((unsigned char)s[at] & 0xC0) == 0x80) at--;
        if (!qn_char_space(qn_uni_decode(s + at, &len))) break;
        to = at;
    }
    return to;
}

// The end of the text in front of a tag, given the tag's sign. Variables keep their indentation.
static size_t text_end(const lexer *x, size_t from, size_t to, char sign, bool variable) {
    if (sign == '-') return rstrip(x->s, from, to);
    if (sign == '+' || variable) return to;
    size_t line = to;
    while (line > from && x->s[line - 1] != '\n') line--;
    if (line == from && !x->line_starting) return to;
    return rstrip(x->s, line, to) == line ? line : to;
}

static bool emit_data(lexer *x, size_t from, size_t to) {
    return from == to || emit(x, QN_T_DATA, qn_v_part(x->arena, x->s + from, to - from));
}

// Behind a tag's end at x->at: after '-' all white space goes, after '+' nothing, else one \n.
static void after_tag(lexer *x, char sign, bool trims) {
    size_t from = x->at;
    if (sign == '-') x->at = skip_space(x, x->at);
    else if (sign != '+' && trims && x->at < x->n && x->s[x->at] == '\n') x->at++;
    x->line_starting = x->at > from && x->s[x->at - 1] == '\n';
}

static bool comment(lexer *x) { // x->at is behind "{#" and its sign
    size_t end = find(x, x->at, "#}");
    if (x->at == x->n) return true; // opened by the last characters: the original lets it pass
    if (end == x->n)
        return qn_fail(x->err, QN_INPUT, "template line %d: missing end of comment", line_of(x));
    char sign = end > x->at ? x->s[end - 1] : 0;
    x->at = end + 2;
    after_tag(x, sign == '-' || sign == '+' ? sign : 0, true);
    return true;
}

// {% raw %}: the text up to {% endraw %} is data. Returns 0 when there is no raw tag at `at`
// (which stands on "{%"), else where the tag ends.
static size_t raw_begin(const lexer *x, size_t at) {
    at += 2;
    if (at < x->n && (x->s[at] == '-' || x->s[at] == '+')) at++;
    at = skip_space(x, at);
    if (!looking_at(x, at, "raw")) return 0;
    at = skip_space(x, at + 3);
    if (looking_at(x, at, "-%}")) return skip_space(x, at + 3);
    return looking_at(x, at, "%}") ? at + 2 : 0;
}

static bool raw(lexer *x) { // x->at is behind the raw tag
    size_t from = x->at;
    if (from == x->n) return true;
    for (size_t tag = find(x, from, "{%"); tag < x->n; tag = find(x, tag + 1, "{%")) {
        size_t at = tag + 2;
        char sign = at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at++] : 0;
        at = skip_space(x, at);
        if (!looking_at(x, at, "endraw")) continue;
        at = skip_space(x, at + 6);
        char end_sign = at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at++] : 0;
        if (!looking_at(x, at, "%}")) continue;
        if (!emit_data(x, from, text_end(x, from, tag, sign, false))) return false;
        x->at = at + 2;
        after_tag(x, end_sign, true);
        return true;
    }
    return qn_fail(x->err, QN_INPUT, "template line %d: missing end of raw", line_of(x));
}

// ---- inside of tags ----

static bool bad(lexer *x, const char *what) {
    return qn_fail(x->err, QN_INPUT, "template line %d: %s", line_of(x), what);
}

static bool hex_escape(lexer *x, qn_buf *out, const char **p, const char *end, int digits) {
    uint32_t c = 0;
    for (int i = 0; i < digits; i++) {
        char d = *p < end ? **p : 0, low = (char)(d | 32);
        if (d >= '0' && d <= '9') c = c << 4 | (uint32_t)(d - '0');
        else if (low >= 'a' && low <= 'f') c = c << 4 | (uint32_t)(low - 'a' + 10);
        else return bad(x, "truncated escape in a string");
        (*p)++;
    }
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
        return bad(x, "an escape in a string is no character");
    qn_buf_add_utf8(out, c);
    return true;
}

// One escape; *p is behind the backslash.
static bool unescape(lexer *x, qn_buf *out, const char **p, const char *end) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = *(*p)++;
    const char *plain = c ? strchr(from, c) : NULL;
    if (c == '\n') return true; // a line continued
    if (plain) return qn_buf_addc(out, to[plain - from]), true;
    if (c == 'x') return hex_escape(x, out, p, end, 2);
    if (c == 'u') return hex_escape(x, out, p, end, 4);
    if (c == 'U') return hex_escape(x, out, p, end, 8);
    if (c == 'N') return bad(x, "\\N escapes are not supported in strings");
    if (c >= '0' && c <= '7') {
        uint32_t v = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++)
            v = v * 8 + (uint32_t)(*(*p)++ - '0');
        return qn_buf_add_utf8(out, v), true;
    }
    qn_buf_addc(out, '\\');
    if ((unsigned char)c < 0x80) return qn_buf_addc(out, c), true;
    size_t len; // the original spells the character out first and then finds two backslashes
    uint32_t wide = qn_uni_decode(*p - 1, &len);
    *p += len - 1;
    qn_buf_addf(out, wide < 0x100 ? "x%02x" : wide < 0x10000 ? "u%04x" : "U%08x", wide);
    return true;
}

static bool string(lexer *x) {
    char quote = x->s[x->at];
    size_t end = x->at + 1;
    while (end < x->n && x->s[end] != quote) end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->n) return bad(x, "a string has no end");
    qn_buf text = {0};
    const char *p = x->s + x->at + 1, *stop = x->s + end;
    bool ok = true;
    while (ok && p < stop) {
        const char *slash = memchr(p, '\\', (size_t)(stop - p));
        if (!slash) slash = stop;
        qn_buf_add(&text, p, (size_t)(slash - p));
        p = slash + 1;
        if (slash < stop) ok = unescape(x, &text, &p, stop);
    }
    if (ok) ok = emit(x, QN_T_STRING, qn_v_str(x->arena, text.data ? text.data : "", text.n));
    qn_buf_done(&text);
    x->at = end + 1;
    return ok;
}

static bool is_digit(char c, int base) {
    if (base == 16 && (c | 32) >= 'a' && (c | 32) <= 'f') return true;
    return c >= '0' && c < '0' + (base < 10 ? base : 10);
}

// The end of digits with single underscores between (or, with lead, also in front of) them.
static size_t digits_end(const lexer *x, size_t at, int base, bool lead) {
    size_t end = at;
    for (;;) {
        size_t next = end + ((end > at || lead) && end < x->n && x->s[end] == '_');
        if (next >= x->n || !is_digit(x->s[next], base)) return end;
        end = next + 1;
    }
}

static size_t float_end(const lexer *x) { // x->at when there is no float here
    size_t at = x->at, end = digits_end(x, at, 10, false), part = end;
    if (at && x->s[at - 1] == '.') return at;
    bool is_float = false;
    if (end < x->n && x->s[end] == '.') {
        part = digits_end(x, end + 1, 10, false);
        is_float = part > end + 1;
        if (!is_float) part = end;
    }
    if (part < x->n && (x->s[part] | 32) == 'e') {
        size_t e = part + 1;
        if (e < x->n && (x->s[e] == '+' || x->s[e] == '-')) e++;
        size_t stop = digits_end(x, e, 10, false);
        if (stop > e) return stop;
    }
    return is_float ? part : at;
}

static bool based_integer(lexer *x, size_t end, uint32_t base) {
    qn_value v = qn_v_int(0);
    for (size_t i = x->at + 2; i < end; i++) {
        char c = x->s[i];
        if (c == '_') continue;
        int64_t d = c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
        if (qn_int_op(x->arena, '*', v, qn_v_int(base), &v) != QN_NUM_OK ||
            qn_int_op(x->arena, '+', v, qn_v_int(d), &v) != QN_NUM_OK)
            return qn_fail(x->err, QN_LIMIT, "template line %d: number too long", line_of(x));
    }
    if (!emit(x, QN_T_INTEGER, v)) return false;
    x->at = end;
    return true;
}

static bool number(lexer *x) {
    size_t end = float_end(x);
    double f;
    if (end > x->at) {
        if (!qn_float_parse(x->s + x->at, end - x->at, &f)) return bad(x, "not a number");
        if (!emit(x, QN_T_FLOAT, qn_v_float(f))) return false;
        x->at = end;
        return true;
    }
    char letter = x->s[x->at] == '0' && x->at + 1 < x->n ? (char)(x->s[x->at + 1] | 32) : 0;
    int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    if (base != 10 && (end = digits_end(x, x->at + 2, base, true)) > x->at + 2)
        return based_integer(x, end, (uint32_t)base);
    end = digits_end(x, x->at, x->s[x->at] == '0' ? 1 : 10, false); // 0 is followed by 0 only
    qn_buf digits = {0};
    for (size_t i = x->at; i < end; i++)
        if (x->s[i] != '_') qn_buf_addc(&digits, x->s[i]);
    qn_value v = qn_v_int(0);
    bool ok = digits.n <= QN_INT_MAX_DIGITS &&
              qn_int_parse(x->arena, digits.data, digits.n, false, &v) == QN_NUM_OK;
    qn_buf_done(&digits);
    if (!ok) return bad(x, "a number has too many digits");
    if (!emit(x, QN_T_INTEGER, v)) return false;
    x->at = end;
    return true;
}

static size_t name_end(const lexer *x) { // x->at when no name starts here
    size_t at = x->at, len;
    while (at < x->n) {
        uint32_t c = qn_uni_decode(x->s + at, &len);
        if (!qn_char_is(c, QN_CHAR_NAME)) break;
        if (at == x->at && c != '_' && !qn_char_is(c, QN_CHAR_ALPHA)) break;
        at += len;
    }
    return at;
}

typedef struct brackets {
    char open[QN_JINJA_MAX_NESTING];
    int n;
} brackets;

static bool balance(lexer *x, brackets *b, char c) {
    if (c == '(' || c == '[' || c == '{') {
        if (b->n == QN_JINJA_MAX_NESTING)
            return qn_fail(x->err, QN_LIMIT, "template line %d: brackets nested deeper than %d",
                           line_of(x), QN_JINJA_MAX_NESTING);
        b->open[b->n++] = c;
    } else if (c == ')' || c == ']' || c == '}') {
        char open = c == ')' ? '(' : (char)(c - 2);
        if (!b->n || b->open[--b->n] != open)
            return qn_fail(x->err, QN_INPUT, "template line %d: unexpected '%c'", line_of(x), c);
    }
    return true;
}

static bool operator(lexer *x, brackets *b) {
    static const struct {
        char text[3];
        int kind;
    } two[] = {{"//", QN_T_FLOORDIV}, {"**", QN_T_POW}, {"==", QN_T_EQ},
               {"!=", QN_T_NE},       {">=", QN_T_GE},  {"<=", QN_T_LE}};
    for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
        if (!looking_at(x, x->at, two[i].text)) continue;
        if (!emit(x, two[i].kind, qn_v_none())) return false;
        x->at += 2;
        return true;
    }
    char c = x->s[x->at];
    if (!c || !strchr("+-/*%~[](){}><=.:|,;", c)) {
        size_t len;
        qn_uni_decode(x->s + x->at, &len);
        return qn_fail(x->err, QN_INPUT, "template line %d: unexpected character '%.*s'",
                       line_of(x), (int)len, x->s + x->at);
    }
    if (!balance(x, b, c) || !emit(x, c, qn_v_none())) return false;
    x->at++;
    return true;
}

// The tag's end at x->at, if one is there and no bracket is open.
static bool tag_end(lexer *x, bool variable, bool *ended) {
    const char *close = variable ? "}}" : "%}";
    char sign = x->s[x->at];
    bool signed_end = (sign == '-' || (sign == '+' && !variable)) &&
                      looking_at(x, x->at + 1, close);
    *ended = signed_end || looking_at(x, x->at, close);
    if (!*ended) return true;
    if (!emit(x, variable ? QN_T_VARIABLE_END : QN_T_BLOCK_END, qn_v_none())) return false;
    x->at += signed_end ? 3 : 2;
    after_tag(x, signed_end ? sign : 0, !variable);
    return true;
}

static bool tag(lexer *x, bool variable) { // x->at is behind the opening and its sign
    brackets b = {.n = 0};
    if (!emit(x, variable ? QN_T_VARIABLE_BEGIN : QN_T_BLOCK_BEGIN, qn_v_none())) return false;
    while (x->at < x->n) {
        bool ended = false;
        if (!b.n && !tag_end(x, variable, &ended)) return false;
        if (ended) return true;
        size_t space = skip_space(x, x->at), end;
        if (space > x->at) {
            x->at = space;
        } else if (x->s[x->at] >= '0' && x->s[x->at] <= '9') {
            if (!number(x)) return false;
        } else if ((end = name_end(x)) > x->at) {
            qn_value name = qn_v_part(x->arena, x->s + x->at, end - x->at);
            if (!emit(x, QN_T_NAME, name)) return false;
            x->at = end;
        } else if (x->s[x->at] == '\'' || x->s[x->at] == '"') {
            if (!string(x)) return false;
        } else if (!operator(x, &b)) {
            return false;
        }
    }
    x->line_starting = false;
    return true; // the parser finds the end of the template where it wanted a tag's end
}

// Everything up to the next tag, and the tag.
static bool step(lexer *x) {
    size_t from = x->at, at = from;
    while (at < x->n && !(x->s[at] == '{' && at + 1 < x->n && x->s[at + 1] &&
                          strchr("{%#", x->s[at + 1])))
        at++;
    if (at == x->n) {
        x->at = x->n;
        return emit_data(x, from, x->n);
    }
    char what = x->s[at + 1], sign = at + 2 < x->n ? x->s[at + 2] : 0;
    if (sign != '-' && sign != '+') sign = 0;
    if (!emit_data(x, from, text_end(x, from, at, sign, what == '{'))) return false;
    size_t behind_raw = what == '%' ? raw_begin(x, at) : 0;
    x->at = behind_raw ? behind_raw : at + 2 + (sign != 0);
    x->line_starting = behind_raw && x->s[x->at - 1] == '\n';
    if (behind_raw) return raw(x);
    return what == '#' ? comment(x) : tag(x, what == '{');
}

// One \n for every kind of line end, and one less at the end.
static const char *normalize(qn_arena *a, const char *source, size_t n, size_t *out) {
    char *s = qn_arena_alloc(a, n + 1);
    size_t k = 0;
    for (size_t i = 0; s && i < n; i++) {
        if (source[i] == '\r') {
            s[k++] = '\n';
            if (i + 1 < n && source[i + 1] == '\n') i++;
        } else {
            s[k++] = source[i];
        }
    }
    if (k && s[k - 1] == '\n') k--;
    *out = k;
    return s;
}

bool qn_jinja_lex(qn_arena *a, const char *source, size_t n, qn_jtokens *out, qn_err *err) {
    size_t good = qn_utf8_valid(source, n);
    if (n > QN_JINJA_MAX_SOURCE)
        return qn_fail(err, QN_LIMIT, "template: %zu bytes long, at most %zu are read", n,
                       QN_JINJA_MAX_SOURCE);
    if (good < n) return qn_fail(err, QN_INPUT, "template: byte %zu is not UTF-8", good);
    lexer x = {.arena = a, .out = out, .line = 1, .line_starting = true, .err = err};
    x.s = normalize(a, source, n, &x.n);
    if (!x.s) return qn_fail(err, QN_LIMIT, "template: too long");
    while (x.at < x.n)
        if (!step(&x)) return false;
    return emit(&x, QN_T_EOF, qn_v_none());
}
