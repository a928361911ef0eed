// `quern cpu`: what this machine has and what quern makes of it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/command.h"
#include "cli/output.h"

// For people: sizes in units, those of caches in powers of two as their makers count.
static void show_units(json_t *sizes, bool powers) {
    const char *key;
    json_t *v;
    json_object_foreach(sizes, key, v) {
        char text[32];
        double kib = json_number_value(v) / 1024;
        if (!powers) qn_format_bytes(kib * 1024, text);
        else snprintf(text, sizeof text, kib < 1024 ? "%.0f KiB" : "%.1f MiB",
                      kib < 1024 ? kib : kib / 1024);
        if (json_is_number(v)) json_object_set_new(sizes, key, json_string(text));
    }
}

static void print(json_t *j) {
    show_units(json_object_get(j, "caches"), true);
    show_units(json_object_get(j, "memory"), false);
    qn_out_tree(j, 0);
}

static int run(const qn_args *a, qn_err *err) {
    char *text;
    if (!qn_cpu_describe(qn_args_has(a, "measure"), qn_args_threads(a), &text, err)) return -1;
    json_t *j = qn_json_parse(text, strlen(text), "the CPU's description", err);
    free(text);
    if (!j) return -1;
    if (qn_args_has(a, "json")) qn_out_json(j);
    else print(j);
    json_decref(j);
    return 0;
}

static const qn_option options[] = {
    {.name = "measure", .help = "measure read bandwidth and peak operations (about a second)"},
    {.name = "threads", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 4096,
     .help = "threads to measure with (default: the cores this process may use)"},
    {0},
};

const qn_command qn_cmd_cpu = {
    .name = "cpu",
    .group = "Look",
    .summary = "cores, caches, instruction sets, and the kernels chosen for them",
    .usage = "[--measure] [OPTIONS]",
    .about = "QUERN_CPU=scalar|avx2|avx512|… caps the instruction set of every command.",
    .examples = "quern cpu\nquern cpu --measure --json\nQUERN_CPU=avx2 quern cpu\n",
    .tables = {options},
    .run = run,
};
