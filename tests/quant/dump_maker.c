// Writes dumps tensor by tensor, and looks into reports. A failure names what was found.
#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dump_maker.h"

#include "base/f16.h"
#include "base/json.h"
#include "store/shard_writer.h"
#include "support/scratch.h"

static size_t count(const tensor *t) {
    size_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

static void put(uint8_t *out, qn_dtype dtype, float x) {
    uint16_t half = dtype == QN_DT_BF16 ? qn_f32_to_bf16(x) : qn_f32_to_f16(x);
    bool integer = dtype == QN_DT_I32 || dtype == QN_DT_I64;
    int32_t narrow = integer ? (int32_t)x : 0;
    int64_t wide = narrow;
    double real = (double)x;
    const void *from = dtype == QN_DT_F32   ? (const void *)&x
                       : dtype == QN_DT_F64 ? (const void *)&real
                       : dtype == QN_DT_I32 ? (const void *)&narrow
                       : dtype == QN_DT_I64 ? (const void *)&wide
                                            : (const void *)&half;
    memcpy(out, from, qn_dtype_bytes(dtype));
}

char *write_dump(const char *name, const tensor *list, size_t n) {
    char *path = scratch_path(name);
    qn_err err = {0};
    qn_shards *s = qn_shards_new_file(path, NULL, &err);
    assert_non_null(s);
    for (size_t i = 0; i < n; i++)
        assert_true(qn_shards_declare(s, list[i].name, list[i].dtype, list[i].shape,
                                      list[i].n_dims, &err));
    for (size_t i = 0; i < n; i++) {
        size_t size = qn_dtype_bytes(list[i].dtype), k = count(&list[i]);
        uint8_t *bytes = malloc(k * size);
        for (size_t j = 0; j < k; j++) put(bytes + j * size, list[i].dtype, list[i].x[j]);
        assert_true(qn_shards_add(s, bytes, k * size, &err));
        free(bytes);
    }
    if (!qn_shards_finish(s, &err)) fail_msg("%s", err.text);
    qn_shards_free(s);
    return path;
}

json_t *compare_with(const char *a, const char *b, qn_compare_options o) {
    json_t *report = NULL;
    qn_err err = {0};
    o.n_threads = o.n_threads ? o.n_threads : 2;
    if (!qn_compare(a, b, &o, &report, &err)) fail_msg("%s", err.text);
    return report;
}

const qn_compare_options usual = {.cosine = 0.99, .max_abs = 0.001, .top1 = 1};

json_t *compare(const char *a, const char *b) { return compare_with(a, b, usual); }

void refused(const char *a, const char *b, qn_code code, const char *text) {
    json_t *report = NULL;
    qn_err err = {0};
    assert_false(qn_compare(a, b, &usual, &report, &err));
    assert_null(report);
    if (!strstr(err.text, text)) fail_msg("\"%s\" does not say \"%s\"", err.text, text);
    assert_int_equal(err.code, code);
}

const json_t *at(const json_t *o, const char *key) { return json_object_get(o, key); }

double number(const json_t *r, const char *section, const char *key) {
    const json_t *v = at(section ? at(r, section) : r, key);
    if (!json_is_number(v)) fail_msg("%s is no number", key);
    return json_number_value(v);
}

void is_verdict(const json_t *r, const char *verdict) {
    if (strcmp(json_string_value(at(r, "verdict")), verdict) != 0) {
        char *text = qn_json_text(at(r, "reasons"), false);
        fail_msg("the verdict is not %s: %s", verdict, text);
    }
    assert_int_equal(json_array_size(at(r, "reasons")) == 0, strcmp(verdict, "ok") == 0);
}

void has_reason(const json_t *r, const char *text) {
    size_t i;
    json_t *v;
    json_array_foreach(at(r, "reasons"), i, v) if (strstr(json_string_value(v), text)) return;
    char *all = qn_json_text(at(r, "reasons"), false);
    fail_msg("no reason says \"%s\": %s", text, all);
}

void has_note(const json_t *r, const char *text) {
    size_t i;
    json_t *v;
    json_array_foreach(at(r, "notes"), i, v) if (strstr(json_string_value(v), text)) return;
    char *all = qn_json_text(at(r, "notes"), false);
    fail_msg("no note says \"%s\": %s", text, all);
}

void near(double x, double y, double tolerance) {
    if (!(fabs(x - y) <= tolerance)) fail_msg("%.17g is not %.17g", x, y);
}
