// Filters of single values: text, numbers, defaults. Those of sequences are in
// jinja_seq_filters.c.
#include <math.h>
#include <string.h>

#include "text/char_case.h"
#include "text/jinja_number.h"
#include "text/jinja_text.h"
#include "text/unicode.h"

static bool given(qn_value v) { return v.kind != QN_V_ABSENT && v.kind != QN_V_NONE; }

// ---- text ----

static qn_value by_method(qn_jrun *r, qn_value v, const char *method, const qn_value *a) {
    v = qn_v_to_str(r, v);
    qn_vstr name = {method, strlen(method), strlen(method)};
    return r->failed ? v : qn_str_method_find(&name)->call(r, v, a);
}

static qn_value filter_upper(qn_jrun *r, qn_value v, const qn_value *a) {
    return by_method(r, v, "upper", a);
}

static qn_value filter_lower(qn_jrun *r, qn_value v, const qn_value *a) {
    return by_method(r, v, "lower", a);
}

static qn_value filter_capitalize(qn_jrun *r, qn_value v, const qn_value *a) {
    return by_method(r, v, "capitalize", a);
}

static qn_value filter_trim(qn_jrun *r, qn_value v, const qn_value *a) {
    return by_method(r, v, "strip", a);
}

static qn_value filter_center(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_value args[2] = {a[0].kind == QN_V_ABSENT ? qn_v_int(80) : a[0], qn_v_absent()};
    return by_method(r, v, "center", args);
}

// Jinja's own idea of words, other than str.title's.
static qn_value filter_title(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    v = qn_v_to_str(r, v);
    if (r->failed || !qn_run_spend(r, v.s->n / 2)) return v;
    qn_buf out = {0};
    const char *s = v.s->s, *end = s + v.s->n;
    while (s < end) {
        size_t len, n = 0;
        uint32_t c = qn_uni_decode(s, &len);
        qn_char_convert(&out, c, QN_CASE_UPPER);
        s += len;
        bool between = qn_char_space(c) || (c < 0x80 && c && strchr("-({[<", (int)c));
        while (!between && s + n < end) {
            uint32_t next = qn_uni_decode(s + n, &len);
            if (qn_char_space(next) || (next < 0x80 && next && strchr("-({[<", (int)next))) break;
            n += len;
        }
        qn_text_convert(&out, s, n, QN_CASE_LOWER);
        s += n;
    }
    return qn_run_text(r, &out);
}

static qn_value filter_replace(qn_jrun *r, qn_value v, const qn_value *a) {
    int64_t limit = given(a[2]) ? qn_v_index(r, a[2], "count") : -1;
    v = qn_v_to_str(r, v);
    qn_value from = qn_v_to_str(r, a[0]), to = qn_v_to_str(r, a[1]);
    if (r->failed) return v;
    v.marked = false;
    return qn_text_replace(r, v, from.s, to.s, limit);
}

static qn_value filter_string(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return qn_v_to_str(r, v);
}

static qn_value filter_safe(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    v = qn_v_to_str(r, v);
    v.marked = v.kind == QN_V_STR;
    return v;
}

static qn_value filter_escape(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return qn_v_escaped(r, v);
}

static qn_value filter_forceescape(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    v = qn_v_to_str(r, v);
    v.marked = false;
    return qn_v_escaped(r, v);
}

static qn_value filter_indent(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_value by = a[0].kind == QN_V_ABSENT ? qn_v_int(4) : a[0];
    bool first = qn_v_true(r, a[1]), blank = qn_v_true(r, a[2]);
    if (by.kind != QN_V_STR)
        by = qn_v_repeat(r, qn_v_cstr(r->arena, " "), qn_v_index(r, by, "width"));
    qn_value s = qn_v_binary(r, '+', v, qn_v_cstr(r->arena, "\n"));
    if (r->failed) return s;
    qn_vlist *lines = qn_text_lines(r, s, false);
    qn_buf out = {0};
    for (size_t i = 0; i < lines->n && !r->failed; i++) {
        bool indented = i ? blank || lines->v[i].s->n : first;
        if (i) qn_buf_addc(&out, '\n');
        if (indented) qn_v_print(r, &out, by);
        qn_v_print(r, &out, lines->v[i]);
    }
    qn_value text = qn_run_text(r, &out);
    text.marked = v.marked;
    return text;
}

static qn_value filter_truncate(qn_jrun *r, qn_value v, const qn_value *a) {
    int64_t length = a[0].kind == QN_V_ABSENT ? 255 : qn_v_index(r, a[0], "length");
    qn_value end = a[2].kind == QN_V_ABSENT ? qn_v_cstr(r->arena, "...") : a[2];
    int64_t leeway = given(a[3]) ? qn_v_index(r, a[3], "leeway") : 5;
    if (end.kind != QN_V_STR) return qn_run_fail(r, "truncate: its end must be a string"), v;
    if (length < (int64_t)end.s->chars || leeway < 0)
        return qn_run_fail(r, "truncate: length shorter than its end"), v;
    if (qn_v_length(r, v) - length <= leeway || r->failed) return v; // whatever it is
    if (v.kind != QN_V_STR) return qn_run_fail(r, "truncate needs a string"), v;
    size_t n = qn_vstr_offset(v.s, (size_t)(length - (int64_t)end.s->chars));
    const char *space = qn_v_true(r, a[1]) || !n ? NULL : memrchr(v.s->s, ' ', n);
    qn_value head = qn_v_part(r->arena, v.s->s, space ? (size_t)(space - v.s->s) : n);
    head.marked = v.marked;
    return qn_v_binary(r, '+', head, end);
}

static qn_value filter_wordcount(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    v = qn_v_to_str(r, v);
    if (r->failed || !qn_run_spend(r, v.s->n / 16)) return v;
    int64_t n = 0;
    bool inside = false;
    for (size_t i = 0, len; i < v.s->n; i += len) {
        uint32_t c = qn_uni_decode(v.s->s + i, &len);
        bool word = c == '_' || qn_char_is(c, QN_CHAR_ALNUM);
        n += word && !inside;
        inside = word;
    }
    return qn_v_int(n);
}

static qn_value filter_format(qn_jrun *r, qn_value v, const qn_jargs *args) {
    v = qn_v_to_str(r, v);
    if (args->n && args->kw && args->kw->n)
        qn_run_fail(r, "can't handle positional and keyword arguments at the same time");
    if (r->failed) return v;
    if (!args->kw || !args->kw->n) return qn_v_format(r, v, qn_v_tuple(r, args->v, args->n));
    return qn_v_format(r, v, qn_v_of_dict((qn_vdict *)(uintptr_t)args->kw));
}

// ---- numbers ----

static qn_value filter_abs(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    if (v.kind == QN_V_FLOAT) return qn_v_float(fabs(v.f));
    if (!qn_v_is_int(v)) return qn_run_fail(r, "bad operand type for abs(): '%s'", qn_v_type(v)), v;
    return qn_v_negate(r, v, qn_num_cmp(v, qn_v_int(0)) < 0);
}

static int digit_value(char c) {
    char low = (char)(c | 32);
    return c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'z' ? low - 'a' + 10 : 99;
}

// int(text, base): white space around, a sign, a prefix that fits the base, underscores between.
static bool parse_int(qn_jrun *r, qn_value text, int64_t base, qn_value *out) {
    text = qn_text_strip(r, text, qn_v_none(), QN_STRIP_LEFT | QN_STRIP_RIGHT);
    const char *p = text.s->s, *end = p + text.s->n;
    bool negative = p < end && *p == '-', separate = false;
    if (p < end && (*p == '-' || *p == '+')) p++;
    char letter = end - p > 1 && *p == '0' ? (char)(p[1] | 32) : 0;
    int64_t prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (prefix && (base == prefix || base == 0)) p += 2, base = prefix, separate = true;
    if (base == 0) base = 10;
    qn_buf digits = {0};
    bool ok = p < end;
    for (; ok && p < end; p++) {
        bool under = *p == '_' && separate && p + 1 < end;
        ok = under || digit_value(*p) < base;
        separate = !under;
        if (ok && !under) qn_buf_addc(&digits, *p);
    }
    ok = ok && digits.n && digits.n <= QN_INT_MAX_DIGITS && qn_run_spend(r, digits.n * 8);
    if (ok && base == 10) qn_int_parse(r->arena, digits.data, digits.n, negative, out);
    if (ok && base != 10) *out = qn_v_int(0);
    for (size_t i = 0; ok && base != 10 && i < digits.n; i++) {
        *out = qn_v_binary(r, '*', *out, qn_v_int(base));
        *out = qn_v_binary(r, '+', *out, qn_v_int(digit_value(digits.data[i])));
    }
    qn_buf_done(&digits);
    if (ok && base != 10 && negative) *out = qn_v_negate(r, *out, true);
    return ok && !r->failed;
}

static bool parse_float(qn_jrun *r, qn_value text, double *out) {
    text = qn_text_strip(r, text, qn_v_none(), QN_STRIP_LEFT | QN_STRIP_RIGHT);
    return qn_float_parse(text.s->s, text.s->n, out);
}

static qn_value filter_int(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_value or_else = a[0].kind == QN_V_ABSENT ? qn_v_int(0) : a[0], out;
    int64_t base = a[1].kind == QN_V_ABSENT ? 10 : qn_v_index(r, a[1], "base");
    double f;
    if (!qn_run_use(r, v)) return or_else;
    if (v.kind == QN_V_BOOL) return qn_v_int(v.b);
    if (qn_v_is_int(v)) return v;
    if (v.kind == QN_V_FLOAT && isinf(v.f))
        return qn_run_fail(r, "cannot convert float infinity to integer"), v;
    if (v.kind == QN_V_FLOAT)
        return isnan(v.f) ? or_else : qn_int_from_double(r->arena, trunc(v.f));
    if (v.kind != QN_V_STR) return or_else;
    bool base_ok = base == 0 || (base >= 2 && base <= 36);
    if (base_ok && parse_int(r, v, base, &out)) return out;
    if (!parse_float(r, v, &f) || !isfinite(f)) return or_else;
    return qn_int_from_double(r->arena, trunc(f));
}

static qn_value filter_float(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_value or_else = a[0].kind == QN_V_ABSENT ? qn_v_float(0) : a[0];
    double f;
    if (!qn_run_use(r, v)) return or_else;
    if (v.kind == QN_V_FLOAT) return v;
    if (v.kind == QN_V_STR) return parse_float(r, v, &f) ? qn_v_float(f) : or_else;
    if (!qn_v_is_int(v)) return or_else;
    f = v.kind == QN_V_BOOL ? v.b : qn_int_to_double(v);
    if (isinf(f)) qn_run_fail(r, "int too large to convert to float");
    return qn_v_float(f);
}

// Integers are rounded only to tens and more, ties to even.
static qn_value round_int(qn_jrun *r, qn_value v, int64_t digits) {
    if (v.kind == QN_V_BOOL) v = qn_v_int(v.b);
    if (digits >= 0) return v;
    qn_value unit = qn_v_binary(r, 'p', qn_v_int(10), qn_v_int(digits < -4300 ? 4300 : -digits));
    qn_value half = qn_v_binary(r, 'f', unit, qn_v_int(2));
    qn_value rest = qn_v_binary(r, '%', v, unit), q = qn_v_binary(r, 'f', v, unit);
    if (r->failed) return v;
    int c = qn_num_cmp(rest, half);
    bool odd = qn_v_true(r, qn_v_binary(r, '%', q, qn_v_int(2)));
    qn_value down = qn_v_binary(r, '-', v, rest);
    return c > 0 || (c == 0 && odd) ? qn_v_binary(r, '+', down, unit) : down;
}

static qn_value filter_round(qn_jrun *r, qn_value v, const qn_value *a) {
    int64_t digits = a[0].kind == QN_V_ABSENT ? 0 : qn_v_index(r, a[0], "precision");
    const qn_vstr *how = a[1].kind == QN_V_STR ? a[1].s : NULL;
    bool common = a[1].kind == QN_V_ABSENT || (how && qn_vstr_is(how, "common"));
    bool up = how && qn_vstr_is(how, "ceil");
    if (!common && !up && !(how && qn_vstr_is(how, "floor")))
        return qn_run_fail(r, "method must be common, ceil or floor"), v;
    if (!qn_v_is_number(v))
        return qn_run_fail(r, "type %s doesn't define __round__ method", qn_v_type(v)), v;
    if (common && v.kind != QN_V_FLOAT) return round_int(r, v, digits);
    if (common) return qn_v_float(qn_float_round(v.f, digits));
    qn_value scale = qn_v_binary(r, 'p', qn_v_int(10), qn_v_int(digits));
    qn_value x = qn_v_binary(r, '*', v, scale);
    if (x.kind == QN_V_FLOAT && !isfinite(x.f)) qn_run_fail(r, "cannot round infinity or NaN");
    if (r->failed) return v;
    if (x.kind == QN_V_FLOAT) x = qn_int_from_double(r->arena, up ? ceil(x.f) : floor(x.f));
    return qn_v_binary(r, '/', x, scale);
}

// ---- any value ----

static qn_value filter_default(qn_jrun *r, qn_value v, const qn_value *a) {
    bool use = v.kind == QN_V_UNDEFINED || (qn_v_true(r, a[1]) && !qn_v_true(r, v));
    if (!use) return v;
    return a[0].kind == QN_V_ABSENT ? qn_v_cstr(r->arena, "") : a[0];
}

static qn_value filter_length(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return qn_v_int(qn_v_length(r, v));
}

static qn_value filter_attr(qn_jrun *r, qn_value v, const qn_value *a) {
    if (a[0].kind != QN_V_STR) return qn_run_fail(r, "attribute name must be string"), v;
    if (!qn_run_use(r, v)) return v;
    qn_value found = qn_v_attribute(r, v, a[0].s);
    return found.kind == QN_V_ABSENT ? qn_v_undefined(r, v, a[0]) : found;
}

static qn_value unsupported(qn_jrun *r, qn_value v, const qn_jargs *args) {
    (void)args;
    qn_run_unsupported(r, "this filter");
    return v;
}

// ---- the list ----

const qn_jinja_func *qn_filter_find(const qn_vstr *name) {
    static const char dflt[] = "default_value,boolean";
    static const qn_jinja_func filters[] = {
        {"tojson", qn_filter_tojson, NULL, "ensure_ascii,indent,separators,sort_keys", 0, false},
        {"trim", filter_trim, NULL, "chars", 0, false},
        {"length", filter_length, NULL, NULL, 0, false},
        {"count", filter_length, NULL, NULL, 0, false},
        {"string", filter_string, NULL, NULL, 0, false},
        {"safe", filter_safe, NULL, NULL, 0, false},
        {"default", filter_default, NULL, dflt, 0, false},
        {"d", filter_default, NULL, dflt, 0, false},
        {"upper", filter_upper, NULL, NULL, 0, false},
        {"lower", filter_lower, NULL, NULL, 0, false},
        {"title", filter_title, NULL, NULL, 0, false},
        {"capitalize", filter_capitalize, NULL, NULL, 0, false},
        {"center", filter_center, NULL, "width", 0, false},
        {"replace", filter_replace, NULL, "old,new,count", 2, false},
        {"indent", filter_indent, NULL, "width,first,blank", 0, false},
        {"truncate", filter_truncate, NULL, "length,killwords,end,leeway", 0, false},
        {"wordcount", filter_wordcount, NULL, NULL, 0, false},
        {"format", NULL, filter_format, NULL, 0, false},
        {"e", filter_escape, NULL, NULL, 0, false},
        {"escape", filter_escape, NULL, NULL, 0, false},
        {"forceescape", filter_forceescape, NULL, NULL, 0, false},
        {"abs", filter_abs, NULL, NULL, 0, false},
        {"int", filter_int, NULL, "default,base", 0, false},
        {"float", filter_float, NULL, "default", 0, false},
        {"round", filter_round, NULL, "precision,method", 0, false},
        {"attr", filter_attr, NULL, "name", 1, false},
        {"filesizeformat", NULL, unsupported, NULL, 0, false},
        {"pprint", NULL, unsupported, NULL, 0, false},
        {"random", NULL, unsupported, NULL, 0, false},
        {"striptags", NULL, unsupported, NULL, 0, false},
        {"urlencode", NULL, unsupported, NULL, 0, false},
        {"urlize", NULL, unsupported, NULL, 0, false},
        {"wordwrap", NULL, unsupported, NULL, 0, false},
        {"xmlattr", NULL, unsupported, NULL, 0, false},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (qn_vstr_is(name, filters[i].name)) return &filters[i];
    return qn_sequence_filter_find(name);
}
