// Temporary folders of a test: names under $TMPDIR that do not exist yet, and their removal.
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

char *scratch_path(const char *name); // allocated; unique to this process and call
void scratch_remove(char *path);      // removes file or folder and frees the name

#endif
