// A loaded model and its forward pass, as the engine sees it. The engine knows sizes, not names:
// what a layer caches is described by qn_cache_spec, and a step is a list of segments.
#ifndef QN_MODEL_MODEL_H
#define QN_MODEL_MODEL_H

#include "kernel/matmul.h"
#include "quern.h"

// What sequences cost. Paged: blocks of block_tokens positions, block_bytes each (all layers that
// keep keys and values, the draft layer included). Recurrent: state_bytes per sequence, 0 if none;
// a fresh sequence starts with all of it zero. A copy of the bytes is a copy of the state.
typedef struct qn_cache_spec {
    size_t block_tokens, block_bytes, state_bytes;
} qn_cache_spec;
void qn_model_cache_spec(const qn_model *m, qn_cache_spec *spec);

// Embedding rows that replace those of placeholder tokens (images).
typedef struct qn_embed_span {
    size_t at, n;        // positions in the sequence
    const float *rows;   // [n][hidden_size]
} qn_embed_span;

// A run of consecutive tokens of one sequence in this step.
typedef struct qn_segment {
    const int32_t *tokens;
    size_t n;
    size_t position;            // of the first token in the sequence
    const uint32_t *blocks;     // block table covering positions 0 … position + n - 1
    uint8_t *state;             // recurrent state, read and advanced; NULL when state_bytes is 0
    uint8_t *const *state_after; // NULL, or n addresses that get the state after each token (each
                                 // may be NULL)
    const int32_t (*rope3)[3];  // rotary positions (t, h, w) per token; NULL: the position itself
    const qn_embed_span *spans;
    size_t n_spans;
    bool all_logits;            // logits for every token, else for the last one only
    bool no_logits;             // a prompt chunk that does not end the prompt
    unsigned probe;             // QN_PROBE_…
    qn_probe_fn on_probe;
    void *user;
} qn_segment;

typedef struct qn_step {
    const qn_segment *segments;
    size_t n_segments;
    uint8_t *arena; // block b at arena + b * block_bytes
} qn_step;

// Scratch and results of steps; grows to the largest step, then reused. One per engine.
typedef struct qn_work qn_work;
qn_work *qn_work_new(const qn_model *m, qn_compute *c, qn_err *err);
void qn_work_free(qn_work *w);

// Runs a step. On return qn_work_logits and qn_work_hidden give, segment by segment, a row for each
// token asked for (all, last, or none): logits [vocab_size] and the hidden state after the final
// norm [hidden_size]. Valid until the next step. A non-finite value in a segment does not fail the
// step: qn_work_fault tells.
bool qn_model_forward(const qn_model *m, qn_work *w, const qn_step *s, qn_err *err);
size_t qn_work_n_rows(const qn_work *w, size_t segment);
const float *qn_work_logits(const qn_work *w, size_t segment, size_t row);
const float *qn_work_hidden(const qn_work *w, size_t segment, size_t row);
// True when the segment's logits hold inf or nan: err names the first layer and tensor whose output
// was not finite (found by running the segment's checks, not by keeping everything).
bool qn_work_fault(const qn_work *w, size_t segment, qn_err *err);

// The draft layer (multi-token prediction): for each segment, tokens[i] is the token AFTER position
// `position + i` and hidden[i] the target's final hidden at that position. Fills the draft layer's
// cache at these positions and gives logits for the token after next, and the draft's own hidden
// for further steps, for the last row (or all_logits). Reads no recurrent state.
typedef struct qn_draft_segment {
    const int32_t *tokens;
    const float *hidden; // [n][hidden_size]
    size_t n, position;
    const uint32_t *blocks;
    const int32_t (*rope3)[3];
    const qn_embed_span *spans; // positions of the tokens themselves (position + 1 …)
    size_t n_spans;
    bool all_logits;
} qn_draft_segment;
bool qn_model_draft(const qn_model *m, qn_work *w, const qn_draft_segment *segments, size_t n,
                    uint8_t *arena, qn_err *err); // results through qn_work_*, as above

// Images: pixels to embedding rows. grid is (t, h, w) in patches; *rows is allocated (qn_free),
// *n_rows = t * h * w / merge^2 rows of hidden_size; on entry *n_rows is the most that are of use
// (0: any), and a picture of more is refused before the tower sees it. pixels, when not NULL, gets
// the allocated [patches][patch_dim] values that entered the tower.
bool qn_model_encode_image(const qn_model *m, qn_compute *c, const qn_image *image, int grid[3],
                           float **rows, size_t *n_rows, float **pixels, qn_err *err);
// Expands each image placeholder of a prompt to as many as its image has rows and gives the 3-D
// positions of every token: *tokens [*n] and *rope3 [*n][3], allocated; *delta = next rotary
// position minus *n. grids [n_images][3]; the number of placeholders must be n_images.
bool qn_model_expand_images(const qn_model *m, const int32_t *tokens, size_t n,
                            const int (*grids)[3], size_t n_images, int32_t **out, size_t *n_out,
                            int32_t (**rope3)[3], int32_t *delta, qn_err *err);

qn_precision qn_model_precision(const qn_model *m);
int qn_model_threads(const qn_model *m);

#endif
