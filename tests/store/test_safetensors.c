// Headers from memory: what a good one gives, the message for every rule broken, and what a
// tolerant reading still gets out of it.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "store/safetensors.h"
#include "temp_model.h"

#define T(name, dtype, shape, from, to)                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static void good_files_are_read(void **state) {
    (void)state;
    size_t n;
    qn_header h;
    qn_err err = {0};
    // Not in file order, with a scalar, an empty tensor, an unknown field, blanks and no alignment.
    uint8_t *file = st_bytes("{ \"__metadata__\": {\"format\":\"pt\"},"
                             T("b", "BF16", "[2,2]", "1", "9") ","
                             "\"a\\u00e9\":{\"extra\":[{}],\"shape\":[],\"dtype\":\"U8\","
                             "\"data_offsets\":[0,1]},"
                             T("none", "F32", "[0,7]", "9", "9") "}  \n ", 9, &n);
    assert_true(qn_header_parse(file, n, "x", NULL, &h, &err));
    assert_int_equal(h.n, 3);
    assert_string_equal(h.tensors[0].name, "a\xC3\xA9");
    assert_int_equal(h.tensors[0].n, 1);
    assert_int_equal(h.tensors[0].n_dims, 0);
    assert_int_equal(h.tensors[0].data[0], 0);
    assert_string_equal(h.tensors[1].name, "b");
    assert_int_equal(h.tensors[1].bytes, 8);
    assert_int_equal(h.tensors[1].data[0], 1);
    assert_ptr_equal(h.tensors[1].data, file + h.tensors[1].offset);
    assert_int_equal(h.tensors[2].n, 0);
    assert_int_equal(h.tensors[2].shape[1], 7);
    qn_header_done(&h);
    free(file);
    file = st_bytes("{}", 0, &n);
    assert_true(qn_header_parse(file, n, "x", NULL, &h, &err));
    assert_int_equal(h.n, 0);
    free(file);
}

typedef struct bad_case {
    const char *header;
    size_t n_data;
    const char *message; // part of it
    const char *code;    // first damage when tolerant
    size_t readable;     // tensors with data when tolerant
} bad_case;

#define GOOD T("g", "U8", "[4]", "0", "4")
static const bad_case bad_cases[] = {
    {"[]", 0, "x: the header does not begin with '{'", "bad-header", 0},
    {" {}", 0, "does not begin with '{'", "bad-header", 0},
    {"{" GOOD, 4, "x: header: not valid JSON: ends after", "bad-header", 1},
    {"{" GOOD ",}", 4, "not valid JSON at line 1 column", "bad-header", 1},
    {"{" GOOD "} x", 4, "expected the end of the document", "bad-header", 1},
    {"{" GOOD ",\"\xFF\":1}", 4, "expected UTF-8", "bad-header", 1},
    {"{" GOOD ",\"a\\ud800\":1}", 4, "surrogate", "bad-header", 1},
    {"{" GOOD ",\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}", 4,
     "holds U+0000", "bad-header", 1},
    {"{" T("a", "BF16", "[2]", "0", "4") "," T("b", "BF16", "[2]", "2", "6") "}", 6,
     "x: tensors a and b overlap: one ends at offset 4, the other begins at 2", "overlap", 2},
    {"{" T("a", "U8", "[2]", "0", "2") "," T("b", "U8", "[2]", "4", "6") "}", 6,
     "x: 2 bytes before tensor b belong to no tensor", "bad-header", 2},
    {"{" T("a", "U8", "[2]", "1", "3") "}", 3,
     "x: 1 byte before tensor a belongs to no tensor", "bad-header", 1},
    {"{" GOOD "}", 5, "x: 1 byte behind the last tensor", "bad-header", 1},
    {"{" GOOD "}", 7, "x: 3 bytes behind the last tensor", "bad-header", 1},
    {"{" GOOD "," T("h", "U8", "[4]", "4", "8") "}", 6, "but tensor h ends at", "truncated", 1},
    {"{" GOOD "," T("h", "F32", "[2]", "4", "8") "}", 8,
     "x: tensor h: shape and dtype F32 take 8 bytes, data_offsets give 4", "bad-header", 1},
    {"{" T("a", "U8", "[4]", "4", "0") "}", 4, "tensor a: data_offsets end before they begin",
     "bad-header", 0},
    {"{" T("a", "U8", "[-4]", "0", "4") "}", 4, "a size or offset is negative", "bad-header", 0},
    {"{" T("a", "U8", "[1.5]", "0", "4") "}", 4, "expected an integer", "bad-header", 0},
    {"{" T("a", "U8", "[99999999999999999999]", "0", "4") "}", 4, "at most 18 digits",
     "bad-header", 0},
    {"{" T("a", "F64", "[4294967296,4294967296]", "0", "4") "}", 4, "its shape overflows",
     "bad-header", 0},
    {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,4]", "0", "4") "}", 4, "more than 8 dimensions",
     "bad-header", 0},
    {"{" T("a", "U8", "[999999999999999999]", "0", "999999999999999999") "}", 4,
     "tensor a ends at 1000000000000000", "truncated", 0},
    {"{" GOOD "," T("g", "U8", "[2]", "4", "6") "}", 6,
     "x: tensor g is in the header twice, at offsets", "duplicate-key", 1},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
     "tensor a: a field is there twice", "bad-header", 0},
    {"{\"a\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "dtype is missing", "bad-header", 0},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, "shape is missing", "bad-header", 0},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4]}}", 4,
     "data_offsets are not two numbers", "bad-header", 0},
    {"{\"a\":7}", 4, "expected an object", "bad-header", 0},
    {"{\"__metadata__\":{\"a\":1}," GOOD "}", 4, "holds a value that is no string", "bad-header",
     1},
    {"{\"__metadata__\":[]," GOOD "}", 4, "__metadata__ is not an object", "bad-header", 1},
    {"{" T("a", "F4", "[8]", "0", "4") "}", 4, "tensor a: unknown dtype F4", "bad-header", 0},
};

static size_t readable(const qn_header *h) {
    size_t n = 0;
    for (size_t i = 0; i < h->n; i++) n += h->tensors[i].data != NULL;
    return n;
}

static void every_rule_has_its_message(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_cases / sizeof *bad_cases; i++) {
        const bad_case *b = &bad_cases[i];
        size_t n;
        qn_header h;
        qn_err err = {0};
        uint8_t *file = st_bytes(b->header, b->n_data, &n);
        assert_false(qn_header_parse(file, n, "x", NULL, &h, &err));
        if (!strstr(err.text, b->message)) fail_msg("%s: %s", b->header, err.text);
        assert_int_equal(qn_exit_status(err.code), 2);
        err = (qn_err){0};
        qn_damages d = {0};
        assert_true(qn_header_parse(file, n, "x", &d, &h, &err));
        assert_int_equal(err.code, QN_OK);
        if (!d.n || strcmp(d.list[0].code, b->code) != 0) fail_msg("%s: %s", b->header, b->code);
        if (!strstr(d.list[0].message, b->message)) fail_msg("%s", d.list[0].message);
        if (readable(&h) != b->readable) fail_msg("%s: %zu readable", b->header, readable(&h));
        qn_header_done(&h);
        qn_damages_done(&d);
        free(file);
    }
}

static void expect_bad(const uint8_t *file, size_t n, qn_code code, const char *message) {
    qn_header h;
    qn_err err = {0};
    assert_false(qn_header_parse(file, n, "x", NULL, &h, &err));
    if (!strstr(err.text, message)) fail_msg("%s", err.text);
    assert_int_equal(err.code, code);
    qn_damages d = {0};
    err = (qn_err){0};
    bool ok = qn_header_parse(file, n, "x", &d, &h, &err);
    if (ok) qn_header_done(&h);
    qn_damages_done(&d);
}

static void lengths_that_lie(void **state) {
    (void)state;
    size_t n;
    uint8_t *file = st_bytes("{" GOOD "}   ", 4, &n);
    uint64_t lengths[] = {(uint64_t)1 << 62, UINT64_MAX, 100000001, 5000};
    for (size_t i = 0; i < 4; i++) {
        memcpy(file, &lengths[i], 8);
        char message[64];
        snprintf(message, sizeof message, "x: header of %llu bytes, %s",
                 (unsigned long long)lengths[i], i < 3 ? "expected at most 100000000" : "but only");
        expect_bad(file, n, QN_INPUT, message);
        // The JSON ends itself, and the data end the file: everything can be read.
        qn_damages d = {0};
        qn_header h;
        qn_err err = {0};
        assert_true(qn_header_parse(file, n, "x", &d, &h, &err));
        assert_int_equal(d.n, 1);
        assert_int_equal(readable(&h), 1);
        assert_memory_equal(h.tensors[0].data, "\0\1\2\3", 4);
        qn_header_done(&h);
        qn_damages_done(&d);
    }
    for (size_t cut = 0; cut < n; cut++) expect_bad(file, cut, QN_INPUT, "x: ");
    free(file);
    expect_bad((const uint8_t *)"GGUF\3\0\0\0\0\0\0", 11, QN_UNSUPPORTED, "x is a GGUF file");
    expect_bad((const uint8_t *)"", 0, QN_INPUT, "x: 0 bytes are too few for a safetensors file");
}

// A header of more than 100 MB is refused even when all of it is there, and one just below is read.
static void a_huge_header_is_refused(void **state) {
    (void)state;
    size_t n = 8 + QN_HEADER_MAX + 1;
    uint8_t *file = malloc(n);
    qn_header h;
    qn_err err = {0};
    memset(file, ' ', n);
    memcpy(file + 8, "{}", 2);
    uint64_t length = QN_HEADER_MAX + 1;
    memcpy(file, &length, 8);
    expect_bad(file, n, QN_INPUT, "x: header of 100000001 bytes, expected at most 100000000");
    length--;
    memcpy(file, &length, 8);
    assert_true(qn_header_parse(file, n - 1, "x", NULL, &h, &err));
    free(file);
}

static void deep_json_is_a_stated_limit(void **state) {
    (void)state;
    enum { DEPTH = 10000 };
    char *text = malloc(2 * DEPTH + 16);
    strcpy(text, "{\"a\":");
    memset(text + 5, '[', DEPTH);
    memset(text + 5 + DEPTH, ']', DEPTH);
    strcpy(text + 5 + 2 * DEPTH, "}");
    size_t n;
    uint8_t *file = st_bytes(text, 0, &n);
    expect_bad(file, n, QN_INPUT, "expected an object"); // no tensor can be an array
    memcpy(text, "{\"__metadata__\":{\"a\":", 21);
    free(file);
    file = st_bytes(text, 0, &n);
    expect_bad(file, n, QN_LIMIT, "x: header: nested deeper than 1000 levels");
    free(file);
    free(text);
}

// Any byte of a small file changed or cut off: an answer, never a crash.
static void random_damage_is_survived(void **state) {
    (void)state;
    size_t n;
    uint8_t *file = st_bytes("{" GOOD "," T("b", "BF16", "[2,1]", "4", "8") ","
                             T("c", "F32", "[1]", "8", "12") "}", 12, &n);
    for (uint64_t round = 0; round < 20000; round++) {
        uint8_t *copy = malloc(n);
        memcpy(copy, file, n);
        for (uint64_t k = 0; k <= round % 4; k++) {
            uint64_t r = qn_rng_u64(1, round, k);
            copy[r % n] = (uint8_t)(r >> 32);
        }
        size_t len = round % 3 ? n : (size_t)(qn_rng_u64(2, round, 0) % (n + 1));
        qn_header h;
        qn_damages d = {0};
        qn_err err = {0};
        if (qn_header_parse(copy, len, "x", NULL, &h, &err)) qn_header_done(&h);
        else assert_true(err.text[0] != 0);
        if (qn_header_parse(copy, len, "x", &d, &h, NULL)) {
            for (size_t i = 0; i < h.n; i++) {
                const qn_tensor *t = &h.tensors[i];
                float first;
                if (!t->data) continue;
                assert_true(t->data >= copy && t->data + t->bytes <= copy + len);
                assert_int_equal(t->bytes, t->n * qn_dtype_bytes(t->dtype));
                if (t->n) qn_tensor_to_f32(t, t->n - 1, 1, &first);
            }
            qn_header_done(&h);
        }
        qn_damages_done(&d);
        free(copy);
    }
    free(file);
}

static void every_dtype_reads_as_float(void **state) {
    (void)state;
    static const struct {
        qn_dtype d;
        const char *bytes;
        float value;
    } cases[] = {
        {QN_DT_F64, "\0\0\0\0\0\0\xF8\xBF", -1.5f}, {QN_DT_F32, "\0\0\xC0\xBF", -1.5f},
        {QN_DT_F16, "\x00\xBE", -1.5f},             {QN_DT_BF16, "\xC0\xBF", -1.5f},
        {QN_DT_F8_E4M3, "\xBC", -1.5f},             {QN_DT_F8_E5M2, "\xBE", -1.5f},
        {QN_DT_I64, "\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF", -2}, {QN_DT_I32, "\xFE\xFF\xFF\xFF", -2},
        {QN_DT_I16, "\xFE\xFF", -2},                {QN_DT_I8, "\xFE", -2},
        {QN_DT_U64, "\2\0\0\0\0\0\0\0", 2},         {QN_DT_U32, "\2\0\0\0", 2},
        {QN_DT_U16, "\2\0", 2},                     {QN_DT_U8, "\xFE", 254},
        {QN_DT_BOOL, "\1", 1},
    };
    assert_int_equal(sizeof cases / sizeof *cases, QN_N_DTYPES);
    for (size_t i = 0; i < QN_N_DTYPES; i++) {
        uint8_t odd[20] = {0};
        memcpy(odd + 1 + qn_dtype_bytes(cases[i].d), cases[i].bytes, qn_dtype_bytes(cases[i].d));
        qn_tensor t = {.dtype = cases[i].d, .n = 2, .data = odd + 1};
        float out[2] = {7, 7};
        qn_tensor_to_f32(&t, 1, 1, out);
        assert_true(out[0] == cases[i].value && out[1] == 7);
    }
}

// The quick widening agrees with the plain one for all 65536 numbers.
static void every_half_widens_exactly(void **state) {
    (void)state;
    uint16_t *all = malloc(65536 * sizeof *all);
    float *out = malloc(65536 * sizeof *out);
    for (uint32_t i = 0; i < 65536; i++) all[i] = (uint16_t)i;
    qn_tensor t = {.dtype = QN_DT_F16, .n = 65536, .data = (const uint8_t *)all};
    qn_tensor_to_f32(&t, 0, 65536, out);
    for (uint32_t i = 0; i < 65536; i++) {
        int e = (int)(i >> 10 & 31), m = (int)(i & 1023), sign = i & 0x8000 ? -1 : 1;
        if (e == 31) {
            assert_true(m ? isnan(out[i]) : isinf(out[i]) && (out[i] < 0) == (sign < 0));
            continue;
        }
        double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        assert_true((double)out[i] == sign * v && !!signbit(out[i]) == (sign < 0));
    }
    free(all);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files_are_read),
        cmocka_unit_test(every_rule_has_its_message),
        cmocka_unit_test(lengths_that_lie),
        cmocka_unit_test(a_huge_header_is_refused),
        cmocka_unit_test(deep_json_is_a_stated_limit),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(every_dtype_reads_as_float),
        cmocka_unit_test(every_half_widens_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
