// Reasoning and answer of a reply, by the rules of vLLM's qwen3 parser.
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "quern.h"

static void expect(const char *text, bool open, const char *reasoning, const char *answer) {
    qn_reply_parts p;
    size_t n = strlen(text);
    qn_split_reply(text, n, open, &p);
    assert_true(p.reasoning_from <= p.reasoning_to && p.reasoning_to <= n);
    assert_true(p.answer_from <= p.answer_to && p.answer_to <= n);
    assert_int_equal(p.reasoning_to - p.reasoning_from, strlen(reasoning));
    assert_memory_equal(text + p.reasoning_from, reasoning, strlen(reasoning));
    assert_int_equal(p.answer_to - p.answer_from, strlen(answer));
    assert_memory_equal(text + p.answer_from, answer, strlen(answer));
}

static void test_split(void **state) {
    (void)state;
    // the model opened it
    expect("<think>\na\n</think>\n\nb", false, "\na\n", "\n\nb");
    expect("<think>a", false, "a", "");
    expect("drop<think>a</think>b", false, "a", "b");
    // the template opened it
    expect("a</think>b", true, "a", "b");
    expect("a", true, "a", "");
    expect("<think>a</think>b", true, "a", "b");
    expect("", true, "", "");
    // nothing was opened
    expect("b", false, "", "b");
    expect("", false, "", "");
    expect("a</think>b", false, "a", "b");
    // only the first end counts
    expect("a</think>b</think>c", true, "a", "b</think>c");
    expect("</think>", true, "", "");
}

static void test_tool_calls(void **state) {
    (void)state;
    // a call ends the reasoning, but only a real one
    expect("a<tool_call>\n<function=f>", true, "a", "<tool_call>\n<function=f>");
    expect("a<tool_call>\xe2\x80\xa8<function n", true, "a",
           "<tool_call>\xe2\x80\xa8<function n"); // U+2028 is white space
    expect("say <tool_call> loud", true, "say <tool_call> loud", "");
    expect("a<tool_call>\n<functional>", true, "a<tool_call>\n<functional>", "");
    expect("a<tool_call>\n<function", true, "a<tool_call>\n<function", "");
    expect("<think>a<tool_call><function=f>", false, "a", "<tool_call><function=f>");
    // with an end in the text the end decides
    expect("a<tool_call>\n<function=f></think>b", true, "a<tool_call>\n<function=f>", "b");
    // without reasoning it is all answer
    expect("<tool_call>\n<function=f>", false, "", "<tool_call>\n<function=f>");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_tool_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
