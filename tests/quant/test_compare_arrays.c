// Dumps as NumPy writes them: .npy headers byte by byte, every order and type, and .npz archives
// that are what numpy.savez makes, or are damaged, or lie.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zip.h>

#include "base/file.h"
#include "base/json.h"
#include "base/str.h"
#include "quant/compare.h"
#include "support/scratch.h"

enum { T = 6, V = 40 };
#define SHAPE "'fortran_order': False, 'shape': (6, 40)}"
#define LOGITS "{'descr': '<f4', " SHAPE, logits, sizeof logits

static float logits[T * V];
static int32_t tokens[T];
static const qn_compare_options usual = {.cosine = 0.99, .max_abs = 0.001, .top1 = 1,
                                         .n_threads = 2};

static int setup(void **state) {
    (void)state;
    for (int i = 0; i < T; i++) tokens[i] = 200 * i;
    for (int i = 0; i < T * V; i++) logits[i] = (float)(i * 37 % 64 - 32) / 8;
    return 0;
}

static void refused(const char *path, qn_code code, const char *text) {
    json_t *report = NULL;
    qn_err err = {0};
    assert_false(qn_compare(path, path, &usual, &report, &err));
    assert_null(report);
    if (!strstr(err.text, text)) fail_msg("\"%s\" does not say \"%s\"", err.text, text);
    assert_int_equal(err.code, code);
}

static void identical(const char *a, const char *b, size_t n_notes) {
    json_t *r = NULL;
    qn_err err = {0};
    if (!qn_compare(a, b, &usual, &r, &err)) fail_msg("%s", err.text);
    assert_string_equal(json_string_value(json_object_get(r, "verdict")), "ok");
    assert_true(json_is_true(json_object_get(r, "identical")));
    assert_int_equal(json_array_size(json_object_get(r, "positions")), T);
    assert_int_equal(json_array_size(json_object_get(r, "notes")), n_notes);
    json_decref(r);
}

// ---- .npy ----

static void put_npy(qn_buf *b, int version, const char *header, const void *data, size_t n) {
    size_t length = strlen(header);
    qn_buf_adds(b, "\x93NUMPY");
    qn_buf_addc(b, (char)version);
    qn_buf_addc(b, 0);
    for (int i = 0; i < (version == 1 ? 2 : 4); i++)
        qn_buf_addc(b, (char)(length >> 8 * i & 255));
    qn_buf_adds(b, header);
    if (n) qn_buf_add(b, data, n);
}

static char *write_npy(const char *name, int version, const char *header, const void *data,
                       size_t n) {
    char *path = scratch_path(name);
    qn_buf b = {0};
    put_npy(&b, version, header, data, n);
    assert_true(qn_file_write(path, b.data, b.n, NULL));
    qn_buf_done(&b);
    return path;
}

static void every_version(void **state) {
    (void)state;
    static const char *const headers[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 40), }     \n",
        "{\"shape\": (1, 6, 40), \"fortran_order\": False, \"descr\": \"<f4\"}",
        "{'shape': (6L, 40L), 'descr': '=f4', 'fortran_order': False,}\n"};
    char *a = write_npy("logits.npy", 1, headers[0], logits, sizeof logits);
    for (int i = 0; i < 3; i++) {
        char *b = write_npy("anything.npy", i + 1, headers[i], logits, sizeof logits);
        identical(b, a, 1); // the note: tokens could not be checked
        scratch_remove(b);
    }
    scratch_remove(a);
}

static void every_type(void **state) {
    (void)state;
    static const struct {
        const char *type;
        size_t bytes;
    } types[] = {{"<f8", 8}, {"<i4", 4}, {"<i8", 8}, {"<i2", 2}, {"|i1", 1}, {"<u4", 4}};
    float whole[T * V];
    for (int i = 0; i < T * V; i++) whole[i] = (float)(i * 37 % 64);
    char *a = write_npy("a.npy", 1, "{'descr': '<f4', " SHAPE, whole, sizeof whole);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        uint8_t bytes[8 * T * V];
        char header[80];
        for (int i = 0; i < T * V; i++) {
            double real = (double)whole[i];
            int64_t n = (int64_t)real;
            memcpy(bytes + (size_t)i * types[t].bytes, t ? (void *)&n : (void *)&real,
                   types[t].bytes);
        }
        snprintf(header, sizeof header, "{'descr': '%s', " SHAPE, types[t].type);
        char *b = write_npy("b.npy", 1, header, bytes, T * V * types[t].bytes);
        identical(b, a, 1);
        scratch_remove(b);
    }
    scratch_remove(a);
}

// All four combinations of byte order and axis order, in three dimensions.
static void every_order(void **state) {
    (void)state;
    enum { A = 2, B = 3 };
    char *a = write_npy("a.npy", 1, LOGITS);
    for (int k = 0; k < 4; k++) {
        bool big = k & 1, fortran = k & 2;
        uint8_t bytes[sizeof logits];
        for (size_t i = 0; i < T * V; i++) {
            size_t x = i / V / B, y = i / V % B, z = i % V;
            uint8_t *to = bytes + sizeof(float) * (fortran ? x + A * (y + B * z) : i);
            uint8_t one[4];
            memcpy(one, &logits[i], sizeof one);
            for (int j = 0; j < 4; j++) to[j] = one[big ? 3 - j : j];
        }
        char header[96];
        snprintf(header, sizeof header, "{'descr': '%cf4', 'fortran_order': %s, "
                 "'shape': (2, 3, 40)}", big ? '>' : '<', fortran ? "True" : "False");
        char *b = write_npy("b.npy", 1, header, bytes, sizeof bytes);
        identical(b, a, 1);
        scratch_remove(b);
    }
    scratch_remove(a);
}

static void npy_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *header, *text;
        qn_code code;
    } cases[] = {
        {"{'descr': '<V2', " SHAPE, "type is \"<V2\", two bytes without a meaning",
         QN_UNSUPPORTED},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (6, 40)}", "type is \"|O\"",
         QN_UNSUPPORTED},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", "malformed", QN_INPUT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 41)}", "960 bytes of data",
         QN_INPUT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999)}",
         "fits into memory", QN_INPUT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 40)}", "non-negative", QN_INPUT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6 40)}", "a comma", QN_INPUT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,6,40)}",
         "at most 8 dimensions", QN_INPUT},
        {"{'descr': '<f4', 'shape': (6, 40)}", "descr, fortran_order and shape", QN_INPUT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 40)", "malformed", QN_INPUT},
        {"{'descr", "malformed", QN_INPUT},
        {"", "malformed", QN_INPUT},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (6, 40)}", "True or False", QN_INPUT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *a = write_npy("logits.npy", 1, cases[i].header, logits, sizeof logits);
        refused(a, cases[i].code, cases[i].text);
        scratch_remove(a);
    }
    char *a = scratch_path("short.npy");
    static const char bytes[] = "\x93NUMPY\x01\x00\xff\xff{'descr'";
    for (size_t n = 0; n < sizeof bytes; n++) {
        assert_true(qn_file_write(a, bytes, n, NULL));
        refused(a, QN_INPUT, "short.npy: ");
    }
    scratch_remove(a);
}

// ---- .npz ----

typedef struct entry {
    const char *name, *header;
    const void *data;
    size_t n;
} entry;

static const entry dump[] = {
    {"tokens.npy", "{'descr': '<i4', 'fortran_order': False, 'shape': (6,)}", tokens,
     sizeof tokens},
    {"logits.npy", LOGITS}};

// method: 0 stored, 8 deflated …
static char *write_npz(const char *name, const entry *list, size_t n, int method) {
    char *path = scratch_path(name);
    int code = 0;
    zip_t *z = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    assert_non_null(z);
    qn_buf *files = calloc(n, sizeof *files);
    for (size_t i = 0; i < n; i++) {
        if (list[i].header) put_npy(&files[i], 1, list[i].header, list[i].data, list[i].n);
        else qn_buf_add(&files[i], list[i].data, list[i].n);
        zip_source_t *s = zip_source_buffer(z, files[i].data, files[i].n, 0);
        zip_int64_t at = zip_file_add(z, list[i].name, s, 0);
        assert_true(at >= 0);
        assert_int_equal(zip_set_file_compression(z, (zip_uint64_t)at, method, 0), 0);
    }
    assert_int_equal(zip_close(z), 0);
    for (size_t i = 0; i < n; i++) qn_buf_done(&files[i]);
    free(files);
    return path;
}

static void archives_are_read(void **state) {
    (void)state;
    static const entry alone[] = {{"x.npy", LOGITS}};
    char *a = write_npz("a.npz", dump, 2, ZIP_CM_STORE);
    char *b = write_npz("b.npz", dump, 2, ZIP_CM_DEFLATE);
    char *c = write_npz("c.npz", alone, 1, ZIP_CM_DEFLATE);
    identical(a, b, 0);
    identical(c, a, 1); // a lone array is the logits
    scratch_remove(a);
    scratch_remove(b);
    scratch_remove(c);
}

static void archives_are_refused(void **state) {
    (void)state;
    static const entry text[] = {{"logits.npy", LOGITS}, {"README.txt", NULL, "hello", 5}};
    static const entry wrong[] = {{"logits.npy", LOGITS}, {"meta.npy", NULL, "hello, world", 12}};
    static const entry strange[] = {{"arr_0.npy", LOGITS}, {"arr_1.npy", LOGITS}};
    static const struct {
        const entry *list;
        size_t n;
        int method;
        qn_code code;
        const char *said;
    } cases[] = {
        {text, 2, ZIP_CM_STORE, QN_INPUT, "README.txt is not a .npy array"},
        {wrong, 2, ZIP_CM_STORE, QN_INPUT, "meta.npy: not a .npy file"},
        {strange, 2, ZIP_CM_STORE, QN_INPUT, "no array is named as a dump's tensors are (first: "},
        {dump, 2, ZIP_CM_BZIP2, QN_UNSUPPORTED, "packed by method 12"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *a = write_npz("a.npz", cases[i].list, cases[i].n, cases[i].method);
        refused(a, cases[i].code, cases[i].said);
        scratch_remove(a);
    }
}

// Zeros shrink a thousandfold.
static void bombs_are_refused(void **state) {
    (void)state;
    size_t n = (size_t)80 << 20;
    void *zeros = calloc(n, 1);
    const entry bomb = {"logits.npy", "{'descr': '|u1', 'fortran_order': False, "
                        "'shape': (1, 83886080)}", zeros, n};
    char *a = write_npz("a.npz", &bomb, 1, ZIP_CM_DEFLATE);
    refused(a, QN_LIMIT, "expected at most 100 times as many");
    scratch_remove(a);
    free(zeros);
}

static size_t find(const qn_buf *b, const char *what, size_t n, size_t from) {
    for (size_t i = from; i + n <= b->n; i++)
        if (memcmp(b->data + i, what, n) == 0) return i;
    fail_msg("the archive has no such record");
    return 0;
}

static void put_u32(qn_buf *b, size_t at, uint32_t x) {
    for (int i = 0; i < 4; i++) b->data[at + (size_t)i] = (char)(x >> 8 * i & 255);
}

// An archive changed at one place: the sizes in the list at its end, the data, the names.
static void archives_that_lie(void **state) {
    (void)state;
    char *a = write_npz("a.npz", dump, 2, ZIP_CM_DEFLATE), *b = scratch_path("b.npz");
    qn_buf whole = {0}, changed = {0};
    assert_true(qn_file_read(a, 1 << 20, &whole, NULL));
    size_t listed = find(&whole, "PK\1\2", 4, 0), data = find(&whole, "logits.npy", 10, 0) + 40;
    for (int k = 0; k < 5; k++) {
        qn_buf_clear(&changed);
        qn_buf_add(&changed, whole.data, whole.n);
        if (k == 0) put_u32(&changed, listed + 24, 0xfffffff0u); // unpacked size
        if (k == 1) put_u32(&changed, listed + 24, 200);
        if (k == 2) put_u32(&changed, listed + 20, 0x7fffffffu); // packed size
        if (k == 3) changed.data[data] = (char)(changed.data[data] ^ 0x55);
        if (k == 4)
            memcpy(changed.data + find(&changed, "logits.npy", 10, listed), "tokens.npy", 10);
        assert_true(qn_file_write(b, changed.data, changed.n, NULL));
        refused(b, QN_INPUT, k == 4 ? "tokens.npy is there twice"
                             : k % 2 ? "does not unpack" : "cannot be");
    }
    for (size_t n = 1; n < whole.n; n += 7) {
        assert_true(qn_file_write(b, whole.data, n, NULL));
        refused(b, QN_INPUT, "not a readable .npz (zip) archive");
    }
    qn_buf_done(&whole);
    qn_buf_done(&changed);
    scratch_remove(a);
    scratch_remove(b);
}

// Five GiB of nothing: refused by its size, not read.
static void archives_have_a_limit(void **state) {
    (void)state;
    char *a = scratch_path("a.npz");
    FILE *f = fopen(a, "wb");
    assert_non_null(f);
    assert_int_equal(fseeko(f, (off_t)5 << 30, SEEK_SET), 0);
    assert_int_equal(fputc(0, f), 0);
    fclose(f);
    refused(a, QN_LIMIT, "the archive has 5368709121 bytes, expected at most 4294967296");
    scratch_remove(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version),
        cmocka_unit_test(every_type),
        cmocka_unit_test(every_order),
        cmocka_unit_test(npy_is_refused),
        cmocka_unit_test(archives_are_read),
        cmocka_unit_test(archives_are_refused),
        cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(archives_that_lie),
        cmocka_unit_test(archives_have_a_limit),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
