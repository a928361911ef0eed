// Where added tokens are declared: tokenizer.json's list, tokenizer_config.json's
// added_tokens_decoder, and added_tokens.json (an object of ids, or a list). What comes first wins;
// the others mostly repeat it.
#include <stdlib.h>

#include "base/err.h"
#include "text/tokenizer.h"

enum { FROM_TOKENIZER = 1, FROM_CONFIG, FROM_ADDED };

bool qn_span_json(qn_span span, const char *what, json_t **out, qn_err *err) {
    *out = NULL;
    if (!span.text || (span.n == 4 && memcmp(span.text, "null", 4) == 0)) return true;
    *out = qn_json_parse(span.text, span.n, what, err);
    return *out != NULL;
}

static bool read_flags(const json_t *o, qn_added_token *t, const char *what, qn_err *err) {
    bool single_word = false;
    if (!qn_json_bool(o, "special", &t->special, what, err)) return false;
    t->normalized = !t->special;
    if (!qn_json_bool(o, "normalized", &t->normalized, what, err) ||
        !qn_json_bool(o, "lstrip", &t->lstrip, what, err) ||
        !qn_json_bool(o, "rstrip", &t->rstrip, what, err) ||
        !qn_json_bool(o, "single_word", &single_word, what, err))
        return false;
    if (!single_word) return true;
    return qn_fail(err, QN_UNSUPPORTED, "%s: added token %d has single_word true, expected false",
                   what, t->id);
}

static bool check_id(int64_t id, const char *content, const char *what, qn_err *err) {
    if (id >= 0 && id <= QN_VOCAB_MAX_ID) return true;
    return qn_fail(err, QN_INPUT, "%s: added token %.80s has id %lld, expected 0 to %d", what,
                   content, (long long)id, QN_VOCAB_MAX_ID);
}

static bool add_object(qn_added *a, const json_t *o, int64_t id, int source, const char *what,
                       qn_err *err) {
    const json_t *content = json_object_get(o, "content");
    if (!json_is_string(content))
        return qn_fail(err, QN_INPUT, "%s: added token %lld has no content, expected a string",
                       what, (long long)id);
    const char *text = json_string_value(content);
    if (!check_id(id, text, what, err)) return false;
    qn_added_token flags = {.id = (int32_t)id, .source = source};
    return read_flags(o, &flags, what, err) &&
           qn_added_add(a, text, json_string_length(content), &flags, what, err);
}

static bool add_list(qn_added *a, const json_t *list, int source, const char *what, qn_err *err) {
    if (!json_is_array(list))
        return qn_fail(err, QN_INPUT, "%s: added tokens are not a list", what);
    size_t i;
    const json_t *o;
    json_array_foreach(list, i, o) {
        int64_t id = -1;
        if (!qn_json_int(o, "id", INT64_MIN, INT64_MAX, &id, what, err) ||
            !add_object(a, o, id, source, what, err))
            return false;
    }
    return true;
}

// {"151643": {"content": …}, …}
static bool add_decoder(qn_added *a, json_t *config, const char *what, qn_err *err) {
    json_t *decoder = json_object_get(config, "added_tokens_decoder");
    if (!decoder || json_is_null(decoder)) return true;
    if (!json_is_object(decoder))
        return qn_fail(err, QN_INPUT, "%s: added_tokens_decoder is not an object", what);
    const char *key;
    json_t *o;
    json_object_foreach(decoder, key, o) {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (*end || end == key || !json_is_object(o))
            return qn_fail(err, QN_INPUT, "%s: added_tokens_decoder has \"%.80s\", expected an id "
                           "and an object", what, key);
        if (!add_object(a, o, id, FROM_CONFIG, what, err)) return false;
    }
    return true;
}

static bool is_named(const json_t *value, const char *content) {
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_is_string(value) && strcmp(json_string_value(value), content) == 0;
}

// added_tokens.json's object form has no flags: special is what tokenizer_config.json gives a role.
static bool has_role(const json_t *config, const char *content) {
    static const char *const roles[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (is_named(json_object_get(config, roles[i]), content)) return true;
    size_t i;
    const json_t *x;
    json_array_foreach(json_object_get(config, "additional_special_tokens"), i, x) {
        if (is_named(x, content)) return true;
    }
    return false;
}

static bool add_ids(qn_added *a, json_t *ids, const json_t *config, const char *what, qn_err *err) {
    const char *content;
    size_t n;
    json_t *id;
    if (json_object_size(ids) > 65536) // roles are looked up one by one
        return qn_fail(err, QN_LIMIT, "%s: more than 65536 tokens", what);
    json_object_keylen_foreach(ids, content, n, id) {
        if (!json_is_integer(id))
            return qn_fail(err, QN_INPUT, "%s: token %.80s has no integer id", what, content);
        if (!check_id(json_integer_value(id), content, what, err)) return false;
        bool special = has_role(config, content);
        qn_added_token flags = {.id = (int32_t)json_integer_value(id), .special = special,
                                .normalized = !special, .source = FROM_ADDED};
        if (!qn_added_add(a, content, n, &flags, what, err)) return false;
    }
    return true;
}

static bool add_all(qn_added *a, const json_t *list, json_t *config, json_t *ids, qn_err *err) {
    const char *what = "added_tokens.json";
    if (list && !add_list(a, list, FROM_TOKENIZER, "tokenizer.json", err)) return false;
    if (config && !add_decoder(a, config, "tokenizer_config.json", err)) return false;
    if (!ids) return true;
    return json_is_object(ids) ? add_ids(a, ids, config, what, err)
                               : add_list(a, ids, FROM_ADDED, what, err);
}

bool qn_added_read(const qn_tokenizer_files *files, qn_span list, qn_added *a, qn_err *err) {
    json_t *from_list = NULL, *config = NULL, *ids = NULL;
    bool ok = qn_span_json(list, "tokenizer.json: added_tokens", &from_list, err) &&
              qn_span_json(files->tokenizer_config, "tokenizer_config.json", &config, err) &&
              qn_span_json(files->added_tokens, "added_tokens.json", &ids, err) &&
              add_all(a, from_list, config, ids, err);
    json_decref(from_list);
    json_decref(config);
    json_decref(ids);
    return ok;
}
