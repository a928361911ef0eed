// The text, its tokens, and one request through the engine.
#include "quant/forward_text.h"

static const char text[] =
    "The river was high after a week of rain, and the ferryman would not cross. 1, 2, 3, 42. "
    "北京是中国的首都。 def add(a, b):\n    return a + b\n";
_Static_assert(sizeof text <= QN_FORWARD_TOKENS, "a token is a byte or more");

static void on_event(void *user, qn_request *r, const qn_event *e) {
    (void)r;
    qn_forward *f = user;
    if (e->finish == QN_FINISH_ERROR) f->failed = *e->err;
}

// The request has one user for both callbacks.
static void on_probe(void *user, const char *name, size_t position, const float *data, size_t n) {
    const qn_forward *f = user;
    f->on_probe(f->user, name, position, data, n);
}

bool qn_forward_text(const qn_model *m, qn_forward *f, qn_err *err) {
    const qn_model_info *info = qn_model_get_info(m);
    int32_t made_up[64], *ids = NULL;
    size_t n = 64;
    for (int i = 0; i < 64; i++) made_up[i] = (int32_t)((i * 7919 + 13) % info->vocab_size);
    if (qn_model_tokenizer(m) &&
        !qn_encode(qn_model_tokenizer(m), text, sizeof text - 1, 0, &ids, &n, err))
        return false;
    f->n_tokens = n;
    f->failed = (qn_err){0};
    qn_engine_options eo = {.no_prefix_cache = true, .max_num_seqs = 1};
    qn_engine *e = qn_engine_new(m, &eo, err);
    qn_request_options o = {.tokens = ids ? ids : made_up, .n_tokens = n, .no_output = true,
                            .probe = f->probe, .on_probe = on_probe, .on_event = on_event,
                            .user = f};
    o.sampling.max_tokens = 1;
    bool busy = true, ok = e && qn_engine_submit(e, &o, err);
    while (ok && busy) ok = qn_engine_step(e, &busy, err);
    qn_engine_free(e);
    qn_free(ids);
    return ok;
}
