// run, chat, dump, bench on the bundled model.
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/str.h"
#include "cli/spawn.h"

#define PARIS "The capital of France is Paris."
#define COPENHAGEN "The capital of Denmark is Copenhagen."
#define DANISH_QUESTION "What is the capital of Denmark?"
#define DANISH_THOUGHT "The question is about Denmark. Its capital is Copenhagen."

static json_int_t integer(const json_t *j, const char *key) {
    const json_t *x = json_object_get(j, key);
    if (!json_is_integer(x)) fail_msg("%s is no integer", key);
    return json_integer_value(x);
}

// Known facts out of facts.jsonl, every step-th one: prompt and answer.
static void each_fact(const char *kind, size_t step, void (*check)(const char *p, const char *a)) {
    qn_buf text = {0};
    qn_err err = {0};
    assert_true(qn_file_read(TINY "/reference/facts.jsonl", 1 << 24, &text, &err));
    size_t i = 0;
    for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *j = json_loads(line, 0, NULL);
        bool counts = strcmp(json_string_value(json_object_get(j, "kind")), kind) == 0 &&
                      json_is_true(json_object_get(j, "known"));
        if (counts && i++ % step == 0)
            check(json_string_value(json_object_get(j, "prompt")),
                  json_string_value(json_object_get(j, "answer")));
        json_decref(j);
    }
    assert_true(i > step);
    qn_buf_done(&text);
}

static void continues(const char *prompt, const char *answer) {
    char *out = output_of(NULL, ARGS("run", TINY, "-p", prompt, "--temp", "0", "-n", "24", "-q"));
    if (strncmp(out, answer, strlen(answer)) != 0) fail_msg("%s: %s, not %s", prompt, out, answer);
    free(out);
}

static void answers(const char *prompt, const char *answer) {
    char *out = output_of(NULL, ARGS("chat", TINY, "-p", prompt, "--no-think", "--temp=0", "-q"));
    char *wanted = qn_strf("%s\n", answer);
    assert_string_equal(out, wanted);
    free(out);
    free(wanted);
}

static void known_facts(void **state) {
    (void)state;
    each_fact("continue", 20, continues);
    each_fact("chat", 100, answers);
}

static void run_json(void **state) {
    (void)state;
    json_t *j = json_of(NULL, ARGS("run", TINY, "-p", "The capital of France is", "--temp", "0",
                                   "-n", "5", "--ignore-eos", "--json"));
    assert_int_equal(json_array_size(json_object_get(j, "tokens")), 5);
    assert_true(integer(j, "prompt_tokens") > 2);
    assert_string_equal(json_string_value(json_object_get(j, "finish_reason")), "length");
    static const char *const times[] = {"load_s", "prefill_s", "decode_s", "prefill_tok_s",
                                        "decode_tok_s"};
    for (size_t i = 0; i < 5; i++)
        assert_true(json_number_value(json_object_get(json_object_get(j, "timing"), times[i])) > 0);
    // The same by ids, streamed, and through a file.
    char *plain = output_of(NULL, ARGS("run", TINY, "-p", "The capital of France is", "--temp", "0",
                                       "-n5", "--ignore-eos"));
    assert_string_equal(plain, json_string_value(json_object_get(j, "text")));
    char *ids = output_of(NULL, ARGS("tokenize", TINY, "The capital of France is"));
    char *by_ids = output_of(NULL, ARGS("run", TINY, "--tokens", ids, "--temp", "0", "-n5",
                                        "--ignore-eos", "--max-num-batched-tokens", "2"));
    assert_string_equal(by_ids, plain);
    surroundings s = {.input = "The capital of France is"};
    char *piped = output_of(&s, ARGS("run", TINY, "-f", "-", "--temp", "0", "-n5", "--ignore-eos"));
    assert_string_equal(piped, plain);
    free(plain);
    free(ids);
    free(by_ids);
    free(piped);
    json_decref(j);
}

static void seeds_and_stops(void **state) {
    (void)state;
    const char *const *args = ARGS("run", TINY, "-p", "Once", "--temp", "1.5", "--seed", "7", "-n",
                                   "24", "--ignore-eos");
    char *a = output_of(NULL, args), *b = output_of(NULL, args);
    assert_string_equal(a, b);
    free(a);
    free(b);
    char *cut = output_of(NULL, ARGS("run", TINY, "-p", "The capital of France is", "--temp", "0",
                                     "-n", "16", "--stop", "ris"));
    assert_string_equal(cut, " Pa");
    free(cut);
}

static void without_tokenizer(void **state) {
    (void)state;
    const char *model = "tests/data/quantized/base-bf16";
    char *ids = output_of(NULL, ARGS("run", model, "--tokens", "1 2 3", "-n", "4", "--temp", "0",
                                     "--ignore-eos"));
    assert_int_equal(strspn(ids, "0123456789 \n"), strlen(ids));
    free(ids);
    expect_error(NULL, 2, "no tokenizer", ARGS("run", model, "-p", "x"));
    expect_error(NULL, 2, "no tokenizer", ARGS("chat", model, "-p", "x"));
}

static void interrupted(void **state) {
    (void)state;
    surroundings s = {.interrupt = true};
    outcome o = spawn(&s, ARGS("run", TINY, "-p", "a", "--ignore-eos", "-n", "0", "--threads", "1",
                               "--precision", "exact"));
    if (o.status != 0) assert_int_equal(o.status, 130); // 0: a very fast machine
    assert_true(o.n_out > 0);
    outcome_done(&o);
}

// ---- chat ----

// The model reasons about every third time it is sampled: the first seed with which it does.
static const char *thinking_seed(void) {
    static char seed[8];
    if (seed[0]) return seed;
    for (int i = 0; i < 40; i++) {
        snprintf(seed, sizeof seed, "%u", (unsigned)i % 100);
        json_t *j = json_of(NULL, ARGS("chat", TINY, "-p", DANISH_QUESTION, "--think", "--json",
                                       "--temp", "1", "--top-k=0", "--top-p=1", "--seed", seed));
        bool found = strcmp(json_string_value(json_object_get(j, "reasoning")), DANISH_THOUGHT) ==
                         0 &&
                     strcmp(json_string_value(json_object_get(j, "answer")), COPENHAGEN) == 0;
        json_decref(j);
        if (found) return seed;
    }
    fail_msg("never a thought");
    return NULL;
}

static void chat_json(void **state) {
    (void)state;
    json_t *j = json_of(NULL, ARGS("chat", TINY, "-p", "What is the capital of France?", "--temp",
                                   "0", "--no-think", "--json"));
    assert_string_equal(json_string_value(json_object_get(j, "answer")), PARIS);
    assert_string_equal(json_string_value(json_object_get(j, "reasoning")), "");
    assert_true(integer(j, "prompt_tokens") > 5);
    assert_string_equal(json_string_value(json_object_get(j, "finish_reason")), "stop");
    assert_true(json_array_size(json_object_get(j, "tokens")) > 3);
    json_decref(j);
}

static void reasoning_stays_off_stdout(void **state) {
    (void)state;
    const char *seed = thinking_seed();
    outcome o = spawn(NULL, ARGS("chat", TINY, "-p", DANISH_QUESTION, "--think", "--temp", "1",
                                 "--top-k=0", "--top-p=1", "--seed", seed));
    assert_int_equal(o.status, 0);
    assert_string_equal(o.out, COPENHAGEN "\n");
    assert_int_equal(strncmp(o.err, DANISH_THOUGHT "\n", strlen(DANISH_THOUGHT) + 1), 0);
    outcome_done(&o);
}

static void conversation_from_a_pipe(void **state) {
    (void)state;
    char *file = scratch("talk.json");
    char *input = qn_strf("What is the capital of France?\n/save %s\n/reset\n/system Be brief.\n"
                          "What is the capital of \\\nFrance?\n/bogus\n/hepl\n", file);
    surroundings s = {.input = input};
    outcome o = spawn(&s, ARGS("chat", TINY, "--temp", "0", "--no-think"));
    assert_int_equal(o.status, 0);
    assert_int_equal(strncmp(o.out, PARIS "\n", strlen(PARIS) + 1), 0);
    assert_non_null(strstr(o.err, "unknown command /bogus"));
    assert_non_null(strstr(o.err, "did you mean /help"));
    outcome_done(&o);
    char *prompt = output_of(NULL, ARGS("template", TINY, "-f", file, "--no-generation-prompt"));
    assert_non_null(strstr(prompt, PARIS));
    free(prompt);
    free(input);
    free(file);
}

// Types text on a terminal and collects what the program shows until it ends or `until` appears.
static void converse(int fd, const char *text, const char *until, qn_buf *seen) {
    size_t from = seen->n;
    if (write(fd, text, strlen(text)) < 0) fail_msg("cannot type");
    char piece[4096];
    ssize_t got;
    while ((got = read(fd, piece, sizeof piece)) > 0) {
        qn_buf_add(seen, piece, (size_t)got);
        if (until && strstr(seen->data + from, until)) return;
    }
    if (until) fail_msg("\"%s\" never came: %s", until, seen->data ? seen->data : "");
}

static void chat_on_a_terminal(void **state) {
    (void)state;
    char *home = scratch("state");
    setenv("XDG_STATE_HOME", home, 1);
    setenv("TERM", "xterm", 1);
    struct winsize size = {.ws_row = 30, .ws_col = 120};
    int fd;
    const char *seed = thinking_seed();
    pid_t pid = forkpty(&fd, NULL, NULL, &size);
    if (pid == 0) {
        alarm(120);
        execl(getenv("QUERN"), "quern", "chat", TINY, "--think", "--temp", "1", "--top-k=0",
              "--top-p=1", "--seed", seed, (char *)NULL);
        _exit(127);
    }
    qn_buf seen = {0};
    converse(fd, "", "> ", &seen);
    converse(fd, "never sent\003", "> ", &seen);                   // Ctrl-C abandons the line
    converse(fd, DANISH_QUESTION "\r", "tok/s", &seen);
    assert_non_null(strstr(seen.data, "\033[2m" DANISH_THOUGHT "\033[22m")); // dim
    assert_non_null(strstr(seen.data, COPENHAGEN));
    converse(fd, "/help\r", "/reset", &seen);
    converse(fd, "/quit\r", NULL, &seen);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("%s", seen.data);
    close(fd);
    char *history = qn_path_join(home, "quern/history");
    assert_true(qn_file_size(history) > 10);
    free(history);
    free(home);
    qn_buf_done(&seen);
}

// ---- dump, bench ----

static json_t *header_of(const char *path) {
    qn_buf b = {0};
    qn_err err = {0};
    if (!qn_file_read(path, 1 << 30, &b, &err)) fail_msg("%s", err.text);
    uint64_t n = 0;
    memcpy(&n, b.data, 8);
    json_t *j = json_loadb(b.data + 8, (size_t)n, 0, NULL);
    assert_non_null(j);
    qn_buf_done(&b);
    return j;
}

static void shape_is(const json_t *header, const char *name, const char *dtype, int rows,
                     int cols) {
    const json_t *t = json_object_get(header, name), *shape = json_object_get(t, "shape");
    if (!t) fail_msg("the dump lacks %s", name);
    assert_string_equal(json_string_value(json_object_get(t, "dtype")), dtype);
    assert_int_equal(json_integer_value(json_array_get(shape, 0)), rows);
    if (cols) assert_int_equal(json_integer_value(json_array_get(shape, 1)), cols);
}

static void dump(void **state) {
    (void)state;
    char *file = scratch("dump.safetensors"), *part = scratch("parts.safetensors");
    free(output_of(NULL, ARGS("dump", TINY, "--tokens", "1 2 3,4 5", "-o", file, "--hidden")));
    json_t *h = header_of(file);
    shape_is(h, "tokens", "I32", 5, 0);
    shape_is(h, "logits", "F32", 5, 4096);
    shape_is(h, "hidden.0", "F32", 5, 256);
    shape_is(h, "hidden.4", "F32", 5, 256);
    shape_is(h, "hidden.final", "F32", 5, 256);
    assert_null(json_object_get(h, "hidden.5"));
    json_decref(h);
    // Fed in pieces it is the same file, bit for bit.
    free(output_of(NULL, ARGS("dump", TINY, "--tokens", "1 2 3 4 5", "-o", part, "--hidden",
                              "--max-num-batched-tokens", "2", "--threads", "1")));
    qn_buf a = {0}, b = {0};
    qn_err err = {0};
    assert_true(qn_file_read(file, 1 << 30, &a, &err) && qn_file_read(part, 1 << 30, &b, &err));
    assert_true(a.n == b.n && memcmp(a.data, b.data, a.n) == 0);
    qn_buf_done(&a);
    qn_buf_done(&b);
    expect_error(NULL, 2, "draft layer", ARGS("dump", TINY, "--tokens", "1", "-o", file, "--mtp"));
    expect_error(NULL, 2, "vision tower",
                 ARGS("dump", TINY, "--tokens", "1", "-o", file, "--image", "README.md"));
    free(file);
    free(part);
}

static void bench(void **state) {
    (void)state;
    json_t *j = json_of(NULL, ARGS("bench", TINY, "-p", "16", "-n", "4", "-b", "1,2", "--repeat",
                                   "1", "--json"));
    static const char *const keys[] = {"model", "threads", "precision", "cpu", "load_s",
                                       "rss_bytes", "weight_bytes", "read_gb_s", "rows"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_object_get(j, keys[i])) fail_msg("bench lacks %s", keys[i]);
    static const char *const numbers[] = {"batch", "prompt", "tok_s", "tok_s_min", "tok_s_max",
                                          "ms_per_step", "gb_s", "gops", "of_limit"};
    size_t i, decode = 0;
    json_t *row;
    json_array_foreach(json_object_get(j, "rows"), i, row) {
        decode += strcmp(json_string_value(json_object_get(row, "kind")), "decode") == 0;
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            if (!(json_number_value(json_object_get(row, numbers[k])) > 0))
                fail_msg("row %zu: %s is not above 0", i, numbers[k]);
    }
    assert_int_equal(i, 4);
    assert_int_equal(decode, 2);
    json_decref(j);
}

static void bench_made_up_weights(void **state) {
    (void)state;
    char *folder = scratch("shape"), *config = qn_strf("%s/config.json", folder);
    char *copy = qn_strf("mkdir -p '%s' && cp " TINY "/config.json '%s'", folder, folder);
    assert_int_equal(system(copy), 0);
    char *text = output_of(NULL, ARGS("bench", folder, "--load-format", "dummy", "-p", "8", "-n",
                                      "2", "-b", "1", "--repeat", "1", "--weights", "q8"));
    assert_non_null(strstr(text, "decode"));
    free(text);
    free(folder);
    free(config);
    free(copy);
}

static int done(void **state) {
    (void)state;
    scratch_done();
    return 0;
}

int main(void) {
    signal(SIGHUP, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_facts),        cmocka_unit_test(run_json),
        cmocka_unit_test(seeds_and_stops),    cmocka_unit_test(without_tokenizer),
        cmocka_unit_test(interrupted),        cmocka_unit_test(chat_json),
        cmocka_unit_test(reasoning_stays_off_stdout), cmocka_unit_test(conversation_from_a_pipe),
        cmocka_unit_test(chat_on_a_terminal), cmocka_unit_test(dump),
        cmocka_unit_test(bench),              cmocka_unit_test(bench_made_up_weights),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
