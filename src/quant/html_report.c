// The page, from top to bottom: verdict, the two sides, figures, plots, histograms, tables. Every
// sentence stands there in English and Chinese and the style shows one of them, so the page is
// whole without its script. Foreign strings (paths, tensor names, messages) go through
// qn_html_text; the security policy names the hashes of our own style and script and forbids
// everything else.
#include "quant/html_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "quant/html_report_parts.h"

enum { OPEN_ROWS = 64, MOST_ROWS = 5000, MOST_NAMES = 200 };

static const json_t *at(const json_t *o, const char *key) { return json_object_get(o, key); }

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(at(o, key));
    return s ? s : "";
}

// Non-finite figures are strings in the document.
static double number_of(const json_t *v) {
    const char *s = json_string_value(v);
    if (!s) return json_is_number(v) ? json_number_value(v) : NAN;
    return strcmp(s, "inf") == 0 ? INFINITY : strcmp(s, "-inf") == 0 ? -INFINITY : NAN;
}

void qn_html_text(qn_buf *b, const char *s) {
    for (; *s; s++) {
        const char *entity = *s == '&'    ? "&amp;"
                             : *s == '<'  ? "&lt;"
                             : *s == '>'  ? "&gt;"
                             : *s == '"'  ? "&quot;"
                             : *s == '\'' ? "&#39;"
                                          : NULL;
        if (entity)
            qn_buf_adds(b, entity);
        else
            qn_buf_addc(b, *s);
    }
}

// Agreements are shares. A cosine close to one needs its digits: 0.9999 and 0.99998 are different
// things.
static void add_number(qn_buf *b, const char *key, double x) {
    if (qn_str_starts(key, "top")) {
        qn_buf_addf(b, "%.4g %%", 100 * x);
        return;
    }
    bool close = strcmp(key, "cosine") == 0 && fabs(x) > 0.9 && fabs(x) < 1;
    qn_buf_addf(b, close ? "%.8f" : "%.4g", x);
}

// Our own words, in both languages; they may hold markup.
static void say(qn_buf *b, const char *en, const char *zh) {
    qn_buf_addf(b, "<span lang=\"en\">%s</span><span lang=\"zh\">%s</span>", en, zh);
}

// Names may break behind dots and underscores.
static void code(qn_buf *b, const char *foreign) {
    qn_buf_adds(b, "<code>");
    for (size_t n; *foreign; foreign += n) {
        n = strcspn(foreign, "._");
        n += foreign[n] != 0;
        char *part = qn_strndup(foreign, n);
        qn_html_text(b, part);
        qn_free(part);
        if (foreign[n]) qn_buf_adds(b, "<wbr>");
    }
    qn_buf_adds(b, "</code>");
}

// ---- head and verdict ----

static void add_head(qn_buf *b) {
    qn_buf_addf(b,
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                "style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'\">"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
                "<meta name=\"referrer\" content=\"no-referrer\">"
                "<meta name=\"generator\" content=\"quern " QN_VERSION "\">"
                "<title>quern compare</title><style>%s</style></head>\n<body><main>",
                qn_html_report_css_hash, qn_html_report_js_hash, qn_html_report_css);
    qn_buf_adds(b, "<header><h1>quern compare</h1>"
                   "<button id=\"switch\" type=\"button\" hidden></button></header>\n");
}

static void add_list(qn_buf *b, const json_t *en, const json_t *zh) {
    if (!json_array_size(en)) return;
    qn_buf_adds(b, "<ul>");
    for (size_t i = 0; i < json_array_size(en); i++) {
        const char *chinese = json_string_value(json_array_get(zh, i));
        qn_buf_adds(b, "<li><span lang=\"en\">");
        qn_html_text(b, json_string_value(json_array_get(en, i)));
        qn_buf_adds(b, "</span><span lang=\"zh\">");
        qn_html_text(b, chinese ? chinese : "");
        qn_buf_adds(b, "</span></li>");
    }
    qn_buf_adds(b, "</ul>");
}

static bool is_ok(const json_t *r) { return strcmp(text_of(r, "verdict"), "ok") == 0; }

static void add_verdict(qn_buf *b, const json_t *r) {
    bool ok = is_ok(r), same = json_is_true(at(r, "identical"));
    const char *tick = "M10.3 16.6 5.8 12l1.4-1.5 3.1 3.1L16.9 7l1.4 1.4z";
    const char *cross = "M8 6.6 12 10.6 16 6.6 17.4 8 13.4 12 17.4 16 16 17.4 12 13.4 8 17.4 6.6 "
                        "16 10.6 12 6.6 8z";
    qn_buf_addf(b, "<section class=\"verdict %s\"><svg viewBox=\"0 0 24 24\" aria-hidden=\"true\">"
                "<path class=\"ink\" fill-rule=\"evenodd\" d=\"M12 1a11 11 0 1 0 0 22 11 11 0 0 0 "
                "0-22z%s\"/></svg><div><strong>", ok ? "ok" : "bad", ok ? tick : cross);
    if (same && json_is_true(at(r, "partial")))
        say(b, "What was compared is identical, bit for bit", "所比较的部分完全相同，逐位一致");
    else if (same)
        say(b, "Identical, bit for bit", "完全相同，逐位一致");
    else if (ok)
        say(b, "The same, within the thresholds", "在阈值之内一致");
    else
        say(b, "Different", "不一致");
    qn_buf_adds(b, "</strong>");
    add_list(b, at(r, "reasons"), at(r, "reasons_zh"));
    qn_buf_adds(b, "</div></section>\n<dl class=\"sides\"><dt class=\"a\">A</dt><dd>");
    code(b, text_of(r, "a"));
    qn_buf_adds(b, "</dd><dt class=\"b\">B</dt><dd>");
    code(b, text_of(r, "b"));
    qn_buf_addc(b, ' ');
    qn_buf_adds(b, "<span class=\"muted\">");
    say(b, "the reference", "参考");
    qn_buf_adds(b, "</span></dd></dl>\n");
}

// ---- figures ----

typedef struct figure {
    const char *key, *en, *zh;
    const char *limit; // its threshold's key
    bool least;        // the threshold is a lower bound
} figure;

static const figure figures[] = {
    {"cosine", "cosine", "余弦相似度", "cosine", true},
    {"max_abs_error", "max abs error", "最大绝对误差", "max_abs", false},
    {"top1", "top-1 agreement", "Top-1 一致率", "top1", true},
    {"top5", "top-5 agreement", "Top-5 一致率", NULL, false},
    {"top10", "top-10 agreement", "Top-10 一致率", NULL, false},
    {"kl", "KL(B ‖ A), mean", "KL(B ‖ A) 均值", NULL, false},
    {"kl_max", "KL(B ‖ A), max", "KL(B ‖ A) 最大值", NULL, false},
    {"max_rel_error", "max relative error", "最大相对误差", NULL, false},
    {"relative_rms", "relative RMS error", "相对均方根误差", NULL, false},
    {"mse", "mean squared error", "均方误差 (MSE)", NULL, false},
    {"norm_a", "norm of A", "A 的范数", NULL, false},
    {"norm_b", "norm of B", "B 的范数", NULL, false},
};

static void add_tile(qn_buf *b, const figure *f, const json_t *value, const json_t *limit) {
    double x = number_of(value), least = number_of(limit);
    bool bad = limit && !(f->least ? x >= least : x <= least);
    qn_buf_addf(b, "<li%s>", !limit ? "" : bad ? " class=\"bad\"" : " class=\"ok\"");
    qn_buf_adds(b, "<b>");
    add_number(b, f->key, x);
    qn_buf_adds(b, "</b>");
    say(b, f->en, f->zh);
    if (limit) {
        bool share = qn_str_starts(f->key, "top");
        qn_buf_addf(b, "<br><span class=\"muted\">%s %g%s</span>", f->least ? "≥" : "≤",
                    share ? 100 * least : least, share ? " %" : "");
    }
    qn_buf_adds(b, "</li>");
}

static void add_figures(qn_buf *b, const json_t *r) {
    const json_t *overall = at(r, "overall"), *limits = at(r, "thresholds");
    bool dumps = strcmp(text_of(r, "kind"), "dumps") == 0;
    qn_buf_adds(b, "<h2>");
    say(b, "Overall", "总体");
    qn_buf_adds(b, "</h2><p class=\"muted\">");
    if (dumps)
        say(b, "Over the logits of all positions (over the tensors both have, where there are no "
               "logits).", "基于所有位置的 logits（没有 logits 时基于双方共有的张量）。");
    else
        say(b, "Over all weights that both have; the thresholds hold for every single one.",
            "基于双方共有的全部权重；阈值对每个权重单独生效。");
    qn_buf_adds(b, "</p><ul class=\"tiles\">");
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        const json_t *v = at(overall, figures[i].key);
        if (!v || json_is_null(v)) continue;
        add_tile(b, &figures[i], v,
                 dumps && figures[i].limit ? at(limits, figures[i].limit) : NULL);
    }
    qn_buf_adds(b, "</ul>\n");
    if (!json_array_size(at(r, "notes"))) return;
    qn_buf_adds(b, "<div class=\"muted\">");
    add_list(b, at(r, "notes"), at(r, "notes_zh"));
    qn_buf_adds(b, "</div>\n");
}

// ---- plots ----

typedef struct plot {
    const json_t *list;         // entries, one a point
    const char *a, *b;          // keys; b NULL: one series
    const char *id;
    qn_words title, more, x, y;
    const char *mark;           // name of the entry to mark, or ""
    bool scatter;
} plot;

// "hidden.3" stands as 3 under the axis.
static char *point_name(const json_t *e) {
    const json_t *position = at(e, "position");
    const char *name = text_of(e, "name");
    if (json_is_integer(position)) return qn_strf("%lld", (long long)json_integer_value(position));
    return qn_strdup(qn_str_starts(name, "hidden.") ? name + strlen("hidden.") : name);
}

typedef enum legend { LINES = 1, AREAS = 2, MARK = 4, BROKEN = 8 } legend;

static void add_key(qn_buf *b, const char *side, const char *picture, qn_words words) {
    qn_buf_addf(b, "<span class=\"key %s\"><svg viewBox=\"0 0 44 16\" aria-hidden=\"true\">%s"
                "</svg> ", side, picture);
    say(b, words.en, words.zh);
    qn_buf_adds(b, "</span>");
}

static void add_legend(qn_buf *b, unsigned what) {
    const qn_words a = {"A", "A"}, reference = {"B", "B"};
    if (!what) return;
    qn_buf_adds(b, "<p class=\"legend\">");
    if (what & LINES) {
        add_key(b, "a", "<path class=\"line a\" d=\"M2 8H42\"/><circle class=\"dot a\" cx=\"22\" "
                        "cy=\"8\" r=\"4\"/>", a);
        add_key(b, "b", "<path class=\"line b\" d=\"M2 8H42\"/><rect class=\"dot b\" x=\"17\" "
                        "y=\"3\" width=\"10\" height=\"10\"/>", reference);
    }
    if (what & AREAS) {
        add_key(b, "a", "<path class=\"area a\" d=\"M2 15V8H14V2H30V8H42V15\"/>", a);
        add_key(b, "b", "<path class=\"area b\" d=\"M2 15V8H14V2H30V8H42V15Z\"/>", reference);
    }
    if (what & MARK)
        add_key(b, "", "<path class=\"mark\" d=\"M22 0V16\"/>",
                (qn_words){"where they part", "分歧起点"});
    if (what & BROKEN)
        add_key(b, "", "<path class=\"broken\" d=\"M17 3 27 13M17 13 27 3\"/>",
                (qn_words){"not finite", "非有限值"});
    qn_buf_adds(b, "</p>");
}

static bool is_nonfinite(const json_t *nonfinite, const char *name) {
    size_t i;
    json_t *e;
    json_array_foreach(nonfinite, i, e)
        if (*name && strcmp(text_of(e, "tensor"), name) == 0) return true;
    return false;
}

static void draw_plot(qn_buf *b, const plot *p, const qn_chart *c, bool any_broken) {
    qn_buf_addf(b, "<figure><figcaption id=\"%s\">", p->id);
    say(b, p->title.en, p->title.zh);
    qn_buf_adds(b, "<span class=\"muted\">");
    say(b, p->more.en, p->more.zh);
    qn_buf_adds(b, "</span></figcaption>");
    add_legend(b, (p->b ? LINES : 0u) | (c->mark < c->n ? MARK : 0u) | (any_broken ? BROKEN : 0u));
    qn_html_chart(b, c);
    qn_buf_adds(b, "</figure>");
}

static void add_plot(qn_buf *b, const plot *p, const json_t *nonfinite) {
    size_t n = json_array_size(p->list);
    double *y[2] = {QN_NEW_ARRAY(double, n), p->b ? QN_NEW_ARRAY(double, n) : NULL};
    char **names = QN_NEW_ARRAY(char *, n);
    bool *broken = QN_NEW_ARRAY(bool, n), any_broken = false;
    qn_chart c = {.n = n, .y = {y[0], y[1]}, .names = (const char *const *)names,
                  .broken = broken, .x_label = p->x, .y_label = p->y, .ticks = !p->scatter,
                  .scatter = p->scatter, .mark = QN_NO_MARK, .caption_id = p->id};
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(p->list, i);
        y[0][i] = number_of(at(e, p->a));
        if (p->b) y[1][i] = number_of(at(e, p->b));
        names[i] = point_name(e);
        broken[i] = is_nonfinite(nonfinite, text_of(e, "name")) || json_is_string(at(e, p->a));
        any_broken |= broken[i];
        if (p->mark[0] && strcmp(text_of(e, "name"), p->mark) == 0) c.mark = i;
    }
    draw_plot(b, p, &c, any_broken);
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
    free(broken);
    free(y[0]);
    free(y[1]);
}

// The draft layer's entry among the other tensors: the one that has positions.
static const json_t *draft_of(const json_t *r) {
    size_t i;
    json_t *e;
    json_array_foreach(at(r, "tensors"), i, e)
        if (at(e, "positions")) return e;
    return NULL;
}

static void add_plots(qn_buf *b, const json_t *r) {
    static const qn_words error = {"‖A − B‖ / ‖B‖", "‖A − B‖ / ‖B‖"}, norm = {"norm", "范数"};
    static const qn_words relative = {"relative error", "相对误差"};
    static const qn_words layer = {"layer", "层"}, position = {"position", "位置"};
    static const qn_words weight = {"weight", "权重"}, nats = {"KL, nats", "KL(nat)"};
    static const qn_words kl = {"KL(B ‖ A) in nats", "KL(B ‖ A)，单位 nat"};
    const json_t *layers = at(r, "layers"), *positions = at(r, "positions");
    bool dumps = strcmp(text_of(r, "kind"), "dumps") == 0;
    const json_t *tensors = dumps ? NULL : at(r, "tensors"), *draft = at(draft_of(r), "positions");
    const char *mark = text_of(r, "first_layer");
    const plot plots[] = {
        {layers, "norm_a", "norm_b", "p0", {"Norm per layer", "各层范数"},
         {"Frobenius norm of the residual stream after each layer; 0 is the embedding.",
          "每层之后残差流的 Frobenius 范数；0 为嵌入层。"}, layer, norm, mark, false},
        {layers, "relative_rms", NULL, "p1", {"Error per layer", "各层误差"}, error, layer, relative,
         mark, false},
        {positions, "relative_rms", NULL, "p2", {"Error of the logits per position",
         "各位置 logits 误差"}, error, position, relative, "", false},
        {positions, "kl", NULL, "p3", {"Divergence per position", "各位置的散度"}, kl, position, nats,
         "", false},
        {draft, "relative_rms", NULL, "p6", {"Error of the draft’s logits per position",
         "草稿层各位置 logits 误差"}, error, position, relative, "", false},
        {draft, "kl", NULL, "p7", {"Divergence of the draft per position", "草稿层各位置的散度"}, kl,
         position, nats, "", false},
        {tensors, "norm_a", "norm_b", "p4", {"Norm per weight", "各权重范数"},
         {"Frobenius norm, in the order of A’s files; a point tells its name.",
          "Frobenius 范数，按 A 的文件顺序；指向数据点可见名称。"}, weight, norm, "", true},
        {tensors, "relative_rms", NULL, "p5", {"Error per weight", "各权重误差"}, error, weight,
         relative, "", true},
    };
    size_t drawn = 0;
    for (size_t i = 0; i < sizeof plots / sizeof *plots; i++) {
        if (json_array_size(plots[i].list) < 2) continue;
        if (drawn++ == 0) {
            qn_buf_adds(b, "<h2>");
            if (dumps)
                say(b, "Layer by layer, position by position", "逐层、逐位置");
            else
                say(b, "Weight by weight", "逐权重");
            qn_buf_adds(b, "</h2><div class=\"plots\">");
        }
        add_plot(b, &plots[i], at(r, "nonfinite"));
    }
    if (drawn) qn_buf_adds(b, "</div>\n");
}

static void add_histograms(qn_buf *b, const json_t *list) {
    size_t i;
    json_t *h;
    if (!json_array_size(list)) return;
    qn_buf_adds(b, "<h2>");
    say(b, "Values of those farthest apart", "差异最大的张量的数值分布");
    qn_buf_adds(b, "</h2><p class=\"muted\">");
    say(b, "Counts in 64 equal bins, at most five standard deviations around the mean; what lies "
           "outside is in the end bins.",
        "等宽 64 组的计数，范围至多为均值两侧五个标准差；超出部分计入两端。");
    qn_buf_adds(b, "</p>");
    add_legend(b, AREAS);
    qn_buf_adds(b, "<div class=\"plots small\">");
    json_array_foreach(list, i, h) {
        char id[32];
        snprintf(id, sizeof id, "h%zu", i);
        qn_buf_addf(b, "<figure><figcaption id=\"%s\">", id);
        code(b, text_of(h, "name"));
        qn_buf_adds(b, "</figcaption>");
        qn_html_histogram(b, h, id);
        qn_buf_adds(b, "</figure>");
    }
    qn_buf_adds(b, "</div>\n");
}

// ---- tables ----

typedef struct column {
    const char *key, *en, *zh;
} column;

static const column position_columns[] = {
    {"position", "position", "位置"}, {"cosine", "cosine", "余弦"},
    {"max_abs_error", "max abs", "最大绝对误差"}, {"relative_rms", "rel. RMS", "相对 RMS"},
    {"mse", "MSE", "MSE"}, {"kl", "KL", "KL"}, {"top1", "top-1", "Top-1"},
    {"top5", "top-5", "Top-5"}, {"top10", "top-10", "Top-10"},
    {"top1_a", "best of A", "A 的首选"}, {"top1_b", "best of B", "B 的首选"}, {0}};

static const column tensor_columns[] = {
    {"name", "tensor", "张量"}, {"cosine", "cosine", "余弦"},
    {"max_abs_error", "max abs", "最大绝对误差"}, {"max_rel_error", "max rel.", "最大相对误差"},
    {"relative_rms", "rel. RMS", "相对 RMS"}, {"mse", "MSE", "MSE"},
    {"norm_a", "norm A", "A 范数"}, {"norm_b", "norm B", "B 范数"}, {0}};

static const column weight_columns[] = {
    {"name", "weight", "权重"}, {"stored_a", "in A", "A 中格式"}, {"stored_b", "in B", "B 中格式"},
    {"cosine", "cosine", "余弦"}, {"max_abs_error", "max abs", "最大绝对误差"},
    {"relative_rms", "rel. RMS", "相对 RMS"}, {"mse", "MSE", "MSE"},
    {"norm_a", "norm A", "A 范数"}, {"norm_b", "norm B", "B 范数"}, {0}};

static const column nonfinite_columns[] = {
    {"name", "tensor", "张量"}, {"stored_side", "side", "侧"}, {"count", "values", "个数"},
    {"row", "first row", "首个行"}, {"column", "first column", "首个列"},
    {"stored_value", "first value", "首个值"}, {0}};

static bool is_name(const column *c) { return strcmp(c->key, "name") == 0; }

static bool is_words(const column *c) { return is_name(c) || qn_str_starts(c->key, "stored_"); }

// Beyond a threshold that holds for single entries.
static bool is_beyond(const json_t *limits, const char *key, double x) {
    if (strcmp(key, "cosine") == 0) return !(x >= number_of(at(limits, "cosine")));
    if (strcmp(key, "max_abs_error") == 0) return !(x <= number_of(at(limits, "max_abs")));
    return strcmp(key, "top1") == 0 && x < 1;
}

static void add_cell(qn_buf *b, const column *c, const json_t *v, bool bad) {
    if (is_words(c)) {
        qn_buf_adds(b, is_name(c) ? "<td class=\"name\">" : "<td class=\"word\">");
        code(b, json_string_value(v) ? json_string_value(v) : "");
    } else {
        double x = number_of(v);
        qn_buf_addf(b, "<td data-v=\"%.17g\"%s>", x, bad ? " class=\"bad\"" : "");
        if (json_is_null(v) || !v)
            qn_buf_adds(b, "–");
        else if (json_is_integer(v))
            qn_buf_addf(b, "%lld", (long long)json_integer_value(v));
        else
            add_number(b, c->key, x);
    }
    qn_buf_adds(b, "</td>");
}

typedef struct table {
    const json_t *list, *limits;
    const column *columns;
    const char *id, *en, *zh;
    bool layers; // only the cosine is judged
} table;

static void add_row(qn_buf *b, const table *t, const json_t *e) {
    bool bad = false;
    for (const column *c = t->columns; c->key; c++) {
        if (is_words(c) || (t->layers && strcmp(c->key, "cosine") != 0)) continue;
        bad |= is_beyond(t->limits, c->key, number_of(at(e, c->key)));
    }
    qn_buf_adds(b, bad ? "<tr class=\"bad\">" : "<tr>");
    for (const column *c = t->columns; c->key; c++) {
        const json_t *v = at(e, c->key);
        bool judged = !is_words(c) && (!t->layers || strcmp(c->key, "cosine") == 0);
        add_cell(b, c, v, judged && is_beyond(t->limits, c->key, number_of(v)));
    }
    qn_buf_adds(b, "</tr>\n");
}

static void add_table(qn_buf *b, const table *t) {
    size_t n = json_array_size(t->list);
    if (!n) return;
    qn_buf_addf(b, "<details%s><summary id=\"%s\">", n <= OPEN_ROWS ? " open" : "", t->id);
    say(b, t->en, t->zh);
    qn_buf_addf(b, " (%zu)</summary><div class=\"table\" role=\"region\" tabindex=\"0\" "
                "aria-labelledby=\"%s\"><table><thead><tr>", n, t->id);
    for (const column *c = t->columns; c->key; c++) {
        qn_buf_adds(b, is_words(c) ? "<th scope=\"col\" class=\"word\">" : "<th scope=\"col\">");
        say(b, c->en, c->zh);
        qn_buf_adds(b, "</th>");
    }
    qn_buf_adds(b, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < n && i < MOST_ROWS; i++) add_row(b, t, json_array_get(t->list, i));
    qn_buf_adds(b, "</tbody></table></div>");
    if (n > MOST_ROWS) {
        qn_buf_adds(b, "<p class=\"muted\">");
        say(b, "Only the first 5000 rows; --json has them all.", "仅列出前 5000 行；完整内容见 --json。");
        qn_buf_adds(b, "</p>");
    }
    qn_buf_adds(b, "</details>\n");
}

static void add_names(qn_buf *b, const json_t *list, const char *en, const char *zh) {
    size_t n = json_array_size(list);
    if (!n) return;
    qn_buf_adds(b, "<details><summary>");
    say(b, en, zh);
    qn_buf_addf(b, " (%zu)</summary><ul class=\"names\">", n);
    for (size_t i = 0; i < n && i < MOST_NAMES; i++) {
        qn_buf_adds(b, "<li>");
        code(b, json_string_value(json_array_get(list, i)));
        qn_buf_adds(b, "</li>");
    }
    qn_buf_adds(b, n > MOST_NAMES ? "<li>…</li></ul></details>\n" : "</ul></details>\n");
}

// The entries that the report calls worst, in its order.
static json_t *worst_of(const json_t *r) {
    json_t *list = json_array(), *name, *e;
    size_t i, k;
    json_array_foreach(at(r, "worst"), i, name) {
        json_array_foreach(at(r, "tensors"), k, e)
            if (strcmp(text_of(e, "name"), json_string_value(name)) == 0)
                json_array_append(list, e);
    }
    return list;
}

// The list of what is not finite, with the columns that tables have.
static json_t *nonfinite_of(const json_t *r) {
    json_t *list = json_array(), *e;
    size_t i;
    json_array_foreach(at(r, "nonfinite"), i, e) {
        json_t *o = json_copy(e);
        json_object_set(o, "name", json_object_get(e, "tensor"));
        json_object_set_new(o, "stored_side", json_string(*text_of(e, "side") == 'b' ? "B" : "A"));
        json_object_set(o, "stored_value", json_object_get(e, "value"));
        json_array_append_new(list, o);
    }
    return list;
}

static void add_tables(qn_buf *b, const json_t *r) {
    bool dumps = strcmp(text_of(r, "kind"), "dumps") == 0;
    const json_t *limits = at(r, "thresholds");
    json_t *worst = worst_of(r), *nonfinite = nonfinite_of(r);
    const table tables[] = {
        {nonfinite, limits, nonfinite_columns, "t4", "Not finite", "非有限值", true},
        {worst, limits, weight_columns, "t3", "Farthest apart", "差异最大", false},
        {at(r, "layers"), limits, tensor_columns, "t0", "Layers", "各层", true},
        {at(r, "tensors"), limits, dumps ? tensor_columns : weight_columns, "t1",
         dumps ? "Other tensors" : "Weights", dumps ? "其他张量" : "权重", dumps},
        {at(r, "positions"), limits, position_columns, "t2", "Positions", "各位置", false},
        {at(draft_of(r), "positions"), limits, position_columns, "t5", "Positions of the draft",
         "草稿层各位置", false},
    };
    qn_buf_adds(b, "<h2>");
    say(b, "All figures", "全部数据");
    qn_buf_adds(b, "</h2>");
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) add_table(b, &tables[i]);
    json_decref(worst);
    json_decref(nonfinite);
    add_names(b, at(r, "only_in_a"), "Only in A", "只在 A 中");
    add_names(b, at(r, "only_in_b"), "Only in B", "只在 B 中");
}

char *qn_html_report_text(const json_t *report, size_t *n) {
    qn_buf b = {0};
    add_head(&b);
    add_verdict(&b, report);
    add_figures(&b, report);
    add_plots(&b, report);
    add_histograms(&b, at(report, "histograms"));
    add_tables(&b, report);
    qn_buf_adds(&b, "<footer class=\"muted\">");
    say(&b, "A relative error is relative to B. Figures leave out values that are not finite.",
        "相对误差以 B 为基准。统计时不计非有限值。");
    qn_buf_addf(&b, " quern " QN_VERSION "</footer></main>\n<script>%s</script></body></html>\n",
                qn_html_report_js);
    return qn_buf_take(&b, n);
}

bool qn_html_report_write(const char *path, const json_t *report, qn_err *err) {
    size_t n;
    char *text = qn_html_report_text(report, &n);
    bool ok = qn_file_write(path, text, n, err);
    free(text);
    return ok;
}
