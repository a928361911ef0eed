// Instruction sets and their cap, cores, and the control groups' limits in made-up trees.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cgroup.h"
#include "base/cpu.h"
#include "base/file.h"

static void cap_hides_what_is_above(void **state) {
    (void)state;
    assert_true(qn_cpu_found(QN_ISA_SCALAR));
    for (int top = 0; top < QN_N_ISA; top++) {
        qn_cpu_cap((qn_isa)top);
        for (int i = 0; i < QN_N_ISA; i++)
            assert_int_equal(qn_cpu_has((qn_isa)i), qn_cpu_found((qn_isa)i) && i <= top);
    }
}

static void environment_is_honoured_and_checked(void **state) {
    (void)state;
    qn_err err = {0};
    setenv("QUERN_CPU", "scalar", 1);
    assert_true(qn_cpu_init(&err));
    assert_true(qn_cpu_has(QN_ISA_SCALAR));
    assert_false(qn_cpu_has(QN_ISA_AVX2) || qn_cpu_has(QN_ISA_NEON));
    setenv("QUERN_CPU", "avx1024", 1);
    assert_false(qn_cpu_init(&err));
    assert_int_equal(err.code, QN_USAGE);
    assert_non_null(strstr(err.text, "avx1024"));
    assert_non_null(strstr(err.text, "avx512"));
    unsetenv("QUERN_CPU");
    for (int i = 0; i < QN_N_ISA; i++) assert_non_null(qn_isa_name((qn_isa)i));
}

static void affinity_limits_the_cores(void **state) {
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    int before = qn_cpu_cores();
    assert_in_range(before, 1, CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &one);
            break;
        }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(qn_cpu_cores(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(qn_cpu_cores(), before);
    assert_true(strlen(qn_cpu_model()) > 0);
}

// ---- control groups ----

static char root[64];

static int new_tree(void **state) {
    (void)state;
    snprintf(root, sizeof root, "/tmp/quern-cgroup-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int drop_tree(void **state) {
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void plant(const char *name, const char *text) {
    char *path = qn_strf("%s/%s", root, name);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(path, 0777);
        *p = '/';
    }
    qn_err err = {0};
    assert_true(qn_file_write(path, text, strlen(text), &err));
    free(path);
}

static void no_group_is_no_limit(void **state) {
    (void)state;
    assert_true(qn_cgroup_memory_left(root) == SIZE_MAX);
    assert_true(qn_cgroup_cores(root) > 1024);
    plant("proc/self/cgroup", "0::/\n");
    plant("sys/fs/cgroup/cpu.max", "max 100000\n");
    plant("sys/fs/cgroup/memory.max", "max\n");
    assert_true(qn_cgroup_memory_left(root) == SIZE_MAX);
    assert_true(qn_cgroup_cores(root) > 1024);
}

static void tightest_ancestor_counts(void **state) {
    (void)state;
    plant("proc/self/cgroup", "0::/slice/unit\n");
    plant("sys/fs/cgroup/slice/unit/cpu.max", "max 100000\n");
    plant("sys/fs/cgroup/slice/cpu.max", "250000 100000\n");
    plant("sys/fs/cgroup/slice/unit/memory.max", "1000000\n");
    plant("sys/fs/cgroup/slice/unit/memory.current", "400000\n");
    plant("sys/fs/cgroup/slice/unit/memory.stat",
          "anon 1\ninactive_file 100000\nactive_file 50000\n");
    plant("sys/fs/cgroup/slice/memory.max", "700000\n");
    plant("sys/fs/cgroup/slice/memory.current", "650000\n");
    assert_int_equal(qn_cgroup_cores(root), 2);
    assert_int_equal(qn_cgroup_memory_left(root), 50000);
    plant("sys/fs/cgroup/slice/memory.max", "max\n");
    assert_int_equal(qn_cgroup_memory_left(root), 750000); // cached pages of files can be had
    plant("sys/fs/cgroup/slice/cpu.max", "5000 100000\n");
    assert_int_equal(qn_cgroup_cores(root), 1);
}

static void version_one_counts_too(void **state) {
    (void)state;
    plant("proc/self/cgroup", "4:memory:/host/path\n3:cpu,cpuacct:/host/path\n0::/\n");
    // In a container the path is the host's and not there; its own limits lie at the top.
    plant("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
    plant("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    plant("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n");
    plant("sys/fs/cgroup/memory/memory.usage_in_bytes", "1400\n");
    assert_int_equal(qn_cgroup_cores(root), 3);
    assert_int_equal(qn_cgroup_memory_left(root), 0);
    plant("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    plant("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    assert_true(qn_cgroup_memory_left(root) == SIZE_MAX);
    assert_true(qn_cgroup_cores(root) > 1024);
}

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, new_tree, drop_tree)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cap_hides_what_is_above),
        cmocka_unit_test(environment_is_honoured_and_checked),
        cmocka_unit_test(affinity_limits_the_cores),
        IN_TREE(no_group_is_no_limit),
        IN_TREE(tightest_ancestor_counts),
        IN_TREE(version_one_counts_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
