// Asks a checkpoint one question and prints the answer as it comes:
//   ./answer FOLDER "What is the capital of France?"
#include <quern.h>
#include <stdio.h>
#include <string.h>

// Called after every step with what is new: text that is certain (a character split over tokens,
// or a possible stop string, is held back), and in the end why it ended.
static void on_event(void *user, qn_request *request, const qn_event *e) {
    (void)request;
    fwrite(e->text, 1, e->n_text, stdout);
    fflush(stdout);
    if (e->finish == QN_FINISH_ERROR) *(qn_err *)user = *e->err;
}

static bool answer(const qn_model *m, qn_engine *engine, const char *question, qn_err *err) {
    if (!qn_model_template(m) || strpbrk(question, "\"\\")) return false;
    // The conversation as JSON, through the checkpoint's own chat template, to token ids.
    char messages[4096], *prompt = NULL;
    snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":\"%s\"}]", question);
    const char *vars = "{\"add_generation_prompt\":true,\"enable_thinking\":false}";
    int32_t *ids = NULL;
    size_t n_prompt, n_ids;
    bool ok = qn_template_render(qn_model_template(m), messages, NULL, vars, &prompt, &n_prompt,
                                 err) &&
              qn_encode(qn_model_tokenizer(m), prompt, n_prompt, 0, &ids, &n_ids, err);
    if (ok) {
        // Everything in the options is copied, so it may live on this stack.
        qn_request_options o = {.tokens = ids, .n_tokens = n_ids};
        o.on_event = on_event;
        o.user = err;
        qn_sampling_default(m, &o.sampling);
        o.sampling.temperature = 0; // greedy: the same answer every time
        o.sampling.max_tokens = 64;
        ok = qn_engine_submit(engine, &o, err) != NULL;
    }
    // Any number of requests may run; each step moves all of them on.
    for (bool busy = ok; ok && busy;) ok = qn_engine_step(engine, &busy, err);
    putchar('\n');
    qn_free(prompt);
    qn_free(ids);
    return ok && err->code == QN_OK;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: %s FOLDER QUESTION\n", argv[0]), 2;
    qn_err err = {.text = "no template, or a quote in the question"};
    qn_model *m = qn_model_load(argv[1], &(qn_model_options){.precision = QN_FAST}, &err);
    qn_engine *engine = m ? qn_engine_new(m, &(qn_engine_options){0}, &err) : NULL;
    bool ok = engine && answer(m, engine, argv[2], &err);
    if (!ok) fprintf(stderr, "%s: %s\n", argv[0], err.text);
    qn_engine_free(engine); // the engine before the model that it stands on
    qn_model_free(m);
    return ok ? 0 : 1;
}
