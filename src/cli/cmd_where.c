// `quern where`: the folder that a name stands for.
#include <stdlib.h>

#include "base/json.h"
#include "cli/command.h"
#include "cli/output.h"

static int run(const qn_args *a, qn_err *err) {
    char *path = qn_find_model(qn_args_at(a, 0), err);
    if (!path) return -1;
    if (qn_args_has(a, "json")) {
        json_t *j = json_pack("{so}", "path", qn_json_string(path));
        qn_out_json(j);
        json_decref(j);
    } else {
        qn_out_addf("%s\n", path);
    }
    free(path);
    return 0;
}

const qn_command qn_cmd_where = {
    .name = "where",
    .group = "Look",
    .summary = "the folder that a model's name stands for",
    .usage = "NAME [OPTIONS]",
    .about = "NAME is Org/Name[@revision], looked up in the Hugging Face cache and then in\n"
             "ModelScope's. Nothing is ever downloaded.",
    .examples = "quern where Qwen/Qwen3-0.6B\nquern where Qwen/Qwen3-0.6B@main --json\n",
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
