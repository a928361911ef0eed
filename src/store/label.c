// Owns reading quantization configs. Every tool spells them differently (bits, w_bit, wbits, …);
// all spellings end in one qn_label. How tensors are read does not depend on it, except where they
// leave a choice.
#include "store/label.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "store/module_pattern.h"

// One rule: which modules, and what is said about them.
struct qn_label_rule {
    qn_pattern *pattern; // or:
    const char *name;    // a module's name, or a part of it between dots
    bool everything;     // a class name such as "Linear": all that no other rule names
    bool overrides;      // what it leaves unsaid is as in `all`; else nothing else is said
    qn_label_entry said;
};

static const qn_label_entry nothing = {.sym = -1, .desc_act = -1};

#define FIRST_OF(object, ...)                                                                      \
    first_of(object, (const char *const[]){__VA_ARGS__},                                           \
             sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static const char *first_of(const json_t *o, const char *const *keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_object_get(o, keys[i]);
        if (v && !json_is_null(v)) return keys[i];
    }
    return keys[0];
}

// ---- one object's words ----

static bool read_block(qn_label_entry *e, const json_t *o, const char *key) {
    const json_t *b = json_object_get(o, key);
    if (!json_is_array(b) || json_array_size(b) != 2) return true;
    for (size_t i = 0; i < 2; i++) {
        json_int_t x = json_integer_value(json_array_get(b, i));
        if (x < 1 || x > 1 << 24) return false;
        e->block[i] = (size_t)x;
    }
    return true;
}

static bool read_entry(qn_label_entry *e, const json_t *o, const char *file, qn_err *err) {
    int64_t bits = e->bits, group = e->group;
    bool sym = false, zero_point = false, act = false;
    const char *sym_key = FIRST_OF(o, "sym", "symmetric");
    const char *group_key = FIRST_OF(o, "group_size", "q_group_size");
    const char *block = FIRST_OF(o, "weight_block_size", "block_structure");
    // 16 and 32 bits occur as a way to say "not quantized".
    if (!qn_json_int(o, FIRST_OF(o, "bits", "w_bit", "wbits", "num_bits"), 1, 64, &bits, file, err))
        return false;
    if (!qn_json_int(o, group_key, -1, 1 << 24, &group, file, err)) return false;
    if (!qn_json_bool(o, sym_key, &sym, file, err) ||
        !qn_json_bool(o, "zero_point", &zero_point, file, err) ||
        !qn_json_bool(o, "desc_act", &act, file, err))
        return false;
    if (!read_block(e, o, block))
        return qn_fail(err, QN_INPUT, "%s: %s is not a pair of sizes", file, block);
    e->bits = (int)bits;
    e->group = group;
    e->group_zero = json_is_integer(json_object_get(o, group_key)) && group == 0;
    if (json_is_boolean(json_object_get(o, "zero_point"))) e->sym = !zero_point;
    if (json_is_boolean(json_object_get(o, sym_key))) e->sym = sym;
    if (json_is_boolean(json_object_get(o, "desc_act"))) e->desc_act = act;
    return true;
}

// ---- rules for some modules ----

static qn_label_rule *add_rule(qn_label *l) {
    l->rules = qn_realloc(l->rules, (l->n_rules + 1) * sizeof *l->rules);
    qn_label_rule *r = &l->rules[l->n_rules++];
    *r = (qn_label_rule){.said = nothing};
    return r;
}

// A name, or "re:" and a pattern.
static bool set_target(qn_label_rule *r, const char *target, const char *file, qn_err *err) {
    if (qn_str_starts(target, "re:")) {
        r->pattern = qn_pattern_new(target + 3, file, err);
        return r->pattern;
    }
    r->everything = target[0] >= 'A' && target[0] <= 'Z'; // a class
    r->name = target;
    return true;
}

static bool read_skips(qn_label *l, const json_t *list, qn_err *err) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *target = json_string_value(json_array_get(list, i));
        if (!target) continue;
        qn_label_rule *r = add_rule(l);
        r->said.skip = target;
        if (!set_target(r, target, l->file, err)) return false;
    }
    return true;
}

// GPTQModel: pattern → overrides, in order; "-:" leaves modules out.
static bool read_dynamic(qn_label *l, const json_t *dynamic, qn_err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)dynamic, key, value) {
        qn_label_rule *r = add_rule(l);
        bool minus = qn_str_starts(key, "-:");
        r->overrides = true;
        if (minus || json_is_false(value)) r->said.skip = key;
        r->pattern = qn_pattern_new(key + (minus || qn_str_starts(key, "+:") ? 2 : 0), l->file,
                                    err);
        if (!r->pattern || !read_entry(&r->said, value, l->file, err)) return false;
    }
    return true;
}

// AutoRound: module → overrides.
static bool read_extra(qn_label *l, const json_t *extra, qn_err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)extra, key, value) {
        qn_label_rule *r = add_rule(l);
        r->overrides = true;
        r->name = key;
        if (!read_entry(&r->said, value, l->file, err)) return false;
        if (r->said.bits >= 16) r->said.skip = key;
    }
    return true;
}

static bool refuse_format(const char *file, const char *key, const char *found, const char *known,
                          qn_err *err) {
    return qn_fail(err, QN_UNSUPPORTED, "%s: %s is %.100s, which quern cannot read (known: %s)",
                   file, key, found, known);
}

#define CT_FORMATS "pack-quantized, int-quantized, float-quantized, naive-quantized, "             \
                   "mixed-precision, dense"

static bool known_word(const char *word, const char *list) {
    size_t n = strlen(word);
    for (const char *at = list; n && (at = strstr(at, word)); at += n) {
        bool from = at == list || at[-1] == ' ', to = at[n] == 0 || at[n] == ',';
        if (from && to) return true;
    }
    return false;
}

static bool read_ct_group(qn_label *l, const json_t *group, qn_err *err) {
    const json_t *weights = json_object_get(group, "weights");
    const json_t *targets = json_object_get(group, "targets");
    const char *format = json_string_value(json_object_get(group, "format"));
    qn_label_entry said = nothing;
    if (!read_entry(&said, weights, l->file, err)) return false;
    const char *strategy = json_string_value(json_object_get(weights, "strategy"));
    if (strategy && (strcmp(strategy, "channel") == 0 || strcmp(strategy, "tensor") == 0))
        said.group = -1;
    if (l->all.bits == 0) l->all = said;
    for (size_t i = 0; i < json_array_size(targets); i++) {
        const char *target = json_string_value(json_array_get(targets, i));
        if (!target) continue;
        qn_label_rule *r = add_rule(l);
        r->said = said;
        if (!set_target(r, target, l->file, err)) return false;
    }
    return !format || known_word(format, CT_FORMATS) ||
           refuse_format(l->file, "format", format, CT_FORMATS, err);
}

static bool read_ct(qn_label *l, qn_err *err) {
    const char *key;
    json_t *group;
    if (!read_skips(l, json_object_get(l->json, "ignore"), err)) return false;
    json_object_foreach(json_object_get(l->json, "config_groups"), key, group)
        if (!read_ct_group(l, group, err)) return false;
    return !l->format || known_word(l->format, CT_FORMATS) ||
           refuse_format(l->file, "format", l->format, CT_FORMATS, err);
}

// ---- the methods ----

static bool is_awq_format(const char *format) {
    return strcasecmp(format, "gemm") == 0 || strcasecmp(format, "gemv") == 0;
}

// GPTQ and AWQ use the same names in other shapes, which tell them apart. So a format of the one
// under the name of the other can be read, and is a wrong label; a layout of neither cannot.
static bool read_gptq(qn_label *l, qn_err *err) {
    bool marlin = json_is_true(json_object_get(l->json, "is_marlin_format"));
    if (!read_dynamic(l, json_object_get(l->json, "dynamic"), err)) return false;
    if (marlin) return refuse_format(l->file, "checkpoint_format", "marlin", "gptq, gptq_v2", err);
    return !l->format || known_word(l->format, "gptq, gptq_v2") || is_awq_format(l->format) ||
           refuse_format(l->file, "checkpoint_format", l->format, "gptq, gptq_v2", err);
}

static bool read_awq(qn_label *l, qn_err *err) {
    if (!read_dynamic(l, json_object_get(l->json, "dynamic"), err) ||
        !read_skips(l, json_object_get(l->json, "modules_to_not_convert"), err))
        return false;
    return !l->format || is_awq_format(l->format) || known_word(l->format, "gptq, gptq_v2") ||
           refuse_format(l->file, "AWQ version", l->format, "gemm, gemv", err);
}

static bool read_fp8(qn_label *l, qn_err *err) {
    const char *fmt = json_string_value(json_object_get(l->json, "fmt"));
    l->all.bits = 8;
    if (!read_skips(l, json_object_get(l->json, "modules_to_not_convert"), err)) return false;
    return !fmt || strcasecmp(fmt, "e4m3") == 0 || refuse_format(l->file, "fmt", fmt, "e4m3", err);
}

static bool read_auto_round(qn_label *l, qn_err *err) {
    l->format = json_string_value(json_object_get(l->json, "packing_format"));
    const char *type = json_string_value(json_object_get(l->json, "data_type"));
    if (!read_extra(l, json_object_get(l->json, "extra_config"), err)) return false;
    if (type && strncmp(type, "int", 3) != 0)
        return refuse_format(l->file, "data_type", type, "int", err);
    return true;
}

static const struct {
    const char *name;
    bool (*read)(qn_label *l, qn_err *err);
    const char *formats[3]; // keys of the format, best first
} methods[] = {
    {"gptq", read_gptq, {"checkpoint_format", "format", "version"}},
    {"awq", read_awq, {"version", "format", "checkpoint_format"}},
    {"fp8", read_fp8, {"fmt", "fmt", "fmt"}},
    {"compressed-tensors", read_ct, {"format", "format", "format"}},
    {"auto-round", read_auto_round, {"packing_format", "packing_format", "packing_format"}},
};
#define N_METHODS (sizeof methods / sizeof *methods)

// A config without a method (old AutoGPTQ and AutoAWQ files) is known by its other words.
static const char *guess_method(const json_t *o) {
    if (json_object_get(o, "config_groups")) return "compressed-tensors";
    if (json_object_get(o, "w_bit") || json_object_get(o, "q_group_size")) return "awq";
    if (json_object_get(o, "bits") || json_object_get(o, "wbits")) return "gptq";
    return NULL;
}

static bool refuse_method(const char *file, const char *found, qn_err *err) {
    return qn_fail(err, QN_UNSUPPORTED, "%s: quantization method %.100s is not one quern can read "
                   "(known: gptq, awq, fp8, compressed-tensors, auto-round)", file, found);
}

static bool read_label(qn_label *l, qn_err *err) {
    const char *key = FIRST_OF(l->json, "quant_method", "method"), *method = NULL;
    if (!qn_json_str(l->json, key, &method, l->file, err)) return false;
    if (!method) method = guess_method(l->json);
    if (!method) return refuse_method(l->file, "(none named)", err);
    if (strcmp(method, "autoround") == 0 || strcmp(method, "intel/auto-round") == 0)
        method = "auto-round";
    for (size_t i = 0; i < N_METHODS; i++) {
        if (strcasecmp(methods[i].name, method) != 0) continue;
        l->method = methods[i].name;
        const char *format = first_of(l->json, methods[i].formats, 3);
        if (!qn_json_str(l->json, format, &l->format, l->file, err) ||
            !read_entry(&l->all, l->json, l->file, err))
            return false;
        return methods[i].read(l, err);
    }
    return refuse_method(l->file, method, err);
}

bool qn_label_read(qn_label *l, const json_t *config, const char *file, qn_err *err) {
    *l = (qn_label){.file = file, .json = json_incref((json_t *)(uintptr_t)config), .all = nothing};
    return read_label(l, err);
}

bool qn_label_parse(qn_label *l, const char *text, size_t n, const char *file, qn_err *err) {
    *l = (qn_label){.all = nothing};
    json_t *j = qn_json_parse(text, n, file, err);
    if (!j) return false;
    bool ok = json_is_object(j) ? qn_label_read(l, j, file, err)
                                : qn_fail(err, QN_INPUT, "%s: not a JSON object", file);
    json_decref(j);
    return ok;
}

void qn_label_done(qn_label *l) {
    for (size_t i = 0; i < l->n_rules; i++) qn_pattern_free(l->rules[i].pattern);
    free(l->rules);
    json_decref(l->json);
    *l = (qn_label){0};
}

// ---- asking ----

// name is module, or stands in it between dots.
static bool names(const char *name, const char *module) {
    size_t n = strlen(name);
    if (!n) return false;
    for (const char *at = module; (at = strstr(at, name)); at++) {
        bool from = at == module || at[-1] == '.', to = at[n] == 0 || at[n] == '.';
        if (from && to) return true;
    }
    return false;
}

// A rule whose reading failed has neither pattern nor name and applies to nothing.
static bool applies(const qn_label_rule *r, const char *module) {
    if (!r->pattern && !r->name) return false;
    return r->pattern ? qn_pattern_matches(r->pattern, module) : names(r->name, module);
}

static qn_label_entry over(qn_label_entry all, const qn_label_entry *said) {
    if (said->bits) all.bits = said->bits;
    if (said->group || said->group_zero) {
        all.group = said->group;
        all.group_zero = said->group_zero;
    }
    if (said->sym >= 0) all.sym = said->sym;
    if (said->desc_act >= 0) all.desc_act = said->desc_act;
    all.skip = said->skip;
    return all;
}

qn_label_entry qn_label_for(const qn_label *l, const char *module) {
    const qn_label_rule *fallback = NULL;
    if (!l->method) return nothing;
    for (size_t i = 0; i < l->n_rules; i++) {
        const qn_label_rule *r = &l->rules[i];
        if (r->everything) {
            if (!fallback) fallback = r;
        } else if (applies(r, module)) {
            if (r->overrides) return over(l->all, &r->said);
            qn_label_entry e = r->said.skip ? l->all : r->said;
            e.skip = r->said.skip;
            return e;
        }
    }
    return fallback ? fallback->said : l->all;
}

// Lists of what to quantize are known to be incomplete in checkpoints that load well: no answer.
bool qn_label_wants(const qn_label *l, const char *module) {
    bool ct = l->method && strcmp(l->method, "compressed-tensors") == 0;
    if (!l->method || json_object_get(l->json, "modules_in_block_to_quantize")) return false;
    if (strcmp(l->method, "auto-round") == 0 || qn_label_for(l, module).skip) return false;
    for (size_t i = 0; i < l->n_rules && ct; i++)
        if (!l->rules[i].said.skip && (l->rules[i].everything || applies(&l->rules[i], module)))
            return true;
    return !ct;
}
