// convert, pad, repair, check and dump when the world goes wrong: outputs that may not be written,
// disks that fill up, signals at any moment, files that change while they are read, and how much
// memory a large layer takes. The program is run as users run it; $QUERN names it.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/map_guard.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/spawn.h"

#define INT8 "models/tiny-qwen3-gptq-int8"
#define FLOAT "tests/data/quantized/base-bf16"
#define BROKEN "tests/data/quantized/broken-"

// ---- folders ----

static void shell(const char *command) {
    if (system(command) != 0) fail_msg("failed: %s", command);
}

// Entries of a folder whose names start so; hidden ones count.
static size_t count(const char *folder, const char *prefix) {
    size_t n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
             strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    if (d) closedir(d);
    return n;
}

static char *empty_folder(const char *name) {
    char *dir = scratch(name);
    char *command = qn_strf("rm -rf '%s' && mkdir '%s'", dir, dir);
    shell(command);
    free(command);
    return dir;
}

static char *copy_of(const char *model, const char *name) {
    char *to = scratch(name), *command = qn_strf("rm -rf '%s' && cp -r '%s' '%s'", to, model, to);
    shell(command);
    free(command);
    return to;
}

// Whether two folders hold the same weights and configs (reports differ in their times).
static bool same_result(const char *a, const char *b) {
    char *command = qn_strf("diff -rq -x quern-report.json -x README.md '%s' '%s' > /dev/null", a, b);
    bool same = system(command) == 0;
    free(command);
    return same;
}

// Runs the three commands that make folders from the same source, each into dir/out, and expects
// them to fail alike and leave nothing.
static void all_refuse(const surroundings *s, int status, const char *text, const char *model,
                       const char *out) {
    expect_error(s, status, text, ARGS("convert", model, out, "--dtype", "bf16", "-q"));
    expect_error(s, status, text, ARGS("pad", model, out, "--tp", "2", "--group-size", "48", "-q"));
}

// ---- outputs ----

static void outputs_that_are_there_or_in_the_way(void **state) {
    (void)state;
    char *dir = empty_folder("place"), *out = qn_path_join(dir, "out");
    char *model = copy_of(FLOAT, "model"), *inside = qn_path_join(model, "out");
    assert_int_equal(mkdir(out, 0700), 0);
    all_refuse(NULL, 2, "exists already", model, out);
    expect_error(NULL, 2, "exists already", ARGS("repair", BROKEN "signed-view", out, "-q"));
    assert_int_equal(count(out, ""), 0);
    assert_int_equal(count(dir, ""), 1);
    all_refuse(NULL, 2, "inside one another", model, inside);
    expect_error(NULL, 2, "inside one another",
                 ARGS("convert", model, model, "--dtype", "f32", "--overwrite", "-q"));
    expect_error(NULL, 2, "inside one another",
                 ARGS("pad", model, model, "--tp", "2", "--overwrite", "-q"));
    assert_true(same_result(model, FLOAT));
    all_refuse(NULL, 3, "/nowhere/out", model, "/nowhere/out");
    all_refuse(NULL, 3, "out", model, "/dev/null/out");
    free(inside);
    free(model);
    free(out);
    free(dir);
}

static void a_model_that_may_only_be_read(void **state) {
    (void)state;
    char *model = copy_of(FLOAT, "readonly"), *dir = empty_folder("place");
    char *out = qn_path_join(dir, "out"), *command = qn_strf("chmod -R a-w '%s'", model);
    shell(command);
    free(output_of(NULL, ARGS("convert", model, out, "--dtype", "f16", "-q")));
    free(output_of(NULL, ARGS("check", out, "-q")));
    free(command);
    command = qn_strf("chmod -R u+w '%s' '%s' && rm -r '%s'", model, out, out);
    shell(command); // what was written is the user's own
    free(command);
    free(out);
    free(dir);
    free(model);
}

static void shards_that_are_links(void **state) {
    (void)state;
    char *dir = empty_folder("cache"), *plain = qn_path_join(dir, "plain");
    char *out = qn_path_join(dir, "out"), *link = qn_path_join(dir, "snapshot");
    char *here = realpath(".", NULL);
    char *command = qn_strf("cd '%s' && cp -r '%s/" FLOAT "' blobs && mkdir snapshot && "
                            "for f in blobs/*; do ln -s ../$f snapshot/; done", dir, here);
    free(here);
    shell(command);
    free(command);
    free(output_of(NULL, ARGS("convert", FLOAT, plain, "--dtype", "f32", "-q")));
    free(output_of(NULL, ARGS("convert", link, out, "--dtype", "f32", "-q")));
    assert_true(same_result(plain, out));
    char *weights = qn_path_join(out, "model.safetensors");
    struct stat st;
    assert_int_equal(lstat(weights, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    char *blob = qn_strf("%s/blobs/model.safetensors", dir);
    assert_int_equal(unlink(blob), 0); // the link now leads nowhere
    char *other = qn_path_join(dir, "other");
    all_refuse(NULL, 2, "model.safetensors", link, other);
    assert_false(qn_file_exists(other));
    free(other);
    free(blob);
    free(weights);
    free(link);
    free(out);
    free(plain);
    free(dir);
}

// ---- full disks ----

static void files_that_may_not_grow(void **state) {
    (void)state;
    char *dir = empty_folder("limited"), *out = qn_path_join(dir, "out");
    char *dump = qn_path_join(dir, "dump.safetensors");
    const surroundings small = {.file_size = 40000};
    all_refuse(&small, 3, "File too large", FLOAT, out);
    expect_error(&small, 3, "File too large", ARGS("repair", BROKEN "signed-view", out, "-q"));
    expect_error(&small, 3, "File too large",
                 ARGS("dump", TINY, "--tokens", "1 2 3 4 5 6", "-o", dump, "-q"));
    char *page = qn_path_join(dir, "page.html");
    const surroundings tiny = {.file_size = 200};
    expect_error(&tiny, 3, "File too large", ARGS("compare", FLOAT, FLOAT, "--html", page, "-q"));
    expect_error(NULL, 3, "/nowhere/page", ARGS("compare", FLOAT, FLOAT, "--html", "/nowhere/page"));
    assert_int_equal(count(dir, ""), 0);
    free(page);
    free(dump);
    free(out);
    free(dir);
}

static void a_disk_that_fills_up(void **state) {
    (void)state;
    char *dir = empty_folder("disk"), *out = qn_path_join(dir, "out");
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=64k") != 0) {
        print_message("no right to mount a small disk: skipped\n");
        free(out);
        free(dir);
        skip();
        return;
    }
    all_refuse(NULL, 3, "No space left on device", FLOAT, out);
    expect_error(NULL, 3, "No space left on device",
                 ARGS("repair", BROKEN "signed-view", out, "-q"));
    assert_int_equal(count(dir, ""), 0);
    assert_int_equal(umount(dir), 0);
    free(out);
    free(dir);
}

// ---- signals ----

static pid_t start(const char *const *args, const char *err_path) {
    const char *words[32] = {getenv("QUERN")};
    for (size_t n = 1; *args && n < 31; args++) words[n++] = *args;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY), 1);
        dup2(open(err_path, O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
        execv(words[0], (char *const *)(uintptr_t)words);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static int finish(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void nap(long microseconds) {
    const struct timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&t, NULL);
}

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void killed_at_any_moment(void **state) {
    (void)state;
    char *dir = empty_folder("killed"), *out = qn_path_join(dir, "out");
    char *whole = scratch("whole"), *err = scratch("killed.err");
    long began = now();
    free(output_of(NULL, ARGS("convert", INT8, whole, "--dtype", "bf16", "-q")));
    long takes = now() - began;
    enum { KILLS = 12 };
    size_t completed = 0, left = 0;
    for (int i = 0; i < KILLS; i++) {
        pid_t pid = start(ARGS("convert", INT8, out, "--dtype", "bf16", "-q"), err);
        nap(takes * i / KILLS);
        kill(pid, SIGKILL);
        finish(pid);
        left += count(dir, ".out.quern-tmp-");
        if (!qn_file_exists(out)) continue;
        completed++;
        if (!same_result(whole, out)) fail_msg("killed, and %s is there but not whole", out);
        char *command = qn_strf("rm -r '%s'", out);
        shell(command);
        free(command);
    }
    print_message("%d kills: %zu complete, %zu leftovers\n", KILLS, completed, left);
    free(output_of(NULL, ARGS("convert", INT8, out, "--dtype", "bf16", "-q")));
    assert_true(same_result(whole, out));
    assert_int_equal(count(dir, ""), 1); // leftovers are gone
    free(err);
    free(whole);
    free(out);
    free(dir);
}

// ---- a large layer ----

// One layer, made at once: the file has holes where zeros are and one value at the end of every
// tensor. Large: the shapes of Qwen2-72B; the other is long enough to be disturbed at work.
typedef struct layer {
    size_t hidden, wide, kv, heads, kv_heads;
} layer;

// Sanitizers multiply both time and memory: then the layer is smaller and nothing is measured.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool sanitized = true;
static const layer middling = {2048, 7424, 256, 16, 2};
#else
static const bool sanitized = false;
static const layer middling = {4096, 14848, 512, 32, 4};
#endif
static const layer large = {8192, 29568, 1024, 64, 8};
enum { WORDS = 256 };
#define L "model.layers.0."

static const struct {
    const char *name;
    char rows, cols; // h, w, k, v(ocabulary); 0: a vector
} tensors[] = {
    {"model.embed_tokens.weight", 'v', 'h'}, {"lm_head.weight", 'v', 'h'},
    {"model.norm.weight", 0, 'h'}, {L "input_layernorm.weight", 0, 'h'},
    {L "post_attention_layernorm.weight", 0, 'h'}, {L "self_attn.q_proj.weight", 'h', 'h'},
    {L "self_attn.q_proj.bias", 0, 'h'}, {L "self_attn.k_proj.weight", 'k', 'h'},
    {L "self_attn.k_proj.bias", 0, 'k'}, {L "self_attn.v_proj.weight", 'k', 'h'},
    {L "self_attn.v_proj.bias", 0, 'k'}, {L "self_attn.o_proj.weight", 'h', 'h'},
    {L "mlp.gate_proj.weight", 'w', 'h'}, {L "mlp.up_proj.weight", 'w', 'h'},
    {L "mlp.down_proj.weight", 'h', 'w'}};
enum { N_TENSORS = sizeof tensors / sizeof *tensors };

static size_t side(const layer *l, char c) {
    return c == 'h' ? l->hidden : c == 'w' ? l->wide : c == 'k' ? l->kv : c == 'v' ? WORDS : 1;
}

static void write_weights(const layer *l, const char *path) {
    qn_buf head = {0};
    size_t end[N_TENSORS], at = 0;
    for (size_t i = 0; i < N_TENSORS; i++) {
        size_t rows = side(l, tensors[i].rows), cols = side(l, tensors[i].cols);
        qn_buf_addf(&head, "%c\"%s\":{\"dtype\":\"BF16\",\"shape\":[", i ? ',' : '{',
                    tensors[i].name);
        if (tensors[i].rows) qn_buf_addf(&head, "%zu,", rows);
        end[i] = at + 2 * rows * cols;
        qn_buf_addf(&head, "%zu],\"data_offsets\":[%zu,%zu]}", cols, at, end[i]);
        at = end[i];
    }
    qn_buf_adds(&head, "}");
    uint64_t length = head.n;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && write(fd, &length, 8) == 8);
    assert_int_equal(write(fd, head.data, head.n), head.n);
    for (size_t i = 0; i < N_TENSORS; i++)
        assert_int_equal(pwrite(fd, "\x80\x3f", 2, (off_t)(8 + head.n + end[i] - 2)), 2);
    close(fd);
    qn_buf_done(&head);
}

static char *made_up_model(const layer *l) {
    char *dir = empty_folder("large"), *config = qn_path_join(dir, "config.json");
    char *weights = qn_path_join(dir, "model.safetensors");
    char *text = qn_strf("{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\","
                         "\"hidden_size\":%zu,\"intermediate_size\":%zu,\"vocab_size\":%d,"
                         "\"num_hidden_layers\":1,\"num_attention_heads\":%zu,"
                         "\"num_key_value_heads\":%zu,\"rms_norm_eps\":1e-6,"
                         "\"rope_theta\":1000000,\"max_position_embeddings\":32768,"
                         "\"tie_word_embeddings\":false,\"hidden_act\":\"silu\","
                         "\"torch_dtype\":\"bfloat16\"}", l->hidden, l->wide, WORDS, l->heads,
                         l->kv_heads);
    write_file(config, text);
    write_weights(l, weights);
    free(text);
    free(weights);
    free(config);
    return dir;
}

static void forget(char *path) {
    char *command = qn_strf("rm -rf '%s'", path);
    shell(command);
    free(command);
    free(path);
}

// Until the program has the weights mapped.
static void wait_until_reading(pid_t pid) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    for (int i = 0; i < 30000; i++, nap(1000)) {
        qn_buf maps = {0};
        bool reading = qn_file_read(path, 1 << 24, &maps, NULL) &&
                       strstr(maps.data, "model.safetensors");
        qn_buf_done(&maps);
        if (reading) return;
    }
}

static void expect_text(const char *path, const char *text) {
    qn_buf b = {0};
    qn_err err = {0};
    if (!qn_file_read(path, 1 << 20, &b, &err)) fail_msg("%s", err.text);
    if (!strstr(b.data, text)) fail_msg("stderr lacks \"%s\": %s", text, b.data);
    const char *line = strchr(b.data, '\n');
    if (!line || line[1]) fail_msg("not one line: %s", b.data);
    qn_buf_done(&b);
}

// Starts a command on the large model, lets it get going, does something to it, and wants this end
// and nothing left.
static void disturb(char *model, const char *const *args, void (*what)(pid_t pid, char *model),
                    int status, const char *text) {
    char *dir = scratch("disturbed"), *err = scratch("disturbed.err");
    pid_t pid = start(args, err);
    wait_until_reading(pid);
    what(pid, model);
    int got = finish(pid);
    if (got != status) fail_msg("%s: exit %d, expected %d", args[0], got, status);
    expect_text(err, text);
    assert_int_equal(count(dir, ""), 0);
    free(err);
    free(dir);
}

static void interrupt(pid_t pid, char *model) {
    (void)model;
    kill(pid, SIGINT);
}

static void hang_up(pid_t pid, char *model) {
    (void)model;
    kill(pid, SIGHUP);
}

static void cut_short(pid_t pid, char *model) {
    (void)pid;
    char *path = qn_path_join(model, "model.safetensors");
    assert_int_equal(truncate(path, (off_t)qn_file_size(path) / 2 + 1), 0);
    free(path);
}

static void change(pid_t pid, char *model) {
    (void)pid;
    char *path = qn_path_join(model, "model.safetensors");
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "\x80\x3f", 2, (off_t)qn_file_size(path) / 2), 2);
    close(fd);
    free(path);
}

static void disturb_all(void (*what)(pid_t, char *), int status, const char *text) {
    char *dir = empty_folder("disturbed"), *out = qn_path_join(dir, "out");
    char *model = made_up_model(&middling);
    disturb(model, ARGS("convert", model, out, "--dtype", "bf16", "-q"), what, status, text);
    forget(model);
    model = made_up_model(&middling);
    disturb(model, ARGS("pad", model, out, "--tp", "8", "-q"), what, status, text);
    forget(model);
    model = made_up_model(&middling);
    disturb(model, ARGS("check", model, "-q"), what, status, text);
    forget(model);
    free(out);
    free(dir);
}

static void interrupted(void **state) {
    (void)state;
    signal(SIGHUP, SIG_DFL); // whoever runs the tests under nohup has them ignore it
    disturb_all(interrupt, 130, "quern: ");
    disturb_all(hang_up, 130, "quern: ");
}

static void cut_short_while_read(void **state) {
    (void)state;
    disturb_all(cut_short, 3, "model.safetensors was changed or cut short while it was being read");
}

static void changed_while_read(void **state) {
    (void)state;
    disturb_all(change, 3, "model.safetensors was changed or cut short while it was being read");
}

// The guard itself, in this process.
static void a_map_outlives_its_file(void **state) {
    (void)state;
    char *path = scratch("map");
    char *text = qn_alloc(100001);
    memset(text, 'x', 100000);
    text[100000] = 0;
    write_file(path, text);
    free(text);
    qn_map m;
    qn_err err = {0};
    qn_map_guard_install();
    assert_true(qn_map_open(&m, path, &err));
    assert_true(qn_maps_unchanged(&err));
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(m.data[5], 'x');
    assert_int_equal(((volatile const uint8_t *)m.data)[90000], 0);
    assert_true(qn_interrupted());
    assert_false(qn_maps_unchanged(&err));
    assert_non_null(strstr(err.text, path));
    qn_map_close(&m);
    assert_true(qn_maps_unchanged(&err));
    err = (qn_err){0};
    assert_false(qn_maps_never_changed(&err));
    signal(SIGBUS, SIG_DFL);
    free(path);
}

static void memory_of(const char *const *args) {
    struct rusage use;
    char *err = scratch("memory.err");
    pid_t pid = start(args, err);
    int status = 0;
    assert_int_equal(wait4(pid, &status, 0, &use), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) fail_msg("%s: status %d", args[0], status);
    size_t largest = large.hidden * large.wide * sizeof(float) / 1000000;
    size_t peak = (size_t)use.ru_maxrss * 1024 / 1000000;
    print_message("%s: peak %zu MB, largest tensor as float %zu MB\n", args[0], peak, largest);
    if (peak > largest + 256) fail_msg("%s took %zu MB, at most %zu", args[0], peak, largest + 256);
    free(err);
}

static void memory_of_a_large_layer(void **state) {
    (void)state;
    if (sanitized) skip();
    char *model = made_up_model(&large), *out = scratch("large-out");
    memory_of(ARGS("pad", model, out, "--tp", "8", "-q"));
    char *config = qn_path_join(out, "config.json"), *command = qn_strf("grep -q 29696 '%s'", config);
    shell(command);
    free(command);
    free(config);
    char *again = qn_strf("rm -r '%s'", out);
    shell(again);
    free(again);
    memory_of(ARGS("convert", model, out, "--dtype", "bf16", "-q"));
    forget(out);
    forget(model);
}

// ---- broken checkpoints ----

static void broken_checkpoints(void **state) {
    (void)state;
    static const struct {
        const char *name, *code, *text; // what check reports, what the others say
    } broken[] = {
        {"bad-offsets", "overlap", "model.layers.0.mlp.gate_proj.weight"},
        {"dup-key", "duplicate-key", "model.norm.weight"},
        {"huge-header", "bad-header", "header of 4611686018427387904 bytes"},
        {"missing-tensor", "missing-tensor", "model.layers.0.mlp.up_proj.weight"},
        {"truncated", "truncated", "model.layers.0.self_attn.k_proj.weight"},
        {"nan", "non-finite", "model.embed_tokens.weight"},
    };
    char *dir = empty_folder("broken"), *out = qn_path_join(dir, "out");
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char *path = qn_strf(BROKEN "%s", broken[i].name);
        bool nan = strcmp(broken[i].name, "nan") == 0; // found where the values are, not before
        outcome o = spawn(NULL, ARGS("check", path, "--json", "-q"));
        assert_int_equal(o.status, 1);
        if (!strstr(o.out, broken[i].code)) fail_msg("%s: no %s", path, broken[i].code);
        outcome_done(&o);
        all_refuse(NULL, 2, broken[i].name, path, out);
        all_refuse(NULL, 2, broken[i].text, path, out);
        expect_error(NULL, 2, broken[i].name, ARGS("repair", path, out, "-q"));
        expect_error(NULL, 2, nan ? "layer 0" : broken[i].text,
                     ARGS("run", path, "--tokens", "1 2", "-n", "1", "-q"));
        free(path);
    }
    static const char *const repairable[] = {"signed-view", "zero-off-by-one"};
    for (size_t i = 0; i < 2; i++) {
        char *path = qn_strf(BROKEN "%s", repairable[i]);
        outcome o = spawn(NULL, ARGS("check", path, "-q"));
        assert_int_equal(o.status, 1);
        outcome_done(&o);
        free(output_of(NULL, ARGS("repair", path, out, "-q", "--overwrite")));
        free(path);
    }
    assert_int_equal(count(dir, ""), 1);
    free(out);
    free(dir);
}

static int tidy(void **state) {
    (void)state;
    scratch_done();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_that_are_there_or_in_the_way),
        cmocka_unit_test(a_model_that_may_only_be_read),
        cmocka_unit_test(shards_that_are_links),
        cmocka_unit_test(files_that_may_not_grow),
        cmocka_unit_test(killed_at_any_moment),
        cmocka_unit_test(interrupted),
        cmocka_unit_test(cut_short_while_read),
        cmocka_unit_test(changed_while_read),
        cmocka_unit_test(a_map_outlives_its_file),
        cmocka_unit_test(memory_of_a_large_layer),
        cmocka_unit_test(broken_checkpoints),
        cmocka_unit_test(a_disk_that_fills_up), // last: it takes its own view of the file system
    };
    if (!getenv("QUERN")) return 77;
    return cmocka_run_group_tests(tests, NULL, tidy);
}
