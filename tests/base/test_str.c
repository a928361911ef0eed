// Buffers, UTF-8, visible text, suggestions, and the errors that are made of them.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

static void buffer_grows_and_ends_with_zero(void **state) {
    (void)state;
    qn_buf b = {0};
    for (int i = 0; i < 1000; i++) qn_buf_addf(&b, "%d,", i);
    qn_buf_addc(&b, '.');
    assert_int_equal(b.data[b.n], 0);
    assert_int_equal(b.n, 10 * 2 + 90 * 3 + 900 * 4 + 1);
    assert_memory_equal(b.data, "0,1,2,3,", 8);
    size_t n;
    char *taken = qn_buf_take(&b, &n);
    assert_int_equal(n, 3891);
    assert_null(b.data);
    free(taken);
    taken = qn_buf_take(&b, &n); // an empty one gives an empty string
    assert_string_equal(taken, "");
    free(taken);
    qn_buf_done(&b);
}

static void every_character_encodes_and_decodes(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (c >= 0xD800 && c < 0xE000) continue;
        qn_buf b = {0};
        qn_buf_add_utf8(&b, c);
        int32_t back;
        assert_int_equal(qn_utf8_next(b.data, b.n, &back), b.n);
        assert_int_equal(back, c);
        // Cut short it is invalid, and the whole rest is the maximal invalid part.
        if (b.n > 1) {
            assert_int_equal(qn_utf8_next(b.data, b.n - 1, &back), b.n - 1);
            assert_int_equal(back, -1);
        }
        qn_buf_done(&b);
    }
}

static void invalid_utf8_is_cut_like_the_standard_says(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n, part;
    } cases[] = {
        {"\x80", 1, 1},             // continuation alone
        {"\xC0\x80", 2, 1},         // overlong
        {"\xC1\xBF", 2, 1},         // overlong
        {"\xE0\x9F\xBF", 3, 1},     // overlong
        {"\xED\xA0\x80", 3, 1},     // surrogate
        {"\xF0\x8F\xBF\xBF", 4, 1}, // overlong
        {"\xF4\x90\x80\x80", 4, 1}, // beyond U+10FFFF
        {"\xF5\x80\x80\x80", 4, 1},
        {"\xFF", 1, 1},
        {"\xE2\x82" "A", 3, 2},
        {"\xF0\x9F\x98" "A", 4, 3},
        {"\xF0\x9F" "AA", 4, 2},
        {"\xC3" "A", 2, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t c;
        assert_int_equal(qn_utf8_next(cases[i].bytes, cases[i].n, &c), cases[i].part);
        assert_int_equal(c, -1);
        assert_int_equal(qn_utf8_valid(cases[i].bytes, cases[i].n), 0);
    }
    assert_int_equal(qn_utf8_valid("ab\xE2\x82", 4), 2);
    assert_int_equal(qn_utf8_valid("Gr\xC3\xBC\xC3\x9F", 6), 6);
    assert_int_equal(qn_utf8_valid("", 0), 0);
}

static void random_bytes_always_advance(void **state) {
    (void)state;
    char bytes[4096];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)qn_rng_u64(7, 0, i);
    size_t at = 0;
    while (at < sizeof bytes) {
        int32_t c;
        size_t n = qn_utf8_next(bytes + at, sizeof bytes - at, &c);
        assert_in_range(n, 1, 4);
        assert_true(at + n <= sizeof bytes);
        at += n;
    }
}

static void hostile_text_stays_one_visible_line(void **state) {
    (void)state;
    char out[64];
    qn_str_visible("a\nb\x1b[2J\xFF\xC2\x85\xE2\x80\xA8z", out, sizeof out);
    assert_string_equal(out, "a\\x0ab\\x1b[2J\\xff\\xc2\\x85\\xe2\\x80\\xa8z");
    char small[6];
    qn_str_visible("abcd\n", small, sizeof small); // the escape does not fit: it is left out whole
    assert_string_equal(small, "abcd");
    qn_str_visible("\xE4\xB8\xAD\xE6\x96\x87", small, sizeof small);
    assert_string_equal(small, "\xE4\xB8\xAD");
}

static void errors_are_filled_prefixed_and_cut(void **state) {
    (void)state;
    qn_err err = {0};
    assert_false(qn_fail(&err, QN_INPUT, "tensor %s: bad", "a\nb"));
    assert_int_equal(err.code, QN_INPUT);
    assert_string_equal(err.text, "tensor a\\x0ab: bad");
    assert_false(qn_err_prefix(&err, "file %d", 7));
    assert_string_equal(err.text, "file 7: tensor a\\x0ab: bad");
    assert_int_equal(err.code, QN_INPUT);
    assert_null(qn_fail_null(NULL, QN_INPUT, "nobody listens"));

    char *longer = qn_alloc(3 * QN_ERR_TEXT);
    memset(longer, 'x', 3 * QN_ERR_TEXT - 1);
    longer[3 * QN_ERR_TEXT - 1] = 0;
    qn_fail(&err, QN_LIMIT, "%s", longer);
    assert_int_equal(strlen(err.text), QN_ERR_TEXT - 1);
    qn_err_prefix(&err, "head");
    assert_memory_equal(err.text, "head: xxx", 9);
    assert_int_equal(strlen(err.text), QN_ERR_TEXT - 1);
    free(longer);
    strcpy(err.text, "no such model:\n  fetch it"); // lines that were meant are kept
    qn_err_prefix(&err, "--reference \n");
    assert_string_equal(err.text, "--reference \\x0a: no such model:\n  fetch it");
}

static void codes_have_their_exit_status(void **state) {
    (void)state;
    qn_err err = {0};
    qn_fail_errno(&err, ENOSPC, "cannot write x");
    assert_string_equal(err.text, "cannot write x: No space left on device");
    assert_int_equal(err.code, QN_IO);
    assert_int_equal(qn_exit_status(err.code), 3);
    qn_fail_errno(&err, ENOENT, "cannot open x");
    assert_int_equal(qn_exit_status(err.code), 2);
    qn_fail_errno(&err, ENOMEM, "x");
    assert_int_equal(qn_exit_status(err.code), 3);
    for (int c = QN_USAGE; c <= QN_NONFINITE; c++) assert_int_equal(qn_exit_status((qn_code)c), 2);
    assert_int_equal(qn_exit_status(QN_OK), 0);
    assert_int_equal(qn_exit_status(QN_CANCELLED), 130);
}

static void nearest_word_is_suggested(void **state) {
    (void)state;
    static const char *const words[] = {"inspect", "tokenize", "template", "--temperature"};
    assert_string_equal(qn_str_nearest("inpsect", words, 4), "inspect");
    assert_string_equal(qn_str_nearest("--temprature", words, 4), "--temperature");
    assert_null(qn_str_nearest("zzzzzzz", words, 4));
    assert_null(qn_str_nearest("x", words, 0));
}

static void big_memory_is_zeroed_aligned_and_refused_politely(void **state) {
    (void)state;
    qn_err err = {0};
    size_t sizes[] = {0, 1, 63, 4096, (4 << 20) - 1, 4 << 20, (9 << 20) + 7};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        unsigned char *p = qn_big_alloc(n, "test", &err);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (n >= 4 << 20 ? 2 << 20 : 64), 0);
        for (size_t j = 0; j < n; j += 509) assert_int_equal(p[j], 0);
        if (n) p[n - 1] = 1;
        qn_big_free(p, n);
    }
    assert_null(qn_big_alloc(SIZE_MAX - 100, "KV cache", &err));
    assert_int_equal(err.code, QN_NOMEM);
    assert_memory_equal(err.text, "KV cache: no memory for ", 24);
    assert_null(qn_big_alloc((size_t)1 << 46, "KV cache", &err));
    size_t out;
    assert_false(qn_mul(SIZE_MAX / 2, 3, &out));
    assert_false(qn_plus(SIZE_MAX, 1, &out));
    assert_true(qn_mul(1u << 20, 1u << 20, &out) && out == (size_t)1 << 40);
    assert_true(qn_rss_peak_bytes() >= 1 << 20);
    assert_true(qn_rss_bytes() <= qn_rss_peak_bytes() + (1 << 20));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_grows_and_ends_with_zero),
        cmocka_unit_test(every_character_encodes_and_decodes),
        cmocka_unit_test(invalid_utf8_is_cut_like_the_standard_says),
        cmocka_unit_test(random_bytes_always_advance),
        cmocka_unit_test(hostile_text_stays_one_visible_line),
        cmocka_unit_test(errors_are_filled_prefixed_and_cut),
        cmocka_unit_test(codes_have_their_exit_status),
        cmocka_unit_test(nearest_word_is_suggested),
        cmocka_unit_test(big_memory_is_zeroed_aligned_and_refused_politely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
