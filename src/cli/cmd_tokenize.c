// `quern tokenize`: text to ids and back, one text or a stream of lines.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/prompt.h"

typedef struct job {
    const qn_args *a;
    const qn_tokenizer *t;
    bool decode;
    unsigned flags;
} job;

static json_t *ids_json(const int32_t *ids, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static void print_json(json_t *document) {
    qn_out_json(document);
    json_decref(document);
}

// ---- one text ----

static void print_id(const char *before, int32_t id) {
    char text[16];
    int n = snprintf(text, sizeof text, "%s%d", before, id);
    qn_out_add(text, (size_t)n);
}

static void show_ids(const job *j, const int32_t *ids, size_t n) {
    if (!qn_args_has(j->a, "json")) {
        for (size_t i = 0; i < n; i++) print_id(i ? " " : "", ids[i]);
        qn_out_add("\n", 1);
        return;
    }
    json_t *tokens = json_array();
    for (size_t i = 0; i < n; i++) {
        const char *s = qn_token_spelling(j->t, ids[i]);
        json_array_append_new(tokens, s ? json_string(s) : json_null());
    }
    print_json(json_pack("{soso}", "ids", ids_json(ids, n), "tokens", tokens));
}

static bool encode_one(const job *j, const char *text, size_t n, qn_err *err) {
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (!qn_encode(j->t, text, n, j->flags, &ids, &n_ids, err)) return false;
    show_ids(j, ids, n_ids);
    qn_free(ids);
    return true;
}

static bool decode_one(const job *j, const char *typed, qn_err *err) {
    int32_t *ids = NULL;
    size_t n_ids = 0, n = 0;
    char *text = NULL;
    bool ok = qn_ids_parse(typed, "IDS", &ids, &n_ids, err) &&
              qn_decode(j->t, ids, n_ids, j->flags, &text, &n, err);
    if (ok && qn_args_has(j->a, "json")) {
        print_json(json_pack("{so}", "text", json_stringn(text, n)));
    } else if (ok) {
        qn_out_shown(text, n);
        qn_out_end_line();
    }
    free(ids);
    qn_free(text);
    return ok;
}

// The text: -f FILE, "-" for stdin, or the words behind MODEL (several only when they are ids).
static bool read_input(const job *j, qn_buf *text, qn_err *err) {
    const char *file = qn_args_text(j->a, "file", NULL), *word = qn_args_at(j->a, 1);
    size_t n = qn_args_count(j->a);
    if (file && word)
        return qn_fail(err, QN_USAGE, "both a text and --file are given, expected one of them");
    if (file) return qn_file_read(file, QN_MAX_TEXT, text, err);
    if (!word)
        return qn_fail(err, QN_USAGE, "no %s given, expected it behind MODEL, or -f FILE, or - for "
                       "stdin", j->decode ? "ids are" : "text is");
    if (n > 2 && !j->decode)
        return qn_fail(err, QN_USAGE, "unexpected argument \"%s\": a text with blanks is quoted",
                       qn_args_at(j->a, 2));
    if (n == 2 && strcmp(word, "-") == 0) return qn_file_read("-", QN_MAX_TEXT, text, err);
    for (size_t i = 1; i < n; i++) qn_buf_addf(text, "%s%s", i > 1 ? " " : "", qn_args_at(j->a, i));
    return true;
}

static bool tokenize_one(const job *j, qn_err *err) {
    qn_buf text = {0};
    bool ok = read_input(j, &text, err);
    const char *data = text.data ? text.data : "";
    if (ok) ok = j->decode ? decode_one(j, data, err) : encode_one(j, data, text.n, err);
    qn_buf_done(&text);
    return ok;
}

// ---- lines of JSON ----

static void print_line(json_t *document) {
    char *text = json_dumps(document, JSON_COMPACT | JSON_ENSURE_ASCII);
    if (text) qn_out_addf("%s\n", text);
    free(text);
    json_decref(document);
}

static bool encode_line(const job *j, const json_t *line, qn_err *err) {
    const json_t *s = json_object_get(line, "text");
    if (!json_is_string(s)) return qn_fail(err, QN_INPUT, "expected {\"text\": a string}");
    int32_t *ids = NULL;
    size_t n = 0;
    if (!qn_encode(j->t, json_string_value(s), json_string_length(s), j->flags, &ids, &n, err))
        return false;
    qn_out_add("{\"ids\":[", 8);
    for (size_t i = 0; i < n; i++) print_id(i ? "," : "", ids[i]);
    qn_out_add("]}\n", 3);
    qn_free(ids);
    return true;
}

static bool decode_line(const job *j, const json_t *line, qn_err *err) {
    const json_t *list = json_object_get(line, "ids");
    if (!json_is_array(list))
        return qn_fail(err, QN_INPUT, "expected {\"ids\": a list of integers}");
    size_t n = json_array_size(list), i, n_text = 0;
    int32_t *ids = calloc(n + 1, sizeof *ids);
    if (!ids) return qn_fail(err, QN_NOMEM, "no memory for %zu ids", n);
    char *text = NULL;
    bool ok = true;
    json_t *x;
    json_array_foreach(list, i, x) {
        json_int_t id = json_is_integer(x) ? json_integer_value(x) : INT64_MAX;
        ok = ok && id >= INT32_MIN && id <= INT32_MAX;
        ids[i] = ok ? (int32_t)id : 0;
    }
    if (!ok) qn_fail(err, QN_INPUT, "ids holds something that is no token id");
    ok = ok && qn_decode(j->t, ids, n, j->flags, &text, &n_text, err);
    if (ok) print_line(json_pack("{so}", "text", json_stringn(text, n_text)));
    free(ids);
    qn_free(text);
    return ok;
}

static bool tokenize_lines(const job *j, qn_err *err) {
    if (qn_args_count(j->a) > 1 || qn_args_has(j->a, "file"))
        return qn_fail(err, QN_USAGE, "--jsonl reads stdin, expected no text and no --file");
    qn_lines lines = {0};
    const char *text;
    size_t n;
    bool ok = true;
    while (ok && (ok = qn_lines_next(&lines, &text, &n, err)) && text) {
        if (strspn(text, " \t\r") == n) continue;
        char what[48];
        snprintf(what, sizeof what, "stdin line %zu", lines.number);
        json_t *line = qn_json_parse(text, n, what, err);
        ok = line && (j->decode ? decode_line(j, line, err) : encode_line(j, line, err));
        if (line && !ok) qn_err_prefix(err, "%s", what);
        json_decref(line);
    }
    qn_lines_done(&lines);
    return ok;
}

static int run(const qn_args *a, qn_err *err) {
    job j = {.a = a, .decode = qn_args_has(a, "decode")};
    if (qn_args_has(a, "plain")) j.flags |= QN_TEXT_PLAIN;
    if (qn_args_has(a, "skip-special")) j.flags |= QN_TEXT_SKIP_SPECIAL;
    if (qn_args_has(a, "plain") && j.decode)
        return qn_fail(err, QN_USAGE, "--plain is for encoding, not for --decode") - 1;
    if (qn_args_has(a, "skip-special") && !j.decode)
        return qn_fail(err, QN_USAGE, "--skip-special needs --decode") - 1;
    char *path = qn_find_model(qn_args_at(a, 0), err);
    qn_tokenizer *t = path ? qn_tokenizer_load(path, err) : NULL;
    j.t = t;
    bool ok = t && (qn_args_has(a, "jsonl") ? tokenize_lines(&j, err) : tokenize_one(&j, err));
    qn_tokenizer_free(t);
    free(path);
    return ok ? 0 : -1;
}

static const qn_option options[] = {
    {.name = "file", .letter = 'f', .kind = QN_OPT_FILE, .value = "FILE",
     .help = "the text (or, with --decode, the ids) of a file; - is stdin"},
    {.name = "plain", .help = "added tokens in the text are plain text"},
    {.name = "decode", .help = "from ids to text"},
    {.name = "skip-special", .help = "with --decode: leave special tokens out"},
    {.name = "jsonl",
     .help = "a JSON object a line: {\"text\":…} or {\"ids\":…} in, the other out"},
    {0},
};

const qn_command qn_cmd_tokenize = {
    .name = "tokenize",
    .group = "Look",
    .summary = "text to token ids, and back",
    .usage = "MODEL (TEXT | -f FILE | - | --decode IDS | --jsonl) [OPTIONS]",
    .about = "Ids are separated by blanks. A text that starts with - goes behind --.",
    .examples = "quern tokenize models/tiny-qwen3 \"What is the capital of France?\"\n"
                "quern tokenize models/tiny-qwen3 --decode 1 2 3\n"
                "quern tokenize models/tiny-qwen3 --json -f README.md\n"
                "echo '{\"text\": \"Paris\"}' | quern tokenize models/tiny-qwen3 --jsonl\n",
    .tables = {options},
    .min_args = 1,
    .max_args = QN_ANY_ARGS,
    .run = run,
};
