// Attention over a paged cache and the gated delta rule: against doubles; chunking, batch, threads
// and instruction sets change nothing; what a block held before does not matter.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/f16.h"
#include "base/mem.h"
#include "kernel/ops.h"
#include "kernel/random_matrix.h"

typedef struct setup {
    size_t n, d, n_heads, n_kv, block_tokens, window;
    qn_kv_type type;
} setup;

static const setup setups[] = {
    {70, 64, 4, 2, 32, 0, QN_KV_F32},   {70, 64, 4, 2, 32, 0, QN_KV_BF16},
    {45, 24, 6, 1, 16, 0, QN_KV_BF16},  {45, 16, 3, 3, 16, 7, QN_KV_F32},
    {90, 128, 8, 1, 64, 33, QN_KV_BF16}, {33, 20, 40, 1, 32, 0, QN_KV_F32},
    {560, 32, 2, 1, 32, 0, QN_KV_BF16}, {560, 32, 2, 1, 32, 530, QN_KV_F32},
    {20, 33, 2, 2, 16, 0, QN_KV_BF16},   {21, 2048, 3, 1, 16, 0, QN_KV_BF16},
};
#define N_SETUPS (sizeof setups / sizeof *setups)

// A cache of two sequences' blocks interleaved, dirty from former use.
typedef struct cache {
    qn_kv_view view;
    uint32_t *blocks[2];
    size_t bytes;
} cache;

static void cache_make(cache *c, const setup *s) {
    size_t n_blocks = (s->n + s->block_tokens - 1) / s->block_tokens;
    c->view = (qn_kv_view){.block_tokens = s->block_tokens, .n_kv_heads = s->n_kv,
                           .head_dim = s->d, .type = s->type};
    c->view.block_stride = qn_kv_layer_bytes(&c->view) + 64;
    c->bytes = 2 * n_blocks * c->view.block_stride;
    c->view.base = qn_alloc(c->bytes + 64);
    memset(c->view.base, 0xFF, c->bytes + 64); // NaN in both types
    for (size_t q = 0; q < 2; q++) {
        c->blocks[q] = QN_NEW_ARRAY(uint32_t, n_blocks);
        for (size_t i = 0; i < n_blocks; i++)
            c->blocks[q][i] = (uint32_t)(2 * (n_blocks - 1 - i) + q);
    }
}

static void cache_free(cache *c) {
    for (size_t i = 0; i < 64; i++) assert_int_equal(c->view.base[c->bytes + i], 0xFF);
    qn_free(c->view.base);
    qn_free(c->blocks[0]);
    qn_free(c->blocks[1]);
}

typedef struct data {
    float *q, *k, *v; // [n][heads * d] of one sequence
} data;

static data data_make(const setup *s, uint64_t seed) {
    data x = {random_floats(s->n * s->n_heads * s->d, seed),
              random_floats(s->n * s->n_kv * s->d, seed + 1),
              random_floats(s->n * s->n_kv * s->d, seed + 2)};
    return x;
}

static void data_free(data *x) { qn_free(x->q), qn_free(x->k), qn_free(x->v); }

// Feeds one sequence in chunks.
static void feed(const setup *s, const data *x, size_t chunk, qn_pool *p, float *out) {
    cache c;
    cache_make(&c, s);
    for (size_t at = 0; at < s->n; at += chunk) {
        size_t m = s->n - at < chunk ? s->n - at : chunk;
        qn_attn_row *rows = QN_NEW_ARRAY(qn_attn_row, m);
        for (size_t i = 0; i < m; i++) rows[i] = (qn_attn_row){c.blocks[0], at + i};
        qn_kv_store(p, &c.view, rows, m, x->k + at * s->n_kv * s->d, x->v + at * s->n_kv * s->d,
                    s->n_kv * s->d);
        qn_attention(p, &c.view, rows, m, x->q + at * s->n_heads * s->d, s->n_heads * s->d,
                     s->n_heads, 0.3f, s->window, out + at * s->n_heads * s->d, s->n_heads * s->d);
        qn_free(rows);
    }
    cache_free(&c);
}

static float held(const setup *s, float x) {
    return s->type == QN_KV_BF16 ? qn_bf16_to_f32(qn_f32_to_bf16(x)) : x;
}

// One query's attention in double; gives the largest error against out [d].
static double error_of(const setup *s, const data *x, size_t row, size_t head, const float *out) {
    size_t kv = head / (s->n_heads / s->n_kv), first = 0;
    if (s->window && row + 1 > s->window) first = row + 1 - s->window;
    double *w = QN_NEW_ARRAY(double, s->n), sum = 0, top = -INFINITY, worst = 0;
    for (size_t j = first; j <= row; j++) {
        for (size_t i = 0; i < s->d; i++)
            w[j] += (double)held(s, x->q[(row * s->n_heads + head) * s->d + i]) *
                    (double)held(s, x->k[(j * s->n_kv + kv) * s->d + i]);
        top = fmax(top, w[j] *= (double)0.3f);
    }
    for (size_t j = first; j <= row; j++) sum += w[j] = exp(w[j] - top);
    for (size_t i = 0; i < s->d; i++) {
        double y = 0;
        for (size_t j = first; j <= row; j++)
            y += w[j] / sum * (double)held(s, x->v[(j * s->n_kv + kv) * s->d + i]);
        double e = fabs(y - (double)out[i]);
        if (!(e <= worst)) worst = e; // NaN counts
    }
    qn_free(w);
    return worst;
}

static void attention_is_close_to_doubles(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SETUPS; i++) {
        const setup *s = setups + i;
        data x = data_make(s, 10 * i);
        float *out = random_floats(s->n * s->n_heads * s->d, 1);
        feed(s, &x, s->n, NULL, out);
        double worst = 0;
        for (size_t r = 0; r < s->n; r += s->n > 200 ? 97 : 1)
            for (size_t h = 0; h < s->n_heads; h++) {
                double e = error_of(s, &x, r, h, out + (r * s->n_heads + h) * s->d);
                if (!(e <= worst)) worst = e;
            }
        if (!(worst < (s->type == QN_KV_BF16 ? 1e-2 : 5e-6)))
            fail_msg("setup %zu: off by %g", i, worst);
        data_free(&x);
        qn_free(out);
    }
}

static void same(const float *a, const float *b, size_t n, size_t number, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (qn_f32_bits(a[i]) != qn_f32_bits(b[i]))
            fail_msg("case %zu: %s: value %zu is %a, expected %a", number, what, i, (double)a[i],
                     (double)b[i]);
}

static const qn_isa levels[] = {QN_ISA_AVX2,       QN_ISA_AVX512, QN_ISA_AVX512VNNI,
                                QN_ISA_AVX512BF16, QN_ISA_AMX,    QN_ISA_NEON};

static void chunks_threads_and_instruction_sets_change_nothing(void **state) {
    (void)state;
    qn_err err = {0};
    qn_pool *pool = qn_pool_new(3, &err);
    for (size_t i = 0; i < N_SETUPS; i++) {
        const setup *s = setups + i;
        size_t n = s->n * s->n_heads * s->d;
        data x = data_make(s, 10 * i);
        float *out = random_floats(n, 1), *other = random_floats(n, 2);
        qn_cpu_cap(QN_ISA_SCALAR);
        feed(s, &x, s->n, NULL, out);
        for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
            qn_cpu_cap(levels[l]);
            if (!qn_cpu_has(levels[l])) continue;
            feed(s, &x, s->n, NULL, other);
            same(other, out, n, i, qn_isa_name(levels[l]));
        }
        qn_cpu_cap(QN_N_ISA);
        static const size_t chunks[] = {1, 7, 16, 64, 1000};
        for (size_t c = 0; c < 5; c++) {
            feed(s, &x, chunks[c], c % 2 ? pool : NULL, other);
            same(other, out, n, i, "chunks");
        }
        data_free(&x);
        qn_free(out), qn_free(other);
    }
    qn_pool_free(pool);
}

// Two sequences in one step, tokens of the second after those of the first.
static void a_second_sequence_changes_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < N_SETUPS; i++) {
        const setup *s = setups + i;
        size_t w = s->n_heads * s->d, kw = s->n_kv * s->d, n = s->n, half = n / 2;
        data x[2] = {data_make(s, 10 * i), data_make(s, 10 * i + 5)};
        float *alone[2] = {random_floats(n * w, 1), random_floats(n * w, 1)};
        for (size_t q = 0; q < 2; q++) feed(s, &x[q], n, NULL, alone[q]);
        cache c;
        cache_make(&c, s);
        float *q = random_floats(n * w, 1), *k = random_floats(n * kw, 1);
        float *v = random_floats(n * kw, 1), *out = random_floats(n * w, 1);
        qn_attn_row *rows = QN_NEW_ARRAY(qn_attn_row, n);
        for (size_t r = 0; r < n; r++) {
            size_t seq = r >= half, at = seq ? r - half : r;
            rows[r] = (qn_attn_row){c.blocks[seq], at};
            memcpy(q + r * w, x[seq].q + at * w, w * 4);
            memcpy(k + r * kw, x[seq].k + at * kw, kw * 4);
            memcpy(v + r * kw, x[seq].v + at * kw, kw * 4);
        }
        qn_kv_store(NULL, &c.view, rows, n, k, v, kw);
        qn_attention(NULL, &c.view, rows, n, q, w, s->n_heads, 0.3f, s->window, out, w);
        same(out, alone[0], half * w, i, "first sequence");
        same(out + half * w, alone[1], (n - half) * w, i, "second sequence");
        cache_free(&c);
        qn_free(q), qn_free(k), qn_free(v), qn_free(out), qn_free(rows);
        for (size_t j = 0; j < 2; j++) data_free(&x[j]), qn_free(alone[j]);
    }
}

static void full_attention_sees_everything(void **state) {
    (void)state;
    qn_err err = {0};
    qn_pool *pool = qn_pool_new(2, &err);
    enum { N = 77, D = 20, H = 3, LD = 3 * H * D };
    float *x = random_floats(N * LD, 3), *out = random_floats(N * H * D, 4);
    float *again = random_floats(N * H * D, 4);
    qn_attention_full(pool, x, x + H * D, x + 2 * H * D, LD, N, H, D, 0.2f, out, H * D);
    for (size_t r = 0; r < N; r++)
        for (size_t h = 0; h < H; h++) {
            double w[N], sum = 0;
            for (size_t j = 0; j < N; j++) {
                w[j] = 0;
                for (size_t i = 0; i < D; i++)
                    w[j] += (double)x[r * LD + h * D + i] * (double)x[j * LD + (H + h) * D + i];
                sum += w[j] = exp(0.2 * w[j]);
            }
            for (size_t i = 0; i < D; i++) {
                double y = 0;
                for (size_t j = 0; j < N; j++)
                    y += w[j] / sum * (double)x[j * LD + (2 * H + h) * D + i];
                assert_true(fabs(y - (double)out[(r * H + h) * D + i]) < 5e-6);
            }
        }
    qn_cpu_cap(QN_ISA_SCALAR);
    qn_attention_full(NULL, x, x + H * D, x + 2 * H * D, LD, N, H, D, 0.2f, again, H * D);
    qn_cpu_cap(QN_N_ISA);
    same(again, out, N * H * D, 0, "full");
    qn_free(x), qn_free(out), qn_free(again);
    qn_pool_free(pool);
}

// ---- delta rule ----

enum { T = 9, NK = 2, NV = 4 };

typedef struct delta_case {
    size_t dk, dv;
    float *q, *k, *v, *decay, *beta, *start;
} delta_case;

static delta_case delta_make(size_t dk, size_t dv) {
    delta_case c = {dk, dv, random_floats(T * NK * dk, 1), random_floats(T * NK * dk, 2),
                    random_floats(T * NV * dv, 3), random_floats(T * NV, 4),
                    random_floats(T * NV, 5), random_floats(NV * dk * dv, 6)};
    for (size_t i = 0; i < T * NV; i++) {
        c.decay[i] = qn_sigmoid(c.decay[i]);
        c.beta[i] = qn_sigmoid(c.beta[i]);
    }
    for (size_t i = 0; i < T * NK * dk; i++) c.k[i] /= sqrtf((float)dk);
    return c;
}

static void delta_case_free(delta_case *c) {
    qn_free(c->q), qn_free(c->k), qn_free(c->v), qn_free(c->decay), qn_free(c->beta);
    qn_free(c->start);
}

// Runs in chunks; state and out are results, after [T][NV][dk][dv] the states on the way.
static void delta_run(const delta_case *c, size_t chunk, qn_pool *p, float *state, float *out,
                      float *after) {
    size_t size = NV * c->dk * c->dv;
    memcpy(state, c->start, size * 4);
    for (size_t at = 0; at < T; at += chunk) {
        qn_delta_token tok[T];
        float *to[T];
        size_t n = T - at < chunk ? T - at : chunk;
        for (size_t i = 0; i < n; i++) {
            size_t t = at + i;
            tok[i] = (qn_delta_token){c->q + t * NK * c->dk, c->k + t * NK * c->dk,
                                      c->v + t * NV * c->dv, c->decay + t * NV, c->beta + t * NV,
                                      out + t * NV * c->dv};
            to[i] = after + t * size;
        }
        qn_delta_run run = {state, tok, n, to};
        qn_delta_rule(p, &run, 1, NK, NV, c->dk, c->dv);
    }
}

static double delta_error(const delta_case *c, const float *out, const float *after) {
    size_t size = NV * c->dk * c->dv;
    double *s = QN_NEW_ARRAY(double, size), worst = 0;
    for (size_t i = 0; i < size; i++) s[i] = (double)c->start[i];
    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < NV; h++)
            for (size_t j = 0; j < c->dv; j++) {
                size_t at = (t * NK + h / 2) * c->dk;
                const float *q = c->q + at, *k = c->k + at;
                double *col = s + h * c->dk * c->dv + j, r = 0, o = 0;
                for (size_t i = 0; i < c->dk; i++) {
                    col[i * c->dv] *= (double)c->decay[t * NV + h];
                    r += col[i * c->dv] * (double)k[i];
                }
                double d = (double)c->beta[t * NV + h] *
                           ((double)c->v[(t * NV + h) * c->dv + j] - r);
                for (size_t i = 0; i < c->dk; i++) {
                    col[i * c->dv] += (double)k[i] * d;
                    o += col[i * c->dv] * (double)q[i];
                    double e = fabs(col[i * c->dv] -
                                    (double)after[t * size + (h * c->dk + i) * c->dv + j]);
                    if (!(e <= worst)) worst = e;
                }
                double e = fabs(o - (double)out[(t * NV + h) * c->dv + j]);
                if (!(e <= worst)) worst = e;
            }
    qn_free(s);
    return worst;
}

static void the_delta_rule_holds(void **state) {
    (void)state;
    qn_err err = {0};
    qn_pool *pool = qn_pool_new(3, &err);
    static const size_t sizes[][2] = {{128, 128}, {16, 24}, {20, 7}, {32, 48}, {5, 33}};
    for (size_t z = 0; z < 5; z++) {
        delta_case c = delta_make(sizes[z][0], sizes[z][1]);
        size_t size = NV * c.dk * c.dv, n_out = T * NV * c.dv;
        float *s[2], *out[2], *after[2];
        for (uint64_t i = 0; i < 2; i++) {
            s[i] = random_floats(size, i);
            out[i] = random_floats(n_out, i);
            after[i] = random_floats(T * size, i);
        }
        qn_cpu_cap(QN_ISA_SCALAR);
        delta_run(&c, T, NULL, s[0], out[0], after[0]);
        assert_memory_equal(s[0], after[0] + (T - 1) * size, size * 4);
        double e = delta_error(&c, out[0], after[0]);
        if (!(e < 5e-5)) fail_msg("dk %zu dv %zu: off by %g", c.dk, c.dv, e);
        for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
            qn_cpu_cap(levels[l]);
            if (!qn_cpu_has(levels[l])) continue;
            for (size_t chunk = 1; chunk <= T; chunk += 4) {
                delta_run(&c, chunk, chunk % 2 ? pool : NULL, s[1], out[1], after[1]);
                same(out[1], out[0], n_out, z, qn_isa_name(levels[l]));
                same(after[1], after[0], T * size, z, qn_isa_name(levels[l]));
                same(s[1], s[0], size, z, qn_isa_name(levels[l]));
            }
        }
        qn_cpu_cap(QN_N_ISA);
        for (size_t i = 0; i < 2; i++) qn_free(s[i]), qn_free(out[i]), qn_free(after[i]);
        delta_case_free(&c);
    }
    qn_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_close_to_doubles),
        cmocka_unit_test(chunks_threads_and_instruction_sets_change_nothing),
        cmocka_unit_test(a_second_sequence_changes_nothing),
        cmocka_unit_test(full_attention_sees_everything),
        cmocka_unit_test(the_delta_rule_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
