// Normalization Form C, as of Unicode 9.0.
#ifndef QN_TEXT_NFC_H
#define QN_TEXT_NFC_H

#include <stdbool.h>

#include "base/str.h"

// Whether n bytes of valid UTF-8 are certainly in NFC; false where only the work could tell.
bool qn_nfc_is(const char *s, size_t n);
// Appends the NFC of n bytes of valid UTF-8 to out. Linear but for sorting runs of marks.
void qn_nfc_add(const char *s, size_t n, qn_buf *out);

#endif
