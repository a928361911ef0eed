// What lies beside the weights: tokenizer, templates, generation config, licence, README.
#ifndef QN_QUANT_SIDE_FILES_H
#define QN_QUANT_SIDE_FILES_H

#include "store/checkpoint.h"

// Copies every regular file at the top of the source folder into dir, except shards and index,
// other weight containers, config.json and quern-report.json (written by the caller), hidden files
// and those in drop (NULL-terminated, may be NULL). readme_note (may be NULL) goes on top of
// README.md, behind its front matter; without a README one is made of it. A folder that is a single
// .safetensors file has none.
bool qn_side_files_copy(const qn_ckpt *source, const char *dir, const char *const *drop,
                        const char *readme_note, qn_err *err);

#endif
