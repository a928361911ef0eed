// A folder of garbage, opened as a checkpoint in every way: strict, tolerant, with its weights
// decoded, inspected, and checked. The input is a row of parts; a part's first byte says which file
// it is, the rest is what the file holds. Shards may hold any byte, so they are written as text: 'S'
// takes a header's text, to which length and data are added. A part 'k' asks for the check, which
// takes as long as all the rest.
#include <fcntl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/log.h"
#include "fuzz_target.h"
#include "quant/check.h"
#include "store/weight.h"

#define DATA_BYTES 4096

static const struct {
    char letter;
    bool header;
    const char *name;
} files[] = {
    {'c', false, "config.json"}, {'q', false, "quantize_config.json"},
    {'i', false, "model.safetensors.index.json"}, {'s', false, "model.safetensors"},
    {'g', false, "model.gguf"}, {'S', true, "model.safetensors"},
    {'1', true, "model-00001-of-00002.safetensors"}, {'2', true, "model-00002-of-00002.safetensors"},
};
#define N_FILES (sizeof files / sizeof *files)

static char folder[256];

static void remove_folder(void) {
    for (size_t i = 0; i < N_FILES; i++) {
        char path[320];
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        unlink(path);
    }
    rmdir(folder);
}

static void make_folder(void) {
    const char *shm = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(folder, sizeof folder, "%s/quern-fuzz-XXXXXX", shm);
    FUZZ_CHECK(mkdtemp(folder));
    atexit(remove_folder);
    qn_log_set_quiet(true);
}

static void put(int fd, const void *data, size_t n) { FUZZ_CHECK(write(fd, data, n) == (ssize_t)n); }

static void write_file(size_t which, const uint8_t *data, size_t n) {
    static uint8_t zeros[DATA_BYTES];
    char path[320];
    snprintf(path, sizeof path, "%s/%s", folder, files[which].name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    FUZZ_CHECK(fd >= 0);
    if (files[which].header) {
        uint64_t length = n; // little-endian, as every machine that fuzzes is
        memset(zeros, 0x3c, sizeof zeros);
        put(fd, &length, 8);
        put(fd, data, n);
        put(fd, zeros, sizeof zeros);
    } else {
        put(fd, data, n);
    }
    close(fd);
}

static unsigned write_files(const uint8_t *data, size_t n, bool *check) {
    unsigned written = 0;
    *check = false;
    while (data) {
        fuzz_part p = fuzz_next(&data, &n);
        *check |= p.n == 1 && p.data[0] == 'k';
        for (size_t i = 0; p.n && i < N_FILES; i++)
            if (files[i].letter == (char)p.data[0]) {
                write_file(i, p.data + 1, p.n - 1);
                written |= 1u << i;
            }
    }
    return written;
}

static void forget_files(unsigned written) {
    for (size_t i = 0; i < N_FILES; i++) {
        char path[320];
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        if (written >> i & 1) unlink(path);
    }
}

static void decode(const qn_weight *w) {
    size_t n;
    if (!w->rows || !w->cols || !qn_mul(w->cols, sizeof(float), &n) || n > 1 << 20) return;
    float *row = qn_alloc(n);
    qn_weight_decode(w, w->rows - 1, 1, row, &(qn_err){0});
    free(row);
}

static void open_as(const char *path, unsigned flags) {
    qn_err err = {0};
    const qn_weight *list = NULL;
    size_t n = 0;
    qn_ckpt *c = qn_ckpt_open(path, flags, &err);
    FUZZ_CHECK((c != NULL) == (err.code == QN_OK));
    if (!c) return;
    if (qn_ckpt_weights(c, &list, &n, &err))
        for (size_t i = 0; i < n; i++) decode(&list[i]);
    qn_ckpt_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!folder[0]) make_folder();
    bool check;
    unsigned written = write_files(data, n, &check);
    open_as(folder, 0);
    open_as(folder, QN_CKPT_TOLERANT);
    char *text = NULL;
    if (qn_inspect(folder, true, &text, &(qn_err){0})) qn_free(text);
    json_t *report = NULL;
    qn_check_options o = {.n_threads = 1};
    if (check && qn_check(folder, &o, &report, &(qn_err){0})) json_decref(report);
    forget_files(written);
    return 0;
}
