// Every leaf of every instruction set against the scalar one, on memory that ends at a page that
// must not be touched: random shapes, extreme values.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cpu.h"
#include "base/f16.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernel/fp_mode.h"
#include "kernel/table.h"

#define PAGE ((size_t)4096)

typedef struct guarded {
    char *map;
    size_t bytes;
    void *p; // n bytes that end where the forbidden page begins
} guarded;

static guarded guarded_new(size_t n) {
    guarded g = {.bytes = (n + PAGE - 1) / PAGE * PAGE + PAGE};
    g.map = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map + g.bytes - PAGE, PAGE, PROT_NONE), 0);
    g.p = g.map + g.bytes - PAGE - n;
    return g;
}

static void guarded_free(guarded *g) { munmap(g->map, g->bytes); }

static uint64_t seed = 1, counter;
static uint64_t draw(uint64_t below) { return qn_rng_u64(seed, 1, counter++) % below; }

// Floats of all sizes: normal ones, subnormals, zeros of both signs, powers far apart.
static float any_float(void) {
    float x = (float)qn_rng_normal(seed, 2, counter++);
    uint64_t u = draw(20);
    return u == 0 ? x * 1e-40f : u == 1 ? -0.0f : u == 2 ? x * 1e15f : u == 3 ? x * 1e-25f : x;
}

static guarded floats(size_t n) {
    guarded g = guarded_new(n * 4);
    for (size_t i = 0; i < n; i++) ((float *)g.p)[i] = any_float();
    return g;
}

static guarded bytes(size_t n, int kind) { // 0: any; 1: only the ends; 2: activations -127 … 127
    guarded g = guarded_new(n);
    for (size_t i = 0; i < n; i++) {
        uint8_t b = (uint8_t)(kind == 1 ? (draw(2) ? 255 : 0) : draw(256));
        if (kind == 2) b = (uint8_t)(int8_t)(draw(8) ? (int)draw(255) - 127 : draw(2) ? 127 : -127);
        ((uint8_t *)g.p)[i] = b;
    }
    return g;
}

static const qn_isa levels[] = {QN_ISA_AVX2,       QN_ISA_AVX512, QN_ISA_AVX512VNNI,
                                QN_ISA_AVX512BF16, QN_ISA_AMX,    QN_ISA_NEON,
                                QN_ISA_DOTPROD,    QN_ISA_I8MM};
#define N_LEVELS (sizeof levels / sizeof *levels)

static const qn_table *table_at(qn_isa isa) {
    qn_cpu_cap(isa);
    const qn_table *t = qn_cpu_has(isa) ? qn_table_get() : NULL;
    qn_cpu_cap(QN_N_ISA);
    return t;
}

static void expect_same(const float *a, const float *b, size_t n, const char *what, size_t level) {
    for (size_t i = 0; i < n; i++)
        if (qn_f32_bits(a[i]) != qn_f32_bits(b[i]) && !(isnan(a[i]) && isnan(b[i])))
            fail_msg("%s, %s: value %zu is %a, expected %a", what, qn_isa_name(levels[level]), i,
                     (double)a[i], (double)b[i]);
}

typedef void (*dot_fn)(const qn_tile *t);

// Runs one slot at every level on the same tile; acc [m][ldacc] starts with the same values.
static void compare_dot(size_t slot_offset, qn_tile t, const char *what) {
    size_t n = (t.m - 1) * t.ldacc + t.n_panels * 16;
    guarded start = floats(n), expected = guarded_new(n * 4), got = guarded_new(n * 4);
    uint64_t mode = qn_fp_pin();
    dot_fn fn;
    memcpy(expected.p, start.p, n * 4);
    memcpy(&fn, (const char *)table_at(QN_ISA_SCALAR) + slot_offset, sizeof fn);
    t.acc = expected.p;
    fn(&t);
    for (size_t l = 0; l < N_LEVELS; l++) {
        const qn_table *table = table_at(levels[l]);
        if (!table) continue;
        memcpy(got.p, start.p, n * 4);
        memcpy(&fn, (const char *)table + slot_offset, sizeof fn);
        t.acc = got.p;
        fn(&t);
        expect_same(got.p, expected.p, n, what, l);
    }
    qn_fp_restore(mode);
    guarded_free(&start), guarded_free(&expected), guarded_free(&got);
}

static void float_dots(void **state) {
    (void)state;
    for (int round = 0; round < 150; round++) {
        seed = 1000 + (uint64_t)round;
        size_t m = 1 + draw(15), panels = 1 + draw(6), k = 2 * (1 + draw(round % 3 ? 40 : 200));
        size_t ldx = k + draw(5);
        guarded x = floats((m - 1) * ldx + k), w = floats(panels * k * 16);
        qn_tile t = {.m = m, .n_panels = panels, .x = x.p, .ldx = ldx, .w = w.p,
                     .ldw = k * 16 * 4, .k = k, .ldacc = panels * 16 + draw(3)};
        compare_dot(offsetof(qn_table, dot_f32), t, "dot_f32");
        guarded h = bytes(panels * k * 16 * 2, 0);
        for (size_t i = 0; i < panels * k * 16; i++)
            ((uint16_t *)h.p)[i] = qn_f32_to_bf16(any_float());
        for (size_t i = 0; i < (m - 1) * ldx + k; i++)
            ((float *)x.p)[i] = qn_bf16_to_f32(qn_f32_to_bf16(((float *)x.p)[i]));
        t.w = h.p;
        t.ldw = k * 16 * 2;
        compare_dot(offsetof(qn_table, dot_bf16), t, "dot_bf16");
        guarded_free(&x), guarded_free(&w), guarded_free(&h);
    }
}

static void integer_dots(void **state) {
    (void)state;
    for (int round = 0; round < 200; round++) {
        seed = 2000 + (uint64_t)round;
        size_t m = 1 + draw(15), panels = 1 + draw(6), groups = 1 + draw(5);
        size_t k = 8 * (1 + draw(round % 5 ? 20 : 300)), all = groups * k, ldx = all + draw(9);
        bool four = round % 2;
        guarded x = bytes((m - 1) * ldx + all, 2);
        guarded w = bytes(panels * all * (four ? 8 : 16), round % 3 == 0);
        guarded sx = floats(m * groups), sums = guarded_new(m * groups * 4);
        guarded sw = floats(panels * groups * 16), sh = guarded_new(panels * groups * 32);
        guarded z = bytes(panels * groups * 16, round % 7 == 0);
        for (size_t i = 0; four && i < panels * groups * 16; i++) ((uint8_t *)z.p)[i] &= 15;
        for (size_t r = 0; r < m; r++)
            for (size_t g = 0; g < groups; g++) {
                int32_t sum = 0;
                for (size_t i = 0; i < k; i++) sum += ((int8_t *)x.p)[r * ldx + g * k + i];
                ((int32_t *)sums.p)[r * groups + g] = sum;
            }
        qn_scale_type type = (qn_scale_type)(round % 3);
        for (size_t i = 0; i < panels * groups * 16; i++) {
            float s = any_float();
            ((uint16_t *)sh.p)[i] = type == QN_SCALE_F16 ? qn_f32_to_f16(s) : qn_f32_to_bf16(s);
        }
        qn_tile t = {.m = m, .n_panels = panels, .x = x.p, .ldx = ldx, .w = w.p,
                     .ldw = all * (four ? 8 : 16), .k = k, .ldacc = panels * 16 + draw(3),
                     .n_groups = groups, .x_scale = sx.p, .x_sum = sums.p,
                     .w_scale = type == QN_SCALE_F32 ? sw.p : sh.p,
                     .w_zero = round % 4 < 2 ? z.p : NULL, .scale_type = type};
        compare_dot(four ? offsetof(qn_table, dot_q4) : offsetof(qn_table, dot_q8), t,
                    four ? "dot_q4" : "dot_q8");
        guarded_free(&x), guarded_free(&w), guarded_free(&sx), guarded_free(&sums);
        guarded_free(&sw), guarded_free(&sh), guarded_free(&z);
    }
}

static void unpacking(void **state) {
    (void)state;
    static const struct {
        size_t slot, unit, bits;
        const char *name;
    } kinds[] = {
        {offsetof(qn_table, unpack_bf16), 2, 16, "unpack_bf16"},
        {offsetof(qn_table, unpack_f16), 1, 16, "unpack_f16"},
        {offsetof(qn_table, unpack_q8), 4, 8, "unpack_q8"},
        {offsetof(qn_table, unpack_q4), 8, 4, "unpack_q4"},
        {offsetof(qn_table, unpack_f8), 2, 8, "unpack_f8"},
    };
    uint64_t mode = qn_fp_pin();
    for (size_t i = 0; i < 5; i++)
        for (size_t n = kinds[i].unit; n <= 64; n += kinds[i].unit) {
            guarded w = bytes(n * 2 * kinds[i].bits, 0), scale = floats(16);
            guarded zero = guarded_new(64), a = floats(n * 16), b = floats(n * 16);
            for (size_t o = 0; o < 16; o++) ((int32_t *)zero.p)[o] = (int32_t)draw(256);
            void (*fn)(const qn_unpack *u);
            memcpy(&fn, (const char *)table_at(QN_ISA_SCALAR) + kinds[i].slot, sizeof fn);
            fn(&(qn_unpack){w.p, n, scale.p, zero.p, a.p});
            for (size_t l = 0; l < N_LEVELS; l++) {
                const qn_table *t = table_at(levels[l]);
                if (!t) continue;
                memcpy(&fn, (const char *)t + kinds[i].slot, sizeof fn);
                fn(&(qn_unpack){w.p, n, scale.p, zero.p, b.p});
                expect_same(b.p, a.p, n * 16, kinds[i].name, l);
            }
            guarded_free(&w), guarded_free(&scale), guarded_free(&zero);
            guarded_free(&a), guarded_free(&b);
        }
    qn_fp_restore(mode);
}

static void every_f8_code(void **state) {
    (void)state;
    guarded w = guarded_new(256), out = guarded_new(512);
    for (size_t i = 0; i < 256; i++) ((uint8_t *)w.p)[i] = (uint8_t)i;
    for (size_t l = 0; l <= N_LEVELS; l++) {
        const qn_table *t = table_at(l < N_LEVELS ? levels[l] : QN_ISA_SCALAR);
        if (!t) continue;
        t->f8_to_bf16(w.p, 256, out.p);
        for (size_t i = 0; i < 256; i++) {
            float x = qn_bf16_to_f32(((uint16_t *)out.p)[i]), y = qn_f8e4m3_to_f32((uint8_t)i);
            assert_true(qn_f32_bits(x) == qn_f32_bits(y));
        }
    }
    guarded_free(&w), guarded_free(&out);
}

static void quantizing(void **state) {
    (void)state;
    uint64_t mode = qn_fp_pin();
    for (size_t n = 1; n < 300; n += n < 70 ? 1 : 37)
        for (int kind = 0; kind < 6; kind++) {
            seed = 3000 + n;
            size_t n_pad = (n + 7) / 8 * 8;
            guarded x = floats(n), a = guarded_new(n_pad), b = guarded_new(n_pad);
            float *v = x.p, sa, sb;
            int32_t ta, tb;
            for (size_t i = 0; i < n; i++)
                v[i] = kind == 1   ? 0
                       : kind == 2 ? v[i] * 1e-38f
                       : kind == 3 ? (float)((int)draw(255) - 127) / 2
                       : kind == 4 ? 3e38f
                                   : v[i];
            if (kind == 5) v[n / 2] = n % 2 ? INFINITY : NAN;
            table_at(QN_ISA_SCALAR)->quantize_s8(v, n, n_pad, a.p, &sa, &ta);
            int32_t sum = 0;
            for (size_t i = 0; i < n_pad; i++) {
                int8_t c = ((int8_t *)a.p)[i];
                assert_true(c >= -127 && (i < n || c == 0));
                sum += c;
                if (kind == 0 && i < n)
                    assert_true(fabsf((float)c * sa - v[i]) <= 0.50001f * sa);
            }
            assert_int_equal(sum, ta);
            assert_true(kind == 5 ? isnan(sa) : isfinite(sa));
            for (size_t l = 0; l < N_LEVELS; l++) {
                const qn_table *t = table_at(levels[l]);
                if (!t) continue;
                t->quantize_s8(v, n, n_pad, b.p, &sb, &tb);
                assert_memory_equal(a.p, b.p, n_pad);
                assert_int_equal(ta, tb);
                expect_same(&sb, &sa, 1, "scale", l);
            }
            guarded_free(&x), guarded_free(&a), guarded_free(&b);
        }
    qn_fp_restore(mode);
}

static void softmax_steps(void **state) {
    (void)state;
    uint64_t mode = qn_fp_pin();
    for (size_t n = 16; n <= 256; n += 48)
        for (int round = 0; round < 40; round++) {
            seed = 4000 + n + (uint64_t)round;
            size_t from = draw(n), to = from + 1 + draw(n - from);
            guarded x = floats(n), a = guarded_new(n * 4), b = guarded_new(n * 4);
            memcpy(a.p, x.p, n * 4);
            if (round % 5 == 0) ((float *)a.p)[from] = NAN;
            if (from) ((float *)a.p)[0] = NAN; // unseen slots may hold anything
            memcpy(x.p, a.p, n * 4);
            qn_softmax_step s = {a.p, n, from, to, 0.3f, round % 2, round % 3 ? 0.5f : -INFINITY,
                                 round % 3 ? 2.5f : 0};
            qn_softmax_step before = s;
            float carry = table_at(QN_ISA_SCALAR)->softmax_step(&s);
            if (round % 5) assert_true(isfinite(s.sum) && s.sum > 0);
            for (size_t i = 0; i < n; i++)
                if (i < from || i >= to) assert_true(((float *)a.p)[i] == 0 || round % 5 == 0);
            for (size_t l = 0; l < N_LEVELS; l++) {
                const qn_table *t = table_at(levels[l]);
                if (!t) continue;
                qn_softmax_step other = before;
                memcpy(b.p, x.p, n * 4);
                other.s = b.p;
                float c = t->softmax_step(&other);
                expect_same(&c, &carry, 1, "carry", l);
                expect_same(&other.sum, &s.sum, 1, "sum", l);
                expect_same(b.p, a.p, n, "weights", l);
            }
            guarded_free(&x), guarded_free(&a), guarded_free(&b);
        }
    qn_fp_restore(mode);
}

static void the_mode_is_restored(void **state) {
    (void)state;
    volatile float small = 1e-40f;
    uint64_t mode = qn_fp_pin();
    assert_true(small * 1.0f == 0);
    qn_fp_restore(mode);
    assert_true(small * 1.0f != 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_dots),    cmocka_unit_test(integer_dots),
        cmocka_unit_test(unpacking),     cmocka_unit_test(every_f8_code),
        cmocka_unit_test(quantizing),    cmocka_unit_test(softmax_steps),
        cmocka_unit_test(the_mode_is_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
