// What lies beside the weights: tokenizer, templates, generation config, licence, README.
#ifndef QN_QUANT_SIDE_FILES_H
#define QN_QUANT_SIDE_FILES_H

#include <jansson.h>

#include "store/checkpoint.h"

// Files that say how a folder is quantized, beside config.json; NULL-terminated.
extern const char *const qn_side_labels[];

typedef struct qn_side_rules {
    const char *const *drop; // files at the top that are not carried over, NULL-terminated; or NULL
    const char *readme_note; // goes on top of README.md, behind its front matter; or NULL
} qn_side_rules;

// Copies every file beside the weights into dir, small subfolders with theirs too (links to folders,
// folders that hold weights and what is very deep or large are not). Left out without a word: shards
// and index, other weights at the top, config.json and quern-report.json (written by the caller),
// hidden files and caches, and those in drop. Whatever else stays behind is said: on stderr, in notes
// and on top of README.md, which is made when there was none. Labels of a source without anything
// quantized stay behind. A folder that is a single .safetensors file has no side files.
bool qn_side_files_copy(qn_ckpt *source, const char *dir, const qn_side_rules *rules,
                        json_t *notes, qn_err *err);

#endif
