// Where a new checkpoint may go. What is certain before any work is refused here; what the file system
// refuses later, creating the folder says.
#include "quant/out_place.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

// path made absolute; what does not exist yet is taken below its parent.
static bool absolute(const char *path, char out[PATH_MAX]) {
    if (realpath(path, out)) return true;
    char *copy = qn_strdup(path);
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--) copy[n - 1] = 0;
    char *slash = strrchr(copy, '/'), parent[PATH_MAX];
    const char *name = slash ? slash + 1 : copy;
    if (slash) *slash = 0;
    bool ok = realpath(slash ? (slash == copy ? "/" : copy) : ".", parent) != NULL;
    if (ok) ok = snprintf(out, PATH_MAX, "%s/%s", parent, name) < PATH_MAX;
    free(copy);
    return ok;
}

static bool inside(const char *path, const char *folder) {
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && (path[n] == 0 || path[n] == '/');
}

static bool places_apart(const char *model, const char *out, qn_err *err) {
    char from[PATH_MAX], to[PATH_MAX];
    if (!absolute(model, from) || !absolute(out, to)) return true; // creating OUT will say why
    if (!inside(to, from) && !inside(from, to)) return true;
    return qn_fail(err, QN_USAGE, "OUT %s and MODEL %s lie inside one another", out, model);
}

static bool has(const char *folder, const char *name) {
    char *path = qn_path_join(folder, name);
    bool there = qn_file_exists(path);
    qn_free(path);
    return there;
}

static bool is_empty(const char *folder) {
    DIR *d = opendir(folder);
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d) closedir(d);
    return d && n == 0;
}

// --overwrite is for checkpoints: a mistyped OUT must not cost somebody a folder of other things.
static bool may_replace(const char *out, qn_err *err) {
    if (!qn_file_exists(out)) return true;
    if (!qn_file_is_dir(out))
        return qn_fail(err, QN_USAGE, "%s is not a folder, expected one to overwrite", out);
    if (is_empty(out) || has(out, "config.json") || has(out, "quern-report.json")) return true;
    return qn_fail(err, QN_USAGE, "%s has neither config.json nor quern-report.json: not a "
                   "checkpoint, not overwritten", out);
}

bool qn_out_place_ok(const char *model, const char *out, bool overwrite, qn_err *err) {
    return places_apart(model, out, err) && (!overwrite || may_replace(out, err));
}
