// Owns unpacking of bit streams: the loops are code_loops_body.h's.
#include "store/code_loops.h"

void qn_bitrows_unpack(const qn_bitrows *b, size_t row0, size_t n, uint8_t *out) {
    qn_code_loops_best()->unpack(b, row0, n, out);
}
