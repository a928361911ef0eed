// Python's numbers: integers without limit, floats printed as repr does, arithmetic that mixes
// bool, int and float. Values are qn_value of the kinds BOOL, INT, BIG and FLOAT.
#ifndef QN_TEXT_JINJA_NUMBER_H
#define QN_TEXT_JINJA_NUMBER_H

#include "text/jinja_value.h"

// ---- integers past 64 bits (jinja_big.c) ----

#define QN_BIG_MAX_LIMBS 2400 // 9 digits each; more is QN_LIMIT. Python's own limit is on printing:
#define QN_INT_MAX_DIGITS 4300

struct qn_big {
    bool negative;
    uint32_t n;       // limbs, at least one; the highest is not 0
    uint32_t limb[]; // base 1e9, lowest first
};

typedef enum qn_num_status {
    QN_NUM_OK,
    QN_NUM_ZERO_DIVISION,
    QN_NUM_OVERFLOW, // a float cannot hold it
    QN_NUM_COMPLEX,  // Python would give a complex number
    QN_NUM_TOO_BIG,  // past QN_BIG_MAX_LIMBS
} qn_num_status;

// digits: decimal, without sign, at least one, leading zeros allowed.
qn_num_status qn_int_parse(qn_arena *a, const char *digits, size_t n, bool negative, qn_value *out);
// a and b are INT or BIG. op: + - * / (floor) %. Results that fit become INT.
qn_num_status qn_int_op(qn_arena *a, char op, qn_value x, qn_value y, qn_value *out);
int qn_int_cmp(qn_value x, qn_value y);
double qn_int_to_double(qn_value x); // may be infinite
qn_value qn_int_from_double(qn_arena *a, double whole);
size_t qn_int_digits(qn_value x); // decimal digits, without sign
void qn_int_print(qn_buf *out, qn_value x);

// ---- floats and the mixture (jinja_number.c) ----

void qn_float_print(qn_buf *out, double x); // repr: 1.0, 1e-05, inf, nan
// Python's float(text): white space, underscores between digits, inf, nan. False: it is none.
bool qn_float_parse(const char *s, size_t n, double *out);
double qn_float_round(double x, int64_t digits);

bool qn_num_equal(qn_value x, qn_value y);
int qn_num_cmp(qn_value x, qn_value y); // -1, 0, 1; 2 when a nan is in it
// op: + - * / f (floor division) % p (power).
qn_num_status qn_num_op(qn_arena *a, char op, qn_value x, qn_value y, qn_value *out);

#endif
