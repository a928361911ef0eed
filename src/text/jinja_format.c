// "%s and %d" % args: printf-style formatting as Python has it.
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja_number.h"
#include "text/jinja_text.h"

#define MAX_WIDTH 100000

typedef struct conversion {
    bool left, zero, plus, space, alternate;
    int64_t width, precision; // precision -1: not given
    char type;
} conversion;

typedef struct formatter {
    qn_jrun *r;
    qn_buf out;
    const char *p, *end;
    qn_value args; // a tuple, or one value
    size_t next;
    bool marked;
} formatter;

static qn_value next_argument(formatter *f) {
    size_t n = f->args.kind == QN_V_TUPLE ? f->args.list->n : 1, i = f->next++;
    if (i >= n) return qn_run_fail(f->r, "not enough arguments for format string"), qn_v_none();
    return f->args.kind == QN_V_TUPLE ? f->args.list->v[i] : f->args;
}

static bool named_argument(formatter *f, qn_value *out) { // %(name)s
    if (f->p == f->end || *f->p != '(') return false;
    const char *name = ++f->p;
    for (int open = 1; f->p < f->end; f->p++) {
        open += (*f->p == '(') - (*f->p == ')');
        if (!open) break;
    }
    if (f->p == f->end) return qn_run_fail(f->r, "incomplete format key");
    qn_value key = qn_v_part(f->r->arena, name, (size_t)(f->p++ - name)), *found = NULL;
    if (f->args.kind != QN_V_DICT) return qn_run_fail(f->r, "format requires a mapping");
    found = qn_vdict_get(f->args.dict, key);
    if (!found) return qn_run_fail(f->r, "the format's key is not in the mapping");
    *out = *found;
    f->next = 1;
    return true;
}

static int64_t number_or_star(formatter *f) {
    int64_t n = 0;
    if (f->p < f->end && *f->p == '*') {
        f->p++;
        return qn_v_index(f->r, next_argument(f), "* in a format");
    }
    for (; f->p < f->end && isdigit((unsigned char)*f->p) && n <= MAX_WIDTH; f->p++)
        n = n * 10 + (*f->p - '0');
    return n;
}

static conversion parse(formatter *f) {
    conversion c = {.precision = -1};
    for (; f->p < f->end && strchr("-0+ #", *f->p) && *f->p; f->p++) {
        c.left |= *f->p == '-';
        c.zero |= *f->p == '0';
        c.plus |= *f->p == '+';
        c.space |= *f->p == ' ';
        c.alternate |= *f->p == '#';
    }
    c.width = number_or_star(f);
    if (c.width < 0) c.left = true, c.width = c.width < -MAX_WIDTH ? MAX_WIDTH + 1 : -c.width;
    if (f->p < f->end && *f->p == '.') {
        f->p++;
        c.precision = number_or_star(f);
        if (c.precision < 0) c.precision = 0;
    }
    if (f->p < f->end && strchr("hlL", *f->p) && *f->p) f->p++;
    if (f->p == f->end) qn_run_fail(f->r, "incomplete format");
    else c.type = *f->p++;
    if (c.width > MAX_WIDTH || c.precision > MAX_WIDTH) qn_run_limit(f->r, "a format's width");
    return c;
}

// Digits with a sign or prefix in front of them, padded.
static void put_number(formatter *f, const conversion *c, bool negative, const char *prefix,
                       const qn_buf *digits) {
    const char *sign = negative ? "-" : c->plus ? "+" : c->space ? " " : "";
    size_t n = strlen(sign) + strlen(prefix) + digits->n;
    size_t pad = (size_t)c->width > n ? (size_t)c->width - n : 0;
    for (size_t i = 0; !c->left && !c->zero && i < pad; i++) qn_buf_addc(&f->out, ' ');
    qn_buf_adds(&f->out, sign);
    qn_buf_adds(&f->out, prefix);
    for (size_t i = 0; !c->left && c->zero && i < pad; i++) qn_buf_addc(&f->out, '0');
    qn_buf_add(&f->out, digits->data, digits->n);
    for (size_t i = 0; c->left && i < pad; i++) qn_buf_addc(&f->out, ' ');
}

static void based(qn_buf *out, uint64_t m, char type) {
    char text[32], *p = text + sizeof text;
    unsigned base = type == 'o' ? 8 : 16;
    const char *letters = type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    do *--p = letters[m % base];
    while (m /= base);
    qn_buf_add(out, p, (size_t)(text + sizeof text - p));
}

static void put_int(formatter *f, const conversion *c, qn_value v) {
    bool decimal = strchr("diu", c->type) != NULL;
    if (v.kind == QN_V_BOOL) v = qn_v_int(v.b);
    if (v.kind == QN_V_FLOAT && decimal) {
        if (!isfinite(v.f)) {
            qn_run_fail(f->r, "cannot convert float infinity or NaN to integer");
            return;
        }
        v = qn_int_from_double(f->r->arena, trunc(v.f));
    }
    if (!qn_v_is_int(v)) {
        qn_run_fail(f->r, "%%%c format: a number is required, not %s", c->type, qn_v_type(v));
        return;
    }
    if (!decimal && v.kind == QN_V_BIG) {
        qn_run_unsupported(f->r, "an integer past 64 bits in a base other than ten");
        return;
    }
    qn_buf digits = {0}, padded = {0};
    bool negative = v.kind == QN_V_BIG ? v.big->negative : v.i < 0;
    if (decimal) qn_int_print(&digits, v);
    else based(&digits, negative ? 0 - (uint64_t)v.i : (uint64_t)v.i, c->type);
    size_t skip = decimal && negative;
    for (size_t n = digits.n - skip; (int64_t)n < c->precision; n++) qn_buf_addc(&padded, '0');
    qn_buf_add(&padded, digits.data + skip, digits.n - skip);
    const char *prefix = c->type == 'o' ? "0o" : c->type == 'x' ? "0x" : "0X";
    put_number(f, c, negative, c->alternate && !decimal ? prefix : "", &padded);
    qn_buf_done(&digits);
    qn_buf_done(&padded);
}

static void put_float(formatter *f, const conversion *c, qn_value v) {
    if (!qn_v_is_number(v)) {
        qn_run_fail(f->r, "must be real number, not %s", qn_v_type(v));
        return;
    }
    double x = v.kind == QN_V_FLOAT ? v.f : v.kind == QN_V_BOOL ? v.b : qn_int_to_double(v);
    int precision = c->precision < 0 ? 6 : (int)c->precision;
    qn_buf digits = {0};
    switch (c->type) {
    case 'e': qn_buf_addf(&digits, "%.*e", precision, fabs(x)); break;
    case 'E': qn_buf_addf(&digits, "%.*E", precision, fabs(x)); break;
    case 'g': qn_buf_addf(&digits, "%.*g", precision, fabs(x)); break;
    case 'G': qn_buf_addf(&digits, "%.*G", precision, fabs(x)); break;
    default: qn_buf_addf(&digits, "%.*f", precision, fabs(x)); break;
    }
    put_number(f, c, signbit(x) && !isnan(x), "", &digits);
    qn_buf_done(&digits);
}

static void put_text(formatter *f, const conversion *c, qn_value v) {
    qn_buf text = {0};
    if (c->type == 's') {
        qn_value s = f->marked ? qn_v_escaped(f->r, v) : v;
        qn_v_print(f->r, &text, s);
    } else if (c->type == 'c' && v.kind == QN_V_STR && v.s->chars == 1) {
        qn_v_print(f->r, &text, v);
    } else if (c->type == 'c') {
        int64_t code = qn_v_index(f->r, v, "%c's argument");
        if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
            qn_run_fail(f->r, "%%c arg is no character");
        else qn_buf_add_utf8(&text, (uint32_t)code);
    } else {
        qn_v_repr(f->r, &text, v);
        qn_value shown = qn_run_text(f->r, &text);
        if (f->marked) shown = qn_v_escaped(f->r, shown);
        qn_v_print(f->r, &text, shown);
    }
    qn_value s = qn_run_text(f->r, &text);
    if (f->r->failed) return;
    size_t n = c->precision < 0 ? s.s->n : qn_vstr_offset(s.s, (size_t)c->precision);
    static const qn_vstr space = {" ", 1, 1};
    s = qn_v_part(f->r->arena, s.s->s, n);
    s = qn_text_pad(f->r, s, c->width, c->left ? QN_ALIGN_LEFT : QN_ALIGN_RIGHT, &space);
    qn_v_print(f->r, &f->out, s);
}

static void convert(formatter *f) {
    qn_value v = qn_v_absent();
    bool named = named_argument(f, &v);
    conversion c = parse(f);
    if (f->r->failed) return;
    if (c.type == '%') {
        qn_buf_addc(&f->out, '%');
        return;
    }
    if (!strchr("diouxXeEfFgGcrsa", c.type)) {
        qn_run_fail(f->r, "unsupported format character '%c'", c.type);
        return;
    }
    if (!named) v = next_argument(f);
    if (f->r->failed) return;
    if (strchr("diouxX", c.type)) put_int(f, &c, v);
    else if (strchr("crsa", c.type)) put_text(f, &c, v);
    else put_float(f, &c, v);
}

// Whether Python complains when a single argument is left over: it does not for what can be
// subscripted.
static bool must_be_used(qn_value v) {
    return v.kind != QN_V_LIST && v.kind != QN_V_DICT && v.kind != QN_V_RANGE &&
           v.kind != QN_V_UNDEFINED;
}

qn_value qn_v_format(qn_jrun *r, qn_value format, qn_value args) {
    formatter f = {.r = r, .args = args, .marked = format.marked};
    f.p = format.s->s;
    f.end = f.p + format.s->n;
    while (f.p < f.end && qn_run_spend(r, 1)) {
        const char *percent = memchr(f.p, '%', (size_t)(f.end - f.p));
        qn_buf_add(&f.out, f.p, (size_t)((percent ? percent : f.end) - f.p));
        f.p = percent ? percent + 1 : f.end;
        if (f.out.n > QN_JINJA_OUTPUT) qn_run_limit(r, "output size");
        if (percent) convert(&f);
    }
    bool tuple = args.kind == QN_V_TUPLE;
    if (tuple ? f.next < args.list->n : !f.next && must_be_used(args))
        qn_run_fail(r, "not all arguments converted during string formatting");
    qn_value v = qn_run_text(r, &f.out);
    v.marked = format.marked;
    return v;
}
