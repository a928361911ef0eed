// Carrying over what lies beside the weights.
#include "quant/side_files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"

#define MAX_README ((size_t)16 << 20)

static bool listed(const char *const *names, const char *name) {
    for (; names && *names; names++)
        if (strcmp(*names, name) == 0) return true;
    return false;
}

// Weights in any container, and what describes them.
static bool is_weights(const char *name) {
    static const char *const suffixes[] = {".safetensors", ".safetensors.index.json", ".bin",
                                           ".bin.index.json", ".pt", ".pth", ".gguf", ".h5",
                                           ".msgpack", ".onnx"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (qn_str_ends(name, suffixes[i])) return true;
    return false;
}

static bool skipped(const char *name, const char *const *drop) {
    static const char *const ours[] = {"config.json", "quern-report.json", "README.md", NULL};
    return name[0] == '.' || is_weights(name) || listed(ours, name) || listed(drop, name);
}

static bool copy(const char *from, const char *to, qn_err *err) {
    qn_map m;
    if (!qn_map_open(&m, from, err)) return false;
    bool ok = qn_file_write(to, m.n ? (const void *)m.data : "", m.n, err);
    qn_map_close(&m);
    return ok;
}

static bool copy_all(const char *folder, const char *dir, const char *const *drop, qn_err *err) {
    DIR *d = opendir(folder);
    if (!d) return qn_fail_errno(err, errno, "cannot read %s", folder);
    bool ok = true;
    struct dirent *e;
    while (ok && (e = readdir(d))) {
        if (skipped(e->d_name, drop)) continue;
        char *from = qn_path_join(folder, e->d_name), *to = qn_path_join(dir, e->d_name);
        struct stat st;
        if (stat(from, &st) == 0 && S_ISREG(st.st_mode)) ok = copy(from, to, err);
        free(from);
        free(to);
    }
    closedir(d);
    return ok;
}

// Length of a leading YAML block "---\n … ---\n", 0 when there is none.
static size_t front_matter(const char *text, size_t n) {
    if (n < 4 || memcmp(text, "---\n", 4) != 0) return 0;
    const char *end = memmem(text + 3, n - 3, "\n---\n", 5);
    return end ? (size_t)(end - text) + 5 : 0;
}

static bool write_readme(const char *folder, const char *dir, const char *note, qn_err *err) {
    char *from = qn_path_join(folder, "README.md"), *to = qn_path_join(dir, "README.md");
    qn_buf old = {0}, out = {0};
    bool ok = true, there = qn_file_exists(from);
    if (there) ok = qn_file_read(from, MAX_README, &old, err);
    if (ok && (there || note)) {
        size_t head = front_matter(old.data, old.n);
        qn_buf_add(&out, old.data, head);
        if (note) qn_buf_addf(&out, "%s> %s\n\n", head ? "\n" : "", note);
        qn_buf_add(&out, old.data ? old.data + head : "", old.n - head);
        ok = qn_file_write(to, out.data, out.n, err);
    }
    qn_buf_done(&old);
    qn_buf_done(&out);
    free(from);
    free(to);
    return ok;
}

bool qn_side_files_copy(const qn_ckpt *source, const char *dir, const char *const *drop,
                        const char *readme_note, qn_err *err) {
    const char *folder = qn_ckpt_path(source);
    if (!qn_file_is_dir(folder)) return true;
    return copy_all(folder, dir, drop, err) && write_readme(folder, dir, readme_note, err);
}
