#include "model/scratch_checkpoint.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/str.h"

static const edit *edit_of(const edit *edits, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (edits[i].quantize ? strstr(name, edits[i].name) != NULL
            : edits[i].drop   ? qn_str_starts(name, edits[i].name)
                              : !strcmp(name, edits[i].name))
            return &edits[i];
    return NULL;
}

static void describe(json_t *header, const char *name, const char *dtype, const size_t *shape,
                     int n_dims, size_t from, size_t bytes) {
    json_t *dims = json_array();
    for (int i = 0; i < n_dims; i++) json_array_append_new(dims, json_integer((int)shape[i]));
    json_object_set_new(header, name,
                        json_pack("{ss so s[II]}", "dtype", dtype, "shape", dims, "data_offsets",
                                  (json_int_t)from, (json_int_t)(from + bytes)));
}

static void add_tensor(json_t *header, qn_buf *data, const qn_tensor *t, const edit *e) {
    static const uint8_t nan32[] = {0, 0, 0xC0, 0x7F}, nan16[] = {0xC0, 0x7F};
    size_t at = data->n;
    describe(header, t->name, qn_dtype_name(t->dtype), t->shape, t->n_dims, at, t->bytes);
    qn_buf_add(data, t->data, t->bytes);
    if (e && e->poison)
        memcpy(data->data + at, t->dtype == QN_DT_F32 ? nan32 : nan16,
               t->dtype == QN_DT_F32 ? 4 : 2);
}

// ---- 2-bit GPTQ ----

#define GROUP 16

static int code_of(float x, float scale) {
    float c = x / scale + 2.5f;
    return c < 0 ? 0 : c > 3 ? 3 : (int)c;
}

static void put_words(json_t *header, qn_buf *data, const char *name, const char *dtype,
                      size_t rows, size_t cols, const void *words, size_t bytes) {
    describe(header, name, dtype, (const size_t[]){rows, cols}, 2, data->n, bytes);
    qn_buf_add(data, words, bytes);
}

// Codes are packed along the inputs, zeros along the outputs; scales are powers of two. Input i is
// in group i mod n_groups.
static void add_gptq(json_t *header, qn_buf *data, const qn_tensor *t, bool floats) {
    size_t rows = t->shape[0], cols = t->shape[1], groups = cols / GROUP;
    float *x = malloc(t->n * sizeof *x), scale = 0x1p-3f;
    uint32_t *codes = calloc(cols / 16 * rows, 4), *zeros = calloc(groups * rows / 16, 4);
    uint16_t *scales = malloc(groups * rows * 2);
    int32_t *g_idx = malloc(cols * 4);
    char name[256];
    qn_tensor_to_f32(t, 0, t->n, x);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            float s = scale * (float)(1 << (c % groups + r) % 3);
            int code = code_of(x[r * cols + c], s);
            x[r * cols + c] = (float)(code - 2) * s;
            codes[c / 16 * rows + r] |= (uint32_t)code << c % 16 * 2;
        }
    for (size_t g = 0; g < groups; g++)
        for (size_t r = 0; r < rows; r++)
            scales[g * rows + r] = (uint16_t)((12 + (g + r) % 3) << 10); // f16 of s
    for (size_t i = 0; i < groups * rows / 16; i++) zeros[i] = 0x55555555; // 2, less one
    for (size_t c = 0; c < cols; c++) g_idx[c] = (int32_t)(c % groups);
    size_t stem = strlen(t->name) - strlen("weight");
    if (floats) {
        describe(header, t->name, "F32", t->shape, 2, data->n, t->n * 4);
        qn_buf_add(data, x, t->n * 4);
    } else {
        snprintf(name, sizeof name, "%.*sqweight", (int)stem, t->name);
        put_words(header, data, name, "I32", cols / 16, rows, codes, cols / 16 * rows * 4);
        snprintf(name, sizeof name, "%.*sqzeros", (int)stem, t->name);
        put_words(header, data, name, "I32", groups, rows / 16, zeros, groups * rows / 16 * 4);
        snprintf(name, sizeof name, "%.*sscales", (int)stem, t->name);
        put_words(header, data, name, "F16", groups, rows, scales, groups * rows * 2);
        snprintf(name, sizeof name, "%.*sg_idx", (int)stem, t->name);
        describe(header, name, "I32", &cols, 1, data->n, cols * 4);
        qn_buf_add(data, g_idx, cols * 4);
    }
    free(x);
    free(codes);
    free(zeros);
    free(scales);
    free(g_idx);
}

static void write_tensors(const char *folder, qn_ckpt *ckpt, const edit *edits, size_t n) {
    json_t *header = json_object();
    qn_buf data = {0}, file = {0};
    qn_err err = {0};
    for (size_t i = 0; i < qn_ckpt_n_tensors(ckpt); i++) {
        const qn_tensor *t = qn_ckpt_tensor(ckpt, i);
        const edit *e = edit_of(edits, n, t->name);
        if (e && e->quantize) add_gptq(header, &data, t, e->quantize == EDIT_GPTQ_FLOATS);
        else if (!e || !e->drop) add_tensor(header, &data, t, e);
    }
    for (size_t i = 0; i < n; i++) {
        if (!edits[i].add) continue;
        describe(header, edits[i].name, "F32", &edits[i].add, 1, data.n, 4 * edits[i].add);
        for (size_t k = 0; k < edits[i].add; k++) qn_buf_add(&data, &edits[i].value, 4);
    }
    char *text = json_dumps(header, JSON_COMPACT), path[96];
    uint64_t length = strlen(text);
    qn_buf_add(&file, &length, 8);
    qn_buf_adds(&file, text);
    qn_buf_add(&file, data.data, data.n);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_true(qn_file_write(path, file.data, file.n, &err));
    free(text);
    json_decref(header);
    qn_buf_done(&data);
    qn_buf_done(&file);
}

void scratch_write(char folder[64], const char *source, const json_t *config, const edit *edits,
                   size_t n_edits) {
    qn_err err = {0};
    qn_ckpt *ckpt = qn_ckpt_open(source, 0, &err);
    if (!ckpt) fail_msg("%s", err.text);
    strcpy(folder, "/tmp/quern-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    char path[96];
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(json_dump_file(config ? config : qn_ckpt_config(ckpt), path, 0), 0);
    write_tensors(folder, ckpt, edits, n_edits);
    qn_ckpt_free(ckpt);
}

void scratch_copy(const char *folder, const char *source, const char *name) {
    qn_buf b = {0};
    qn_err err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/%s", source, name);
    assert_true(qn_file_read(path, 1 << 26, &b, &err));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_true(qn_file_write(path, b.data, b.n, &err));
    qn_buf_done(&b);
}

void scratch_remove(const char *folder) {
    DIR *d = opendir(folder);
    char path[512];
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        unlink(path);
    }
    if (d) closedir(d);
    rmdir(folder);
}
