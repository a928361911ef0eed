// Names from outside: paths that are not UTF-8 still make a JSON document, and a tensor's name cannot
// steer a terminal.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "cli/spawn.h"
#include "store/temp_model.h"

#define BAD "\xEF\xBF\xBD" // U+FFFD in UTF-8

static char *odd_model(void) {
    char *dir = scratch("m\377x"), *command = qn_strf("cp -r " TINY " '%s'", dir);
    if (system(command) != 0) fail_msg("failed: %s", command);
    free(command);
    return dir;
}

static void says(const json_t *j, const char *key, const char *part) {
    const char *s = json_string_value(json_object_get(j, key));
    if (!s || !strstr(s, part)) fail_msg("%s is %s", key, s ? s : "not there");
}

static void odd_paths_make_documents(void **state) {
    (void)state;
    char *m = odd_model(), *dump = scratch("d\377.safetensors"), *out = scratch("o\376");
    json_t *j = json_of(NULL, ARGS("where", m, "--json"));
    says(j, "path", "m" BAD "x");
    json_decref(j);
    j = json_of(NULL, ARGS("inspect", m, "--json"));
    says(j, "path", "m" BAD "x");
    json_decref(j);
    j = json_of(NULL, ARGS("dump", m, "--tokens", "1 2", "-o", dump, "--json"));
    says(j, "file", "d" BAD ".safetensors");
    json_decref(j);
    j = json_of(NULL, ARGS("convert", m, out, "--dtype", "f16", "--json"));
    says(j, "source", "m" BAD "x");
    says(j, "result", "/o" BAD);
    json_decref(j);
    j = json_of(NULL, ARGS("compare", dump, dump, "--json"));
    assert_non_null(json_object_get(j, "a"));
    json_decref(j);
    j = json_of(NULL, ARGS("eval", m, "--reference", dump, "--json"));
    says(j, "model", "m" BAD "x");
    json_decref(j);
    j = json_of(NULL, ARGS("bench", m, "-p", "8", "-n", "2", "-b", "1", "--repeat", "1", "--json"));
    says(j, "model", "m" BAD "x");
    json_decref(j);
    free(m);
    free(dump);
    free(out);
}

static void harmless(const char *const *args) {
    outcome o = spawn(NULL, args);
    if (o.status > 1) fail_msg("%s: exit %d: %s", args[0], o.status, o.err);
    if (!strstr(o.out, "\\x1b[2J")) fail_msg("%s does not show the name: %s", args[0], o.out);
    if (memchr(o.out, 0x1B, o.n_out)) fail_msg("%s lets it through: %s", args[0], o.out);
    if (memchr(o.err, 0x1B, o.n_err)) fail_msg("%s lets it through: %s", args[0], o.err);
    outcome_done(&o);
}

static void names_of_tensors_are_only_shown(void **state) {
    (void)state;
    const float x[4] = {1, 2, 3, 4}, y[4] = {1, 2, 3, -9};
    char *dir = temp_dir_new(), *a = qn_strf("%s/a.safetensors", dir);
    char *b = qn_strf("%s/b.safetensors", dir), *c = qn_strf("%s/c.safetensors", dir);
    st_tensor t[] = {{"logits", QN_DT_F32, 2, {1, 4}, x},
                     {"hidden.\\u001b[2J", QN_DT_F32, 2, {1, 4}, x},
                     {"hidden.0", QN_DT_F32, 2, {1, 4}, x}};
    st_write(dir, "a.safetensors", t, 3);
    t[1].data = y;
    st_write(dir, "b.safetensors", t, 3);
    t[1] = t[2];
    st_write(dir, "c.safetensors", t, 2);
    harmless(ARGS("compare", a, b));
    harmless(ARGS("compare", a, c));
    st_tensor w[] = {{"w\\u001b[2J.weight", QN_DT_F32, 2, {2, 2}, x},
                     {"v.weight", QN_DT_F32, 2, {2, 2}, x}};
    temp_text(dir, "A/config.json", "{}");
    temp_text(dir, "B/config.json", "{}");
    char *one = qn_strf("%s/A", dir), *two = qn_strf("%s/B", dir);
    st_write(one, "model.safetensors", w, 2);
    w[0].data = y;
    st_write(two, "model.safetensors", w, 2);
    harmless(ARGS("compare", one, two));
    st_write(two, "model.safetensors", w + 1, 1);
    harmless(ARGS("compare", one, two));
    free(one);
    free(two);
    free(a);
    free(b);
    free(c);
    temp_dir_free(dir);
}

static int done(void **state) {
    (void)state;
    scratch_done();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(odd_paths_make_documents),
                                       cmocka_unit_test(names_of_tensors_are_only_shown)};
    return cmocka_run_group_tests(tests, NULL, done);
}
