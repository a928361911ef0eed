// The tests' own SHA-256 against FIPS 180-4's examples and known sums.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "support/sha256.h"

static void assert_sum(const char *text, size_t times, size_t piece, const char *expected) {
    sha256 s;
    char hex[65];
    sha256_init(&s);
    for (size_t i = 0; i < times; i++)
        for (size_t at = 0, n = strlen(text); at < n; at += piece)
            sha256_update(&s, text + at, piece < n - at ? piece : n - at);
    sha256_hex(&s, hex);
    assert_string_equal(hex, expected);
}

static void known_sums(void **state) {
    (void)state;
    static const char *const two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    for (size_t piece = 1; piece < 70; piece += 23) {
        assert_sum("", 1, piece,
                   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_sum("abc", 1, piece,
                   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_sum(two, 1, piece,
                   "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }
    assert_sum("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 20000, 50,
               "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// Every length around the block boundary, where padding goes wrong.
static void padding_at_every_length(void **state) {
    (void)state;
    sha256 chain;
    char all[65];
    sha256_init(&chain);
    for (size_t n = 0; n < 200; n++) {
        char data[200], hex[65];
        memset(data, 'q', sizeof data);
        sha256 s;
        sha256_init(&s);
        sha256_update(&s, data, n);
        sha256_hex(&s, hex);
        sha256_update(&chain, hex, 64);
    }
    sha256_hex(&chain, all);
    assert_string_equal(all, "46da15ed7dc0430f1b17c4b19ad6ee0095b1c26991fac0030ff5c2665d91e86e");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_sums),
        cmocka_unit_test(padding_at_every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
