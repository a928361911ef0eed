// Integers past 64 bits: sign and magnitude in base 1e9, schoolbook algorithms. They are rare in
// templates (an id in a tool call, a power), so they are plain rather than fast.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_number.h"

#define BASE 1000000000u

typedef struct wide { // an operand or result on its way; limbs live in the arena or in `own`
    bool negative;
    uint32_t n; // 0: the number zero
    uint32_t *limb;
    uint32_t own[3];
} wide;

static void widen(wide *w, qn_value v) {
    if (v.kind == QN_V_BIG) {
        *w = (wide){v.big->negative, v.big->n, (uint32_t *)(uintptr_t)v.big->limb, {0}};
        return;
    }
    uint64_t m = v.i < 0 ? 0 - (uint64_t)v.i : (uint64_t)v.i;
    *w = (wide){.negative = v.i < 0};
    for (; m; m /= BASE) w->own[w->n++] = (uint32_t)(m % BASE);
    w->limb = w->own;
}

static bool room(qn_arena *a, wide *w, size_t n) { // zeroed limbs for a result
    if (n > QN_BIG_MAX_LIMBS + 1) return false;
    w->limb = qn_arena_alloc(a, (n + 1) * sizeof *w->limb);
    if (!w->limb) return false;
    memset(w->limb, 0, (n + 1) * sizeof *w->limb);
    w->n = (uint32_t)n;
    return true;
}

static void trim(wide *w) {
    while (w->n && !w->limb[w->n - 1]) w->n--;
    if (!w->n) w->negative = false;
}

static qn_num_status narrow(qn_arena *a, wide *w, qn_value *out) {
    trim(w);
    uint64_t m = 0;
    bool fits = w->n <= 3;
    for (uint32_t i = w->n; fits && i-- > 0;)
        fits = !__builtin_mul_overflow(m, (uint64_t)BASE, &m) &&
               !__builtin_add_overflow(m, (uint64_t)w->limb[i], &m);
    if (fits && m <= (uint64_t)INT64_MAX + w->negative) {
        *out = qn_v_int(w->negative ? (int64_t)(0 - m) : (int64_t)m);
        return QN_NUM_OK;
    }
    if (w->n > QN_BIG_MAX_LIMBS) return QN_NUM_TOO_BIG;
    qn_big *b = qn_arena_alloc(a, sizeof *b + w->n * sizeof *b->limb);
    if (!b) return QN_NUM_TOO_BIG;
    b->negative = w->negative;
    b->n = w->n;
    memcpy(b->limb, w->limb, w->n * sizeof *b->limb);
    *out = (qn_value){.kind = QN_V_BIG, .big = b};
    return QN_NUM_OK;
}

qn_num_status qn_int_parse(qn_arena *a, const char *digits, size_t n, bool negative,
                           qn_value *out) {
    while (n > 1 && *digits == '0') digits++, n--;
    wide w = {0};
    if (!room(a, &w, n / 9 + 1)) return QN_NUM_TOO_BIG;
    w.negative = negative;
    for (size_t i = 0; i < n; i++) {
        uint32_t scale = 1;
        for (size_t k = (n - 1 - i) % 9; k; k--) scale *= 10;
        w.limb[(n - 1 - i) / 9] += (uint32_t)(digits[i] - '0') * scale;
    }
    return narrow(a, &w, out);
}

static int cmp_magnitude(const wide *x, const wide *y) {
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    for (uint32_t i = x->n; i-- > 0;)
        if (x->limb[i] != y->limb[i]) return x->limb[i] < y->limb[i] ? -1 : 1;
    return 0;
}

int qn_int_cmp(qn_value vx, qn_value vy) {
    wide x, y;
    widen(&x, vx);
    widen(&y, vy);
    if (x.negative != y.negative) return x.negative ? -1 : 1;
    int c = cmp_magnitude(&x, &y);
    return x.negative ? -c : c;
}

static bool add_magnitude(qn_arena *a, const wide *x, const wide *y, wide *out) {
    if (!room(a, out, (x->n > y->n ? x->n : y->n) + (size_t)1)) return false;
    uint32_t carry = 0;
    for (uint32_t i = 0; i < out->n; i++) {
        uint32_t s = carry + (i < x->n ? x->limb[i] : 0) + (i < y->n ? y->limb[i] : 0);
        carry = s >= BASE;
        out->limb[i] = carry ? s - BASE : s;
    }
    return true;
}

static bool sub_magnitude(qn_arena *a, const wide *x, const wide *y, wide *out) { // x >= y
    if (!room(a, out, x->n)) return false;
    uint32_t borrow = 0;
    for (uint32_t i = 0; i < x->n; i++) {
        uint32_t take = borrow + (i < y->n ? y->limb[i] : 0);
        borrow = x->limb[i] < take;
        out->limb[i] = x->limb[i] + (borrow ? BASE : 0) - take;
    }
    return true;
}

static bool add(qn_arena *a, const wide *x, const wide *y, wide *out) {
    if (x->negative == y->negative) {
        out->negative = x->negative;
        return add_magnitude(a, x, y, out);
    }
    bool larger = cmp_magnitude(x, y) >= 0;
    out->negative = larger ? x->negative : y->negative;
    return larger ? sub_magnitude(a, x, y, out) : sub_magnitude(a, y, x, out);
}

static bool mul(qn_arena *a, const wide *x, const wide *y, wide *out) {
    if (!room(a, out, (size_t)x->n + y->n)) return false;
    for (uint32_t i = 0; i < x->n; i++) {
        uint64_t carry = 0;
        for (uint32_t j = 0; j < y->n || carry; j++) {
            uint64_t s = out->limb[i + j] + carry;
            if (j < y->n) s += (uint64_t)x->limb[i] * y->limb[j];
            out->limb[i + j] = (uint32_t)(s % BASE);
            carry = s / BASE;
        }
    }
    out->negative = x->negative != y->negative;
    return true;
}

static void scale(const wide *y, uint32_t q, wide *product) { // product has y->n + 1 limbs
    uint64_t carry = 0;
    for (uint32_t i = 0; i < y->n; i++, carry /= BASE) {
        carry += (uint64_t)q * y->limb[i];
        product->limb[i] = (uint32_t)(carry % BASE);
    }
    product->limb[y->n] = (uint32_t)carry;
    product->n = y->n + 1;
    trim(product);
}

// rest = rest * BASE + next; returns how often y fits into it and takes that off. rest has room for
// y->n + 1 limbs. The quotient limb is found by bisection: 30 passes, no estimate to get wrong.
static uint32_t divide_step(wide *rest, const wide *y, uint32_t next, wide *product) {
    memmove(rest->limb + 1, rest->limb, rest->n * sizeof *rest->limb);
    rest->limb[0] = next;
    rest->n++;
    trim(rest);
    uint32_t lo = 0, hi = BASE - 1;
    while (lo < hi) {
        uint32_t q = lo + (hi - lo + 1) / 2;
        scale(y, q, product);
        if (cmp_magnitude(product, rest) <= 0) lo = q;
        else hi = q - 1;
    }
    scale(y, lo, product);
    uint32_t borrow = 0;
    for (uint32_t i = 0; i < rest->n; i++) {
        uint32_t take = borrow + (i < product->n ? product->limb[i] : 0);
        borrow = rest->limb[i] < take;
        rest->limb[i] = rest->limb[i] + (borrow ? BASE : 0) - take;
    }
    trim(rest);
    return lo;
}

// Floor division, as Python's: the rest has the sign of y.
static bool divide(qn_arena *a, const wide *x, const wide *y, wide *q, wide *rest) {
    wide product = {0};
    if (!room(a, q, (size_t)x->n + 1) || !room(a, rest, (size_t)y->n + 2) ||
        !room(a, &product, (size_t)y->n + 1))
        return false;
    rest->n = 0;
    for (uint32_t i = x->n; i-- > 0;) q->limb[i] = divide_step(rest, y, x->limb[i], &product);
    bool opposite = x->negative != y->negative;
    if (opposite && rest->n) {
        wide left;
        if (!sub_magnitude(a, y, rest, &left)) return false;
        *rest = left;
        for (uint32_t i = 0; ++q->limb[i] == BASE; i++) q->limb[i] = 0;
    }
    q->negative = opposite;
    rest->negative = y->negative;
    trim(rest);
    return true;
}

static bool quick(char op, int64_t x, int64_t y, int64_t *out) {
    switch (op) {
    case '+': return !__builtin_add_overflow(x, y, out);
    case '-': return !__builtin_sub_overflow(x, y, out);
    case '*': return !__builtin_mul_overflow(x, y, out);
    default: break;
    }
    if (x == INT64_MIN && y == -1) return false;
    int64_t q = x / y, rest = x % y;
    bool down = rest && (rest < 0) != (y < 0);
    *out = op == '/' ? q - down : down ? rest + y : rest;
    return true;
}

qn_num_status qn_int_op(qn_arena *a, char op, qn_value vx, qn_value vy, qn_value *out) {
    bool small = vx.kind == QN_V_INT && vy.kind == QN_V_INT;
    if ((op == '/' || op == '%') && vy.kind == QN_V_INT && vy.i == 0) return QN_NUM_ZERO_DIVISION;
    int64_t i;
    if (small && quick(op, vx.i, vy.i, &i)) return *out = qn_v_int(i), QN_NUM_OK;
    wide x, y, z = {0}, rest = {0};
    widen(&x, vx);
    widen(&y, vy);
    bool ok;
    if (op == '-') y.negative = !y.negative;
    if (op == '+' || op == '-') ok = add(a, &x, &y, &z);
    else if (op == '*') ok = mul(a, &x, &y, &z);
    else ok = divide(a, &x, &y, &z, &rest);
    return ok ? narrow(a, op == '%' ? &rest : &z, out) : QN_NUM_TOO_BIG;
}

size_t qn_int_digits(qn_value v) {
    wide w;
    widen(&w, v);
    if (!w.n) return 1;
    size_t n = ((size_t)w.n - 1) * 9;
    for (uint32_t top = w.limb[w.n - 1]; top; top /= 10) n++;
    return n;
}

static void print_small(qn_buf *out, int64_t i) {
    char text[24], *p = text + sizeof text;
    uint64_t m = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    do *--p = (char)('0' + m % 10);
    while (m /= 10);
    if (i < 0) *--p = '-';
    qn_buf_add(out, p, (size_t)(text + sizeof text - p));
}

void qn_int_print(qn_buf *out, qn_value v) {
    wide w;
    if (v.kind == QN_V_INT) {
        print_small(out, v.i);
        return;
    }
    widen(&w, v);
    if (w.negative) qn_buf_addc(out, '-');
    qn_buf_addf(out, "%u", w.limb[w.n - 1]);
    for (uint32_t i = w.n - 1; i-- > 0;) qn_buf_addf(out, "%09u", w.limb[i]);
}

double qn_int_to_double(qn_value v) {
    if (v.kind == QN_V_INT) return (double)v.i;
    if (v.big->n > 36) return v.big->negative ? -INFINITY : INFINITY;
    qn_buf text = {0}; // the C library rounds decimal text correctly
    qn_int_print(&text, v);
    double d = strtod(text.data, NULL);
    qn_buf_done(&text);
    return d;
}

qn_value qn_int_from_double(qn_arena *a, double whole) {
    if (whole >= -0x1p63 && whole < 0x1p63) return qn_v_int((int64_t)whole);
    char text[400];
    int n = snprintf(text, sizeof text, "%.0f", fabs(whole));
    qn_value v = qn_v_int(0);
    qn_int_parse(a, text, (size_t)n, whole < 0, &v);
    return v;
}
