// An independent reading of quantized weights, for proofs: bit by bit from the formats'
// descriptions, one element at a time, slow on purpose. It shares no code with the schemes of
// store/ — it sees raw tensors and the quantization config only — so a mistake there shows here.
#ifndef QN_QUANT_SECOND_DECODER_H
#define QN_QUANT_SECOND_DECODER_H

#include "store/checkpoint.h"

#define QN_SECOND_DECODER_NAME "element by element, from the format's description"

typedef struct qn_second qn_second;

// GPTQ files of version 1 store zero points less one, those of version 2 as they are, and labels lie
// about it. What the codes of c say: 1, 0, or -1 when they cannot tell (then the label decides).
int qn_second_zero_offset(const qn_ckpt *c);

// Gets ready to read the weight `name` ("….weight" or a plain tensor's name). zero_offset: the
// answer above, asked once per checkpoint. QN_NOT_FOUND when no tensors of that name are there,
// QN_UNSUPPORTED for a layout this reader does not know. c must outlive it. Release with
// qn_second_free.
qn_second *qn_second_new(const qn_ckpt *c, int zero_offset, const char *name, qn_err *err);
void qn_second_free(qn_second *s);
// Element [row, col] ([out, in]) as float: the stored value of a plain tensor (row counts through
// all dimensions but the last; a vector is one row), scale * (code - zero) of a quantized one.
// row and col lie inside the weight. Any thread may call it.
float qn_second_value(const qn_second *s, size_t row, size_t col);

#endif
