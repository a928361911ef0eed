// One safetensors file in memory: its header, checked by the format's own rules.
#ifndef QN_STORE_SAFETENSORS_H
#define QN_STORE_SAFETENSORS_H

#include "store/damage.h"

#define QN_HEADER_MAX ((size_t)100000000) // the format's limit

typedef struct qn_header { // {0} is empty
    qn_tensor *tensors; // by offset; shard is 0; names are owned here
    size_t n, cap;
} qn_header;

// Reads the file's n bytes; name stands in front of messages. d NULL: the first breach of a rule
// fails. Else breaches are damages and what can be read is there; a tensor whose bytes cannot be
// trusted or are missing has data NULL. The bytes have to outlive the header.
bool qn_header_parse(const uint8_t *file, size_t n, const char *name, qn_damages *d,
                     qn_header *out, qn_err *err);
void qn_header_done(qn_header *h);

#endif
