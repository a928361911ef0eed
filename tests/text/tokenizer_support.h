// Tokenizers and vectors for the tests of the text room.
#ifndef TESTS_TEXT_TOKENIZER_SUPPORT_H
#define TESTS_TEXT_TOKENIZER_SUPPORT_H

#include "base/json.h"
#include "text/tokenizer.h"

#define TOKENIZERS "tests/data/tokenizers/"

qn_span span_of(const char *text);   // a literal
qn_span file_span(const char *path); // a file's bytes; fails the test without it. free(text)
qn_span xz_span(const char *path);   // the same, decompressed by the xz program

// The Qwen3 vocabulary and added tokens, under any model_type.
qn_tokenizer *qwen3_tokenizer(const char *model_type);
// The published Qwen3.5 vocabulary; merges.txt is derived from it and its SHA-256 checked.
qn_tokenizer *qwen35_tokenizer(void);
// merges.txt of a vocabulary whose ids are ranks: the pair that is left when a token's bytes are
// merged by rank.
void derive_merges(const qn_vocab *v, qn_buf *out);

typedef void (*case_fn)(const json_t *line, int number, void *user);
int each_line(const char *path, case_fn fn, void *user); // JSON lines; how many there were

qn_span text_in(const json_t *line, const char *key); // lives with the line
void check_bytes(const char *found, size_t n, qn_span expected, const char *what, int number);
void check_ids(const int32_t *found, size_t n, const json_t *expected, const char *what,
               int number);

#endif
