// `quern pad`: intermediate_size made divisible for tensor parallelism.
#include <string.h>

#include "base/err.h"
#include "base/progress.h"
#include "cli/report_table.h"
#include "quant/pad.h"

static int run(const qn_args *a, qn_err *err) {
    qn_progress bar = {0};
    bool interleave = strcmp(qn_args_text(a, "layout", "tail"), "interleave") == 0;
    qn_pad_options o = {.tp = (int)qn_args_int(a, "tp", 0),
                        .group_size = (size_t)qn_args_int(a, "group-size", 0),
                        .layout = interleave ? QN_PAD_INTERLEAVE : QN_PAD_TAIL,
                        .overwrite = qn_args_has(a, "overwrite"),
                        .as_is = qn_args_has(a, "as-is"),
                        .forward = qn_args_has(a, "forward"),
                        .n_threads = qn_args_threads(a), .progress = qn_progress_show,
                        .user = &bar};
    if (!qn_args_has(a, "tp"))
        return qn_fail(err, QN_USAGE, "no number of devices is given, expected --tp N") - 1;
    if (!qn_args_shard_bytes(a, &o.shard_bytes, err))
        return -1;
    json_t *report = NULL;
    bool ok = qn_pad(qn_args_at(a, 0), qn_args_at(a, 1), &o, &report, err);
    return qn_report_done(a, ok, report);
}

static const qn_option options[] = {
    {.name = "tp", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1024,
     .help = "devices that share the model"},
    {.name = "group-size", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1 << 20,
     .help = "inputs per scale (default: the checkpoint's, or 128 for a float one)"},
    {.name = "layout", .kind = QN_OPT_CHOICE, .value = "tail|interleave",
     .help = "zeros at the end (default), or spread as official Qwen2-72B files have them"},
    {.name = "forward",
     .help = "run both models on a text and compare logits, whatever memory it takes"},
    {.name = "as-is", .help = "go on although weights look signed-view or zero-offset (see check)"},
    {0},
};

const qn_command qn_cmd_pad = {
    .name = "pad",
    .group = "Change",
    .summary = "pad intermediate_size so that N devices can share it in whole groups",
    .usage = "MODEL OUT --tp N [OPTIONS]",
    .about =
        "gate and up rows and down columns grow to the next multiple of group · N (29568 becomes\n"
        "29696 for 8 devices at 128), experts too. Float checkpoints get zeros, GPTQ and AWQ ones\n"
        "codes equal to the zero point. Streamed; the result is proven to compute the same: every\n"
        "value at its place, every MLP's output, and, where both models fit the memory that the\n"
        "rest takes (largest tensor as float and 256 MB), the logits of a text.",
    .examples = "quern pad Qwen/Qwen2-72B-Instruct Qwen2-72B-padded --tp 8\n"
                "quern pad MODEL OUT --tp 4 --layout interleave\n"
                "quern pad MODEL-GPTQ-Int4 OUT --tp 2 --json\n",
    .tables = {options, qn_rewrite_table},
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
