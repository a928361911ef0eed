// The arena, strings, lists and dicts of template values. Operators live in jinja_ops.c, numbers
// in jinja_number.c, printing in jinja_print.c.
#include "text/jinja_value.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "text/jinja_number.h"

// ---- arena ----

struct qn_arena_chunk {
    qn_arena_chunk *next;
    max_align_t data[];
};

#define CHUNK ((size_t)64 << 10)

void *qn_arena_alloc(qn_arena *a, size_t n) {
    if (n > SIZE_MAX / 2 - CHUNK) return a->over = true, NULL;
    n = (n + 15) & ~(size_t)15;
    if (n > a->cap || a->used > a->cap - n) {
        a->over = true;
        if (n > QN_ARENA_SMALL) return NULL;
    }
    a->used += n;
    if (n > a->left) {
        size_t size = n > CHUNK / 4 ? n : CHUNK; // big ones get their own and leave the rest alone
        qn_arena_chunk *c = qn_alloc(sizeof *c + size);
        c->next = a->chunks;
        a->chunks = c;
        if (n > CHUNK / 4) return c->data;
        a->at = (char *)c->data;
        a->left = size;
    }
    void *p = a->at;
    a->at += n;
    a->left -= n;
    return p;
}

void qn_arena_done(qn_arena *a) {
    while (a->chunks) {
        qn_arena_chunk *next = a->chunks->next;
        qn_free(a->chunks);
        a->chunks = next;
    }
    *a = (qn_arena){.cap = a->cap};
}

// ---- strings ----

size_t qn_utf8_count(const char *s, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

size_t qn_vstr_offset(const qn_vstr *s, size_t chars) {
    if (chars >= s->chars) return s->n;
    if (s->chars == s->n) return chars;
    size_t at = 0;
    while (chars--) {
        at++;
        while (at < s->n && ((unsigned char)s->s[at] & 0xC0) == 0x80) at++;
    }
    return at;
}

qn_value qn_v_part(qn_arena *a, const char *s, size_t n) {
    qn_vstr *v = qn_arena_alloc(a, sizeof *v);
    *v = (qn_vstr){s, n, qn_utf8_count(s, n)};
    return qn_v_of_str(v);
}

qn_value qn_v_cstr(qn_arena *a, const char *s) { return qn_v_part(a, s, strlen(s)); }

qn_value qn_v_str(qn_arena *a, const char *s, size_t n) {
    char *copy = n ? qn_arena_alloc(a, n) : NULL;
    if (!copy) return qn_v_part(a, "", 0);
    memcpy(copy, s, n);
    return qn_v_part(a, copy, n);
}

bool qn_vstr_is(const qn_vstr *s, const char *text) {
    size_t n = strlen(text);
    return s->n == n && memcmp(s->s, text, n) == 0;
}

int qn_vstr_cmp(const qn_vstr *a, const qn_vstr *b) {
    size_t n = a->n < b->n ? a->n : b->n;
    int c = n ? memcmp(a->s, b->s, n) : 0; // UTF-8 sorts as its code points do
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

// ---- lists ----

static const qn_vlist *children(qn_value v) {
    return v.kind == QN_V_LIST || v.kind == QN_V_TUPLE || v.kind == QN_V_VIEW ? v.list : NULL;
}

uint64_t qn_v_weight(qn_value v) {
    if (v.kind == QN_V_DICT) return 1 + v.dict->weight;
    const qn_vlist *l = children(v);
    return l ? 1 + l->weight : 1;
}

// A container that holds v has at least this depth, and the weight of v more.
static void take_in(qn_arena *a, qn_value v, uint32_t *depth, uint64_t *weight) {
    const qn_vlist *l = children(v);
    uint32_t inner = v.kind == QN_V_DICT ? v.dict->depth : l ? l->depth : 0;
    if (*depth < inner + 1) *depth = inner + 1;
    if (*depth > QN_V_DEPTH) {
        *depth = QN_V_DEPTH;
        a->deep = true;
    }
    uint64_t w = qn_v_weight(v);
    *weight = w > UINT64_MAX / 2 - *weight ? UINT64_MAX / 2 : *weight + w;
}

qn_vlist *qn_vlist_new(qn_arena *a, size_t cap) {
    qn_vlist *l = qn_arena_alloc(a, sizeof *l);
    *l = (qn_vlist){0};
    size_t bytes;
    if (cap && qn_mul(cap, sizeof *l->v, &bytes) && (l->v = qn_arena_alloc(a, bytes))) l->cap = cap;
    return l;
}

bool qn_vlist_push(qn_arena *a, qn_vlist *l, qn_value v) {
    if (a->deep) return false;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 4, bytes;
        qn_value *more = qn_mul(cap, sizeof v, &bytes) ? qn_arena_alloc(a, bytes) : NULL;
        if (!more) return false;
        if (l->n) memcpy(more, l->v, l->n * sizeof v);
        l->v = more;
        l->cap = cap;
    }
    take_in(a, v, &l->depth, &l->weight);
    l->v[l->n++] = v;
    return true;
}

// ---- dicts ----

bool qn_v_hashable(qn_value v) {
    if (v.kind == QN_V_TUPLE) {
        for (size_t i = 0; i < v.list->n; i++)
            if (!qn_v_hashable(v.list->v[i])) return false;
        return true;
    }
    return v.kind != QN_V_LIST && v.kind != QN_V_DICT && v.kind != QN_V_VIEW;
}

static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static uint64_t hash_bytes(const char *s, size_t n) {
    // Where the program lies is random; so nobody can prepare keys that collide.
    uint64_t h = n ^ (uint64_t)(uintptr_t)&qn_utf8_count, x;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&x, s, 8);
        h = mix(h, x);
    }
    for (x = 0; n; n--) x = x << 8 | (unsigned char)*s++;
    return mix(h, x);
}

// Numbers that are equal hash alike: true, 1 and 1.0. Huge ones share one hash.
static uint64_t hash(qn_value v) {
    switch (v.kind) {
    case QN_V_STR: return hash_bytes(v.s->s, v.s->n);
    case QN_V_BOOL: return mix(1, v.b);
    case QN_V_INT: return mix(1, (uint64_t)v.i);
    case QN_V_FLOAT:
        if (!(fabs(v.f) < 0x1p63)) return 3;
        if (v.f == trunc(v.f)) return mix(1, (uint64_t)(int64_t)v.f);
        uint64_t bits;
        memcpy(&bits, &v.f, 8);
        return mix(4, bits);
    case QN_V_TUPLE: {
        uint64_t h = 5;
        for (size_t i = 0; i < v.list->n; i++) h = mix(h, hash(v.list->v[i]));
        return h;
    }
    case QN_V_BIG: return 3;
    default: return v.kind;
    }
}

static bool is_number(qn_value v) { return v.kind >= QN_V_BOOL && v.kind <= QN_V_FLOAT; }

bool qn_v_same_key(qn_value a, qn_value b) {
    if (is_number(a) && is_number(b)) return qn_num_equal(a, b);
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case QN_V_STR: return a.s == b.s || (a.s->n == b.s->n && qn_vstr_cmp(a.s, b.s) == 0);
    case QN_V_TUPLE:
        if (a.list->n != b.list->n) return false;
        for (size_t i = 0; i < a.list->n; i++)
            if (!qn_v_same_key(a.list->v[i], b.list->v[i])) return false;
        return true;
    case QN_V_NONE:
    case QN_V_UNDEFINED: return true;
    default: return a.dict == b.dict; // the same object
    }
}

qn_vdict *qn_vdict_new(qn_arena *a) {
    qn_vdict *d = qn_arena_alloc(a, sizeof *d);
    *d = (qn_vdict){0};
    return d;
}

static size_t find(const qn_vdict *d, qn_value key, uint64_t h) { // d->n when it is not there
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (d->e[i].hash == h && qn_v_same_key(d->e[i].key, key)) return i;
        return d->n;
    }
    for (size_t slot = h & (d->slots - 1); d->index[slot]; slot = (slot + 1) & (d->slots - 1)) {
        size_t i = d->index[slot] - 1;
        if (d->e[i].hash == h && qn_v_same_key(d->e[i].key, key)) return i;
    }
    return d->n;
}

static void enter(qn_vdict *d, size_t i) {
    size_t slot = d->e[i].hash & (d->slots - 1);
    while (d->index[slot]) slot = (slot + 1) & (d->slots - 1);
    d->index[slot] = (uint32_t)i + 1;
}

static bool grow(qn_arena *a, qn_vdict *d) {
    size_t cap = d->cap ? 2 * d->cap : 4;
    if (cap > UINT32_MAX / 2) return a->over = true, false;
    qn_ventry *e = qn_arena_alloc(a, cap * sizeof *e);
    uint32_t *index = cap > 8 ? qn_arena_alloc(a, 2 * cap * sizeof *index) : NULL;
    if (!e || (cap > 8 && !index)) return false;
    if (d->n) memcpy(e, d->e, d->n * sizeof *e);
    d->e = e;
    d->cap = cap;
    d->index = index;
    d->slots = 2 * cap;
    if (!index) return true;
    memset(index, 0, 2 * cap * sizeof *index);
    for (size_t i = 0; i < d->n; i++) enter(d, i);
    return true;
}

bool qn_vdict_set(qn_arena *a, qn_vdict *d, qn_value key, qn_value value) {
    uint64_t h = hash(key);
    size_t i = find(d, key, h);
    take_in(a, key, &d->depth, &d->weight);
    take_in(a, value, &d->depth, &d->weight);
    if (a->deep) return false;
    if (i < d->n) return d->e[i].value = value, true;
    if (d->n == d->cap && !grow(a, d)) return false;
    d->e[d->n] = (qn_ventry){key, value, h};
    d->n++;
    if (d->index) enter(d, d->n - 1);
    return true;
}

bool qn_vdict_set_name(qn_arena *a, qn_vdict *d, const char *name, qn_value value) {
    return qn_vdict_set(a, d, qn_v_cstr(a, name), value);
}

qn_value *qn_vdict_get(const qn_vdict *d, qn_value key) {
    if (!d->n) return NULL;
    size_t i = find(d, key, hash(key));
    return i < d->n ? &d->e[i].value : NULL;
}

qn_value *qn_vdict_get_name(const qn_vdict *d, const char *name) {
    size_t n = strlen(name);
    qn_vstr s = {name, n, qn_utf8_count(name, n)};
    return qn_vdict_get(d, qn_v_of_str(&s));
}
