// quern: Qwen checkpoints, made trustworthy and fast on ordinary servers.
//
// This is the whole public API. It reads from simple to advanced:
//   1. errors            every fallible call takes a qn_err last
//   2. look              a checkpoint, its tokenizer and its chat template, without loading weights
//   3. model             weights in memory, shared and read-only
//   4. engine, request   any number of sequences, stepped together as one mixed batch
//   5. probe             what happens inside (logits, hidden states), for dumps and measures
//
// Ownership: who calls a _new or _load calls the _free; _free(NULL) does nothing. Strings and
// arrays that a call hands out by pointer-to-pointer are released with qn_free. Parameters are
// borrowed for the time of the call unless the comment says otherwise.
// Threads: a qn_model, qn_tokenizer and qn_template are read-only after loading and may be shared.
// A qn_engine and its requests belong to one thread at a time.
#ifndef QUERN_H
#define QUERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QN_API __attribute__((visibility("default")))
#define QN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define QN_API
#define QN_PRINTF(fmt, args)
#endif

#define QN_VERSION "0.1.0"

QN_API const char *qn_version(void);

// Releases what a call handed out through a char ** or int32_t **.
QN_API void qn_free(void *p);

// ---- 1. errors -------------------------------------------------------------------------------

typedef enum qn_code {
    QN_OK = 0,
    QN_USAGE,       // the caller asked for something that makes no sense
    QN_INPUT,       // a file or request is malformed
    QN_UNSUPPORTED, // well-formed, but not something quern can use
    QN_NOT_FOUND,   // a file, model or tensor is not there
    QN_LIMIT,       // a stated limit was passed (context, depth, fuel, size)
    QN_NONFINITE,   // inf or nan where a number must be
    QN_IO,          // the system failed to read or write
    QN_NOMEM,       // not enough memory
    QN_CANCELLED,   // stopped on request (Ctrl-C, qn_request_cancel)
    QN_N_CODES
} qn_code;

#define QN_ERR_TEXT 1024

// An error is one line of text that names the file, tensor, field or option, what was found and
// what was expected. It is the caller's; start it zeroed. A call that fails fills it exactly once.
typedef struct qn_err {
    qn_code code;
    char text[QN_ERR_TEXT];
} qn_err;

// Exit status of the program for an error: 2 for bad usage or input, 3 for the system, 130.
QN_API int qn_exit_status(qn_code code);

// Progress of long work: `what` names it, done and total are in bytes, tensors or tokens. Return
// false to stop it (the call then fails with QN_CANCELLED).
typedef bool (*qn_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

// ---- 2. look ---------------------------------------------------------------------------------

// MODEL is a folder or a name Org/Name[@revision] looked up in the Hugging Face cache, then in
// ModelScope's. *path gets the folder. An incomplete snapshot is refused (QN_NOT_FOUND).
QN_API bool qn_resolve(const char *model, char **path, qn_err *err);

// What a checkpoint is, as one JSON document (the keys of `quern inspect --json`). Reads headers
// only. With list_tensors the document has tensor_list.
QN_API bool qn_inspect(const char *path, bool list_tensors, char **json, qn_err *err);

// What this machine has, as JSON (the keys of `quern cpu --json`). With measure, read bandwidth
// and peak operations are measured with that many threads (0: all), which takes about a second.
QN_API bool qn_cpu_describe(bool measure, int n_threads, char **json, qn_err *err);

typedef struct qn_tokenizer qn_tokenizer;

// Reads tokenizer.json, or vocab.json + merges.txt + tokenizer_config.json, from a folder.
QN_API qn_tokenizer *qn_tokenizer_load(const char *path, qn_err *err);
QN_API void qn_tokenizer_free(qn_tokenizer *t);

// One more than the largest id that has a text (added tokens included).
QN_API int32_t qn_tokenizer_size(const qn_tokenizer *t);

enum {
    QN_TEXT_PLAIN = 1,        // encode: added tokens in the text are plain text
    QN_TEXT_SKIP_SPECIAL = 2, // decode: leave special tokens out
};

// text is n bytes of UTF-8 (QN_INPUT otherwise, with the byte's position).
QN_API bool qn_encode(const qn_tokenizer *t, const char *text, size_t n, unsigned flags,
                      int32_t **ids, size_t *n_ids, qn_err *err);
// The text has a 0 byte behind its n_text bytes and may hold 0 bytes. Bytes that are not UTF-8
// become U+FFFD, one per maximal invalid part.
QN_API bool qn_decode(const qn_tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                      char **text, size_t *n_text, qn_err *err);
// The token's own text (for added tokens their content, for others their bytes in the byte-level
// alphabet's display form, as vocab.json spells it); NULL for an id without one. Lives with t.
QN_API const char *qn_token_spelling(const qn_tokenizer *t, int32_t id);
// The id of a token spelled so (added or not), or -1.
QN_API int32_t qn_token_id(const qn_tokenizer *t, const char *spelling);

// Streaming: ids go in one at a time, complete characters come out. A character split over tokens
// is held back until it is whole or cannot become so any more.
typedef struct qn_stream qn_stream;
QN_API qn_stream *qn_stream_new(const qn_tokenizer *t, unsigned flags);
QN_API void qn_stream_free(qn_stream *s);
// *text is valid until the next call on s; it may be empty.
QN_API bool qn_stream_push(qn_stream *s, int32_t id, const char **text, size_t *n, qn_err *err);
QN_API void qn_stream_finish(qn_stream *s, const char **text, size_t *n);

typedef struct qn_template qn_template;

// The chat template of a folder: chat_template.jinja, else tokenizer_config.json's chat_template
// (a string, or a list whose entry named "default" counts), else chat_template.json.
QN_API qn_template *qn_template_load(const char *path, qn_err *err);
QN_API qn_template *qn_template_new(const char *source, size_t n, qn_err *err);
QN_API void qn_template_free(qn_template *t);
// Renders a conversation as transformers' apply_chat_template does. messages is a JSON array;
// tools a JSON array or NULL; vars a JSON object or NULL: add_generation_prompt and
// continue_final_message are arguments, the rest are template variables.
QN_API bool qn_template_render(const qn_template *t, const char *messages, const char *tools,
                               const char *vars, char **text, size_t *n_text, qn_err *err);
// Renders with exactly the variables of a JSON object, nothing done around it.
QN_API bool qn_template_render_raw(const qn_template *t, const char *context, char **text,
                                   size_t *n_text, qn_err *err);

// Reasoning and answer, split as vLLM's `qwen3` reasoning parser does. started_open: the prompt
// itself ended inside <think>. Offsets into text; an empty part has from == to.
typedef struct qn_reply_parts {
    size_t reasoning_from, reasoning_to, answer_from, answer_to;
} qn_reply_parts;
QN_API void qn_split_reply(const char *text, size_t n, bool started_open, qn_reply_parts *parts);

// ---- 3. model --------------------------------------------------------------------------------

typedef struct qn_model qn_model;

typedef enum qn_precision {
    QN_FAST,  // what the CPU does best: bf16 or int8 activations, fp32 sums between groups
    QN_EXACT, // weights at their stored values, activations and sums in fp32
} qn_precision;

typedef enum qn_weights { QN_STORED, QN_F32, QN_BF16, QN_Q8, QN_Q4 } qn_weights;

typedef struct qn_model_options {
    qn_precision precision;
    qn_weights weights;      // format in memory; QN_STORED keeps what the checkpoint has
    int n_threads;           // 0: the cores this process may use
    bool dummy;              // only config.json is read, weights are made up
    bool no_vision, no_mtp;  // leave these parts out even if present
    qn_progress_fn progress; // may be NULL
    void *user;
} qn_model_options;

QN_API qn_model *qn_model_load(const char *path, const qn_model_options *o, qn_err *err);
QN_API void qn_model_free(qn_model *m);

typedef struct qn_model_info {
    const char *path, *family, *architecture;
    int n_layers, hidden_size, vocab_size; // vocab_size: rows of the output head
    int context_length;                    // max_position_embeddings
    size_t weight_bytes;                   // in memory
    uint64_t params_per_token;             // weights one token meets: head counted, of experts
                                           // those chosen, embedding not; 0: not known
    size_t kv_bytes_per_token, state_bytes_per_sequence;
    bool has_mtp, has_vision;
    int n_eos;
    int32_t eos[8]; // from generation_config.json, else config.json
    int32_t image_token; // -1: none
    int32_t video_token; // -1: none; a prompt with one is refused
} qn_model_info;
QN_API const qn_model_info *qn_model_get_info(const qn_model *m);
// NULL when the checkpoint has none (families without text files still run on token ids).
QN_API const qn_tokenizer *qn_model_tokenizer(const qn_model *m);
QN_API const qn_template *qn_model_template(const qn_model *m);

// ---- 4. engine, request ----------------------------------------------------------------------

typedef struct qn_engine qn_engine;
typedef struct qn_request qn_request;

typedef struct qn_engine_options {
    size_t max_num_batched_tokens; // tokens per step, so also the prefill chunk; 0: 512
    size_t max_num_seqs;           // sequences in a step; 0: 64
    size_t max_model_len;          // tokens per sequence; 0: the model's context, at most what fits
    size_t kv_cache_bytes;         // arena for keys and values; 0: chosen from free memory
    size_t prefix_cache_bytes;     // cap for cached recurrent states; 0: default
    bool no_prefix_cache;
    const char *speculative_config; // vLLM's JSON, or NULL
} qn_engine_options;

QN_API qn_engine *qn_engine_new(const qn_model *m, const qn_engine_options *o, qn_err *err);
QN_API void qn_engine_free(qn_engine *e); // frees its requests too

typedef struct qn_sampling {
    float temperature; // 0: greedy
    float top_p;       // 1: off
    int top_k;         // 0 or less: off
    float min_p;       // 0: off
    float repetition_penalty; // 1: off; prompt and output count
    float presence_penalty, frequency_penalty; // 0: off; output counts
    uint64_t seed;
    bool seeded;     // false: drawn from the system
    bool ignore_eos;
    size_t max_tokens; // 0: until the context is full
    const char *const *stop; // n_stop strings that end the output and are left out of it
    size_t n_stop;
} qn_sampling;

// The checkpoint's generation_config.json over the neutral defaults (temperature 1, all else off);
// do_sample false means temperature 0.
QN_API void qn_sampling_default(const qn_model *m, qn_sampling *s);

typedef enum qn_finish { QN_FINISH_NONE, QN_FINISH_STOP, QN_FINISH_LENGTH, QN_FINISH_ERROR,
                         QN_FINISH_CANCELLED } qn_finish;
QN_API const char *qn_finish_name(qn_finish f); // "stop", "length", "error", "cancelled"

typedef struct qn_event {
    const int32_t *tokens; // tokens newly generated in this step, n_tokens of them
    size_t n_tokens;
    const char *text;      // text that may be shown now (held back at possible stop strings)
    size_t n_text;
    qn_finish finish;      // other than NONE: the last event of this request
    const qn_err *err;     // with QN_FINISH_ERROR
} qn_event;
typedef void (*qn_event_fn)(void *user, qn_request *r, const qn_event *e);

// Probe: called once per token position computed, with rows named as `quern dump` names tensors:
// "hidden.0" … "hidden.L", "hidden.final", "logits", "mtp.logits". data has n floats, valid
// during the call. position counts from 0 in the sequence. QN_PROBE_ACTIVATIONS shows everything
// that an engine would store on the way: the outputs of the modules ("layers.3.mlp.up_proj",
// "layers.3.mlp.experts.17.up_proj", "norm"), what goes into one and is no other's output
// ("layers.3.mlp.down_proj.input"), and "layers.3.output".
typedef void (*qn_probe_fn)(void *user, const char *name, size_t position, const float *data,
                            size_t n);
enum { QN_PROBE_LOGITS = 1, QN_PROBE_HIDDEN = 2, QN_PROBE_MTP = 4, QN_PROBE_ACTIVATIONS = 8 };

typedef struct qn_image { // decoded pixels, RGB, row major; or an encoded file's bytes
    const void *data;
    size_t bytes;
    int width, height; // 0, 0: data is an encoded PNG, JPEG or WebP
} qn_image;

typedef struct qn_request_options {
    const int32_t *tokens; // the prompt; at least one
    size_t n_tokens;
    qn_sampling sampling;
    qn_event_fn on_event;
    void *user;
    unsigned probe; // QN_PROBE_… to see every position of prompt and output
    qn_probe_fn on_probe;
    const qn_image *images; // in the order of their placeholders in the prompt
    size_t n_images;
    const char *cache_salt; // requests with other salts never share prefix blocks; may be NULL
    bool no_output;         // compute the prompt only (probes); finishes with LENGTH
} qn_request_options;

// Everything is copied. The request is the engine's; it is gone after its last event has been
// delivered, or with the engine.
QN_API qn_request *qn_engine_submit(qn_engine *e, const qn_request_options *o, qn_err *err);
QN_API void qn_request_cancel(qn_request *r);
// One step of everything that is running. *busy tells whether work is left. A request that fails
// gets its own event; false means the engine itself failed.
QN_API bool qn_engine_step(qn_engine *e, bool *busy, qn_err *err);

typedef struct qn_engine_stats {
    uint64_t steps, prompt_tokens, generated_tokens, cached_tokens;
    uint64_t drafted_tokens, accepted_tokens;
    size_t running, waiting, kv_blocks_total, kv_blocks_free;
    size_t kv_bytes, state_bytes;
    size_t max_model_len;
    double prefill_seconds, decode_seconds;
    double draft_saved_seconds; // by drafts, against measured steps without; below 0: lost
} qn_engine_stats;
QN_API void qn_engine_get_stats(const qn_engine *e, qn_engine_stats *s);

#ifdef __cplusplus
}
#endif
#endif
