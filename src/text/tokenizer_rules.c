// Which pattern and normalization a tokenizer runs: the family's by model_type, as the original
// takes them from the tokenizer class, whatever a re-saved tokenizer.json says; for families not
// known here, what tokenizer.json says, as far as byte-level BPE goes.
#include "base/err.h"
#include "text/tokenizer.h"

// ---- the family ----

static const char *const qwen2_types[] = {
    "qwen2",    "qwen2_moe", "qwen2_vl",   "qwen2_5_vl", "qwen2_audio",   "qwen2_5_omni",
    "qwen3",    "qwen3_moe", "qwen3_next", "qwen3_vl",   "qwen3_vl_moe",  "qwen3_omni_moe",
    "qwen3_vl_text", "qwen3_vl_moe_text", "qwen2_vl_text", "qwen2_5_vl_text",
};

static const char *pattern_of(const char *type) {
    if (qn_str_starts(type, "qwen3_5")) return QN_PATTERN_QWEN35; // qwen3_5, qwen3_5_moe, …_text
    for (size_t i = 0; i < sizeof qwen2_types / sizeof *qwen2_types; i++)
        if (strcmp(type, qwen2_types[i]) == 0) return QN_PATTERN_QWEN2;
    return NULL;
}

bool qn_family_pattern(qn_span config, const char **pattern, char **type, qn_err *err) {
    const char *outer = NULL, *inner = NULL, *what = "config.json";
    json_t *j;
    *pattern = NULL;
    *type = NULL;
    if (!qn_span_json(config, what, &j, err)) return false;
    const json_t *text = json_object_get(j, "text_config");
    bool ok = qn_json_str(j, "model_type", &outer, what, err) &&
              qn_json_str(text, "model_type", &inner, what, err);
    if (ok) {
        *pattern = outer ? pattern_of(outer) : NULL;
        if (!*pattern && inner) *pattern = pattern_of(inner);
        *type = qn_strdup(outer ? outer : inner ? inner : "");
    }
    json_decref(j);
    return ok;
}

// ---- tokenizer.json's own ----

static const char *type_of(const json_t *o) {
    const char *type = json_string_value(json_object_get(o, "type"));
    return type ? type : "(none)";
}

typedef struct own {
    const char *split; // the pattern of the Split, or NULL
    bool bytes;        // a ByteLevel is there
    bool bytes_cut;    // and cuts by GPT-2's pattern
} own;

static bool read_split(const json_t *o, own *w, const char *what, qn_err *err) {
    const char *behavior = json_string_value(json_object_get(o, "behavior"));
    const char *regex = json_string_value(json_object_get(json_object_get(o, "pattern"), "Regex"));
    if (!regex)
        return qn_fail(err, QN_UNSUPPORTED, "%s: Split without a Regex pattern", what);
    bool inverted = json_is_true(json_object_get(o, "invert"));
    if (!behavior || strcmp(behavior, "Isolated") != 0 || inverted)
        return qn_fail(err, QN_UNSUPPORTED, "%s: Split is %s%s, expected Isolated", what,
                       behavior ? behavior : "(none)", inverted ? " inverted" : "");
    if (w->split || w->bytes)
        return qn_fail(err, QN_UNSUPPORTED, "%s: more than one Split, or one behind ByteLevel",
                       what);
    w->split = regex;
    return true;
}

static bool read_step(const json_t *o, own *w, const char *what, qn_err *err) {
    const char *type = type_of(o);
    if (strcmp(type, "Split") == 0) return read_split(o, w, what, err);
    if (strcmp(type, "ByteLevel") != 0)
        return qn_fail(err, QN_UNSUPPORTED, "%s: %s, expected Split and ByteLevel", what, type);
    if (json_is_true(json_object_get(o, "add_prefix_space")))
        return qn_fail(err, QN_UNSUPPORTED, "%s: add_prefix_space is true, expected false", what);
    w->bytes = true;
    w->bytes_cut = !json_is_false(json_object_get(o, "use_regex"));
    return true;
}

static bool read_steps(const json_t *o, own *w, const char *what, qn_err *err) {
    if (strcmp(type_of(o), "Sequence") != 0) return read_step(o, w, what, err);
    size_t i;
    const json_t *step;
    json_array_foreach(json_object_get(o, "pretokenizers"), i, step) {
        if (!read_step(step, w, what, err)) return false;
    }
    return true;
}

char *qn_own_pattern(qn_span pre_tokenizer, qn_err *err) {
    const char *what = "tokenizer.json: pre_tokenizer";
    json_t *j;
    own w = {0};
    char *pattern = NULL;
    if (!qn_span_json(pre_tokenizer, what, &j, err)) return NULL;
    if (!j) return qn_fail_null(err, QN_UNSUPPORTED, "%s: null, expected ByteLevel", what);
    if (!read_steps(j, &w, what, err)) {
        json_decref(j);
        return NULL;
    }
    if (!w.bytes)
        qn_fail(err, QN_UNSUPPORTED, "%s: no ByteLevel, expected byte-level BPE", what);
    else if (w.split && w.bytes_cut)
        qn_fail(err, QN_UNSUPPORTED, "%s: ByteLevel cuts what Split has cut (use_regex)", what);
    else if (w.split)
        pattern = qn_strdup(w.split);
    else
        pattern = qn_strdup(w.bytes_cut ? QN_PATTERN_GPT2 : "[\\s\\S]+");
    json_decref(j);
    return pattern;
}

static bool all_nfc(const json_t *o, qn_err *err) {
    const char *type = type_of(o);
    if (strcmp(type, "NFC") == 0) return true;
    if (strcmp(type, "Sequence") != 0)
        return qn_fail(err, QN_UNSUPPORTED,
                       "tokenizer.json: normalizer is %s, expected NFC or null", type);
    size_t i;
    const json_t *step;
    json_array_foreach(json_object_get(o, "normalizers"), i, step) {
        if (strcmp(type_of(step), "NFC") != 0)
            return qn_fail(err, QN_UNSUPPORTED,
                           "tokenizer.json: normalizer has %s, expected NFC alone", type_of(step));
    }
    return true;
}

bool qn_own_nfc(qn_span normalizer, bool *nfc, qn_err *err) {
    json_t *j;
    *nfc = false;
    if (!qn_span_json(normalizer, "tokenizer.json: normalizer", &j, err)) return false;
    if (!j) return true;
    bool ok = all_nfc(j, err);
    *nfc = strcmp(type_of(j), "NFC") == 0 ||
           json_array_size(json_object_get(j, "normalizers")) > 0;
    json_decref(j);
    return ok;
}

bool qn_own_decoder_fits(qn_span decoder, qn_err *err) {
    json_t *j;
    if (!qn_span_json(decoder, "tokenizer.json: decoder", &j, err)) return false;
    bool fits = strcmp(type_of(j), "ByteLevel") == 0;
    size_t i;
    const json_t *step, *steps = json_object_get(j, "decoders");
    json_array_foreach(steps, i, step) fits = json_array_size(steps) == 1 &&
                                              strcmp(type_of(step), "ByteLevel") == 0;
    if (!fits)
        qn_fail(err, QN_UNSUPPORTED, "tokenizer.json: decoder is %s, expected ByteLevel",
                j ? type_of(j) : "null");
    json_decref(j);
    return fits;
}

bool qn_own_adds_ends(qn_span post_processor) {
    json_t *j;
    qn_err ignored = {0};
    bool read = qn_span_json(post_processor, "tokenizer.json: post_processor", &j, &ignored);
    bool adds = !read || (j && strcmp(type_of(j), "ByteLevel") != 0);
    json_decref(j);
    return adds;
}
