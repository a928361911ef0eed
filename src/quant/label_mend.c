// Saying what the tensors are, in the words of their method. What the old label says and the tensors
// do not contradict stays; rules for single modules that they do contradict are dropped, and what they
// need (dense layers, other widths) is added. Whether the result is right is for the reader to find
// out, who compares labels with tensors anyway.
#include "quant/label_mend.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "store/label_compare.h"
#include "store/schemes.h"

// What most quantized matrices are.
typedef struct content {
    const qn_source_model *m;
    const char *family, *format; // as configs spell them
    int bits;
    int64_t group; // -1: one for all inputs
    const qn_weight *sample; // of that group size
    bool sym, act_order, mixed, head;
    size_t n;
} content;

static const char *format_of(const qn_weight *w) {
    return w->scheme->format ? w->scheme->format : w->layout;
}

// How many matrices are like this one.
static size_t alike(const qn_source_model *m, const qn_weight *w) {
    size_t n = 0;
    for (size_t i = 0; i < m->n_weights; i++) {
        const qn_weight *o = m->weights[i];
        n += o->scheme && o->bits == w->bits && o->group == w->group && o->n_groups > 1;
    }
    return n;
}

static content look(const qn_source_model *m) {
    content c = {.m = m, .sym = true, .group = -1};
    size_t most = 0;
    for (size_t i = 0; i < m->n_weights; i++) {
        const qn_weight *w = m->weights[i];
        if (!w->scheme) continue;
        if (!c.n++) c.family = w->scheme->family, c.format = format_of(w), c.sample = w;
        c.mixed = c.mixed || c.family != w->scheme->family || strcmp(c.format, format_of(w)) != 0;
        c.sym = c.sym && w->sym;
        c.act_order = c.act_order || w->act_order;
        c.head = c.head || strcmp(w->name, "lm_head.weight") == 0;
        size_t n = w->n_groups > 1 && (w->bits != c.sample->bits || w->group != c.sample->group ||
                                       most == 0) ? alike(m, w) : 0;
        if (n > most) most = n, c.sample = w, c.group = (int64_t)w->group;
    }
    if (c.sample) c.bits = c.sample->bits;
    return c;
}

static bool is(const char *a, const char *b) { return a && strcmp(a, b) == 0; }

// ---- words ----

// Under the key that the label uses already, else under the first one.
static void set(json_t *q, const char *const *keys, json_t *value) {
    bool any = false;
    for (size_t i = 0; keys[i]; i++)
        if (json_object_get(q, keys[i])) {
            json_object_set(q, keys[i], value);
            any = true;
        }
    if (!any) json_object_set(q, keys[0], value);
    json_decref(value);
}

static void set_known(json_t *q, const char *key, json_t *value) {
    if (json_object_get(q, key)) json_object_set(q, key, value);
    json_decref(value);
}

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

// One group over all inputs fits every group size that is as large.
static bool group_is_open(const json_t *q, const content *c) {
    json_int_t said = json_integer_value(json_object_get(q, "group_size"));
    if (c->group > 0 || said <= 0) return false;
    for (size_t i = 0; i < c->m->n_weights; i++)
        if (c->m->weights[i]->scheme && (size_t)said < c->m->weights[i]->cols) return false;
    return true;
}

static void say_integers(json_t *q, const content *c) {
    set(q, KEYS("bits", "w_bit", "wbits"), json_integer(c->bits));
    if (!group_is_open(q, c)) set(q, KEYS("group_size", "q_group_size"), json_integer(c->group));
    set_known(q, "pack_dtype", json_string("int32"));
    set_known(q, "lm_head", json_boolean(c->head));
}

static void say_gptq(json_t *q, const content *c) {
    say_integers(q, c);
    set(q, KEYS("checkpoint_format", "format"), json_string(c->format));
    json_object_set_new(q, "sym", json_boolean(c->sym));
    if (c->act_order || !json_object_get(q, "desc_act"))
        json_object_set_new(q, "desc_act", json_boolean(c->act_order));
}

static void say_awq(json_t *q, const content *c) {
    say_integers(q, c);
    set(q, KEYS("version", "format", "checkpoint_format"), json_string(c->format));
    if (!c->sym || !json_object_get(q, "zero_point"))
        json_object_set_new(q, "zero_point", json_true());
    set_known(q, "sym", json_boolean(c->sym));
}

static void say_fp8(json_t *q, const content *c) {
    size_t block[2] = {128, 128};
    for (size_t i = 0; i < c->m->n_weights; i++) {
        const qn_weight *w = c->m->weights[i];
        if (!w->scheme) continue;
        if (w->scale_rows < w->rows) block[0] = w->scale_rows;
        if (w->group < w->cols) block[1] = w->group;
    }
    json_object_set_new(q, "fmt", json_string("e4m3"));
    if (!json_object_get(q, "activation_scheme"))
        json_object_set_new(q, "activation_scheme", json_string("dynamic"));
    json_object_set_new(q, "weight_block_size", json_pack("[I, I]", (json_int_t)block[0],
                                                          (json_int_t)block[1]));
}

static void say_ct(json_t *q, const content *c) {
    json_t *groups = json_object_get(q, "config_groups");
    if (!json_object_size(groups)) {
        groups = json_pack("{s:{s:[s], s:{s:s}}}", "group_0", "targets", "Linear", "weights", "type",
                           "int");
        json_object_set_new(q, "config_groups", groups);
        json_object_set_new(q, "quantization_status", json_string("compressed"));
    }
    set(q, KEYS("format"), json_string(c->format));
    if (json_object_size(groups) != 1) return; // each says what it is for
    json_t *group = json_object_iter_value(json_object_iter(groups));
    json_t *w = json_object_get(group, "weights");
    set_known(group, "format", json_string(c->format));
    json_object_set_new(w, "num_bits", json_integer(c->bits));
    json_object_set_new(w, "symmetric", json_boolean(c->sym));
    if (c->sample->scheme->floats) return;
    json_object_set_new(w, "strategy", json_string(c->group > 0 ? "group" : "channel"));
    json_object_set_new(w, "group_size", c->group > 0 ? json_integer(c->group) : json_null());
}

static const struct {
    const char *family;
    void (*say)(json_t *q, const content *c);
    const char *skips; // the list of modules that are not quantized; NULL: GPTQ's patterns
} methods[] = {
    {"gptq", say_gptq, NULL},
    {"awq", say_awq, "modules_to_not_convert"},
    {"fp8", say_fp8, "modules_to_not_convert"},
    {"compressed-tensors", say_ct, "ignore"},
};
#define N_METHODS (sizeof methods / sizeof *methods)

// ---- rules for single modules ----

// Whether a label with this rule alone leaves out a matrix that is quantized.
static bool is_untrue(const content *c, const json_t *rule) {
    qn_label l;
    bool untrue = false;
    if (qn_label_read(&l, rule, "", NULL))
        for (size_t i = 0; i < c->m->n_weights && !untrue; i++) {
            const qn_weight *w = c->m->weights[i];
            untrue = w->scheme && qn_label_of(&l, w).skip != NULL;
        }
    qn_label_done(&l);
    return untrue;
}

static void drop_untrue(json_t *q, const content *c, const char *family, const char *key) {
    json_t *list = json_object_get(q, key);
    for (size_t i = json_array_size(list); i-- > 0;) {
        json_t *rule = json_pack("{s:s, s:[O]}", "quant_method", family, key,
                                 json_array_get(list, i));
        if (is_untrue(c, rule)) json_array_remove(list, i);
        json_decref(rule);
    }
}

// What is said of single modules' widths is said anew, from the tensors.
static void drop_untrue_patterns(json_t *q, const content *c) {
    json_t *old = json_object_get(q, "dynamic"), *kept = json_object(), *value;
    const char *key;
    json_object_foreach(old, key, value) {
        json_t *rule = json_pack("{s:s, s:{s:O}}", "quant_method", "gptq", "dynamic", key, value);
        bool skips = qn_str_starts(key, "-:") || json_is_false(value);
        if (skips && !is_untrue(c, rule)) json_object_set(kept, key, value);
        json_decref(rule);
    }
    if (json_is_object(old)) json_object_set(q, "dynamic", kept);
    json_decref(kept);
}

static char *exact_pattern(const char *sign, const char *module) {
    qn_buf b = {0};
    qn_buf_adds(&b, sign);
    for (; *module; module++) {
        if (*module == '.') qn_buf_addc(&b, '\\');
        qn_buf_addc(&b, *module);
    }
    qn_buf_addc(&b, '$');
    return qn_buf_take(&b, NULL);
}

static void add_pattern(json_t *q, const char *sign, const qn_weight *w, json_t *said) {
    char *module = qn_weight_module(w), *pattern = exact_pattern(sign, module);
    if (!json_is_object(json_object_get(q, "dynamic")))
        json_object_set_new(q, "dynamic", json_object());
    json_object_set_new(json_object_get(q, "dynamic"), pattern, said);
    qn_free(module);
    qn_free(pattern);
}

static void add_skip(json_t *q, const char *list, const qn_weight *w) {
    if (!list) {
        add_pattern(q, "-:", w, json_object());
        return;
    }
    char *module = qn_weight_module(w);
    if (!json_is_array(json_object_get(q, list))) json_object_set_new(q, list, json_array());
    json_array_append_new(json_object_get(q, list), json_string(module));
    qn_free(module);
}

// Layers that are dense although the label as it is would have them quantized.
static void add_dense(json_t *q, const content *c, const char *list) {
    qn_label l;
    if (qn_label_read(&l, q, "", NULL))
        for (size_t i = 0; i < c->m->n_weights; i++)
            if (!c->m->weights[i]->scheme && qn_label_misses(&l, c->m->weights[i]))
                add_skip(q, list, c->m->weights[i]);
    qn_label_done(&l);
}

// A label made from nothing names all that is a linear layer for those who look for such.
static void add_by_role(json_t *q, const content *c, const char *list) {
    const qn_layout *layout = &c->m->layout;
    if (!c->head) {
        json_object_set_new(q, list, json_array());
        json_array_append_new(json_object_get(q, list), json_string("lm_head"));
    }
    for (size_t i = 0; i < c->m->n_weights; i++) {
        const qn_weight *w = c->m->weights[i];
        const qn_expected *e = w->scheme ? NULL : qn_layout_find(layout, w->name);
        if (!e || e->n_dims != 2 || !qn_str_ends(e->name, ".weight")) continue;
        if (e->role == QN_ROLE_SMALL || e->role == QN_ROLE_LINEAR || e->role == QN_ROLE_VISION)
            add_skip(q, list, w);
    }
}

static void add_other_widths(json_t *q, const content *c) {
    for (size_t i = 0; i < c->m->n_weights; i++) {
        const qn_weight *w = c->m->weights[i];
        if (!w->scheme) continue;
        bool group = w->n_groups > 1 && (int64_t)w->group != c->group;
        json_t *said = json_object();
        if (w->bits != c->bits) json_object_set_new(said, "bits", json_integer(w->bits));
        if (group) json_object_set_new(said, "group_size", json_integer((json_int_t)w->group));
        if (json_object_size(said)) add_pattern(q, "+:", w, json_incref(said));
        json_decref(said);
    }
}

// ---- all ----

// Those that a label can be made for out of nothing: what else belongs into it, the tensors show.
static bool can_be_made(const content *c, const char **why) {
    *why = NULL;
    if (is(c->family, "fp8") && !is(c->sample->layout, "fp8-block"))
        *why = "fp8 with a factor per row or matrix is written by several methods";
    if (is(c->family, "compressed-tensors") && !is(c->format, "pack-quantized"))
        *why = "whether activations are quantized too is not in the tensors";
    return !*why;
}

static bool same_method(const json_t *old, const content *c, const char **method) {
    qn_label l;
    bool same = false;
    if (old && qn_label_read(&l, old, "", NULL)) {
        same = is(l.method, c->family) || is(l.method, "auto-round");
        *method = is(l.method, "auto-round") ? "gptq" : c->family;
    }
    if (old) qn_label_done(&l);
    return same;
}

json_t *qn_label_mend(const json_t *old, const qn_source_model *m, const char **why) {
    content c = look(m);
    const char *method = c.family;
    *why = !c.n ? "nothing is quantized" : c.mixed ? "its tensors are of several methods" : NULL;
    if (*why) return NULL;
    bool keep = same_method(old, &c, &method);
    if (!keep && !can_be_made(&c, why)) return NULL;
    json_t *q = keep ? json_deep_copy(old) : json_pack("{s:s}", "quant_method", c.family);
    for (size_t i = 0; i < N_METHODS; i++) {
        if (!is(methods[i].family, c.family)) continue;
        const char *list = methods[i].skips;
        methods[i].say(q, &c);
        if (list) drop_untrue(q, &c, c.family, list);
        drop_untrue_patterns(q, &c);
        if (!list) add_other_widths(q, &c);
        if (list && !keep) add_by_role(q, &c, list);
        add_dense(q, &c, list);
    }
    return q;
}
