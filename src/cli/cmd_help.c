// `quern help`: made from the commands' own descriptors, for people and (--json, --options) for
// whatever completes or checks command lines.
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/output.h"

void qn_help_overview(void) {
    qn_out_addf("quern %s: Qwen checkpoints, made trustworthy and fast on ordinary servers.\n\n"
                "usage: quern COMMAND [ARGUMENTS] [OPTIONS]\n", qn_version());
    const char *group = "";
    qn_table t = {.align = "<<"};
    for (const qn_command *const *c = qn_commands; *c; c++) {
        if (strcmp(group, (*c)->group) != 0) {
            qn_table_print(&t, 2);
            qn_out_addf("\n%s\n", (*c)->group);
        }
        group = (*c)->group;
        qn_table_addf(&t, "%-8s", (*c)->name);
        qn_table_add(&t, (*c)->summary);
    }
    qn_table_print(&t, 2);
    qn_out_addf("\nMODEL is a checkpoint folder, or a name Org/Name[@revision] in the Hugging Face "
                "or ModelScope\ncache. `quern help COMMAND` shows options and examples.\n");
}

static void list_options(qn_table *t, const qn_option *o) {
    for (; o && o->name; o++) {
        if (!o->help) continue;
        if (o->letter) qn_table_addf(t, "-%c,", o->letter);
        else qn_table_add(t, "");
        qn_table_addf(t, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
        qn_table_add(t, o->help);
    }
}

void qn_help_command(const qn_command *c) {
    qn_out_addf("quern %s: %s\n\nusage: quern %s %s\n", c->name, c->summary, c->name, c->usage);
    if (c->about) qn_out_addf("\n%s\n", c->about);
    qn_table t = {.align = "<<<"};
    for (size_t i = 0; i < QN_OPT_TABLES; i++) list_options(&t, c->tables[i]);
    list_options(&t, qn_common_table);
    qn_out_addf("\noptions\n");
    qn_table_print(&t, 2);
    qn_out_addf("\nexamples\n");
    for (const char *p = c->examples; *p;) {
        size_t n = strcspn(p, "\n");
        qn_out_addf("  %.*s\n", (int)n, p);
        p += n + (p[n] != 0);
    }
}

// ---- for machines ----

static const qn_option *table_at(const qn_command *c, size_t i) {
    return i == QN_OPT_TABLES ? qn_common_table : c->tables[i];
}

static json_t *option_json(const qn_option *o) {
    json_t *j = json_pack("{ss*}", "name", o->name);
    if (o->letter) json_object_set_new(j, "letter", json_stringn(&o->letter, 1));
    if (o->value) json_object_set_new(j, "value", json_string(o->value));
    json_object_set_new(j, "help", json_string(o->help));
    return j;
}

static json_t *command_json(const qn_command *c) {
    json_t *options = json_array();
    for (size_t i = 0; i <= QN_OPT_TABLES; i++)
        for (const qn_option *o = table_at(c, i); o && o->name; o++)
            if (o->help) json_array_append_new(options, option_json(o));
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", c->name, "group", c->group,
                     "summary", c->summary, "usage", c->usage, "options", options);
}

static void print_json(const qn_command *only) {
    json_t *list = json_array();
    for (const qn_command *const *c = qn_commands; *c; c++)
        if (!only || only == *c) json_array_append_new(list, command_json(*c));
    json_t *j = json_pack("{ssso}", "version", qn_version(), "commands", list);
    qn_out_json(j);
    json_decref(j);
}

// "COMMAND --option VALUE", a line each: what the completions are compared with.
static void print_lines(const qn_command *only) {
    for (const qn_command *const *c = qn_commands; *c; c++) {
        if (only && only != *c) continue;
        for (size_t i = 0; i <= QN_OPT_TABLES; i++)
            for (const qn_option *o = table_at(*c, i); o && o->name; o++)
                if (o->help)
                    qn_out_addf("%s --%s%s%s\n", (*c)->name, o->name, o->value ? " " : "",
                                o->value ? o->value : "");
    }
}

static int run(const qn_args *a, qn_err *err) {
    const char *name = qn_args_at(a, 0);
    const qn_command *c = name ? qn_command_find(name) : NULL;
    if (name && !c) return qn_command_unknown(name, err) - 1;
    if (qn_args_has(a, "json")) print_json(c);
    else if (qn_args_has(a, "options")) print_lines(c);
    else if (c) qn_help_command(c);
    else qn_help_overview();
    return 0;
}

static const qn_option options[] = {
    {.name = "options"}, // for tests of the completions, so not listed
    {0},
};

const qn_command qn_cmd_help = {
    .name = "help",
    .group = "Help",
    .summary = "what the commands are, and how each is used",
    .usage = "[COMMAND]",
    .examples = "quern help\nquern help run\nquern run --help\n",
    .tables = {options},
    .min_args = 0,
    .max_args = 1,
    .run = run,
};
