// Cutting text: the original's pieces, the tables behind the scanners, and PCRE2 as oracle.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/rng.h"
#include "text/nfc.h"
#include "text/tokenizer_support.h"
#include "text/unicode.h"

static qn_pretok *pattern(const char *text, bool oracle) {
    qn_err err = {0};
    qn_pretok *p = qn_pretok_new(text, oracle, "test", &err);
    if (!p) fail_msg("%s", err.text);
    return p;
}

// ---- vectors ----

static void check_pieces(const qn_pretok *p, qn_span text, const json_t *pieces, int number) {
    qn_cut cut;
    qn_err err = {0};
    size_t len, i = 0;
    assert_true(qn_cut_init(&cut, p, text.text, text.n, &err));
    for (; qn_cut_next(&cut, &len, &err) && len; i++) {
        const json_t *x = json_array_get(pieces, i);
        if (!x) fail_msg("line %d: more than %zu pieces", number, i);
        check_bytes(text.text + cut.at - len, len,
                    (qn_span){json_string_value(x), json_string_length(x)}, "piece", number);
    }
    assert_int_equal(i, json_array_size(pieces));
    qn_cut_done(&cut);
}

static void check_case(const json_t *line, int number, void *user) {
    qn_pretok **p = user;
    qn_span text = text_in(line, "text"), nfc = text_in(line, "nfc");
    qn_buf normal = {0};
    qn_nfc_add(text.text, text.n, &normal);
    check_bytes(normal.data, normal.n, nfc, "nfc", number);
    if (qn_nfc_is(text.text, text.n)) check_bytes(text.text, text.n, nfc, "nfc_is", number);
    qn_buf_done(&normal);
    const json_t *qwen3 = json_object_get(line, "qwen3");
    const json_t *qwen35 = json_object_get(line, "qwen3.5");
    check_pieces(p[0], nfc, qwen3, number);
    check_pieces(p[1], nfc, qwen35 ? qwen35 : qwen3, number);
}

static void vectors(void **state) {
    (void)state;
    qn_pretok *p[2] = {pattern(QN_PATTERN_QWEN2, false), pattern(QN_PATTERN_QWEN35, false)};
    assert_true(qn_pretok_is_scanner(p[0]) && qn_pretok_is_scanner(p[1]));
    assert_int_equal(each_line(TOKENIZERS "vectors/pretok.jsonl", check_case, p), 255);
    qn_pretok_free(p[0]);
    qn_pretok_free(p[1]);
}

// ---- tables ----

static void mark_ranges(const json_t *ranges, uint8_t *flags, uint8_t bit) {
    size_t i;
    const json_t *r;
    json_array_foreach(ranges, i, r) {
        json_int_t c = json_integer_value(json_array_get(r, 0));
        for (; c <= json_integer_value(json_array_get(r, 1)); c++) flags[c] |= bit;
    }
}

static void classes_are_the_originals(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *j = qn_json_load(TOKENIZERS "vectors/unicode.json", 1 << 20, &err);
    assert_non_null(j);
    const json_t *regex = json_object_get(j, "regex"), *nfc = json_object_get(j, "nfc");
    uint8_t *flags = calloc(0x110000, 1);
    mark_ranges(json_object_get(regex, "L"), flags, QN_UNI_L);
    mark_ranges(json_object_get(regex, "N"), flags, QN_UNI_N);
    mark_ranges(json_object_get(regex, "M"), flags, QN_UNI_M);
    mark_ranges(json_object_get(regex, "space"), flags, QN_UNI_SPACE);
    mark_ranges(json_object_get(nfc, "not_reordered"), flags, QN_UNI_COMBINES);
    for (uint32_t c = 0; c < 0x110000; c++) {
        unsigned found = qn_uni(c);
        if ((found & 15) != (flags[c] & 15)) fail_msg("U+%04X: classes %u", c, found & 15);
        if ((flags[c] & QN_UNI_COMBINES) && (found & QN_UNI_COMBINES)) fail_msg("U+%04X: ccc", c);
    }
    free(flags);
    json_decref(j);
}

// ---- random text ----

static uint64_t counter;

static uint32_t below(uint32_t n) { return (uint32_t)(qn_rng_u64(1, 2, counter++) % n); }

static pcre2_code *class_code(const char *class) {
    int e;
    PCRE2_SIZE at;
    return pcre2_compile((PCRE2_SPTR)class, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &e, &at,
                         NULL);
}

static bool matches(const pcre2_code *p, uint32_t c) {
    qn_buf b = {0};
    qn_buf_add_utf8(&b, c);
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    int rc = pcre2_match(p, (PCRE2_SPTR)b.data, b.n, 0, 0, m, NULL);
    pcre2_match_data_free(m);
    qn_buf_done(&b);
    return rc >= 0;
}

enum { ALPHABET = 4000 };

// Characters on whose classes both sides agree, all kinds of them.
static size_t make_alphabet(uint32_t *alphabet) {
    const char *const names[] = {"\\p{L}", "\\p{N}", "\\p{M}", "\\s"};
    pcre2_code *code[4];
    size_t n = 0, refused = 0;
    for (int i = 0; i < 4; i++) code[i] = class_code(names[i]);
    while (n < ALPHABET) {
        uint32_t c = below(4) ? below(0x3100) : below(4) ? below(0x20000) : below(0x110000);
        if (c >= 0xD800 && c < 0xE000) continue;
        bool agree = true;
        for (int i = 0; i < 4; i++) agree &= matches(code[i], c) == (qn_uni(c) >> i & 1);
        if (agree) alphabet[n++] = c;
        else refused++;
    }
    for (int i = 0; i < 4; i++) pcre2_code_free(code[i]);
    return refused;
}

static uint32_t random_char(const uint32_t *alphabet) {
    static const char ascii[] = "  \n\r\t'''sStTlLvVeErRdDmMaz09.,!-\v\f";
    static const uint32_t other[] = {0x17F, 0xA0, 0x85, 0x3000, 0x2028, 0x301, 0x4E2D, 0x660, 0x2F};
    switch (below(8)) {
    case 0:
    case 1:
    case 2:
    case 3: return (unsigned char)ascii[below(sizeof ascii - 1)];
    case 4: return other[below(9)];
    default: return alphabet[below(ALPHABET)];
    }
}

static void compare_cuts(const qn_pretok *a, const qn_pretok *b, const qn_buf *text) {
    qn_cut x, y;
    qn_err err = {0};
    size_t m = 1, n = 1;
    assert_true(qn_cut_init(&x, a, text->data, text->n, &err));
    assert_true(qn_cut_init(&y, b, text->data, text->n, &err));
    while (m && n) {
        assert_true(qn_cut_next(&x, &m, &err) && qn_cut_next(&y, &n, &err));
        if (m != n) fail_msg("\"%s\": %zu and %zu bytes before %zu", text->data, m, n, x.at);
    }
    assert_int_equal(x.at, text->n);
    qn_cut_done(&x);
    qn_cut_done(&y);
}

static void scanners_cut_as_pcre2(void **state) {
    (void)state;
    static uint32_t alphabet[ALPHABET];
    assert_true(make_alphabet(alphabet) < ALPHABET / 10);
    const char *const text[2] = {QN_PATTERN_QWEN2, QN_PATTERN_QWEN35};
    for (int k = 0; k < 2; k++) {
        qn_pretok *scanner = pattern(text[k], false), *oracle = pattern(text[k], true);
        assert_false(qn_pretok_is_scanner(oracle));
        qn_buf b = {0};
        for (int i = 0; i < 20000; i++) {
            qn_buf_clear(&b);
            for (uint32_t n = 1 + below(24); n > 0; n--)
                qn_buf_add_utf8(&b, random_char(alphabet));
            compare_cuts(scanner, oracle, &b);
        }
        qn_buf_done(&b);
        qn_pretok_free(scanner);
        qn_pretok_free(oracle);
    }
}

static void nfc_is_stable(void **state) {
    (void)state;
    qn_buf text = {0}, once = {0}, twice = {0};
    for (int i = 0; i < 20000; i++) {
        qn_buf_clear(&text), qn_buf_clear(&once), qn_buf_clear(&twice);
        for (uint32_t n = 1 + below(10); n > 0; n--) {
            uint32_t c = below(3) ? qn_uni_decomp[below((uint32_t)qn_uni_n_decomp)].second
                                  : below(2) ? 0x1100 + below(0x100) : below(0x3000);
            qn_buf_add_utf8(&text, c);
        }
        qn_nfc_add(text.data, text.n, &once);
        qn_nfc_add(once.data, once.n, &twice);
        assert_int_equal(once.n, twice.n);
        assert_memory_equal(once.data, twice.data, once.n);
        if (qn_nfc_is(text.data, text.n)) {
            assert_int_equal(once.n, text.n);
            assert_memory_equal(once.data, text.data, text.n);
        }
    }
    qn_buf_done(&text), qn_buf_done(&once), qn_buf_done(&twice);
}

// A letter under a million marks in the worst order must not take quadratic time.
static void nfc_of_a_pile_of_marks(void **state) {
    (void)state;
    qn_buf text = {0}, out = {0};
    qn_buf_addc(&text, 'a');
    for (int i = 0; i < 500000; i++) qn_buf_adds(&text, "\xCC\x81\xCC\xA7"); // U+0301 U+0327
    qn_nfc_add(text.data, text.n, &out);
    assert_int_equal(out.n, text.n - 1); // the first acute joins: U+00E1 is two bytes for three
    assert_memory_equal(out.data, "\xC3\xA1\xCC\xA7", 4);
    qn_buf_done(&text), qn_buf_done(&out);
}

// ---- other patterns ----

static void cut_all(const char *regex, const char *text, const char *expected) {
    qn_pretok *p = pattern(regex, false);
    qn_cut cut;
    qn_err err = {0};
    qn_buf found = {0};
    size_t len;
    assert_true(qn_cut_init(&cut, p, text, strlen(text), &err));
    while (qn_cut_next(&cut, &len, &err) && len)
        qn_buf_addf(&found, "[%.*s]", (int)len, text + cut.at - len);
    assert_string_equal(found.data, expected);
    qn_cut_done(&cut);
    qn_buf_done(&found);
    qn_pretok_free(p);
}

static void foreign_patterns_run_as_written(void **state) {
    (void)state;
    cut_all("\\d+", "ab12c3", "[ab][12][c][3]");     // gaps are pieces
    cut_all("(?=b)", "aébéb", "[aé][bé][b]");         // empty matches cut
    cut_all("\\d{1,3}(?=(?:\\d{3})*\\b)", "1234567", "[1][234][567]");
    cut_all("[\\s\\S]+", "a b\n", "[a b\n]");
    cut_all(QN_PATTERN_GPT2, "it's 2024!", "[it]['s][ 2024][!]");
}

static void hostile_patterns_end(void **state) {
    (void)state;
    qn_err err = {0};
    assert_null(qn_pretok_new("(a", false, "tokenizer.json: pre_tokenizer", &err));
    assert_int_equal(err.code, QN_UNSUPPORTED);
    assert_null(qn_pretok_new("\\C", false, "tokenizer.json: pre_tokenizer", &err));
    qn_pretok *p = pattern("(x+x+)+[yz]", false);
    qn_buf text = {0};
    for (int i = 0; i < 5000; i++) qn_buf_addc(&text, 'x');
    qn_cut cut;
    size_t len;
    assert_true(qn_cut_init(&cut, p, text.data, text.n, &err));
    assert_false(qn_cut_next(&cut, &len, &err));
    assert_int_equal(err.code, QN_LIMIT);
    qn_cut_done(&cut);
    qn_buf_done(&text);
    qn_pretok_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(classes_are_the_originals),
        cmocka_unit_test(scanners_cut_as_pcre2),
        cmocka_unit_test(nfc_is_stable),
        cmocka_unit_test(nfc_of_a_pile_of_marks),
        cmocka_unit_test(foreign_patterns_run_as_written),
        cmocka_unit_test(hostile_patterns_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
