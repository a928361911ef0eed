// The template engine: a template's source, and behind it a JSON context. Without one a
// conversation is rendered, the way chat does it.
#include "base/err.h"
#include "fuzz_target.h"
#include "quern.h"

static const char messages[] =
    "[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"a <b> \\u4f60\"},"
    "{\"role\":\"assistant\",\"content\":\"<think>x</think>y\",\"tool_calls\":[{\"type\":"
    "\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1.5,\"y\":[null,true]}}}]},"
    "{\"role\":\"tool\",\"content\":\"42\"}]";
static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
static const char vars[] = "{\"add_generation_prompt\":true,\"enable_thinking\":false}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    fuzz_part source = fuzz_next(&data, &n);
    qn_err err = {0};
    qn_template *t = qn_template_new((const char *)source.data, source.n, &err);
    FUZZ_CHECK((t != NULL) == (err.code == QN_OK));
    if (!t) return 0;
    char *text = NULL, *context = NULL;
    size_t n_text = 0;
    bool ok;
    if (data) {
        context = malloc(n + 1);
        memcpy(context, data, n);
        context[n] = 0;
        ok = qn_template_render_raw(t, context, &text, &n_text, &err);
    } else {
        ok = qn_template_render(t, messages, tools, vars, &text, &n_text, &err);
    }
    FUZZ_CHECK(ok == (err.code == QN_OK));
    FUZZ_CHECK(!ok || (text && text[n_text] == 0));
    free(context);
    qn_free(text);
    qn_template_free(t);
    return 0;
}
