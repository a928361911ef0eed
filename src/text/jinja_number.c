// Floats as Python prints, reads and rounds them, and arithmetic over bool, int and float.
#include "text/jinja_number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- printing ----

typedef struct decimal { // 0.DIGITS * 10^point
    char digits[24];
    int n, point;
} decimal;

// The digits of %.{n-1}e, whatever the locale's decimal point.
static decimal rounded(double x, int n) {
    char text[40];
    snprintf(text, sizeof text, "%.*e", n - 1, x);
    decimal d = {.n = 0};
    const char *p = text;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9') d.digits[d.n++] = *p;
    d.point = (*p ? atoi(p + 1) : 0) + 1;
    return d;
}

static double value_of(const decimal *d) {
    char text[48];
    snprintf(text, sizeof text, "%.*se%d", d->n, d->digits, d->point - d->n);
    return strtod(text, NULL);
}

static void step_up(decimal *d) { // the next larger number of as many digits
    int i = d->n - 1;
    for (; i >= 0 && d->digits[i] == '9'; i--) d->digits[i] = '0';
    if (i >= 0) {
        d->digits[i]++;
    } else {
        d->digits[0] = '1';
        d->point++;
    }
}

// The shortest digits that read back as x (> 0). At powers of two the gap below is half the gap
// above, so the nearest short decimal may fail while the next one up works. Up to 15 digits every
// decimal survives the way through a normal double; trailing zeros then tell the shortest form.
static decimal shortest(double x) {
    int from = x < 2.3e-308 ? 1 : 15;
    for (int n = from; n < 17; n++) {
        decimal d = rounded(x, n);
        if (value_of(&d) == x) return d;
        step_up(&d);
        if (value_of(&d) == x) return d;
    }
    return rounded(x, 17);
}

void qn_float_print(qn_buf *out, double x) {
    if (isnan(x)) return qn_buf_adds(out, "nan");
    if (signbit(x)) qn_buf_addc(out, '-');
    x = fabs(x);
    if (isinf(x)) return qn_buf_adds(out, "inf");
    if (x == 0) return qn_buf_adds(out, "0.0");
    decimal d = shortest(x);
    while (d.n > 1 && d.digits[d.n - 1] == '0') d.n--;
    if (d.point > 16 || d.point < -3) {
        qn_buf_addc(out, d.digits[0]);
        if (d.n > 1) qn_buf_addf(out, ".%.*s", d.n - 1, d.digits + 1);
        qn_buf_addf(out, "e%c%02d", d.point < 1 ? '-' : '+', abs(d.point - 1));
    } else if (d.point <= 0) {
        qn_buf_addf(out, "0.%.*s%.*s", -d.point, "000", d.n, d.digits);
    } else if (d.n <= d.point) {
        qn_buf_addf(out, "%.*s%.*s.0", d.n, d.digits, d.point - d.n, "0000000000000000");
    } else {
        qn_buf_addf(out, "%.*s.%.*s", d.point, d.digits, d.n - d.point, d.digits + d.point);
    }
}

// ---- reading ----

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Digits with single underscores between them go to out; false when there are none.
static bool take_digits(const char **p, const char *end, qn_buf *out) {
    const char *s = *p;
    if (s == end || !is_digit(*s)) return false;
    while (s < end && (is_digit(*s) || (*s == '_' && s + 1 < end && is_digit(s[1])))) {
        if (*s != '_') qn_buf_addc(out, *s);
        s++;
    }
    *p = s;
    return true;
}

static bool word(const char *s, const char *end, const char *w) {
    size_t n = strlen(w);
    if ((size_t)(end - s) != n) return false;
    for (size_t i = 0; i < n; i++)
        if ((s[i] | 32) != w[i]) return false;
    return true;
}

// Writes the number without a decimal point (a locale may want another one): digits, exponent.
static bool plain_form(const char *s, const char *end, qn_buf *out) {
    bool whole = take_digits(&s, end, out), part = false;
    long shift = 0, exponent = 0;
    if (s < end && *s == '.') {
        size_t before = out->n;
        s++;
        part = take_digits(&s, end, out);
        shift = (long)(out->n - before);
    }
    if (!whole && !part) return false;
    if (s < end && (*s | 32) == 'e') {
        bool minus = ++s < end && *s == '-';
        if (s < end && (*s == '-' || *s == '+')) s++;
        qn_buf digits = {0};
        bool ok = take_digits(&s, end, &digits);
        for (size_t i = 0; i < digits.n && exponent < 1000000000; i++)
            exponent = exponent * 10 + (digits.data[i] - '0');
        qn_buf_done(&digits);
        if (!ok) return false;
        if (minus) exponent = -exponent;
    }
    qn_buf_addf(out, "e%ld", exponent - shift);
    return s == end;
}

bool qn_float_parse(const char *s, size_t n, double *out) {
    const char *end = s + n;
    bool minus = s < end && *s == '-';
    if (s < end && (*s == '-' || *s == '+')) s++;
    qn_buf text = {0};
    bool ok = true;
    if (word(s, end, "inf") || word(s, end, "infinity")) *out = INFINITY;
    else if (word(s, end, "nan")) *out = NAN;
    else if ((ok = plain_form(s, end, &text))) *out = strtod(text.data, NULL);
    qn_buf_done(&text);
    if (ok && minus) *out = -*out;
    return ok;
}

// ---- rounding ----

double qn_float_round(double x, int64_t digits) { // half to even, on the exact decimal value
    if (!isfinite(x) || digits > 330) return x;
    if (digits < -330) return copysign(0, x);
    char text[700];
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)digits, x);
        double r;
        for (char *p = text; *p; p++)
            if (*p == ',') *p = '.';
        return qn_float_parse(text, strlen(text), &r) ? r : x;
    }
    // Rounded to -digits places in front of the point: as many digits fewer in %e.
    decimal d = rounded(fabs(x), 17);
    long double scale = powl(10, (long double)-digits);
    if (d.point + digits < 0) return copysign(0, x);
    return (double)(rintl((long double)x / scale) * scale);
}

// ---- the mixture ----

static qn_value whole(qn_value v) {
    return v.kind == QN_V_BOOL ? qn_v_int(v.b) : v;
}

static double as_double(qn_value v) {
    return v.kind == QN_V_FLOAT ? v.f : qn_int_to_double(v);
}

static int cmp_int_float(qn_value i, double f) {
    if (isnan(f)) return 2;
    if (isinf(f)) return f > 0 ? -1 : 1;
    if (i.kind == QN_V_INT && fabs(f) < 0x1p62) { // exact on both sides
        int64_t floor_f = (int64_t)floor(f);
        if (i.i != floor_f) return i.i < floor_f ? -1 : 1;
        return f > floor(f) ? -1 : 0;
    }
    qn_arena a = {.cap = 1 << 16};
    int c = qn_int_cmp(i, qn_int_from_double(&a, floor(f))); // this large, floats are whole
    qn_arena_done(&a);
    return c;
}

int qn_num_cmp(qn_value x, qn_value y) {
    x = whole(x);
    y = whole(y);
    if (x.kind == QN_V_FLOAT && y.kind == QN_V_FLOAT) {
        if (isnan(x.f) || isnan(y.f)) return 2;
        return (x.f > y.f) - (x.f < y.f);
    }
    if (y.kind == QN_V_FLOAT) return cmp_int_float(x, y.f);
    if (x.kind == QN_V_FLOAT) {
        int c = cmp_int_float(y, x.f);
        return c == 2 ? 2 : -c;
    }
    if (x.kind == QN_V_INT && y.kind == QN_V_INT) return (x.i > y.i) - (x.i < y.i);
    return qn_int_cmp(x, y);
}

bool qn_num_equal(qn_value x, qn_value y) { return qn_num_cmp(x, y) == 0; }

static double float_mod(double x, double y) { // the sign of y
    double m = fmod(x, y);
    if (m == 0) return copysign(0, y);
    return (m < 0) != (y < 0) ? m + y : m;
}

static double float_floor_div(double x, double y) {
    double m = fmod(x, y), q = (x - m) / y;
    if (m != 0 && (m < 0) != (y < 0)) q -= 1;
    if (q == 0) return copysign(0, x / y);
    double f = floor(q);
    return q - f > 0.5 ? f + 1 : f;
}

static qn_num_status float_power(double x, double y, double *out) {
    if (x == 0 && y < 0) return QN_NUM_ZERO_DIVISION;
    if (x < 0 && isfinite(x) && isfinite(y) && y != floor(y)) return QN_NUM_COMPLEX;
    *out = pow(x, y);
    return isinf(*out) && isfinite(x) && isfinite(y) ? QN_NUM_OVERFLOW : QN_NUM_OK;
}

static qn_num_status float_op(char op, double x, double y, double *out) {
    if (strchr("/f%", op) && y == 0) return QN_NUM_ZERO_DIVISION;
    switch (op) {
    case '+': *out = x + y; break;
    case '-': *out = x - y; break;
    case '*': *out = x * y; break;
    case '/': *out = x / y; break;
    case 'f': *out = float_floor_div(x, y); break;
    case '%': *out = float_mod(x, y); break;
    default: return float_power(x, y, out);
    }
    return QN_NUM_OK;
}

static qn_num_status int_power(qn_arena *a, qn_value x, int64_t y, qn_value *out) {
    qn_value r = qn_v_int(1);
    qn_num_status s = QN_NUM_OK;
    bool trivial = x.kind == QN_V_INT && x.i >= -1 && x.i <= 1;
    if (trivial) y = y ? 2 - y % 2 : 0; // keeps only whether it is 0, odd or even
    for (; y; y >>= 1) {
        if (y & 1) s = qn_int_op(a, '*', r, x, &r);
        if (s == QN_NUM_OK && y > 1) s = qn_int_op(a, '*', x, x, &x);
        if (s != QN_NUM_OK) return s;
    }
    *out = r;
    return QN_NUM_OK;
}

static bool exact_in_double(qn_value v) {
    return v.kind == QN_V_INT && v.i >= -((int64_t)1 << 53) && v.i <= (int64_t)1 << 53;
}

// x / y of integers, correctly rounded: forty digits of the quotient, one more digit when there is
// a rest, and the C library's reading of decimal text.
static qn_num_status int_true_div(qn_arena *a, qn_value x, qn_value y, double *out) {
    if (y.kind == QN_V_INT && y.i == 0) return QN_NUM_ZERO_DIVISION;
    *out = qn_int_to_double(x) / qn_int_to_double(y);
    if (exact_in_double(x) && exact_in_double(y)) return QN_NUM_OK;
    bool negative = qn_int_cmp(x, qn_v_int(0)) < 0;
    qn_value scaled = x, q, rest;
    if (negative && qn_int_op(a, '-', qn_v_int(0), x, &scaled) != QN_NUM_OK) return QN_NUM_TOO_BIG;
    if (qn_int_cmp(y, qn_v_int(0)) < 0) {
        negative = !negative;
        if (qn_int_op(a, '-', qn_v_int(0), y, &y) != QN_NUM_OK) return QN_NUM_TOO_BIG;
    }
    size_t shift = 0, dx = qn_int_digits(x), dy = qn_int_digits(y);
    if (dx < dy + 40) shift = dy + 40 - dx;
    qn_buf text = {0};
    qn_buf_addc(&text, '1');
    for (size_t i = 0; i < shift; i++) qn_buf_addc(&text, '0');
    bool ok = qn_int_parse(a, text.data, text.n, false, &q) == QN_NUM_OK &&
              qn_int_op(a, '*', scaled, q, &scaled) == QN_NUM_OK &&
              qn_int_op(a, '/', scaled, y, &q) == QN_NUM_OK &&
              qn_int_op(a, '%', scaled, y, &rest) == QN_NUM_OK;
    qn_buf_clear(&text);
    if (ok) {
        bool more = qn_int_cmp(rest, qn_v_int(0)) != 0;
        qn_int_print(&text, q);
        qn_buf_addf(&text, "%se-%zu", more ? "1" : "", shift + more);
        *out = strtod(text.data, NULL);
        if (negative) *out = -*out;
    }
    qn_buf_done(&text);
    return !ok ? QN_NUM_TOO_BIG : isfinite(*out) ? QN_NUM_OK : QN_NUM_OVERFLOW;
}

qn_num_status qn_num_op(qn_arena *a, char op, qn_value x, qn_value y, qn_value *out) {
    x = whole(x);
    y = whole(y);
    double f;
    qn_num_status s;
    bool ints = x.kind != QN_V_FLOAT && y.kind != QN_V_FLOAT;
    if (ints && op == '/') {
        s = int_true_div(a, x, y, &f);
    } else if (ints && !(op == 'p' && qn_num_cmp(y, qn_v_int(0)) < 0)) {
        if (op != 'p') return qn_int_op(a, op == 'f' ? '/' : op, x, y, out);
        if (y.kind == QN_V_INT) return int_power(a, x, y.i, out);
        bool trivial = x.kind == QN_V_INT && x.i >= -1 && x.i <= 1;
        return trivial ? int_power(a, x, 2 - (y.big->limb[0] & 1), out) : QN_NUM_TOO_BIG;
    } else {
        double fx = as_double(x), fy = as_double(y);
        if ((x.kind == QN_V_BIG && isinf(fx)) || (y.kind == QN_V_BIG && isinf(fy)))
            return QN_NUM_OVERFLOW;
        s = float_op(op, fx, fy, &f);
    }
    if (s == QN_NUM_OK) *out = qn_v_float(f);
    return s;
}
