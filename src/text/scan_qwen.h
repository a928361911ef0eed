// The two Qwen patterns as hand-written scanners.
#ifndef QN_TEXT_SCAN_QWEN_H
#define QN_TEXT_SCAN_QWEN_H

#include <stddef.h>

// Length of the piece at the start of n > 0 bytes of valid UTF-8 that end where the text ends.
size_t qn_scan_qwen2(const char *s, size_t n);
size_t qn_scan_qwen35(const char *s, size_t n);

#endif
