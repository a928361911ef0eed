// Methods of strings, as Python's str has them: positions and lengths count code points.
#include <string.h>

#include "text/char_case.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

static qn_value part(qn_jrun *r, qn_value of, size_t from, size_t to) {
    qn_value v = qn_v_part(r->arena, of.s->s + from, to - from);
    v.marked = of.marked;
    return v;
}

static bool given(qn_value v) { return v.kind != QN_V_ABSENT && v.kind != QN_V_NONE; }

static bool want_str(qn_jrun *r, qn_value v) {
    if (v.kind == QN_V_STR) return !r->failed;
    if (!qn_run_use(r, v)) return false;
    return qn_run_fail(r, "expected a str, got %s", qn_v_type(v));
}

static bool pay(qn_jrun *r, qn_value v) { return qn_run_spend(r, v.s->n / 16 + 1); }

// ---- stripping ----

static bool in_set(uint32_t c, const char *at, size_t len, const qn_vstr *set) {
    return set ? memmem(set->s, set->n, at, len) != NULL : qn_char_space(c);
}

static bool pay_set(qn_jrun *r, const qn_vstr *set) {
    return !set || set->n < 16 || qn_run_spend(r, set->n / 16);
}

qn_value qn_text_strip(qn_jrun *r, qn_value v, qn_value chars, unsigned sides) {
    const qn_vstr *set = given(chars) ? chars.s : NULL;
    if (r->failed || (set && !want_str(r, chars)) || !pay(r, v)) return v;
    size_t from = 0, to = v.s->n, len = 0;
    const char *s = v.s->s;
    for (; (sides & QN_STRIP_LEFT) && from < to; from += len) {
        uint32_t c = qn_uni_decode(s + from, &len);
        if (!in_set(c, s + from, len, set) || !pay_set(r, set)) break;
    }
    while ((sides & QN_STRIP_RIGHT) && to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)s[at] & 0xC0) == 0x80) at--;
        uint32_t c = qn_uni_decode(s + at, &len);
        if (!in_set(c, s + at, len, set) || !pay_set(r, set)) break;
        to = at;
    }
    return part(r, v, from, to);
}

static qn_value strip(qn_jrun *r, qn_value v, const qn_value *a) {
    return qn_text_strip(r, v, a[0], QN_STRIP_LEFT | QN_STRIP_RIGHT);
}

static qn_value lstrip(qn_jrun *r, qn_value v, const qn_value *a) {
    return qn_text_strip(r, v, a[0], QN_STRIP_LEFT);
}

static qn_value rstrip(qn_jrun *r, qn_value v, const qn_value *a) {
    return qn_text_strip(r, v, a[0], QN_STRIP_RIGHT);
}

static qn_value removeprefix(qn_jrun *r, qn_value v, const qn_value *a) {
    if (!want_str(r, a[0])) return v;
    size_t n = a[0].s->n;
    bool has = n <= v.s->n && (!n || memcmp(v.s->s, a[0].s->s, n) == 0);
    return part(r, v, has ? n : 0, v.s->n);
}

static qn_value removesuffix(qn_jrun *r, qn_value v, const qn_value *a) {
    if (!want_str(r, a[0])) return v;
    size_t n = a[0].s->n;
    bool has = n <= v.s->n && (!n || memcmp(v.s->s + v.s->n - n, a[0].s->s, n) == 0);
    return part(r, v, 0, v.s->n - (has ? n : 0));
}

// ---- searching ----

typedef struct window { // bytes [from, to) of a string, given by code points; negative from the end
    size_t from, to;
    bool exists; // the start lies in the string
} window;

static window window_of(qn_jrun *r, qn_value v, qn_value start, qn_value stop) {
    int64_t n = (int64_t)v.s->chars, a = 0, b = n;
    if (given(start)) a = qn_v_index(r, start, "a position");
    if (given(stop)) b = qn_v_index(r, stop, "a position");
    if (a < 0) a = a < -n ? 0 : a + n;
    if (b < 0) b = b < -n ? 0 : b + n;
    if (b > n) b = n;
    if (a > b) return (window){0, 0, false};
    return (window){qn_vstr_offset(v.s, (size_t)a), qn_vstr_offset(v.s, (size_t)b), true};
}

static const char *last_of(const char *s, size_t n, const char *what, size_t len) {
    for (size_t at = n < len ? 0 : n - len + 1; at-- > 0;)
        if (memcmp(s + at, what, len) == 0) return s + at;
    return NULL;
}

static int64_t position(qn_jrun *r, qn_value v, const qn_value *a, bool last) { // -1: not there
    if (!want_str(r, a[0])) return -1;
    window w = window_of(r, v, a[1], a[2]);
    // Searching from the end is naive, and paid for as such.
    uint64_t cost = last ? (w.to - w.from) / 16 * (a[0].s->n / 16 + 1) : (w.to - w.from) / 16;
    if (!w.exists || !qn_run_spend(r, cost + v.s->n / 16)) return -1;
    const char *s = v.s->s + w.from, *found;
    size_t n = w.to - w.from, len = a[0].s->n;
    if (!len) found = last ? s + n : s;
    else if (len > n) found = NULL;
    else found = last ? last_of(s, n, a[0].s->s, len) : memmem(s, n, a[0].s->s, len);
    return found ? (int64_t)qn_utf8_count(v.s->s, (size_t)(found - v.s->s)) : -1;
}

static qn_value find(qn_jrun *r, qn_value v, const qn_value *a) {
    return qn_v_int(position(r, v, a, false));
}

static qn_value rfind(qn_jrun *r, qn_value v, const qn_value *a) {
    return qn_v_int(position(r, v, a, true));
}

static qn_value found_or_fail(qn_jrun *r, int64_t at) {
    if (at < 0) qn_run_fail(r, "substring not found");
    return qn_v_int(at);
}

static qn_value find_index(qn_jrun *r, qn_value v, const qn_value *a) {
    return found_or_fail(r, position(r, v, a, false));
}

static qn_value rfind_index(qn_jrun *r, qn_value v, const qn_value *a) {
    return found_or_fail(r, position(r, v, a, true));
}

static qn_value count(qn_jrun *r, qn_value v, const qn_value *a) {
    if (!want_str(r, a[0]) || !pay(r, v)) return qn_v_none();
    window w = window_of(r, v, a[1], a[2]);
    if (!w.exists) return qn_v_int(0);
    const char *s = v.s->s + w.from, *end = v.s->s + w.to;
    if (!a[0].s->n) return qn_v_int((int64_t)qn_utf8_count(s, (size_t)(end - s)) + 1);
    int64_t n = 0;
    while (s < end && (s = memmem(s, (size_t)(end - s), a[0].s->s, a[0].s->n))) {
        s += a[0].s->n;
        n++;
    }
    return qn_v_int(n);
}

static bool matches_end(qn_jrun *r, qn_value v, window w, qn_value affix, bool at_start) {
    if (!want_str(r, affix)) return false;
    size_t n = affix.s->n;
    if (!w.exists || n > w.to - w.from || !qn_run_spend(r, n / 16)) return false;
    return !n || memcmp(v.s->s + (at_start ? w.from : w.to - n), affix.s->s, n) == 0;
}

static qn_value affixed(qn_jrun *r, qn_value v, const qn_value *a, bool at_start) {
    window w = window_of(r, v, a[1], a[2]);
    if (a[0].kind != QN_V_TUPLE) return qn_v_bool(matches_end(r, v, w, a[0], at_start));
    for (size_t i = 0; i < a[0].list->n && qn_run_spend(r, 1); i++)
        if (matches_end(r, v, w, a[0].list->v[i], at_start)) return qn_v_bool(true);
    return qn_v_bool(false);
}

static qn_value startswith(qn_jrun *r, qn_value v, const qn_value *a) {
    return affixed(r, v, a, true);
}

static qn_value endswith(qn_jrun *r, qn_value v, const qn_value *a) {
    return affixed(r, v, a, false);
}

// ---- replacing, joining ----

qn_value qn_text_replace(qn_jrun *r, qn_value v, const qn_vstr *from, const qn_vstr *to,
                         int64_t limit) {
    qn_buf out = {0};
    const char *s = v.s->s, *end = s + v.s->n;
    if (limit < 0) limit = INT64_MAX;
    if (!pay(r, v)) return v;
    for (; limit && qn_run_spend(r, to->n / 16 + 1); limit--) {
        const char *at = from->n ? NULL : s;
        if (from->n && s < end) at = memmem(s, (size_t)(end - s), from->s, from->n);
        if (!at) break;
        if (out.n > QN_JINJA_MEMORY) qn_run_limit(r, "memory a template may use");
        qn_buf_add(&out, s, (size_t)(at - s));
        qn_buf_add(&out, to->s, to->n);
        s = at + from->n;
        if (from->n) continue;
        if (s == end) break; // the empty string stands in front of every character and at the end
        size_t len;
        qn_uni_decode(s, &len);
        qn_buf_add(&out, s, len);
        s += len;
    }
    qn_buf_add(&out, s, (size_t)(end - s));
    qn_value text = qn_run_text(r, &out);
    text.marked = v.marked;
    return text;
}

static qn_value replace(qn_jrun *r, qn_value v, const qn_value *a) {
    int64_t limit = a[2].kind == QN_V_ABSENT ? -1 : qn_v_index(r, a[2], "the count");
    if (!want_str(r, a[0]) || !want_str(r, a[1])) return v;
    qn_value to = v.marked ? qn_v_escaped(r, a[1]) : a[1];
    return r->failed ? v : qn_text_replace(r, v, a[0].s, to.s, limit);
}

static qn_value join(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_vlist *l = qn_v_items(r, a[0]);
    qn_buf out = {0};
    for (size_t i = 0; l && i < l->n && !r->failed; i++) {
        qn_value item = v.marked ? qn_v_escaped(r, l->v[i]) : l->v[i];
        if (item.kind != QN_V_STR)
            qn_run_fail(r, "sequence item %zu: expected str instance, %s found", i,
                        qn_v_type(item));
        if (i) qn_v_print(r, &out, v);
        if (!r->failed) qn_v_print(r, &out, item);
    }
    qn_value text = qn_run_text(r, &out);
    text.marked = v.marked;
    return text;
}

// ---- splitting ----

static bool push(qn_jrun *r, qn_vlist *l, qn_value v, size_t from, size_t to) {
    return qn_run_spend(r, 1) && qn_vlist_push(r->arena, l, part(r, v, from, to));
}

static void split_space(qn_jrun *r, qn_vlist *l, qn_value v, int64_t limit) {
    const char *s = v.s->s;
    size_t n = v.s->n, len;
    for (size_t at = 0; at < n && !r->failed;) {
        while (at < n && qn_char_space(qn_uni_decode(s + at, &len))) at += len;
        if (at == n) break;
        size_t from = at;
        if (limit-- == 0) at = n;
        while (at < n && !qn_char_space(qn_uni_decode(s + at, &len))) at += len;
        push(r, l, v, from, at);
    }
}

static void split_text(qn_jrun *r, qn_vlist *l, qn_value v, const qn_vstr *sep, int64_t limit) {
    const char *s = v.s->s;
    size_t from = 0;
    while (limit-- && from < v.s->n && !r->failed) {
        const char *at = memmem(s + from, v.s->n - from, sep->s, sep->n);
        if (!at) break;
        push(r, l, v, from, (size_t)(at - s));
        from = (size_t)(at - s) + sep->n;
    }
    push(r, l, v, from, v.s->n);
}

static size_t back(const char *s, size_t at) { // where the character in front of `at` begins
    do at--;
    while (at && ((unsigned char)s[at] & 0xC0) == 0x80);
    return at;
}

static void rsplit_space(qn_jrun *r, qn_vlist *l, qn_value v, int64_t limit) {
    const char *s = v.s->s;
    size_t at = v.s->n, len;
    while (at && !r->failed) {
        while (at && qn_char_space(qn_uni_decode(s + back(s, at), &len))) at = back(s, at);
        if (!at) break;
        size_t to = at;
        if (limit-- == 0) at = 0;
        while (at && !qn_char_space(qn_uni_decode(s + back(s, at), &len))) at = back(s, at);
        push(r, l, v, at, to);
    }
}

static void rsplit_text(qn_jrun *r, qn_vlist *l, qn_value v, const qn_vstr *sep, int64_t limit) {
    const char *s = v.s->s;
    size_t to = v.s->n;
    if (!qn_run_spend(r, v.s->n / 16 * (sep->n / 16 + 1))) return;
    while (limit-- && !r->failed) {
        const char *at = last_of(s, to, sep->s, sep->n);
        if (!at || sep->n > to) break;
        push(r, l, v, (size_t)(at - s) + sep->n, to);
        to = (size_t)(at - s);
    }
    push(r, l, v, 0, to);
}

static void reverse(qn_vlist *l) {
    for (size_t i = 0, k = l->n; i + 1 < k; i++) {
        qn_value swap = l->v[i];
        l->v[i] = l->v[--k];
        l->v[k] = swap;
    }
}

static qn_value split_any(qn_jrun *r, qn_value v, const qn_value *a, bool from_right) {
    qn_vlist *l = qn_vlist_new(r->arena, 0);
    int64_t limit = a[1].kind == QN_V_ABSENT ? -1 : qn_v_index(r, a[1], "maxsplit");
    if (limit < 0) limit = INT64_MAX;
    if (!pay(r, v)) return qn_v_none();
    if (!given(a[0])) {
        if (from_right) rsplit_space(r, l, v, limit);
        else split_space(r, l, v, limit);
    } else if (want_str(r, a[0])) {
        if (!a[0].s->n) qn_run_fail(r, "empty separator");
        else if (from_right) rsplit_text(r, l, v, a[0].s, limit);
        else split_text(r, l, v, a[0].s, limit);
    }
    if (from_right) reverse(l);
    return qn_v_of_list(l);
}

static qn_value split(qn_jrun *r, qn_value v, const qn_value *a) {
    return split_any(r, v, a, false);
}

static qn_value rsplit(qn_jrun *r, qn_value v, const qn_value *a) {
    return split_any(r, v, a, true);
}

static qn_value cut(qn_jrun *r, qn_value v, const qn_value *a, bool last) {
    if (!want_str(r, a[0])) return v;
    if (!a[0].s->n) return qn_run_fail(r, "empty separator"), v;
    if (!qn_run_spend(r, v.s->n / 16 * (a[0].s->n / 16 + 1))) return v;
    const char *s = v.s->s, *at = NULL;
    if (v.s->n >= a[0].s->n)
        at = last ? last_of(s, v.s->n, a[0].s->s, a[0].s->n)
                  : memmem(s, v.s->n, a[0].s->s, a[0].s->n);
    size_t from = at ? (size_t)(at - s) : last ? 0 : v.s->n, len = at ? a[0].s->n : 0;
    qn_value three[3] = {part(r, v, 0, from), part(r, v, from, from + len),
                         part(r, v, from + len, v.s->n)};
    return qn_v_tuple(r, three, 3);
}

static qn_value partition(qn_jrun *r, qn_value v, const qn_value *a) { return cut(r, v, a, false); }
static qn_value rpartition(qn_jrun *r, qn_value v, const qn_value *a) { return cut(r, v, a, true); }

qn_vlist *qn_text_lines(qn_jrun *r, qn_value v, bool keep_ends) {
    qn_vlist *l = qn_vlist_new(r->arena, 0);
    const char *s = v.s->s;
    size_t from = 0, len;
    if (!pay(r, v)) return l;
    for (size_t at = 0; at < v.s->n && !r->failed;) {
        uint32_t c = qn_uni_decode(s + at, &len);
        size_t end = at;
        at += len;
        if (!qn_char_line_end(c)) continue;
        if (c == '\r' && at < v.s->n && s[at] == '\n') at++;
        push(r, l, v, from, keep_ends ? at : end);
        from = at;
    }
    if (from < v.s->n) push(r, l, v, from, v.s->n);
    return l;
}

static qn_value splitlines(qn_jrun *r, qn_value v, const qn_value *a) {
    return qn_v_of_list(qn_text_lines(r, v, qn_v_true(r, a[0])));
}

// ---- case and kind ----

static qn_value converted(qn_jrun *r, qn_value v, void (*to)(qn_buf *, const char *, size_t)) {
    qn_buf out = {0};
    if (!qn_run_spend(r, v.s->n / 2)) return v;
    to(&out, v.s->s, v.s->n);
    qn_value text = qn_run_text(r, &out);
    text.marked = v.marked;
    return text;
}

static void to_upper(qn_buf *b, const char *s, size_t n) {
    qn_text_convert(b, s, n, QN_CASE_UPPER);
}

static void to_lower(qn_buf *b, const char *s, size_t n) {
    qn_text_convert(b, s, n, QN_CASE_LOWER);
}

#define CONVERTS(name, fn)                                                                         \
    static qn_value name(qn_jrun *r, qn_value v, const qn_value *a) {                              \
        (void)a;                                                                                   \
        return converted(r, v, fn);                                                                \
    }

CONVERTS(upper, to_upper)
CONVERTS(lower, to_lower)
CONVERTS(title, qn_text_title)
CONVERTS(capitalize, qn_text_capitalize)
CONVERTS(swapcase, qn_text_swapcase)

static bool is_space(uint32_t c) { return qn_char_space(c); }
static bool is_digit(uint32_t c) { return qn_char_is(c, QN_CHAR_DIGIT); }
static bool is_decimal(uint32_t c) { return qn_char_is(c, QN_CHAR_DECIMAL); }
static bool is_numeric(uint32_t c) { return qn_char_is(c, QN_CHAR_NUMERIC); }
static bool is_alpha(uint32_t c) { return qn_char_is(c, QN_CHAR_ALPHA); }
static bool is_alnum(uint32_t c) { return qn_char_is(c, QN_CHAR_ALNUM); }
static bool is_printable(uint32_t c) { return qn_char_is(c, QN_CHAR_PRINTABLE); }
static bool is_ascii(uint32_t c) { return c < 0x80; }

static qn_value all(qn_jrun *r, qn_value v, bool (*ask)(uint32_t c), bool empty) {
    if (!pay(r, v)) return qn_v_none();
    for (size_t i = 0, len; i < v.s->n; i += len)
        if (!ask(qn_uni_decode(v.s->s + i, &len))) return qn_v_bool(false);
    return qn_v_bool(empty || v.s->n);
}

#define ASKS(name, fn, empty)                                                                      \
    static qn_value name(qn_jrun *r, qn_value v, const qn_value *a) {                              \
        (void)a;                                                                                   \
        return all(r, v, fn, empty);                                                               \
    }

ASKS(isspace_, is_space, false)
ASKS(isdigit_, is_digit, false)
ASKS(isdecimal_, is_decimal, false)
ASKS(isnumeric_, is_numeric, false)
ASKS(isalpha_, is_alpha, false)
ASKS(isalnum_, is_alnum, false)
ASKS(isprintable_, is_printable, true)
ASKS(isascii_, is_ascii, true)

static qn_value islower_(qn_jrun *r, qn_value v, const qn_value *a) {
    static const qn_vstr name = {"lower", 5, 5};
    return qn_test_find(&name)->call(r, v, a);
}

static qn_value isupper_(qn_jrun *r, qn_value v, const qn_value *a) {
    static const qn_vstr name = {"upper", 5, 5};
    return qn_test_find(&name)->call(r, v, a);
}

// ---- padding ----

qn_value qn_text_pad(qn_jrun *r, qn_value v, int64_t width, qn_align align, const qn_vstr *fill) {
    int64_t n = (int64_t)v.s->chars;
    if (width <= n || r->failed) return v;
    if (width > (int64_t)(QN_JINJA_OUTPUT / 4)) return qn_run_limit(r, "output size"), v;
    if (!qn_run_spend(r, (uint64_t)width / 16)) return v;
    int64_t left = 0, pad = width - n; // the odd one of a centred text goes where Python puts it
    if (align == QN_ALIGN_RIGHT) left = pad;
    if (align == QN_ALIGN_CENTER) left = pad / 2 + (pad & width & 1);
    qn_buf out = {0};
    for (int64_t i = 0; i < left; i++) qn_buf_add(&out, fill->s, fill->n);
    qn_buf_add(&out, v.s->s, v.s->n);
    for (int64_t i = left; i < pad; i++) qn_buf_add(&out, fill->s, fill->n);
    qn_value text = qn_run_text(r, &out);
    text.marked = v.marked;
    return text;
}

static qn_value padded(qn_jrun *r, qn_value v, const qn_value *a, qn_align align) {
    static const qn_vstr space = {" ", 1, 1};
    int64_t width = qn_v_index(r, a[0], "the width");
    if (!given(a[1])) return qn_text_pad(r, v, width, align, &space);
    if (!want_str(r, a[1])) return v;
    if (a[1].s->chars != 1) return qn_run_fail(r, "the fill must be one character"), v;
    return qn_text_pad(r, v, width, align, a[1].s);
}

static qn_value ljust(qn_jrun *r, qn_value v, const qn_value *a) {
    return padded(r, v, a, QN_ALIGN_LEFT);
}

static qn_value rjust(qn_jrun *r, qn_value v, const qn_value *a) {
    return padded(r, v, a, QN_ALIGN_RIGHT);
}

static qn_value center(qn_jrun *r, qn_value v, const qn_value *a) {
    return padded(r, v, a, QN_ALIGN_CENTER);
}

static qn_value zfill(qn_jrun *r, qn_value v, const qn_value *a) {
    static const qn_vstr zero = {"0", 1, 1};
    int64_t width = qn_v_index(r, a[0], "the width");
    bool sign = v.s->n && (v.s->s[0] == '-' || v.s->s[0] == '+');
    if (!sign || r->failed) return qn_text_pad(r, v, width, QN_ALIGN_RIGHT, &zero);
    qn_value rest = part(r, v, 1, v.s->n);
    rest = qn_text_pad(r, rest, width - 1, QN_ALIGN_RIGHT, &zero);
    return qn_v_binary(r, '+', part(r, v, 0, 1), rest);
}

// ---- the list ----

static qn_value unsupported(qn_jrun *r, qn_value v, const qn_jargs *args) {
    (void)args;
    qn_run_unsupported(r, "this method of strings");
    return v;
}

const qn_jinja_func *qn_str_method_find(const qn_vstr *name) {
    static const char sub[] = "sub,start,end", sep[] = "sep,maxsplit", width[] = "width,fill";
    static const qn_jinja_func methods[] = {
        {"strip", strip, NULL, "chars", 0, true},
        {"lstrip", lstrip, NULL, "chars", 0, true},
        {"rstrip", rstrip, NULL, "chars", 0, true},
        {"split", split, NULL, sep, 0, false},
        {"rsplit", rsplit, NULL, sep, 0, false},
        {"splitlines", splitlines, NULL, "keepends", 0, false},
        {"partition", partition, NULL, "sep", 1, true},
        {"rpartition", rpartition, NULL, "sep", 1, true},
        {"startswith", startswith, NULL, sub, 1, true},
        {"endswith", endswith, NULL, sub, 1, true},
        {"find", find, NULL, sub, 1, true},
        {"rfind", rfind, NULL, sub, 1, true},
        {"index", find_index, NULL, sub, 1, true},
        {"rindex", rfind_index, NULL, sub, 1, true},
        {"count", count, NULL, sub, 1, true},
        {"replace", replace, NULL, "old,new,count", 2, true},
        {"join", join, NULL, "iterable", 1, true},
        {"removeprefix", removeprefix, NULL, "prefix", 1, true},
        {"removesuffix", removesuffix, NULL, "suffix", 1, true},
        {"upper", upper, NULL, NULL, 0, true},
        {"lower", lower, NULL, NULL, 0, true},
        {"title", title, NULL, NULL, 0, true},
        {"capitalize", capitalize, NULL, NULL, 0, true},
        {"swapcase", swapcase, NULL, NULL, 0, true},
        {"isspace", isspace_, NULL, NULL, 0, true},
        {"isdigit", isdigit_, NULL, NULL, 0, true},
        {"isdecimal", isdecimal_, NULL, NULL, 0, true},
        {"isnumeric", isnumeric_, NULL, NULL, 0, true},
        {"isalpha", isalpha_, NULL, NULL, 0, true},
        {"isalnum", isalnum_, NULL, NULL, 0, true},
        {"isprintable", isprintable_, NULL, NULL, 0, true},
        {"isascii", isascii_, NULL, NULL, 0, true},
        {"islower", islower_, NULL, NULL, 0, true},
        {"isupper", isupper_, NULL, NULL, 0, true},
        {"ljust", ljust, NULL, width, 1, true},
        {"rjust", rjust, NULL, width, 1, true},
        {"center", center, NULL, width, 1, true},
        {"zfill", zfill, NULL, "width", 1, true},
        {"format", NULL, unsupported, NULL, 0, false},
        {"format_map", NULL, unsupported, NULL, 0, false},
        {"encode", NULL, unsupported, NULL, 0, false},
        {"expandtabs", NULL, unsupported, NULL, 0, false},
        {"casefold", NULL, unsupported, NULL, 0, false},
        {"translate", NULL, unsupported, NULL, 0, false},
        {"maketrans", NULL, unsupported, NULL, 0, false},
        {"isidentifier", NULL, unsupported, NULL, 0, false},
        {"istitle", NULL, unsupported, NULL, 0, false},
    };
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (qn_vstr_is(name, methods[i].name)) return &methods[i];
    return NULL;
}
