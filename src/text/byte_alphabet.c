// GPT-2's bijection: printable Latin-1 stands for itself, the other 68 bytes get U+0100 onwards.
#include "text/byte_alphabet.h"

static bool stands_for_itself(unsigned b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b != 173);
}

uint32_t qn_alphabet_char(uint8_t byte) {
    if (stands_for_itself(byte)) return byte;
    if (byte <= 32) return 256u + byte;
    return byte == 173 ? 256u + 67 : 256u + 33 + (byte - 127u);
}

static int byte_of(int32_t c) {
    if (c < 0 || c > 256 + 67) return -1;
    if (c < 256) return stands_for_itself((unsigned)c) ? c : -1;
    if (c == 256 + 67) return 173;
    return c <= 256 + 32 ? c - 256 : c - 256 - 33 + 127;
}

bool qn_alphabet_bytes(const char *spelling, size_t n, qn_buf *out) {
    size_t was = out->n;
    qn_buf_reserve(out, n);
    for (size_t at = 0; at < n;) {
        int32_t c = (unsigned char)spelling[at];
        size_t len = 1;
        if (c >= 0x80) len = qn_utf8_next(spelling + at, n - at, &c);
        int b = byte_of(c);
        if (b < 0) {
            out->n = was;
            return false;
        }
        out->data[out->n++] = (char)b;
        at += len;
    }
    out->data[out->n] = 0;
    return true;
}
