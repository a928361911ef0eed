// The limits that a control group (a container, a systemd slice) puts on this process.
#ifndef QN_BASE_CGROUP_H
#define QN_BASE_CGROUP_H

#include <stddef.h>

// root is put before every path read ("" on a real system); tests build a small tree.
int qn_cgroup_cores(const char *root);          // whole cores the CPU quota allows, at least 1
size_t qn_cgroup_memory_left(const char *root); // SIZE_MAX: no limit

#endif
