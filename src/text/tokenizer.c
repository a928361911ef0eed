// A tokenizer from its files, and its tokens by name. Encoding and decoding have their own files.
#include "text/tokenizer.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#define FILE_MAX ((size_t)512 << 20)

// ---- rules ----

static bool follow_tokenizer_json(qn_tokenizer *t, const qn_tokenizer_parts *parts,
                                  const char *name, char **pattern, qn_err *err) {
    *pattern = qn_own_pattern(parts->pre_tokenizer, err);
    if (!*pattern || !qn_own_nfc(parts->normalizer, &t->nfc, err) ||
        !qn_own_decoder_fits(parts->decoder, err))
        return false;
    if (qn_own_adds_ends(parts->post_processor))
        qn_note("%s: tokenizer.json would add tokens at a text's ends (post_processor); quern adds "
                "none", name);
    return true;
}

// For a known family, tokenizer.json's rules count only as far as they are worth a note.
static void note_differences(const qn_tokenizer_parts *parts, const char *pattern,
                             const char *type, const char *name) {
    qn_err ignored = {0};
    char *own = qn_own_pattern(parts->pre_tokenizer, &ignored);
    bool nfc = false;
    if (!own || strcmp(own, pattern) != 0)
        qn_note("%s: tokenizer.json has another pre-tokenizer than model_type %s; the family's is "
                "used", name, type);
    if (!qn_own_nfc(parts->normalizer, &nfc, &ignored) || !nfc)
        qn_note("%s: tokenizer.json has another normalizer than model_type %s; the family's NFC is "
                "used", name, type);
    free(own);
}

static bool choose_rules(qn_tokenizer *t, const qn_tokenizer_files *files,
                         const qn_tokenizer_parts *parts, const char *name, qn_err *err) {
    const char *family;
    char *type, *own = NULL;
    if (!qn_family_pattern(files->config, &family, &type, err)) return false;
    bool ok = true, has_own = files->tokenizer_json.text != NULL;
    t->nfc = true;
    if (family && has_own) note_differences(parts, family, type, name);
    if (!family && has_own) ok = follow_tokenizer_json(t, parts, name, &own, err);
    const char *pattern = family ? family : own ? own : QN_PATTERN_QWEN2;
    if (ok) {
        t->pretok = qn_pretok_new(pattern, false, "tokenizer.json: pre_tokenizer", err);
        ok = t->pretok != NULL;
    }
    free(own);
    free(type);
    return ok;
}

// ---- building ----

static bool read_model(qn_tokenizer *t, const qn_tokenizer_files *files, qn_tokenizer_parts *parts,
                       qn_err *err) {
    *parts = (qn_tokenizer_parts){0};
    if (files->tokenizer_json.text)
        return qn_tokenizer_json_read(files->tokenizer_json, &t->bpe, parts, err);
    if (!files->vocab_json.text || !files->merges_txt.text)
        return qn_fail(err, QN_NOT_FOUND, "no tokenizer here: neither tokenizer.json nor both of "
                       "vocab.json and merges.txt");
    return qn_vocab_json_read(files->vocab_json, &t->bpe, err) &&
           qn_merges_txt_read(files->merges_txt, &t->bpe, err);
}

static bool check_model(const qn_tokenizer *t, const char *name, qn_err *err) {
    int missing = 0, first = 0;
    for (int b = 255; b >= 0; b--)
        if (t->bpe.vocab.byte_id[b] < 0) missing++, first = b;
    if (missing == 256)
        return qn_fail(err, QN_UNSUPPORTED, "the vocabulary has %zu tokens and none for a single "
                       "byte, expected byte-level BPE", t->bpe.vocab.n);
    if (missing)
        qn_note("%s: the vocabulary has no token for %d of the 256 bytes (0x%02x is the first); "
                "encoding leaves them out", name, missing, (unsigned)first);
    return true;
}

static const char *spelling(const qn_vocab *v, int32_t id) {
    if (id < 0 || (size_t)id >= v->n || !v->tokens[id].present) return NULL;
    return v->spellings.data + v->tokens[id].spelling;
}

// An added token may repeat an entry of the vocabulary, but not contradict it.
static bool check_added(const qn_tokenizer *t, qn_err *err) {
    const qn_vocab *v = &t->bpe.vocab;
    for (size_t i = 0; i < t->added.n; i++) {
        const qn_added_token *a = &t->added.tokens[i];
        const char *there = spelling(v, a->id);
        if (there && strcmp(there, a->content) != 0)
            return qn_fail(err, QN_INPUT, "added token %.80s has id %d, which is %.80s in the "
                           "vocabulary", a->content, a->id, there);
        int32_t id = qn_vocab_find(v, a->content, strlen(a->content));
        if (id >= 0 && id != a->id)
            return qn_fail(err, QN_INPUT, "added token %.80s has id %d, but %d in the vocabulary",
                           a->content, a->id, id);
    }
    return true;
}

qn_tokenizer *qn_tokenizer_parse(const qn_tokenizer_files *files, const char *name, qn_err *err) {
    qn_tokenizer *t = QN_NEW(qn_tokenizer);
    qn_tokenizer_parts parts;
    qn_bpe_init(&t->bpe);
    if (!read_model(t, files, &parts, err) || !check_model(t, name, err) ||
        !choose_rules(t, files, &parts, name, err) ||
        !qn_added_read(files, parts.added_tokens, &t->added, err) ||
        !qn_added_ready(&t->added, t->nfc, "added tokens", err) || !check_added(t, err)) {
        qn_tokenizer_free(t);
        return NULL;
    }
    qn_bpe_ready(&t->bpe);
    t->size = (int32_t)t->bpe.vocab.n;
    if (t->added.n && t->added.tokens[t->added.n - 1].id >= t->size)
        t->size = t->added.tokens[t->added.n - 1].id + 1;
    return t;
}

void qn_tokenizer_free(qn_tokenizer *t) {
    if (!t) return;
    qn_bpe_done(&t->bpe);
    qn_added_done(&t->added);
    qn_pretok_free(t->pretok);
    free(t);
}

// ---- files ----

enum { N_FILES = 6 };
static const char *const file_names[N_FILES] = {"tokenizer.json",        "vocab.json", "merges.txt",
                                                "tokenizer_config.json", "added_tokens.json",
                                                "config.json"};

static bool open_file(const char *folder, const char *file, qn_map *map, qn_span *span,
                      qn_err *err) {
    char *path = qn_path_join(folder, file);
    bool ok = !qn_file_exists(path) || qn_map_open(map, path, err);
    if (ok && map->n > FILE_MAX)
        ok = qn_fail(err, QN_LIMIT, "%s has %zu bytes, at most %zu", path, map->n, FILE_MAX);
    if (ok && qn_file_exists(path))
        *span = (qn_span){map->data ? (const char *)map->data : "", map->n};
    free(path);
    return ok;
}

static bool open_files(const char *folder, qn_map *maps, qn_tokenizer_files *f, qn_err *err) {
    qn_span *spans[N_FILES] = {&f->tokenizer_json,   &f->vocab_json,   &f->merges_txt,
                               &f->tokenizer_config, &f->added_tokens, &f->config};
    for (int i = 0; i < N_FILES; i++) {
        bool older_form = i == 1 || i == 2; // not looked at beside a tokenizer.json
        if (older_form && f->tokenizer_json.text) continue;
        if (!open_file(folder, file_names[i], &maps[i], spans[i], err)) return false;
    }
    return true;
}

qn_tokenizer *qn_tokenizer_load(const char *path, qn_err *err) {
    if (!qn_file_is_dir(path))
        return qn_fail_null(err, QN_NOT_FOUND, "%s is not a folder", path);
    qn_map maps[N_FILES] = {0};
    qn_tokenizer_files files = {0};
    qn_tokenizer *t = NULL;
    if (open_files(path, maps, &files, err)) {
        t = qn_tokenizer_parse(&files, path, err);
        if (!t) qn_err_prefix(err, "%s", path);
    }
    for (int i = 0; i < N_FILES; i++) qn_map_close(&maps[i]);
    return t;
}

// ---- tokens ----

int32_t qn_tokenizer_size(const qn_tokenizer *t) { return t->size; }

const char *qn_token_spelling(const qn_tokenizer *t, int32_t id) {
    const qn_added_token *a = qn_added_by_id(&t->added, id);
    return a ? a->content : spelling(&t->bpe.vocab, id);
}

int32_t qn_token_id(const qn_tokenizer *t, const char *s) {
    size_t n = strlen(s);
    const qn_added_token *a = qn_added_by_content(&t->added, s, n);
    return a ? a->id : qn_vocab_find(&t->bpe.vocab, s, n);
}
