#include "support/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"

char *scratch_path(const char *name) {
    static int calls;
    const char *dir = getenv("TMPDIR");
    return qn_strf("%s/quern-test-%d-%d-%s", dir && *dir ? dir : "/tmp", (int)getpid(), calls++,
                   name);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void scratch_remove(char *path) {
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(path);
}
