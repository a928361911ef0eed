// The byte-level alphabet: vocabularies spell the 256 bytes with 256 printable characters.
#ifndef QN_TEXT_BYTE_ALPHABET_H
#define QN_TEXT_BYTE_ALPHABET_H

#include "base/str.h"

uint32_t qn_alphabet_char(uint8_t byte); // the character that stands for a byte
// Bytes that a spelling stands for, appended to out; false (and nothing added) when a character
// is not of the alphabet.
bool qn_alphabet_bytes(const char *spelling, size_t n, qn_buf *out);

#endif
