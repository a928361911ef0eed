// Options that several commands share.
#include "cli/command.h"

#define BIG 9.2e18

const qn_option qn_common_table[] = {
    {.name = "json", .help = "the result as one JSON document"},
    {.name = "quiet", .letter = 'q', .help = "no notes on stderr, errors only"},
    {.name = "help", .letter = 'h', .help = "this page"},
    {0},
};

const qn_option qn_engine_table[] = {
    {.name = "threads", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 4096,
     .help = "threads to compute with (default: the cores this process may use)"},
    {.name = "precision", .kind = QN_OPT_CHOICE, .value = "exact|fast",
     .help = "exact: fp32 activations and sums; fast: what the CPU does best"},
    {.name = "weights", .kind = QN_OPT_CHOICE, .value = "stored|f32|bf16|q8|q4",
     .help = "format of the weights in memory (default: as stored)"},
    {.name = "max-num-batched-tokens", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1 << 20,
     .help = "tokens per engine step, so also the prefill chunk (default 512)"},
    {.name = "max-num-seqs", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1 << 16,
     .help = "sequences per engine step (default: as many as there are)"},
    {.name = "max-model-len", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1 << 30,
     .help = "tokens per sequence (default: the model's context, at most what fits)"},
    {.name = "kv-cache-memory-bytes", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = BIG,
     .help = "memory for keys and values (default: as needed, at most what is free)"},
    {.name = "speculative-config", .kind = QN_OPT_TEXT, .value = "JSON",
     .help = "as vLLM's: {\"method\":\"mtp\",\"num_speculative_tokens\":2}"},
    {0},
};

const qn_option qn_sampling_table[] = {
    {.name = "temperature", .kind = QN_OPT_REAL, .value = "T", .lo = 0, .hi = 100,
     .help = "0 is greedy (default: the checkpoint's, as for all of these)"},
    {.name = "temp", .kind = QN_OPT_REAL, .value = "T", .same_as = "temperature", .lo = 0,
     .hi = 100},
    {.name = "top-p", .kind = QN_OPT_REAL, .value = "P", .lo = 0, .hi = 1,
     .help = "smallest set of tokens with this probability"},
    {.name = "top-k", .kind = QN_OPT_INT, .value = "K", .lo = -1, .hi = 1 << 30,
     .help = "the K most likely tokens; 0 or -1: all"},
    {.name = "min-p", .kind = QN_OPT_REAL, .value = "P", .lo = 0, .hi = 1,
     .help = "tokens at least this likely, relative to the likeliest"},
    {.name = "repetition-penalty", .kind = QN_OPT_REAL, .value = "X", .lo = 0.01, .hi = 100,
     .help = "over prompt and output; 1 is off"},
    {.name = "presence-penalty", .kind = QN_OPT_REAL, .value = "X", .lo = -2, .hi = 2,
     .help = "over the output; 0 is off"},
    {.name = "frequency-penalty", .kind = QN_OPT_REAL, .value = "X", .lo = -2, .hi = 2,
     .help = "over the output, per occurrence; 0 is off"},
    {.name = "seed", .kind = QN_OPT_INT, .value = "N", .lo = 0, .hi = BIG,
     .help = "the same draws again, on any number of threads"},
    {.name = "stop", .kind = QN_OPT_TEXT, .value = "TEXT", .many = true,
     .help = "end before this text appears (repeatable)"},
    {.name = "ignore-eos", .help = "go on past the end-of-text token"},
    {.name = "max-tokens", .letter = 'n', .kind = QN_OPT_INT, .value = "N", .lo = 0,
     .hi = 1 << 30, .help = "at most so many new tokens; 0: until the context is full"},
    {0},
};
