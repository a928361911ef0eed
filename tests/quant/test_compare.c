// compare: figures against closed forms on small dumps written here, and every way in which two
// dumps may differ.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "dump_maker.h"
#include "support/scratch.h"

enum { T = 6, V = 40, H = 8 };

// Values that every dtype holds exactly.
static float ids[T], logits[T * V], hidden[3][T * H];

static int setup(void **state) {
    (void)state;
    for (int i = 0; i < T; i++) ids[i] = (float)(i * 3 + 1);
    for (int i = 0; i < T * V; i++) logits[i] = (float)(i * 37 % 64 - 32) / 8;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < T * H; i++) hidden[k][i] = (float)((i * 11 + k * 5) % 32 - 16) / 4;
    return 0;
}

static char *usual_dump(const char *name, qn_dtype dtype, const float *l, const float *h1) {
    const tensor list[] = {{"tokens", QN_DT_I32, {T}, 1, ids},
                           {"logits", dtype, {T, V}, 2, l},
                           {"hidden.final", dtype, {T, H}, 2, hidden[2]},
                           {"hidden.1", dtype, {T, H}, 2, h1},
                           {"hidden.0", dtype, {T, H}, 2, hidden[0]}};
    return write_dump(name, list, 5);
}

// ---- dumps ----

static void equal_in_every_dtype(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DT_F32, QN_DT_F16, QN_DT_BF16, QN_DT_F64};
    char *a = usual_dump("a.safetensors", QN_DT_F32, logits, hidden[1]);
    for (int i = 0; i < 4; i++) {
        char *b = usual_dump("b.safetensors", dtypes[i], logits, hidden[1]);
        json_t *r = compare(a, b);
        is_verdict(r, "ok");
        assert_true(json_is_true(at(r, "identical")));
        assert_true(json_is_null(at(r, "first_position")));
        assert_true(json_is_null(at(r, "first_layer")));
        near(number(r, "overall", "cosine"), 1, 0);
        near(number(r, "overall", "kl"), 0, 0);
        assert_int_equal(json_array_size(at(r, "positions")), T);
        assert_int_equal(json_array_size(at(r, "layers")), 3);
        const char *last = json_string_value(at(json_array_get(at(r, "layers"), 2), "name"));
        assert_string_equal(last, "hidden.final"); // in order of depth, not of the file
        json_decref(r);
        scratch_remove(b);
    }
    scratch_remove(a);
}

// Two positions over two tokens, computed by hand.
static void figures_are_those_of_the_formulas(void **state) {
    (void)state;
    const float x[4] = {1, 2, 3, 0}, y[4] = {1, 2, 0, 4}, two[2] = {5, 6};
    const tensor a[] = {{"tokens", QN_DT_I64, {2}, 1, two}, {"logits", QN_DT_F32, {2, 2}, 2, x}};
    const tensor b[] = {{"tokens", QN_DT_I32, {2}, 1, two}, {"logits", QN_DT_F32, {2, 2}, 2, y}};
    char *pa = write_dump("a.safetensors", a, 2), *pb = write_dump("b.safetensors", b, 2);
    json_t *r = compare(pa, pb);
    is_verdict(r, "different");
    near(number(r, "overall", "cosine"), 5 / sqrt(14.0 * 21), 1e-12);
    near(number(r, "overall", "mse"), (9 + 16) / 4.0, 1e-12);
    near(number(r, "overall", "max_abs_error"), 4, 0);
    near(number(r, "overall", "max_rel_error"), 1, 1e-12); // 0 against 4; 3 against 0 has none
    double q0 = 1 / (1 + exp(-3.0)), p0 = 1 / (1 + exp(4.0)); // A (q) has 3, 0; B (p) 0, 4
    double kl = p0 * log(p0 / q0) + (1 - p0) * log((1 - p0) / (1 - q0));
    near(number(r, "overall", "kl"), kl / 2, 1e-12);
    near(number(r, "overall", "top1"), 0.5, 0);
    near(number(r, "overall", "top5"), 1, 0);
    near(number(r, NULL, "first_position"), 1, 0);
    near(number(r, NULL, "first_position_beyond"), 1, 0);
    has_reason(r, "cosine 0.2916");
    has_reason(r, "max abs error 4");
    has_reason(r, "top-1 agreement 0.5");
    json_decref(r);
    scratch_remove(pa);
    scratch_remove(pb);
}

static void thresholds_decide(void **state) {
    (void)state;
    float moved[T * V];
    memcpy(moved, logits, sizeof moved);
    moved[3 * V + 7] += 0.0625f;
    char *a = usual_dump("a.safetensors", QN_DT_F32, moved, hidden[1]);
    char *b = usual_dump("b.safetensors", QN_DT_F32, logits, hidden[1]);
    json_t *r = compare(a, b);
    is_verdict(r, "different");
    near(number(r, NULL, "first_position"), 3, 0);
    json_decref(r);
    qn_compare_options o = usual;
    o.max_abs = 0.0625;
    r = compare_with(a, b, o);
    is_verdict(r, "ok");
    assert_false(json_is_true(at(r, "identical")));
    near(number(r, NULL, "first_position"), 3, 0); // differs, though within the thresholds
    assert_true(json_is_null(at(r, "first_position_beyond")));
    json_decref(r);
    scratch_remove(a);
    scratch_remove(b);
}

static void the_first_layer_that_parts(void **state) {
    (void)state;
    float turned[T * H];
    for (int i = 0; i < T * H; i++) turned[i] = i % 2 ? -hidden[1][i] : hidden[1][i];
    char *a = usual_dump("a.safetensors", QN_DT_F32, logits, turned);
    char *b = usual_dump("b.safetensors", QN_DT_F32, logits, hidden[1]);
    json_t *r = compare(a, b);
    is_verdict(r, "different");
    assert_string_equal(json_string_value(at(r, "first_layer")), "hidden.1");
    has_reason(r, "hidden.1 is where the two part");
    const json_t *layer = json_array_get(at(r, "layers"), 1);
    near(number(layer, NULL, "norm_a"), number(layer, NULL, "norm_b"), 1e-12);
    json_decref(r);
    scratch_remove(a);
    scratch_remove(b);
}

static void the_last_position_alone(void **state) {
    (void)state;
    const float *last = logits + (T - 1) * V;
    const tensor flat[] = {{"tokens", QN_DT_I32, {T}, 1, ids}, {"logits", QN_DT_F32, {V}, 1, last}};
    const tensor batch[] = {{"tokens", QN_DT_I64, {1, T}, 2, ids},
                            {"logits", QN_DT_BF16, {1, 1, V}, 3, last},
                            {"hidden.1", QN_DT_F32, {1, H}, 2, hidden[1] + (T - 1) * H}};
    char *whole = usual_dump("a.safetensors", QN_DT_F32, logits, hidden[1]);
    char *one = write_dump("b.safetensors", flat, 2), *two = write_dump("c.safetensors", batch, 3);
    const char *pairs[][2] = {{whole, one}, {two, whole}, {one, two}};
    for (int i = 0; i < 3; i++) {
        json_t *r = compare(pairs[i][0], pairs[i][1]);
        is_verdict(r, "ok");
        assert_int_equal(json_array_size(at(r, "positions")), 1);
        near(number(json_array_get(at(r, "positions"), 0), NULL, "position"), i < 2 ? T - 1 : 0, 0);
        if (i == 0) has_note(r, "B has the last position alone (tensors: 1); the 5 before it in A");
        if (i == 1) has_note(r, "A has the last position alone (tensors: 2)");
        assert_true(json_is_true(at(r, "partial"))); // also what only one has
        json_decref(r);
    }
    scratch_remove(whole);
    scratch_remove(one);
    scratch_remove(two);
}

static void vocabulary_padding(void **state) {
    (void)state;
    enum { WIDE = V + 8 };
    float padded[T * WIDE], masked[T * V];
    for (int i = 0; i < T; i++)
        for (int j = 0; j < WIDE; j++)
            padded[i * WIDE + j] = j < V ? logits[i * V + j] : 1000; // would win, were it counted
    const tensor wide[] = {{"tokens", QN_DT_I32, {T}, 1, ids},
                           {"logits", QN_DT_F32, {T, WIDE}, 2, padded}};
    char *a = write_dump("a.safetensors", wide, 2);
    char *b = usual_dump("b.safetensors", QN_DT_F32, logits, hidden[1]);
    json_t *r = compare(a, b);
    is_verdict(r, "ok");
    near(number(r, "overall", "top1"), 1, 0);
    has_note(r, "A has 48 columns, B has 40; the first 40 are compared");
    has_note(r, "A: columns that are not compared hold the largest value at 6 of 6 positions, "
                "first at position 0, column 40");
    assert_true(json_is_true(at(r, "partial")));
    assert_int_equal(json_array_size(at(r, "only_in_b")), 3);
    json_decref(r);
    scratch_remove(a);
    // -inf for what no token is: fine where both say so.
    memcpy(masked, logits, sizeof masked);
    for (int i = 0; i < T; i++) masked[i * V + V - 1] = -INFINITY;
    a = usual_dump("a.safetensors", QN_DT_F32, masked, hidden[1]);
    r = compare(a, a);
    is_verdict(r, "ok");
    near(number(r, "overall", "kl"), 0, 0);
    json_decref(r);
    r = compare(a, b);
    is_verdict(r, "different");
    has_reason(r, "logits of A: 6 values are not finite, first -inf at position 0, column 39");
    json_decref(r);
    scratch_remove(a);
    scratch_remove(b);
}

static void nan_has_its_place_named(void **state) {
    (void)state;
    float bad[T * V], bad_hidden[T * H];
    memcpy(bad, logits, sizeof bad);
    memcpy(bad_hidden, hidden[1], sizeof bad_hidden);
    bad[2 * V + 5] = NAN;
    bad_hidden[4 * H + 1] = INFINITY;
    char *a = usual_dump("a.safetensors", QN_DT_F32, bad, bad_hidden);
    char *b = usual_dump("b.safetensors", QN_DT_F32, logits, hidden[1]);
    json_t *r = compare(a, b);
    is_verdict(r, "different");
    has_reason(r, "hidden.1 of A: 1 value is not finite, first inf at position 4, column 1; later "
                  "tensors that are not finite: 1");
    assert_int_equal(json_array_size(at(r, "nonfinite")), 2);
    assert_string_equal(json_string_value(at(r, "first_layer")), "hidden.1");
    const json_t *position = json_array_get(at(r, "positions"), 2);
    assert_string_equal(json_string_value(at(position, "kl")), "nan");
    near(number(r, "overall", "cosine"), 1, 0); // of the others, and not 0.9999999999999998
    json_decref(r);
    r = compare(a, a); // equal, but no numbers to agree on
    is_verdict(r, "different");
    json_decref(r);
    scratch_remove(a);
    scratch_remove(b);
}

// A draft's logits get what logits get, thresholds and divergence too.
static void draft_logits(void **state) {
    (void)state;
    enum { D = T - 1 };
    float other[D * V];
    memcpy(other, logits, sizeof other);
    other[3 * V + 7] += 8; // the likeliest now
    const tensor one[] = {{"logits", QN_DT_F32, {T, V}, 2, logits},
                          {"mtp.logits", QN_DT_F32, {D, V}, 2, logits}};
    const tensor two[] = {{"logits", QN_DT_F32, {T, V}, 2, logits},
                          {"mtp.logits", QN_DT_F32, {D, V}, 2, other}};
    char *a = write_dump("a.safetensors", two, 2), *b = write_dump("b.safetensors", one, 2);
    json_t *r = compare(a, b);
    is_verdict(r, "different");
    has_reason(r, "mtp.logits: max abs error 8, expected at most 0.001");
    has_reason(r, "mtp.logits: top-1 agreement 0.8, expected at least 1");
    near(number(r, "overall", "kl"), 0, 0);
    assert_true(json_is_null(at(r, "first_position")));
    const json_t *draft = json_array_get(at(r, "tensors"), 0);
    assert_string_equal(json_string_value(at(draft, "name")), "mtp.logits");
    near(number(draft, NULL, "top1"), 0.8, 1e-12);
    near(number(draft, NULL, "first_position_beyond"), 3, 0);
    assert_int_equal(json_array_size(at(draft, "positions")), D);
    assert_true(number(draft, NULL, "kl") > 0);
    near(number(draft, NULL, "kl_max"), D * number(draft, NULL, "kl"), 1e-9);
    json_decref(r);
    scratch_remove(a);
    scratch_remove(b);
    // Without logits the draft's divergence is the only one.
    a = write_dump("a.safetensors", two + 1, 1), b = write_dump("b.safetensors", one + 1, 1);
    r = compare(a, b);
    assert_true(number(r, "overall", "kl") > 0);
    near(number(r, "overall", "top1"), 0.8, 1e-12);
    json_decref(r);
    scratch_remove(a);
    scratch_remove(b);
}

// The first tensor in the order of layers is named, not the first in the file.
static void where_a_computation_broke(void **state) {
    (void)state;
    float bad[T * V], bad_hidden[T * H];
    memcpy(bad, logits, sizeof bad);
    for (int i = 0; i < T * H; i++) bad_hidden[i] = i >= 3 * H ? NAN : hidden[0][i];
    for (int i = 2 * V; i < T * V; i++) bad[i] = NAN;
    const tensor list[] = {{"logits", QN_DT_F32, {T, V}, 2, bad},
                           {"hidden.final", QN_DT_F32, {T, H}, 2, bad_hidden},
                           {"hidden.10", QN_DT_F32, {T, H}, 2, bad_hidden},
                           {"hidden.9", QN_DT_F32, {T, H}, 2, bad_hidden},
                           {"hidden.2", QN_DT_F32, {T, H}, 2, hidden[0]}};
    char *a = write_dump("a.safetensors", list, 5);
    json_t *r = compare(a, a);
    is_verdict(r, "different");
    has_reason(r, "hidden.9 of A: 24 values are not finite, first nan at position 3, column 0; "
                  "later tensors that are not finite: 3");
    has_reason(r, "hidden.9 of B: 24 values");
    has_reason(r, "top-1 agreement 0.3333"); // there is no likeliest among NaN
    assert_int_equal(json_array_size(at(r, "reasons")), 3);
    assert_string_equal(json_string_value(at(r, "first_layer")), "hidden.9");
    const json_t *first = json_array_get(at(r, "nonfinite"), 0);
    assert_string_equal(json_string_value(at(first, "tensor")), "hidden.9");
    near(number(first, NULL, "row"), 3, 0);
    near(number(r, NULL, "first_position_beyond"), 2, 0);
    const json_t *lost = json_array_get(at(r, "positions"), 2); // no figure of a row of nan
    assert_string_equal(json_string_value(at(lost, "cosine")), "nan");
    assert_string_equal(json_string_value(at(lost, "relative_rms")), "nan");
    json_decref(r);
    scratch_remove(a);
}

// The cosine of the layer at fault may stay high: the layer is found all the same.
static void a_fault_above_the_cosine(void **state) {
    (void)state;
    float louder[T * H], shifted[T * V];
    for (int i = 0; i < T * H; i++) louder[i] = hidden[1][i] * 1.02f;
    for (int i = 0; i < T * V; i++) shifted[i] = logits[i] + (i % V == 1 ? 0.01f : 0);
    char *a = usual_dump("a.safetensors", QN_DT_F32, logits, hidden[1]);
    char *b = usual_dump("b.safetensors", QN_DT_F32, shifted, louder);
    json_t *r = compare(a, b);
    is_verdict(r, "different");
    assert_string_equal(json_string_value(at(r, "first_layer")), "hidden.1");
    json_decref(r);
    scratch_remove(a);
    scratch_remove(b);
}

static void what_cannot_be_compared(void **state) {
    (void)state;
    float other[T];
    memcpy(other, ids, sizeof other);
    other[4] = 99;
    const tensor wrong[] = {{"tokens", QN_DT_I32, {T}, 1, other},
                            {"logits", QN_DT_F32, {T, V}, 2, logits}};
    const tensor few[] = {{"tokens", QN_DT_I32, {3}, 1, ids},
                          {"logits", QN_DT_F32, {3, V}, 2, logits}};
    const tensor loose[] = {{"logits", QN_DT_F32, {3, V}, 2, logits}};
    const tensor float_ids[] = {{"tokens", QN_DT_F32, {T}, 1, ids},
                                {"logits", QN_DT_F32, {T, V}, 2, logits}};
    const tensor lean[] = {{"hidden.1", QN_DT_F32, {T, H / 2}, 2, hidden[1]}};
    const tensor bare[] = {{"tokens", QN_DT_I32, {T}, 1, ids}};
    const tensor turned[] = {{"logits", QN_DT_F32, {V, T}, 2, logits}};
    const tensor tiny[] = {{"logits", QN_DT_F32, {T, V / 2 - 1}, 2, logits}}; // no mere padding
    char *a = usual_dump("a.safetensors", QN_DT_F32, logits, hidden[1]);
    const struct {
        const tensor *list;
        size_t n;
        const char *text;
    } cases[] = {{wrong, 2, "tokens differ first at position 4"},
                 {few, 2, "tokens differ: "},
                 {loose, 1, "tensor logits: 3 positions in"},
                 {float_ids, 2, "tensor tokens is F32, expected integers"},
                 {lean, 1, "tensor hidden.1: 4 columns in"},
                 {turned, 1, "the last one alone (one is the other's shape transposed)"},
                 {tiny, 1, "tensor logits: 19 columns in"},
                 {bare, 1, "no tensor in common but tokens"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *b = write_dump("b.safetensors", cases[i].list, cases[i].n);
        refused(b, a, QN_INPUT, cases[i].text);
        scratch_remove(b);
    }
    refused(a, "tests/data/quantized/base-bf16", QN_USAGE,
            "is a checkpoint, expected two dumps or two");
    const tensor unnamed[] = {{"lm_logits", QN_DT_F32, {T, V}, 2, logits}};
    char *foreign = write_dump("foreign.safetensors", unnamed, 1);
    refused(a, foreign, QN_USAGE, "foreign.safetensors has no tensor that is named as a dump's");
    scratch_remove(foreign);
    refused(a, "no/such.safetensors", QN_NOT_FOUND, "no such file");
    scratch_remove(a);
    refused("x.pt", "x.pt", QN_UNSUPPORTED, "pickled files can run code");
}

// Nothing that was left out, or that F32 cannot see, may pass for identical without a word.
static void a_part_is_called_a_part(void **state) {
    (void)state;
    float nothing[T * V];
    memcpy(nothing, logits, sizeof nothing);
    for (int i = 0; i < V; i++) nothing[i] = NAN;
    const tensor whole[] = {{"tokens", QN_DT_I32, {T}, 1, ids},
                            {"logits", QN_DT_F64, {T, V}, 2, logits}};
    const tensor mute[] = {{"logits", QN_DT_F32, {T, V}, 2, logits}};
    const tensor dead[] = {{"logits", QN_DT_F32, {T, V}, 2, nothing}};
    char *a = write_dump("a.safetensors", whole, 2), *b = write_dump("b.safetensors", mute, 1);
    char *d = write_dump("d.safetensors", dead, 1);
    json_t *r = compare(a, a);
    assert_true(json_is_false(at(r, "partial"))); // F64, and yet every value is one of F32
    json_decref(r);
    r = compare(b, b);
    has_note(r, "neither side has tokens");
    assert_true(json_is_false(at(r, "partial")));
    json_decref(r);
    r = compare(d, b);
    assert_true(json_is_null(at(json_array_get(at(r, "positions"), 0), "top1_a")));
    assert_int_equal(number(json_array_get(at(r, "positions"), 0), NULL, "top1_b"), 19);
    json_decref(r);
    FILE *f = fopen(a, "r+b"); // one bit that only F64 has
    assert_true(f && fseek(f, -8, SEEK_END) == 0 && fputc(1, f) == 1 && fclose(f) == 0);
    r = compare(a, b);
    assert_true(json_is_true(at(r, "identical")) && json_is_true(at(r, "partial")));
    has_note(r, "values are compared as F32, which does not hold all those of logits (F64)");
    json_decref(r);
    scratch_remove(a);
    scratch_remove(b);
    scratch_remove(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_in_every_dtype),
        cmocka_unit_test(figures_are_those_of_the_formulas),
        cmocka_unit_test(thresholds_decide),
        cmocka_unit_test(the_first_layer_that_parts), cmocka_unit_test(a_fault_above_the_cosine),
        cmocka_unit_test(the_last_position_alone),
        cmocka_unit_test(vocabulary_padding),
        cmocka_unit_test(nan_has_its_place_named),
        cmocka_unit_test(draft_logits),
        cmocka_unit_test(where_a_computation_broke),
        cmocka_unit_test(what_cannot_be_compared),
        cmocka_unit_test(a_part_is_called_a_part),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
