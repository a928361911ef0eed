// `quern convert`: any readable checkpoint to a plain one.
#include <string.h>

#include "base/err.h"
#include "base/progress.h"
#include "cli/report_table.h"
#include "quant/convert.h"

static qn_convert_dtype dtype_of(const char *name) {
    return strcmp(name, "f32") == 0 ? QN_TO_F32 : strcmp(name, "bf16") == 0 ? QN_TO_BF16 : QN_TO_F16;
}

static int run(const qn_args *a, qn_err *err) {
    qn_progress bar = {0};
    qn_convert_options o = {.overwrite = qn_args_has(a, "overwrite"),
                            .as_is = qn_args_has(a, "as-is"),
                            .saturate = qn_args_has(a, "saturate"),
                            .keep_extra = qn_args_has(a, "keep-extra"),
                            .n_threads = qn_args_threads(a), .progress = qn_progress_show,
                            .user = &bar};
    if (qn_args_has(a, "to"))
        return qn_fail(err, QN_UNSUPPORTED, "convert --to %s is not built yet, expected --dtype "
                       "f32|bf16|f16", qn_args_text(a, "to", "")) - 1;
    if (!qn_args_has(a, "dtype"))
        return qn_fail(err, QN_USAGE, "no dtype is given, expected --dtype f32|bf16|f16") - 1;
    o.dtype = dtype_of(qn_args_text(a, "dtype", "bf16"));
    if (!qn_args_shard_bytes(a, &o.shard_bytes, err))
        return -1;
    json_t *report = NULL;
    bool ok = qn_convert(qn_args_at(a, 0), qn_args_at(a, 1), &o, &report, err);
    return qn_report_done(a, ok, report);
}

static const qn_option options[] = {
    {.name = "dtype", .kind = QN_OPT_CHOICE, .value = "f32|bf16|f16",
     .help = "what the weights become (float32 decays of linear attention stay so)"},
    {.name = "to", .kind = QN_OPT_CHOICE, .value = "gguf|gptq|awq|ct"},
    {.name = "saturate", .help = "clamp values that f16 cannot hold instead of refusing them"},
    {.name = "keep-extra", .help = "carry over tensors that the architecture does not know"},
    {.name = "as-is", .help = "go on although weights look signed-view or zero-offset (see check)"},
    {0},
};

const qn_command qn_cmd_convert = {
    .name = "convert",
    .group = "Change",
    .summary = "a plain checkpoint that any loader accepts, proven by a second decoder",
    .usage = "MODEL OUT --dtype f32|bf16|f16 [OPTIONS]",
    .about = "Quantized weights (GPTQ, AWQ, FP8, compressed-tensors) are dequantized, every value\n"
             "rounded once. Tokenizer, templates and other side files are carried over. OUT appears\n"
             "when it is complete and has been read back and compared with the source by a second,\n"
             "independent decoder; quern-report.json in it says what was done and measured.",
    .examples = "quern convert Qwen/Qwen3-1.7B-GPTQ-Int8 Qwen3-1.7B-F16 --dtype f16\n"
                "quern convert models/tiny-qwen3-gptq-int8 plain --dtype bf16 --json\n"
                "quern convert MODEL OUT --dtype f32 --shard-size 2GB --overwrite\n",
    .tables = {options, qn_rewrite_table},
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
