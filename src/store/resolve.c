// Owns finding a model: a folder, or a name Org/Name[@revision] in the caches that the download
// tools of Hugging Face and ModelScope keep. quern downloads nothing; a name that is not there, or
// not wholly, is refused together with the commands that fetch it.
#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "store/shard_index.h"

typedef struct name {
    char *org, *model, *revision; // revision NULL: none given
} name;

static void name_done(name *n) {
    qn_free(n->org);
    qn_free(n->model);
    qn_free(n->revision);
}

// ---- names ----

static bool word(const char *s, size_t n, const char *more) {
    if (!n || s[0] == '.' || s[0] == '-' || s[0] == '/') return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr(more, s[i])) return false;
        if (s[i] == '.' && i + 1 < n && s[i + 1] == '.') return false;
    }
    return true;
}

static bool parse_name(const char *text, name *out) {
    const char *at = strchr(text, '@'), *slash = strchr(text, '/');
    size_t n = at ? (size_t)(at - text) : strlen(text);
    if (!slash || slash >= text + n) return false;
    size_t org = (size_t)(slash - text), model = n - org - 1;
    if (!word(text, org, "._-") || !word(slash + 1, model, "._-")) return false;
    if (at && (!word(at + 1, strlen(at + 1), "._-/") || qn_str_ends(at, "/"))) return false;
    *out = (name){qn_strndup(text, org), qn_strndup(slash + 1, model),
                  at ? qn_strdup(at + 1) : NULL};
    return true;
}

// ---- is a folder whole? ----

// A link into the cache whose target is not there yet, anywhere in the folder.
static char *dangling_link(const char *dir) {
    DIR *d = opendir(dir);
    char *found = NULL;
    struct dirent *e;
    while (d && !found && (e = readdir(d))) {
        struct stat st;
        char *path = qn_path_join(dir, e->d_name);
        if (stat(path, &st) != 0 && lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
            found = qn_strdup(e->d_name);
        qn_free(path);
    }
    if (d) closedir(d);
    return found;
}

static char *missing_shard(const char *dir) {
    qn_shard_list list;
    qn_err err = {0};
    char *found = NULL;
    if (!qn_shard_list_read(dir, NULL, &list, &err)) return qn_strdup(err.text);
    for (size_t i = 0; i < list.n && !found; i++) {
        char *path = qn_path_join(dir, list.names[i]);
        if (qn_file_size(path) < 0) found = qn_strf("%s is missing", list.names[i]);
        qn_free(path);
    }
    qn_shard_list_done(&list);
    return found;
}

// What is missing in words, or NULL.
static char *what_is_missing(const char *dir) {
    char *config = qn_path_join(dir, "config.json"), *link = dangling_link(dir), *why = NULL;
    if (link) why = qn_strf("%s was not downloaded", link);
    else if (qn_file_size(config) < 0) why = qn_strdup("config.json is missing");
    else why = missing_shard(dir);
    qn_free(config);
    qn_free(link);
    return why;
}

static char *unfinished_blob(const char *blobs) {
    DIR *d = opendir(blobs);
    char *found = NULL;
    struct dirent *e;
    while (d && !found && (e = readdir(d)))
        if (qn_str_ends(e->d_name, ".incomplete"))
            found = qn_strf("a download was not finished (blobs/%s)", e->d_name);
    if (d) closedir(d);
    return found;
}

// ---- Hugging Face ----

static const char *env(const char *key) {
    const char *v = getenv(key);
    return v && *v ? v : NULL;
}

static char *home_path(const char *rest) {
    const char *home = env("HOME");
    return qn_path_join(home ? home : ".", rest);
}

static char *expand(const char *path) {
    return qn_str_starts(path, "~/") ? home_path(path + 2) : qn_strdup(path);
}

// A folder from a variable and what follows it; allocated.
static char *from_env(const char *key, const char *rest) {
    if (!env(key)) return NULL;
    char *base = expand(env(key)), *path = *rest ? qn_path_join(base, rest) : qn_strdup(base);
    qn_free(base);
    return path;
}

// The first variable that is set decides, as in huggingface_hub.
static char *hf_root(void) {
    char *root = from_env("HF_HUB_CACHE", "");
    if (!root) root = from_env("HUGGINGFACE_HUB_CACHE", "");
    if (!root) root = from_env("HF_HOME", "hub");
    if (!root) root = from_env("XDG_CACHE_HOME", "huggingface/hub");
    return root ? root : home_path(".cache/huggingface/hub");
}

// The commit that refs/REVISION names; the revision itself when there is no such file.
static char *commit_of(const char *repo, const char *revision) {
    char *path = qn_strf("%s/refs/%s", repo, revision), *commit = NULL;
    qn_buf text = {0};
    if (qn_file_size(path) > 0 && qn_file_read(path, 4096, &text, NULL)) {
        while (text.n && isspace((unsigned char)text.data[text.n - 1])) text.n--;
        if (word(text.data, text.n, "")) commit = qn_strndup(text.data, text.n);
    }
    qn_buf_done(&text);
    qn_free(path);
    return commit ? commit : qn_strdup(revision);
}

// *path: the snapshot's folder when it is whole. *why: what is wrong with the one that is there.
static void look_in_hf(const name *n, char **path, char **why) {
    char *root = hf_root(), *repo = qn_strf("%s/models--%s--%s", root, n->org, n->model);
    char *commit = commit_of(repo, n->revision ? n->revision : "main");
    char *dir = qn_strf("%s/snapshots/%s", repo, commit), *blobs = qn_path_join(repo, "blobs");
    if (qn_file_is_dir(dir)) {
        *why = what_is_missing(dir);
        if (!*why) *why = unfinished_blob(blobs);
        if (!*why) *path = qn_strdup(dir);
    }
    qn_free(root);
    qn_free(repo);
    qn_free(commit);
    qn_free(dir);
    qn_free(blobs);
}

// ---- ModelScope ----

// Dots in a model's name become three underscores there.
static char *mangled(const char *model) {
    qn_buf b = {0};
    for (; *model; model++) {
        if (*model == '.') qn_buf_adds(&b, "___");
        else qn_buf_addc(&b, *model);
    }
    return qn_buf_take(&b, NULL);
}

// ModelScope keeps one version in a folder and notes in .mv which ("Revision:master,CreatedAt:…").
static bool is_revision(const char *dir, const char *revision) {
    char *path = qn_path_join(dir, ".mv");
    qn_buf text = {0};
    bool same = false;
    if (qn_file_size(path) > 0 && qn_file_read(path, 65536, &text, NULL)) {
        const char *at = strstr(text.data, "Revision:");
        size_t n = strlen(revision);
        if (at) {
            at += strlen("Revision:");
            same = strncmp(at, revision, n) == 0 && strchr(", \r\n", at[n]); // or the end
        }
    }
    qn_buf_done(&text);
    qn_free(path);
    return same;
}

// The folder itself, or the one named after the revision in it.
static char *version_in(const char *dir, const char *revision) {
    if (!qn_file_is_dir(dir)) return NULL;
    if (!revision) return qn_strdup(dir);
    char *inner = qn_path_join(dir, revision);
    if (qn_file_is_dir(inner)) return inner;
    qn_free(inner);
    return is_revision(dir, revision) ? qn_strdup(dir) : NULL;
}

static char *ms_root(void) {
    char *root = from_env("MODELSCOPE_CACHE", "");
    return root ? root : home_path(".cache/modelscope");
}

static void look_in_ms(const name *n, char **path, char **why) {
    static const char *const places[] = {"hub/models/", "hub/", "models/", ""};
    char *root = ms_root(), *folder = mangled(n->model);
    for (size_t i = 0; i < 8 && !*path; i++) {
        char *dir = qn_strf("%s/%s%s/%s", root, places[i / 2], n->org, i % 2 ? n->model : folder);
        char *version = version_in(dir, n->revision);
        char *missing = version ? what_is_missing(version) : NULL;
        if (version && !missing) *path = qn_strdup(version);
        if (missing && !*why) *why = qn_strdup(missing);
        qn_free(dir);
        qn_free(version);
        qn_free(missing);
    }
    qn_free(root);
    qn_free(folder);
}

// ---- the answer ----

// Error texts are one line; the download commands are the exception (cli.md), so they are added
// after control characters have been made visible. Names were checked: they hold none.
static void add_line(qn_err *err, const char *line) {
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, "\n%s", line);
}

static bool refuse(const char *model, const name *n, const char *why, qn_err *err) {
    char *hf = hf_root(), *ms = ms_root();
    const char *flag = n->revision ? " --revision " : "", *rev = n->revision ? n->revision : "";
    if (why)
        qn_fail(err, QN_NOT_FOUND, "%s is not complete in the cache: %s. To download it:", model,
                why);
    else
        qn_fail(err, QN_NOT_FOUND, "%s is neither in the Hugging Face cache (%s) nor in "
                "ModelScope's (%s). To download it:", model, hf, ms);
    char *first = qn_strf("  hf download %s/%s%s%s", n->org, n->model, flag, rev);
    char *second = qn_strf("  modelscope download --model %s/%s%s%s", n->org, n->model, flag, rev);
    if (err) add_line(err, first);
    if (err) add_line(err, second);
    qn_free(first);
    qn_free(second);
    qn_free(hf);
    qn_free(ms);
    return false;
}

static bool resolve_name(const char *model, const name *n, char **path, qn_err *err) {
    char *hf_why = NULL, *ms_why = NULL;
    look_in_hf(n, path, &hf_why);
    if (!*path) look_in_ms(n, path, &ms_why);
    bool ok = *path || refuse(model, n, hf_why ? hf_why : ms_why, err);
    qn_free(hf_why);
    qn_free(ms_why);
    return ok;
}

bool qn_resolve(const char *model, char **path, qn_err *err) {
    name n = {0};
    struct stat st;
    *path = NULL;
    if (!*model) return qn_fail(err, QN_USAGE, "the model's name is empty");
    if (stat(model, &st) == 0) {
        if (qn_str_ends(model, ".gguf"))
            return qn_fail(err, QN_UNSUPPORTED, "%s: GGUF files cannot be read yet", model);
        *path = qn_strdup(model);
        return true;
    }
    if (!parse_name(model, &n))
        return qn_fail(err, QN_NOT_FOUND, "%s: no such folder, and not a name like Org/Name",
                       model);
    bool ok = resolve_name(model, &n, path, err);
    name_done(&n);
    return ok;
}
