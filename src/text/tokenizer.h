// Inside of a tokenizer, shared by the files that read, encode and decode; users see quern.h.
#ifndef QN_TEXT_TOKENIZER_H
#define QN_TEXT_TOKENIZER_H

#include "base/json.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/json_scan.h"
#include "text/pretok.h"

struct qn_tokenizer {
    qn_bpe bpe;
    qn_added added;
    qn_pretok *pretok;
    bool nfc;     // text is normalized before it is cut
    int32_t size; // largest id + 1
};

// The files of a folder; text NULL: not there. Enough are tokenizer_json, or vocab_json and
// merges_txt.
typedef struct qn_tokenizer_files {
    qn_span tokenizer_json, vocab_json, merges_txt;
    qn_span tokenizer_config, added_tokens, config;
} qn_tokenizer_files;

// Builds a tokenizer from files in memory (nothing of them is kept). name stands for the folder in
// notes.
qn_tokenizer *qn_tokenizer_parse(const qn_tokenizer_files *files, const char *name, qn_err *err);

// What tokenizer.json says beside vocabulary and merges, as text to be judged by the caller.
typedef struct qn_tokenizer_parts {
    qn_span normalizer, pre_tokenizer, decoder, post_processor, added_tokens;
} qn_tokenizer_parts;

// Reads vocabulary and merges of tokenizer.json into b.
bool qn_tokenizer_json_read(qn_span text, qn_bpe *b, qn_tokenizer_parts *parts, qn_err *err);
// The same from vocab.json and merges.txt.
bool qn_vocab_json_read(qn_span text, qn_bpe *b, qn_err *err);
bool qn_merges_txt_read(qn_span text, qn_bpe *b, qn_err *err);
// {"token": id, …} at the scanner's place.
bool qn_vocab_object_read(qn_scan *s, qn_vocab *v, qn_err *err);

// Added tokens of the three places that may declare them; list is tokenizer.json's array.
bool qn_added_read(const qn_tokenizer_files *files, qn_span list, qn_added *a, qn_err *err);

// The pattern that a model_type's tokenizer class uses whatever its files say; NULL when the
// family is not known. *type gets config.json's model_type (allocated), "" without one.
bool qn_family_pattern(qn_span config, const char **pattern, char **type, qn_err *err);
// tokenizer.json's own pattern, allocated; QN_UNSUPPORTED where it cannot be followed.
char *qn_own_pattern(qn_span pre_tokenizer, qn_err *err);
// Whether its normalizer is NFC (or none); QN_UNSUPPORTED for any other.
bool qn_own_nfc(qn_span normalizer, bool *nfc, qn_err *err);
bool qn_own_decoder_fits(qn_span decoder, qn_err *err);
// Whether its post-processor puts tokens around a text (BOS and EOS): anything but ByteLevel.
bool qn_own_adds_ends(qn_span post_processor);
// NULL and no error for a value that is null or not there.
bool qn_span_json(qn_span span, const char *what, json_t **out, qn_err *err);

#endif
