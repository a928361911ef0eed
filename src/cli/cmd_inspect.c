// `quern inspect`: what a checkpoint is, from its configs and headers.
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/output.h"

static void print_shape(const json_t *shape, qn_table *t) {
    qn_buf text = {0};
    size_t i;
    json_t *d;
    json_array_foreach(shape, i, d)
        qn_buf_addf(&text, "%s%lld", i ? " × " : "", (long long)json_integer_value(d));
    qn_table_add(t, text.n ? text.data : "scalar");
    qn_buf_done(&text);
}

static void print_tensors(const json_t *list) {
    qn_table t = {.align = "<<<><"};
    size_t i;
    json_t *x;
    qn_out_addf("\n");
    json_array_foreach(list, i, x) {
        const char *name = "", *dtype = "", *file = "";
        char size[32];
        json_int_t bytes = 0;
        json_unpack(x, "{s?s, s?s, s?s, s?I}", "name", &name, "dtype", &dtype, "file", &file,
                    "bytes", &bytes);
        qn_format_bytes((double)bytes, size);
        qn_table_add(&t, name);
        qn_table_add(&t, dtype);
        print_shape(json_object_get(x, "shape"), &t);
        qn_table_add(&t, size);
        qn_table_add(&t, file);
    }
    qn_table_print(&t, 0);
}

static int run(const qn_args *a, qn_err *err) {
    char *path = qn_find_model(qn_args_at(a, 0), err), *text = NULL;
    bool ok = path && qn_inspect(path, qn_args_has(a, "tensors"), &text, err);
    free(path);
    json_t *j = ok ? qn_json_parse(text, strlen(text), "the description", err) : NULL;
    free(text);
    if (!j) return -1;
    if (qn_args_has(a, "json")) {
        qn_out_json(j);
    } else {
        json_t *list = json_incref(json_object_get(j, "tensor_list"));
        json_object_del(j, "tensor_list");
        qn_out_tree(j, 0);
        if (list) print_tensors(list);
        json_decref(list);
    }
    json_decref(j);
    return 0;
}

static const qn_option options[] = {
    {.name = "tensors", .help = "list every tensor with dtype, shape, size and file"},
    {0},
};

const qn_command qn_cmd_inspect = {
    .name = "inspect",
    .group = "Look",
    .summary = "what a checkpoint is: architecture, sizes, quantization, memory it needs",
    .usage = "MODEL [--tensors] [OPTIONS]",
    .examples = "quern inspect models/tiny-qwen3\n"
                "quern inspect Qwen/Qwen3-0.6B --tensors\n"
                "quern inspect models/tiny-qwen3-gptq-int8 --json\n",
    .tables = {options},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
