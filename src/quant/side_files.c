// Carrying over what lies beside the weights.
#include "quant/side_files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "store/weight.h"

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

// Written by the caller, or here.
static bool is_ours(const char *name) {
    static const char *const ours[] = {"config.json", "quern-report.json", "README.md", NULL};
    return listed(ours, name);
}

const char *const qn_side_labels[] = {"quantize_config.json", "quant_config.json",
                                      "quantization_config.json", "hf_quant_config.json", NULL};

// Nothing that is packed is left for a label to speak of.
static bool has_packed(qn_ckpt *c) {
    const qn_weight *list;
    size_t n;
    if (!qn_ckpt_weights(c, &list, &n, NULL)) return true;
    for (size_t i = 0; i < n; i++)
        if (list[i].scheme) return true;
    return false;
}

// ---- files and folders ----

// Subfolders hold small things (1_Pooling/config.json of an embedding model); what is deeper, more
// or larger than this is somebody's data, not a part of the model.
#define MAX_FILE ((uint64_t)64 << 20)
#define MAX_ALL ((uint64_t)256 << 20)
enum { MAX_DEPTH = 4, MAX_FILES = 1000, MAX_NAMED = 8 };

typedef struct carry {
    const char *const *drop;
    bool drop_labels;
    uint64_t bytes; // copied from subfolders
    size_t n_files;
    qn_buf left; // "runs (a link), big (…)": what was not copied, and why
    size_t n_left;
} carry;

static void leave(carry *c, const char *name, const char *why) {
    char visible[512];
    if (c->n_left++ >= MAX_NAMED) return;
    qn_str_visible(name, visible, sizeof visible);
    qn_buf_addf(&c->left, "%s%s (%s)", c->left.n ? ", " : "", visible, why);
}

static bool copy(const char *from, const char *to, qn_err *err) {
    qn_map m;
    if (!qn_map_open(&m, from, err)) return false;
    bool ok = qn_file_write(to, m.n ? (const void *)m.data : "", m.n, err);
    qn_map_close(&m);
    return ok;
}

static bool is_cache(const char *name) {
    return name[0] == '.' || strcmp(name, "__pycache__") == 0;
}

static void free_names(struct dirent **names, int n) {
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
}

// In one order everywhere, so that notes are too.
static int list_folder(const char *folder, struct dirent ***names, qn_err *err) {
    int n = scandir(folder, names, NULL, alphasort);
    if (n < 0) qn_fail_errno(err, errno, "cannot read %s", folder);
    return n;
}

// Why a file in a subfolder stays behind; NULL: it does not.
static const char *objection(const carry *c, const struct stat *st) {
    uint64_t n = (uint64_t)st->st_size;
    if (!S_ISREG(st->st_mode)) return "neither file nor folder";
    if (n > MAX_FILE) return "larger than 64 MiB";
    if (c->n_files == MAX_FILES) return "more than 1000 files";
    return c->bytes + n > MAX_ALL ? "more than 256 MiB in subfolders" : NULL;
}

static bool copy_small(carry *c, const char *from, const char *to, const char *name,
                       const struct stat *st, qn_err *err) {
    const char *why = objection(c, st);
    if (why) {
        leave(c, name, why);
        return true;
    }
    c->n_files++;
    c->bytes += (uint64_t)st->st_size;
    return copy(from, to, err);
}

typedef struct place {
    const char *from, *to, *name; // name: within the source folder
    int depth;
} place;

static bool copy_folder(carry *c, const place *p, qn_err *err);

// What is there, under its name in the source. A link to a file is the file (caches of downloads are
// made of them); a link to a folder may lead anywhere and is not followed.
static bool copy_entry(carry *c, const place *p, qn_err *err) {
    struct stat st, own;
    if (stat(p->from, &st) != 0 || lstat(p->from, &own) != 0) {
        leave(c, p->name, "a broken link");
        return true;
    }
    if (!S_ISDIR(st.st_mode)) return copy_small(c, p->from, p->to, p->name, &st, err);
    if (S_ISLNK(own.st_mode)) leave(c, p->name, "a link to a folder");
    else if (p->depth > MAX_DEPTH) leave(c, p->name, "too deep");
    else return copy_folder(c, p, err);
    return true;
}

static bool copy_entries(carry *c, const place *p, struct dirent **names, int n, qn_err *err) {
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        const char *name = names[i]->d_name;
        if (is_cache(name)) continue;
        char *from = qn_path_join(p->from, name), *to = qn_path_join(p->to, name);
        char *inner = qn_path_join(p->name, name);
        ok = copy_entry(c, &(place){from, to, inner, p->depth + 1}, err);
        free(from);
        free(to);
        free(inner);
    }
    return ok;
}

// A folder with weights of its own is another model, or a part that would be useless without them:
// it is not half copied.
static bool copy_folder(carry *c, const place *p, qn_err *err) {
    struct dirent **names;
    int n = list_folder(p->from, &names, err), seen = 0;
    if (n < 0) return false;
    bool weights = false, ok = true;
    for (int i = 0; i < n; i++) {
        weights |= is_weights(names[i]->d_name);
        seen += !is_cache(names[i]->d_name);
    }
    if (weights)
        leave(c, p->name, "it holds weights of its own");
    else if (seen && mkdir(p->to, 0777) != 0)
        ok = qn_fail_errno(err, errno, "cannot create %s", p->to);
    else
        ok = copy_entries(c, p, names, n, err);
    free_names(names, n);
    return ok;
}

static bool copy_top(carry *c, const char *folder, const char *dir, const char *name, qn_err *err) {
    char *from = qn_path_join(folder, name), *to = qn_path_join(dir, name);
    struct stat st;
    bool ok;
    if (stat(from, &st) == 0 && S_ISREG(st.st_mode)) ok = copy(from, to, err);
    else ok = copy_entry(c, &(place){from, to, name, 1}, err);
    free(from);
    free(to);
    return ok;
}

static bool copy_all(carry *c, const char *folder, const char *dir, qn_err *err) {
    struct dirent **names;
    int n = list_folder(folder, &names, err);
    if (n < 0) return false;
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        const char *name = names[i]->d_name;
        if (is_cache(name) || is_weights(name) || is_ours(name) || listed(c->drop, name)) continue;
        if (c->drop_labels && listed(qn_side_labels, name))
            leave(c, name, "a quantization label; nothing is quantized");
        else
            ok = copy_top(c, folder, dir, name, err);
    }
    free_names(names, n);
    return ok;
}

static void say_left(carry *c, json_t *notes) {
    if (c->n_left > MAX_NAMED) qn_buf_addf(&c->left, ", and %zu more", c->n_left - MAX_NAMED);
    if (c->n_left == 0) return;
    char *text = qn_strf("left out: %s", c->left.data);
    qn_note("%s", text);
    json_array_append_new(notes, qn_json_string(text));
    qn_free(text);
}

// ---- README ----

// Length of a leading YAML block "---\n … ---\n", 0 when there is none.
static size_t front_matter(const char *text, size_t n) {
    if (n < 4 || memcmp(text, "---\n", 4) != 0) return 0;
    const char *end = memmem(text + 3, n - 3, "\n---\n", 5);
    return end ? (size_t)(end - text) + 5 : 0;
}

static void add_quotes(qn_buf *out, const char *note, const char *left) {
    if (note) qn_buf_addf(out, "> %s\n\n", note);
    if (left) qn_buf_addf(out, "> Not carried over: %s.\n\n", left);
}

static bool write_readme(const char *folder, const char *dir, const char *note, const char *left,
                         qn_err *err) {
    char *from = qn_path_join(folder, "README.md"), *to = qn_path_join(dir, "README.md");
    qn_buf old = {0}, out = {0};
    bool ok = true, there = qn_file_exists(from);
    if (there) ok = qn_file_read(from, MAX_README, &old, err);
    if (ok && (there || note || left)) {
        size_t head = front_matter(old.data, old.n);
        qn_buf_add(&out, old.data, head);
        if (head && (note || left)) qn_buf_addc(&out, '\n');
        add_quotes(&out, note, left);
        qn_buf_add(&out, old.data ? old.data + head : "", old.n - head);
        ok = qn_file_write(to, out.data, out.n, err);
    }
    qn_buf_done(&old);
    qn_buf_done(&out);
    free(from);
    free(to);
    return ok;
}

bool qn_side_files_copy(qn_ckpt *source, const char *dir, const qn_side_rules *rules,
                        json_t *notes, qn_err *err) {
    const char *folder = qn_ckpt_path(source);
    carry c = {.drop = rules->drop};
    if (!qn_file_is_dir(folder)) return true;
    c.drop_labels = !has_packed(source);
    bool ok = copy_all(&c, folder, dir, err);
    if (ok) say_left(&c, notes);
    ok = ok && write_readme(folder, dir, rules->readme_note, c.left.data, err);
    qn_buf_done(&c.left);
    return ok;
}
