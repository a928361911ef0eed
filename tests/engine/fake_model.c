// See fake_model.h. Per position, a block holds 16 bytes: the target's entry and the draft layer's
// mark. The chain over all entries and the state over all tokens give hidden and logits.
#include "engine/fake_model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

fake_counters fake_counted;

struct qn_model {
    qn_model_info info;
    fake_config c;
};

typedef struct fake_row {
    size_t segment;
    float logits[FAKE_ROWS], hidden[FAKE_HIDDEN];
} fake_row;

struct qn_work {
    const qn_model *m;
    fake_row *rows;
    size_t n, cap;
};

struct qn_compute {
    qn_pool *pool;
    qn_precision precision;
};

qn_model *fake_model_new(const fake_config *c) {
    qn_model *m = QN_NEW(qn_model);
    m->c = *c;
    m->info = (qn_model_info){.family = "fake", .vocab_size = FAKE_ROWS, .n_layers = 1,
                              .hidden_size = FAKE_HIDDEN, .context_length = (int)c->context,
                              .has_mtp = c->mtp, .has_vision = c->vision, .n_eos = 1,
                              .eos = {FAKE_EOS}, .image_token = c->vision ? FAKE_IMAGE : -1,
                              .video_token = -1};
    fake_counted = (fake_counters){0};
    return m;
}

void fake_model_free(qn_model *m) { free(m); }
const qn_model_info *qn_model_get_info(const qn_model *m) { return &m->info; }
qn_precision qn_model_precision(const qn_model *m) { return (void)m, QN_FAST; }
int qn_model_threads(const qn_model *m) { return (void)m, 3; }

void qn_model_cache_spec(const qn_model *m, qn_cache_spec *s) {
    *s = (qn_cache_spec){m->c.block_tokens, m->c.block_tokens * 16, m->c.state_bytes};
}

qn_compute *qn_compute_new(qn_pool *pool, qn_precision precision) {
    qn_compute *c = QN_NEW(qn_compute);
    *c = (qn_compute){pool, precision};
    return c;
}
void qn_compute_free(qn_compute *c) { free(c); }

qn_work *qn_work_new(const qn_model *m, qn_compute *c, qn_err *err) {
    (void)c, (void)err;
    qn_work *w = QN_NEW(qn_work);
    w->m = m;
    return w;
}

void qn_work_free(qn_work *w) {
    if (w) free(w->rows);
    free(w);
}

static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static double fake_clock;

double fake_now(void) { return fake_clock; }

static void spend(unsigned us) { fake_clock += 1e-6 * us; }

static uint64_t *slot(const qn_model *m, uint8_t *arena, const uint32_t *blocks, size_t p) {
    size_t b = m->c.block_tokens;
    return (uint64_t *)(void *)(arena + blocks[p / b] * b * 16 + p % b * 16);
}

static uint64_t entry(int32_t token, int64_t rope) {
    return mix((uint64_t)token * 1000003 + (uint64_t)rope * 7919 + 1);
}

static void put64(float *x, uint64_t v) {
    for (int i = 0; i < 4; i++) x[i] = (float)(v >> 16 * i & 0xFFFF);
}

static uint64_t get64(const float *x) {
    uint64_t v = 0;
    for (int i = 0; i < 4; i++) v |= (uint64_t)x[i] << 16 * i;
    return v;
}

static fake_row *add_row(qn_work *w, size_t segment) {
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        w->rows = qn_realloc(w->rows, w->cap * sizeof *w->rows);
    }
    w->rows[w->n] = (fake_row){.segment = segment};
    return &w->rows[w->n++];
}

static void speak(const qn_model *m, uint64_t chain, uint64_t state, float *logits) {
    for (uint64_t v = 0; v < FAKE_ROWS; v++)
        logits[v] = (float)(mix(chain ^ mix(state) ^ v * 0x9E3779B97F4A7C15u) >> 40) * 0x1p-24f *
                    (float)(m->c.sharp ? m->c.sharp : 3);
}

static uint64_t chain_to(const qn_model *m, const qn_segment *s, uint8_t *arena, size_t p) {
    uint64_t chain = 0;
    for (size_t i = 0; i <= p; i++) chain = mix(chain ^ *slot(m, arena, s->blocks, i));
    return chain;
}

static uint64_t entry_of(const qn_segment *s, size_t i) {
    size_t p = s->position + i;
    uint64_t e = entry(s->tokens[i], s->rope3 ? s->rope3[i][1] : (int64_t)p);
    for (size_t k = 0; k < s->n_spans; k++) {
        const qn_embed_span *x = &s->spans[k];
        assert(x->at >= s->position && x->at + x->n <= s->position + s->n);
        if (p >= x->at && p < x->at + x->n)
            e = mix(e ^ get64(x->rows + (p - x->at) * FAKE_HIDDEN));
    }
    return e;
}

static void run_token(const qn_model *m, qn_work *w, const qn_step *step, size_t seg, size_t i) {
    const qn_segment *s = &step->segments[seg];
    size_t p = s->position + i;
    uint64_t state = 0, *at = slot(m, step->arena, s->blocks, p);
    at[0] = entry_of(s, i);
    at[1] = 0; // the draft layer's part is not filled any more
    if (m->c.state_bytes) {
        memcpy(&state, s->state, 8);
        state = mix(state + at[0]);
        memcpy(s->state, &state, 8);
        if (s->state_after && s->state_after[i])
            memcpy(s->state_after[i], s->state, m->c.state_bytes);
    }
    fake_row row = {0};
    uint64_t chain = chain_to(m, s, step->arena, p);
    put64(row.hidden, chain);
    put64(row.hidden + 4, state);
    speak(m, chain, state, row.logits);
    if (m->c.faults && s->tokens[i] == FAKE_NAN) row.logits[3] = NAN;
    if (s->probe & QN_PROBE_HIDDEN) s->on_probe(s->user, "hidden.0", p, row.hidden, FAKE_HIDDEN);
    if (s->probe & QN_PROBE_HIDDEN)
        s->on_probe(s->user, "hidden.final", p, row.hidden, FAKE_HIDDEN);
    if (s->probe & QN_PROBE_LOGITS) s->on_probe(s->user, "logits", p, row.logits, FAKE_ROWS);
    fake_counted.positions++;
    if (!s->all_logits && (s->no_logits || i + 1 < s->n)) return;
    row.segment = seg;
    *add_row(w, seg) = row;
}

bool qn_model_forward(const qn_model *m, qn_work *w, const qn_step *step, qn_err *err) {
    (void)err;
    w->n = 0;
    size_t rows = 0;
    for (size_t seg = 0; seg < step->n_segments; seg++) {
        const qn_segment *s = &step->segments[seg];
        assert(s->n > 0 && !(m->c.state_bytes && !s->state));
        rows += s->n;
        for (size_t i = 0; i < s->n; i++) run_token(m, w, step, seg, i);
    }
    fake_counted.steps++;
    if (rows > fake_counted.most_rows) fake_counted.most_rows = rows;
    if (step->n_segments > fake_counted.most_segments)
        fake_counted.most_segments = step->n_segments;
    spend(m->c.step_us + m->c.row_us * (unsigned)rows);
    return true;
}

static void draft_token(const qn_model *m, qn_work *w, const qn_draft_segment *s, uint8_t *arena,
                        size_t seg, size_t i) {
    size_t p = s->position + i;
    slot(m, arena, s->blocks, p)[1] = p + 1;
    for (size_t q = 0; q < p; q++)
        if (slot(m, arena, s->blocks, q)[1] != q + 1) fake_counted.holes++;
    const float *h = s->hidden + i * FAKE_HIDDEN;
    uint64_t e = entry(s->tokens[i], (int64_t)p + 1);
    uint64_t chain = mix(get64(h) ^ e), state = get64(h + 4);
    if (m->c.state_bytes) state = mix(state + e);
    if (!s->all_logits && i + 1 < s->n) return;
    fake_row *row = add_row(w, seg);
    put64(row->hidden, chain);
    put64(row->hidden + 4, state);
    speak(m, chain, state, row->logits);
    if ((int)(mix(chain) % 100) >= m->c.draft_percent) row->logits[40] = 100;
}

bool qn_model_draft(const qn_model *m, qn_work *w, const qn_draft_segment *segments, size_t n,
                    uint8_t *arena, qn_err *err) {
    (void)err;
    w->n = 0;
    for (size_t seg = 0; seg < n; seg++)
        for (size_t i = 0; i < segments[seg].n; i++)
            draft_token(m, w, &segments[seg], arena, seg, i);
    fake_counted.draft_calls++;
    spend(m->c.draft_us);
    return true;
}

static const fake_row *row_of(const qn_work *w, size_t segment, size_t row) {
    for (size_t i = 0; i < w->n; i++)
        if (w->rows[i].segment == segment && row-- == 0) return &w->rows[i];
    abort(); // no such row
}

size_t qn_work_n_rows(const qn_work *w, size_t segment) {
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++) n += w->rows[i].segment == segment;
    return n;
}

const float *qn_work_logits(const qn_work *w, size_t segment, size_t row) {
    return row_of(w, segment, row)->logits;
}

const float *qn_work_hidden(const qn_work *w, size_t segment, size_t row) {
    return row_of(w, segment, row)->hidden;
}

bool qn_work_fault(const qn_work *w, size_t segment, qn_err *err) {
    for (size_t i = 0; i < w->n; i++)
        if (w->rows[i].segment == segment && !isfinite(w->rows[i].logits[3])) {
            qn_fail(err, QN_NONFINITE, "model.layers.0.mlp.down_proj: nan");
            return true;
        }
    return false;
}

// ---- images: a file of n bytes is an image of n rows ----

bool qn_model_encode_image(const qn_model *m, qn_compute *c, const qn_image *image, int grid[3],
                           float **rows, size_t *n_rows, float **pixels, qn_err *err) {
    (void)m, (void)c, (void)err, (void)pixels;
    assert(image->bytes <= *n_rows);
    *n_rows = image->bytes;
    grid[0] = 1, grid[1] = 2, grid[2] = 2 * (int)image->bytes;
    *rows = QN_NEW_ARRAY(float, *n_rows * FAKE_HIDDEN);
    for (size_t i = 0; i < *n_rows; i++)
        put64(*rows + i * FAKE_HIDDEN, ((const uint8_t *)image->data)[i]);
    fake_counted.encoded++;
    return true;
}

bool qn_model_expand_images(const qn_model *m, const int32_t *tokens, size_t n,
                            const int (*grids)[3], size_t n_images, int32_t **out, size_t *n_out,
                            int32_t (**rope3)[3], int32_t *delta, qn_err *err) {
    (void)m;
    size_t seen = 0, k = 0, most = n;
    for (size_t i = 0; i < n_images; i++) most += (size_t)grids[i][2];
    *out = QN_NEW_ARRAY(int32_t, most);
    *rope3 = qn_calloc(most, sizeof **rope3);
    int32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t copies = 1;
        if (tokens[i] == FAKE_IMAGE) {
            copies = seen < n_images ? (size_t)grids[seen][2] / 2 : 0;
            seen++;
        }
        for (size_t j = 0; j < copies; j++, k++) {
            (*out)[k] = tokens[i];
            for (int d = 0; d < 3; d++) (*rope3)[k][d] = at; // an image is one position wide
        }
        at++;
    }
    *n_out = k;
    *delta = at - (int32_t)k;
    if (seen == n_images) return true;
    qn_free(*out), qn_free(*rope3);
    return qn_fail(err, QN_INPUT, "%zu images for %zu placeholders", n_images, seen);
}

// ---- tokenizer: letters, a character in two halves, and some words ----

struct qn_stream {
    char held[8];
    size_t n;
    char text[32];
};

const char *fake_text(int32_t id) {
    static const char *const words[] = {"stop", "st", "op", "END", " ", "\n", "ab", "abc", "bcd"};
    static char letters[26][2];
    if (id == 20) return "\xC3";
    if (id == 21) return "\xA9";
    if (id >= 22 && id < 31) return words[id - 22];
    if (id >= 32 && id < 58) {
        letters[id - 32][0] = (char)('a' + id - 32);
        return letters[id - 32];
    }
    return "";
}

const qn_tokenizer *qn_model_tokenizer(const qn_model *m) {
    return m->c.tokenizer ? (const qn_tokenizer *)m : NULL;
}
int32_t qn_tokenizer_size(const qn_tokenizer *t) { return (void)t, FAKE_SPELLED; }
const char *qn_token_spelling(const qn_tokenizer *t, int32_t id) {
    (void)t;
    return id == FAKE_HOLE || id < 0 || id >= FAKE_SPELLED ? NULL : "x";
}
qn_stream *qn_stream_new(const qn_tokenizer *t, unsigned flags) {
    return (void)t, (void)flags, QN_NEW(qn_stream);
}
void qn_stream_free(qn_stream *s) { free(s); }

bool qn_stream_push(qn_stream *s, int32_t id, const char **text, size_t *n, qn_err *err) {
    (void)err;
    const char *x = fake_text(id);
    *n = 0;
    *text = s->text;
    if (s->n) {
        bool whole = (uint8_t)x[0] == 0xA9;
        memcpy(s->text, whole ? "\xC3" : "\xEF\xBF\xBD", whole ? 1 : 3);
        *n = whole ? 1 : 3;
        s->n = 0;
    } else if ((uint8_t)x[0] == 0xA9) {
        x = "\xEF\xBF\xBD";
    }
    if ((uint8_t)x[0] == 0xC3) {
        s->n = 1;
        return true;
    }
    memcpy(s->text + *n, x, strlen(x));
    *n += strlen(x);
    return true;
}

void qn_stream_finish(qn_stream *s, const char **text, size_t *n) {
    *text = "\xEF\xBF\xBD";
    *n = s->n ? 3 : 0;
    s->n = 0;
}
