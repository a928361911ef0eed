// Fixtures are written by hand here, not by the shard writer: reader and writer must not agree on a
// mistake.
#include "temp_model.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"

static void must(bool ok, const char *what) {
    if (ok) return;
    perror(what);
    abort();
}

char *temp_dir_new(void) {
    const char *base = getenv("TMPDIR");
    char *dir = qn_strf("%s/quern-test-XXXXXX", base && *base ? base : "/tmp");
    must(mkdtemp(dir) != NULL, dir);
    return dir;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

void temp_dir_free(char *dir) {
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(dir);
}

static void make_parents(char *path) {
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        mkdir(path, 0777);
        *p = '/';
    }
}

void temp_write(const char *dir, const char *name, const void *data, size_t n) {
    char *path = qn_path_join(dir, name);
    make_parents(path);
    FILE *f = fopen(path, "wb");
    must(f && fwrite(data, 1, n, f) == n && fclose(f) == 0, path);
    free(path);
}

void temp_text(const char *dir, const char *name, const char *text) {
    temp_write(dir, name, text, strlen(text));
}

void temp_link(const char *dir, const char *name, const char *target) {
    char *path = qn_path_join(dir, name);
    make_parents(path);
    must(symlink(target, path) == 0, path);
    free(path);
}

uint8_t *st_bytes(const char *header, size_t n_data, size_t *n) {
    uint64_t length = strlen(header);
    *n = 8 + (size_t)length + n_data;
    uint8_t *out = malloc(*n);
    must(out != NULL, "malloc");
    memcpy(out, &length, 8);
    memcpy(out + 8, header, (size_t)length);
    for (size_t i = 0; i < n_data; i++) out[8 + (size_t)length + i] = (uint8_t)i;
    return out;
}

void st_write(const char *dir, const char *name, const st_tensor *list, size_t n) {
    qn_buf header = {0}, file = {0}, data = {0};
    for (size_t i = 0; i < n; i++) {
        const st_tensor *t = &list[i];
        size_t bytes = qn_dtype_bytes(t->dtype);
        qn_buf_addf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", t->name,
                    qn_dtype_name(t->dtype));
        for (int d = 0; d < t->n_dims; d++) {
            qn_buf_addf(&header, "%s%zu", d ? "," : "", t->shape[d]);
            bytes *= t->shape[d];
        }
        qn_buf_addf(&header, "],\"data_offsets\":[%zu,%zu]}", data.n, data.n + bytes);
        qn_buf_add(&data, t->data, bytes);
    }
    qn_buf_addc(&header, '}');
    uint64_t length = header.n;
    qn_buf_add(&file, &length, 8);
    qn_buf_add(&file, header.data, header.n);
    qn_buf_add(&file, data.data, data.n);
    temp_write(dir, name, file.data, file.n);
    qn_buf_done(&header);
    qn_buf_done(&file);
    qn_buf_done(&data);
}
