// Control groups, both versions. A limit may sit on any ancestor of our group, so the walk goes
// from our group up to the root and the tightest limit counts. Inside a container's own namespace
// the path is "/" and the root folder carries the container's limits.
#include "base/cgroup.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define NO_QUOTA (1 << 20)

// The first line of a file; false when it cannot be read.
static bool line_of(const char *path, char *line, int cap) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, cap, f) != NULL;
    fclose(f);
    return ok;
}

static size_t number_in(const char *folder, const char *name, size_t otherwise) {
    char line[64], *path = qn_strf("%s/%s", folder, name);
    bool number = line_of(path, line, sizeof line) && line[0] >= '0' && line[0] <= '9';
    free(path);
    return number ? strtoull(line, NULL, 10) : otherwise;
}

// A "key 123" line's number.
static size_t keyed(const char *folder, const char *name, const char *key) {
    char line[128], *path = qn_strf("%s/%s", folder, name);
    FILE *f = fopen(path, "re");
    free(path);
    if (!f) return 0;
    size_t found = 0, n = strlen(key);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ' ') {
            found = strtoull(line + n, NULL, 10);
            break;
        }
    fclose(f);
    return found;
}

// Does one controller of a comma-separated list have this name?
static bool has_controller(const char *list, size_t n, const char *name) {
    size_t len = strlen(name);
    for (const char *p = list; p < list + n; p += strcspn(p, ",:") + 1)
        if (strncmp(p, name, len) == 0 && (p[len] == ',' || p[len] == ':')) return true;
    return false;
}

// Our group's folder for a controller, from the lines "ID:CONTROLLERS:PATH" of /proc/self/cgroup;
// version 2 is the line with an empty list. allocated; NULL when there is none.
static char *own_folder(const char *root, const char *controller, size_t *top) {
    char line[4096], *path = qn_strf("%s/proc/self/cgroup", root), *folder = NULL;
    FILE *f = fopen(path, "re");
    free(path);
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
        if (!at) continue;
        bool v2 = at == list + 1;
        if (!v2 && !has_controller(list + 1, (size_t)(at - list - 1), controller)) continue;
        if (v2 && folder) continue; // on a mixed system the controller's own tree counts
        free(folder);
        char *base = qn_strf("%s/sys/fs/cgroup%s%s", root, v2 ? "" : "/", v2 ? "" : controller);
        *top = strlen(base);
        folder = qn_strf("%s%s", base, strcmp(at + 1, "/") == 0 ? "" : at + 1);
        free(base);
    }
    if (f) fclose(f);
    return folder;
}

static int cores_here(const char *folder) {
    char line[64], *path = qn_strf("%s/cpu.max", folder);
    double quota = -1, period = 0;
    if (line_of(path, line, sizeof line)) {
        if (sscanf(line, "%lf %lf", &quota, &period) != 2) quota = -1; // "max 100000"
    } else {
        quota = (double)number_in(folder, "cpu.cfs_quota_us", 0); // version 1; -1 is no limit
        period = (double)number_in(folder, "cpu.cfs_period_us", 0);
    }
    free(path);
    if (quota <= 0 || period <= 0 || quota / period >= NO_QUOTA) return NO_QUOTA;
    int cores = (int)(quota / period + 0.01);
    return cores < 1 ? 1 : cores;
}

// Pages of files count as used but are given back when memory is wanted.
static size_t memory_left_here(const char *folder) {
    size_t limit = number_in(folder, "memory.max", SIZE_MAX), used, cached;
    if (limit != SIZE_MAX) {
        used = number_in(folder, "memory.current", 0);
        cached = keyed(folder, "memory.stat", "inactive_file") +
                 keyed(folder, "memory.stat", "active_file");
    } else {
        limit = number_in(folder, "memory.limit_in_bytes", SIZE_MAX);
        used = number_in(folder, "memory.usage_in_bytes", 0);
        cached = keyed(folder, "memory.stat", "total_inactive_file") +
                 keyed(folder, "memory.stat", "total_active_file");
    }
    if (limit > SIZE_MAX / 4) return SIZE_MAX;
    used -= cached < used ? cached : used;
    return used < limit ? limit - used : 0;
}

// Cuts the last component off; false at the top.
static bool go_up(char *folder, size_t top) {
    char *slash = strrchr(folder, '/');
    if (!slash || strlen(folder) <= top) return false;
    *((size_t)(slash - folder) < top ? folder + top : slash) = 0;
    return true;
}

int qn_cgroup_cores(const char *root) {
    size_t top = 0;
    char *folder = own_folder(root, "cpu", &top);
    int cores = NO_QUOTA;
    for (bool more = folder != NULL; more; more = go_up(folder, top)) {
        int here = cores_here(folder);
        if (here < cores) cores = here;
    }
    free(folder);
    return cores;
}

size_t qn_cgroup_memory_left(const char *root) {
    size_t top = 0, left = SIZE_MAX;
    char *folder = own_folder(root, "memory", &top);
    for (bool more = folder != NULL; more; more = go_up(folder, top)) {
        size_t here = memory_left_here(folder);
        if (here < left) left = here;
    }
    free(folder);
    return left;
}
