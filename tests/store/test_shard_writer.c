// Writing: what goes in comes out, files are cut where they should be, nothing half-written shows.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "store/shard_writer.h"
#include "temp_model.h"

static const size_t shapes[][3] = {{4, 3}, {7}, {0, 9}, {2, 2, 2}, {1}};
static const int ranks[] = {2, 1, 2, 3, 0};
static const char *const names[] = {"a.weight", "quote\"\\\xE4\xB8\xAD", "empty", "c", "scalar"};
static const qn_dtype dtypes[] = {QN_DT_F32, QN_DT_BF16, QN_DT_I8, QN_DT_F8_E4M3, QN_DT_I64};
#define N 5
#define BYTES (48 + 14 + 0 + 8 + 8)

static void declare_all(qn_shards *s) {
    qn_err err = {0};
    for (size_t i = 0; i < N; i++)
        assert_true(qn_shards_declare(s, names[i], dtypes[i], shapes[i], ranks[i], &err));
}

static void fill(uint8_t bytes[BYTES]) {
    for (size_t i = 0; i < BYTES; i++) bytes[i] = (uint8_t)(i * 7 + 1);
}

// Bytes arrive in pieces that know nothing of tensors' borders.
static void add_in_pieces(qn_shards *s, const uint8_t *bytes, size_t piece) {
    qn_err err = {0};
    for (size_t at = 0; at < BYTES; at += piece) {
        size_t n = BYTES - at < piece ? BYTES - at : piece;
        if (!qn_shards_add(s, bytes + at, n, &err)) fail_msg("%s", err.text);
    }
}

static void check_read_back(const char *path, const uint8_t *bytes, size_t n_shards) {
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(path, 0, &err);
    if (!c) fail_msg("%s", err.text);
    assert_int_equal(qn_ckpt_n_shards(c), n_shards);
    assert_int_equal(qn_ckpt_n_tensors(c), N);
    for (size_t i = 0, at = 0; i < N; i++) {
        const qn_tensor *t = qn_ckpt_find(c, names[i]);
        assert_non_null(t);
        assert_true(t->dtype == dtypes[i] && t->n_dims == ranks[i]);
        assert_memory_equal(t->shape, shapes[i], (size_t)ranks[i] * sizeof(size_t));
        assert_memory_equal(t->data, bytes + at, t->bytes);
        at += t->bytes;
    }
    qn_ckpt_free(c);
}

static void one_file_round_trip(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    uint8_t bytes[BYTES];
    qn_err err = {0};
    json_t *metadata = json_pack("{s:s}", "made_by", "a test");
    fill(bytes);
    qn_shards *s = qn_shards_new(dir, "model", 0, metadata, &err);
    declare_all(s);
    add_in_pieces(s, bytes, 5);
    assert_true(qn_shards_finish(s, &err));
    qn_shards_free(s);
    json_decref(metadata);
    check_read_back(dir, bytes, 1);
    // The header is there to be read by others: blanks up to a multiple of 8, metadata as strings.
    char *path = qn_strf("%s/model.safetensors", dir);
    qn_map map;
    assert_true(qn_map_open(&map, path, &err));
    uint64_t length;
    memcpy(&length, map.data, 8);
    assert_int_equal(length % 8, 0);
    assert_int_equal(map.n, 8 + length + BYTES);
    json_t *header = qn_json_parse((const char *)map.data + 8, (size_t)length, "header", &err);
    json_t *m = json_object_get(header, "__metadata__");
    assert_string_equal(json_string_value(json_object_get(m, "format")), "pt");
    assert_string_equal(json_string_value(json_object_get(m, "made_by")), "a test");
    json_decref(header);
    qn_map_close(&map);
    free(path);
    temp_dir_free(dir);
}

static void shards_and_index(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    uint8_t bytes[BYTES];
    qn_err err = {0};
    fill(bytes);
    qn_shards *s = qn_shards_new(dir, "model", 16, NULL, &err); // a: alone; quote+empty; c+scalar
    declare_all(s);
    add_in_pieces(s, bytes, 33);
    assert_true(qn_shards_finish(s, &err));
    qn_shards_free(s);
    check_read_back(dir, bytes, 3);
    char *path = qn_strf("%s/model.safetensors.index.json", dir);
    json_t *index = qn_json_load(path, 1 << 20, &err);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(index, "metadata"),
                                                        "total_size")), BYTES);
    json_t *map = json_object_get(index, "weight_map");
    static const int where[] = {1, 2, 2, 3, 3};
    for (size_t i = 0; i < N; i++) {
        char *file = qn_strf("model-%05d-of-00003.safetensors", where[i]);
        assert_string_equal(json_string_value(json_object_get(map, names[i])), file);
        free(file);
    }
    json_decref(index);
    free(path);
    temp_dir_free(dir);
}

static size_t count_entries(const char *dir) {
    DIR *d = opendir(dir);
    struct dirent *e;
    size_t n = 0;
    while ((e = readdir(d))) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void an_unfinished_file_leaves_nothing(void **state) {
    (void)state;
    char *dir = temp_dir_new(), *path = qn_strf("%s/dump.safetensors", dir);
    uint8_t bytes[BYTES];
    qn_err err = {0};
    fill(bytes);
    temp_text(dir, "dump.safetensors", "old");
    qn_shards *s = qn_shards_new_file(path, NULL, &err);
    declare_all(s);
    assert_true(qn_shards_add(s, bytes, BYTES - 1, &err));
    assert_int_equal(qn_file_size(path), 3); // not touched yet
    assert_false(qn_shards_finish(s, &err));
    assert_string_equal(err.text, "tensor scalar: 1 of its bytes were not written");
    qn_shards_free(s);
    assert_int_equal(qn_file_size(path), 3);
    assert_int_equal(count_entries(dir), 1);
    s = qn_shards_new_file(path, NULL, &err);
    declare_all(s);
    assert_true(qn_shards_add(s, bytes, BYTES, &err) && qn_shards_finish(s, &err));
    qn_shards_free(s);
    check_read_back(path, bytes, 1);
    assert_int_equal(count_entries(dir), 1);
    free(path);
    temp_dir_free(dir);
}

static void misuse_is_an_error(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    qn_err err = {0};
    size_t huge[] = {SIZE_MAX / 2, 4}, one[] = {1};
    json_t *metadata = json_pack("{s:i}", "n", 1);
    assert_null(qn_shards_new(dir, "model", 0, metadata, &err));
    assert_string_equal(err.text, "metadata n is no string");
    json_decref(metadata);
    qn_shards *s = qn_shards_new(dir, "model", 0, NULL, &err);
    assert_false(qn_shards_declare(s, "x", QN_DT_F32, huge, 2, &err));
    assert_string_equal(err.text, "tensor x: its shape overflows");
    assert_false(qn_shards_declare(s, "x", QN_DT_F32, one, 9, &err));
    assert_false(qn_shards_declare(s, "\xFF", QN_DT_F32, one, 1, &err));
    assert_true(qn_shards_declare(s, "x", QN_DT_U8, one, 1, &err));
    assert_true(qn_shards_declare(s, "x", QN_DT_U8, one, 1, &err));
    assert_false(qn_shards_add(s, "a", 1, &err));
    assert_string_equal(err.text, "tensor x is declared twice");
    qn_shards_free(s);
    s = qn_shards_new(dir, "model", 0, NULL, &err);
    assert_true(qn_shards_declare(s, "x", QN_DT_U8, one, 1, &err));
    assert_false(qn_shards_add(s, "ab", 2, &err));
    assert_string_equal(err.text, "1 bytes more than the declared tensors take");
    assert_false(qn_shards_declare(s, "y", QN_DT_U8, one, 1, &err));
    qn_shards_free(s);
    s = qn_shards_new("/nowhere/at/all", "model", 0, NULL, &err);
    assert_true(qn_shards_declare(s, "x", QN_DT_U8, one, 1, &err));
    assert_false(qn_shards_add(s, "a", 1, &err));
    assert_int_equal(err.code, QN_IO);
    qn_shards_free(s);
    assert_int_equal(count_entries(dir), 0);
    temp_dir_free(dir);
}

static void no_tensors_are_a_file_too(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    qn_err err = {0};
    qn_shards *s = qn_shards_new(dir, "model", 100, NULL, &err);
    assert_true(qn_shards_finish(s, &err));
    qn_shards_free(s);
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    assert_true(c && qn_ckpt_n_tensors(c) == 0);
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

// A disk that is full: the error is the system's, and nothing that looks complete stays behind.
static void a_full_disk_leaves_nothing(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    qn_err err = {0};
    size_t n = (size_t)4 << 20, shape[] = {n};
    uint8_t *bytes = calloc(n, 1);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 1 << 20;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    qn_shards *s = qn_shards_new(dir, "model", 0, NULL, &err);
    assert_true(qn_shards_declare(s, "x", QN_DT_U8, shape, 1, &err));
    bool ok = qn_shards_add(s, bytes, n, &err) && qn_shards_finish(s, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_false(ok);
    assert_int_equal(err.code, QN_IO);
    assert_non_null(strstr(err.text, "File too large"));
    qn_shards_free(s);
    assert_int_equal(count_entries(dir), 0);
    free(bytes);
    temp_dir_free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file_round_trip),
        cmocka_unit_test(shards_and_index),
        cmocka_unit_test(an_unfinished_file_leaves_nothing),
        cmocka_unit_test(misuse_is_an_error),
        cmocka_unit_test(no_tensors_are_a_file_too),
        cmocka_unit_test(a_full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
