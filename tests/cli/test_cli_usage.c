// Command lines that are wrong, and help: nothing here needs a model.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "cli/spawn.h"
#include "quern.h"

static void wrong_command_lines(void **state) {
    (void)state;
    static const struct {
        const char *text;
        const char *args[6];
    } cases[] = {
        {"no command given", {NULL}},
        {"unknown command \"inspct\"; did you mean inspect?", {"inspct", TINY}},
        {"unknown option --thread", {"run", TINY, "-p", "x", "--thread=2"}},
        {"did you mean --threads?", {"run", TINY, "-p", "x", "--thread=2"}},
        {"did you mean --json?", {"inspect", TINY, "-json"}},
        {"--json takes no value", {"inspect", TINY, "--json=yes"}},
        {"MODEL is missing", {"inspect"}},
        {"unexpected argument \"b\"", {"inspect", "a", "b"}},
        {"-p needs a value", {"run", TINY, "-p"}},
        {"-o needs a value (FILE), found the option --hidden", {"dump", TINY, "-o", "--hidden"}},
        {"--seed is given twice", {"run", TINY, "--seed", "1", "--seed=2"}},
        {"--threads is \"0\", expected an integer from 1 to 4096", {"run", TINY, "--threads", "0"}},
        {"--threads is \"2x\"", {"run", TINY, "--threads", "2x"}},
        {"--threads is \"\"", {"run", TINY, "--threads="}},
        {"--temperature is \"nan\", expected a number", {"run", TINY, "--temp", "nan"}},
        {"--top-p is \"1.5\", expected a number from 0 to 1", {"run", TINY, "--top-p", "1.5"}},
        {"--precision is \"best\", expected exact|fast", {"run", TINY, "--precision", "best"}},
        {"--weights is \"q\", expected stored|f32|bf16|q8|q4", {"run", TINY, "--weights", "q"}},
        {"--prompt and --tokens exclude each other", {"run", TINY, "-p", "a", "--tokens", "1"}},
        {"--think and --no-think exclude each other", {"chat", TINY, "--think", "--no-think"}},
        {"no output is given", {"dump", TINY, "--tokens", "1"}},
        {"expected up to 64 numbers", {"bench", TINY, "-b", "1,,2"}},
        {"--set is \"x\", expected NAME=JSON", {"template", TINY, "-f", "x", "--set=x"}},
        {"serve is not built yet", {"serve", TINY}},
        {"batch is not built yet", {"batch", TINY}},
        {"quantize is not built yet", {"quantize", TINY}},
        {"not built yet", {"bench", TINY, "--serve", "http://127.0.0.1"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *args[7] = {NULL};
        for (size_t k = 0; k < 6; k++) args[k] = cases[i].args[k];
        outcome o = spawn(NULL, args);
        if (o.status != 2 || !strstr(o.err, cases[i].text) || o.n_out)
            fail_msg("case %zu: exit %d, stderr %s, expected %s", i, o.status, o.err,
                     cases[i].text);
        outcome_done(&o);
    }
}

static void quiet_leaves_errors_alone(void **state) {
    (void)state;
    outcome o = spawn(NULL, ARGS("run", "no/such-model-here", "-p", "x", "-q"));
    assert_int_equal(o.status, 2);
    assert_int_equal(strncmp(o.err, "quern: ", 7), 0);
    assert_ptr_equal(strchr(o.err, '\n'), o.err + o.n_err - 1);
    assert_int_equal(o.n_out, 0);
    outcome_done(&o);
}

static void version(void **state) {
    (void)state;
    char *out = output_of(NULL, ARGS("--version"));
    assert_string_equal(out, "quern " QN_VERSION "\n");
    free(out);
}

// Every command has help with examples, by either way of asking, and does not list what is hidden.
static void help(void **state) {
    (void)state;
    json_t *all = json_of(NULL, ARGS("help", "--json")), *c;
    size_t i;
    json_array_foreach(json_object_get(all, "commands"), i, c) {
        const char *name = json_string_value(json_object_get(c, "name"));
        char *a = output_of(NULL, ARGS("help", name)), *b = output_of(NULL, ARGS(name, "--help"));
        assert_string_equal(a, b);
        assert_non_null(strstr(a, "usage: quern "));
        assert_non_null(strstr(strstr(a, "\nexamples\n"), "quern "));
        free(a);
        free(b);
    }
    assert_true(i >= 10);
    json_decref(all);
    char *overview = output_of(NULL, ARGS("--help"));
    assert_non_null(strstr(overview, "tokenize"));
    assert_null(strstr(overview, "serve "));
    free(overview);
    expect_error(NULL, 2, "did you mean run?", ARGS("help", "rum"));
}

static bool names_an_input(const char *word, const char *before) {
    static const char *const folders[] = {"models/", "tests/", "examples/"};
    static const char *const options[] = {"-f", "--text", "--tools", "--image", "<"};
    for (size_t i = 0; i < 3; i++)
        if (qn_str_starts(word, folders[i])) return true;
    for (size_t i = 0; i < 5; i++)
        if (strcmp(before, options[i]) == 0)
            return strcmp(word, "-") != 0 && strcmp(word, "photo.jpg") != 0;
    return false;
}

// What an example reads is bundled, so that it can be typed as it stands (but for pictures).
static void examples_find_their_files(void **state) {
    (void)state;
    json_t *all = json_of(NULL, ARGS("help", "--json")), *c;
    size_t i, seen = 0;
    json_array_foreach(json_object_get(all, "commands"), i, c) {
        const char *name = json_string_value(json_object_get(c, "name")), *before = "";
        char *help = output_of(NULL, ARGS("help", name)), *at = strstr(help, "\nexamples\n");
        for (char *word = strtok(at, " \n"); word; before = word, word = strtok(NULL, " \n")) {
            if (!names_an_input(word, before)) continue;
            seen++;
            if (!qn_file_exists(word)) fail_msg("help %s: %s is not there", name, word);
        }
        free(help);
    }
    assert_true(seen > 20);
    json_decref(all);
}

static void options_in_any_place(void **state) {
    (void)state;
    char *a = output_of(NULL, ARGS("--json", "tokenize", "--plain", TINY, "hello"));
    char *b = output_of(NULL, ARGS("tokenize", TINY, "hello", "--json", "--plain"));
    assert_string_equal(a, b);
    free(a);
    free(b);
    char *dash = output_of(NULL, ARGS("tokenize", TINY, "--", "--json"));
    assert_null(strchr(dash, '{'));
    free(dash);
}

static void unknown_cpu_level(void **state) {
    (void)state;
    setenv("QUERN_CPU", "fastest", 1);
    expect_error(NULL, 2, "QUERN_CPU", ARGS("cpu"));
    unsetenv("QUERN_CPU");
}

static int done(void **state) {
    (void)state;
    scratch_done();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_command_lines),  cmocka_unit_test(quiet_leaves_errors_alone),
        cmocka_unit_test(version),              cmocka_unit_test(help),
        cmocka_unit_test(options_in_any_place), cmocka_unit_test(unknown_cpu_level),
        cmocka_unit_test(examples_find_their_files),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
