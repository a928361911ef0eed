// `quern repair`: undoes what `quern check` recognises.
#include <string.h>

#include "base/progress.h"
#include "cli/report_table.h"
#include "quant/repair.h"

static int run(const qn_args *a, qn_err *err) {
    qn_progress bar = {0};
    qn_repair_options o = {.group_size = (size_t)qn_args_int(a, "group-size", 0),
                           .reference = qn_args_text(a, "reference", NULL),
                           .overwrite = qn_args_has(a, "overwrite"),
                           .n_threads = qn_args_threads(a), .progress = qn_progress_show,
                           .user = &bar};
    if (!qn_args_shard_bytes(a, &o.shard_bytes, err))
        return -1;
    json_t *report = NULL;
    bool ok = qn_repair(qn_args_at(a, 0), qn_args_at(a, 1), &o, &report, err);
    const char *verdict = json_string_value(json_object_get(report, "verdict"));
    bool incomplete = verdict && strcmp(verdict, "incomplete") == 0;
    int status = qn_report_done(a, ok, report);
    return status == 0 && incomplete ? 1 : status;
}

static const qn_option options[] = {
    {.name = "group-size", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1 << 20,
     .help = "inputs per scale, when it cannot be inferred"},
    {.name = "reference", .kind = QN_OPT_FILE, .value = "MODEL",
     .help = "the original checkpoint; settles groups that several scales explain"},
    {0},
};

const qn_command qn_cmd_repair = {
    .name = "repair",
    .group = "Change",
    .summary = "put a wrongly dequantized or mislabelled checkpoint right",
    .usage = "MODEL OUT [OPTIONS]",
    .about = "Undoes signed-view (8-bit codes read as signed, zero point forgotten), zero-offset\n"
             "(zero point off by one) and label-mismatch (config and tensors disagree), from the\n"
             "damaged files alone. Says per tensor what was exact and what is an estimate. Refuses,\n"
             "and writes nothing, when there is nothing to repair or when it is not sure. Single\n"
             "matrices that may be damaged but cannot be judged are left as they are and named;\n"
             "the exit status is then 1.",
    .examples = "quern repair Qwen3-1.7B-broken Qwen3-1.7B-right\n"
                "quern repair BROKEN OUT --reference Qwen/Qwen3-1.7B\n"
                "quern check BROKEN; quern repair BROKEN OUT --json\n",
    .tables = {options, qn_rewrite_table},
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
