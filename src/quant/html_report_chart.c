// The page's plots as SVG text. The words in them stand there in both languages, as everywhere on
// the page; colours are classes. A unit is about a pixel where the plot is shown wide.
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "quant/html_report_parts.h"

static const double LEFT = 76, RIGHT = 14, TOP = 16, BOTTOM = 48;
enum { MOST_TICKS = 9, MANY = 120 };

// ---- the vertical axis ----

typedef struct axis {
    double width, height; // of the whole plot
    bool log, zero; // zero: a log axis with an extra lowest line, which stands for 0
    double low, high, step; // of the values, or of their logarithms
} axis;

static void range_of(const qn_chart *c, double *least_positive, double *low, double *high,
                     bool *zero) {
    *least_positive = *low = INFINITY;
    *high = -INFINITY;
    *zero = false;
    for (int s = 0; s < 2 && c->y[s]; s++)
        for (size_t i = 0; i < c->n; i++) {
            double y = c->y[s][i];
            if (!isfinite(y)) continue;
            if (y > 0 && y < *least_positive) *least_positive = y;
            if (y == 0) *zero = true;
            if (y < *low) *low = y;
            if (y > *high) *high = y;
        }
}

// 1, 2 or 5 times a power of ten, so that about four steps cover the range.
static double nice_step(double range) {
    double raw = range / 4, power = pow(10, floor(log10(raw))), lead = raw / power;
    return power * (lead > 5 ? 10 : lead > 2 ? 5 : lead > 1 ? 2 : 1);
}

static axis choose_axis(const qn_chart *c) {
    axis a = {.width = 600, .height = 290};
    double positive, low, high;
    range_of(c, &positive, &low, &high, &a.zero);
    if (!(high > 0) || low < 0) { // nothing to see, or everything zero
        a.high = isfinite(high) && high > low ? high : 1;
        a.low = isfinite(low) && low < 0 ? low : 0;
        a.step = nice_step(a.high - a.low);
        return a;
    }
    a.log = high / positive > 20;
    if (a.log) {
        a.low = floor(log10(positive)) - (a.zero ? 1 : 0);
        a.high = ceil(log10(high));
        if (a.high - a.low < 1) a.high = a.low + 1;
        a.step = ceil((a.high - a.low) / 6);
    } else {
        a.zero = false;
        a.step = nice_step(high);
        a.high = ceil(high / a.step) * a.step;
    }
    return a;
}

static double y_of(const axis *a, double y) {
    double v = a->log ? (y > 0 ? log10(y) : a->low) : y;
    return a->height - BOTTOM - (v - a->low) / (a->high - a->low) * (a->height - TOP - BOTTOM);
}

static double x_of(const axis *a, const qn_chart *c, size_t i) {
    double at = c->n > 1 ? (double)i / (double)(c->n - 1) : 0.5;
    return LEFT + 8 + at * (a->width - LEFT - RIGHT - 16);
}

static void add_tick(qn_buf *b, double v) {
    if (fabs(v) >= 1e6 && fabs(v) < 1e9)
        qn_buf_addf(b, "%.4gM", v / 1e6);
    else if (fabs(v) >= 1e4 && fabs(v) < 1e6)
        qn_buf_addf(b, "%.4gk", v / 1e3);
    else
        qn_buf_addf(b, "%.4g", v);
}

static void draw_axis(qn_buf *b, const axis *a) {
    for (int i = 0; i < 40; i++) {
        double v = a->low + i * a->step;
        if (v > a->high + a->step * 1e-6) break;
        double y = y_of(a, a->log ? pow(10, v) : v);
        qn_buf_addf(b, "<line class=\"grid\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                    "<text class=\"tick\" text-anchor=\"end\" x=\"%.0f\" y=\"%.1f\">", LEFT,
                    a->width - RIGHT, y, y, LEFT - 8, y + 4);
        if (a->log && a->zero && i == 0)
            qn_buf_addc(b, '0');
        else if (a->log && fabs(v) > 3.5)
            qn_buf_addf(b, "1e%.0f", v);
        else
            add_tick(b, a->log ? pow(10, v) : v);
        qn_buf_adds(b, "</text>");
    }
}

static void draw_names(qn_buf *b, const axis *a, const qn_chart *c) {
    size_t every = (c->n + MOST_TICKS - 1) / MOST_TICKS, named = 0;
    for (size_t i = 0; i < c->n; i += every ? every : 1) {
        if (c->n - 1 - i < every && i + 1 != c->n && every > 1) i = c->n - 1; // the last is named
        qn_buf_addf(b, "<text class=\"tick%s\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.0f\">",
                    named++ % 2 ? " odd" : "", x_of(a, c, i), a->height - BOTTOM + 18);
        if (c->ticks)
            qn_html_text(b, c->names[i]);
        else
            qn_buf_addf(b, "%zu", i);
        qn_buf_adds(b, "</text>");
    }
}

// ---- points ----

static const char *const side_class[2] = {"a", "b"};

static const char *class_of(const qn_chart *c, int s) { return c->y[1] ? side_class[s] : "e"; }

static void draw_line(qn_buf *b, const qn_chart *c, const axis *a, int s) {
    bool open = false;
    qn_buf_addf(b, "<path class=\"line %s\" d=\"", class_of(c, s));
    for (size_t i = 0; i < c->n; i++) {
        double y = c->y[s][i];
        if (isfinite(y))
            qn_buf_addf(b, "%c%.1f %.1f", open ? 'L' : 'M', x_of(a, c, i), y_of(a, y));
        open = isfinite(y);
    }
    qn_buf_adds(b, "\"/>");
}

static void draw_title(qn_buf *b, const qn_chart *c, size_t i) {
    qn_buf_adds(b, "<title>");
    qn_html_text(b, c->names[i]);
    for (int s = 0; s < 2 && c->y[s]; s++) {
        qn_buf_adds(b, s ? ", B " : c->y[1] ? ": A " : ": ");
        qn_buf_addf(b, "%.4g", c->y[s][i]);
    }
    qn_buf_adds(b, "</title>");
}

// A: dots; B: larger squares, so that both show where they coincide.
static void draw_points(qn_buf *b, const qn_chart *c, const axis *a, int s) {
    double r = c->n > MANY ? 2 : 3.2;
    for (size_t i = 0; i < c->n; i++) {
        if (!isfinite(c->y[s][i])) continue;
        double x = x_of(a, c, i), y = y_of(a, c->y[s][i]);
        if (s == 0)
            qn_buf_addf(b, "<circle class=\"dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\">",
                        class_of(c, s), x, y, r);
        else
            qn_buf_addf(b, "<rect class=\"dot b\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                        "height=\"%.1f\">", x - r - 1.5, y - r - 1.5, 2 * r + 3, 2 * r + 3);
        draw_title(b, c, i);
        qn_buf_adds(b, s == 0 ? "</circle>" : "</rect>");
    }
}

static void open_svg(qn_buf *b, const axis *a, const char *caption_id) {
    qn_buf_addf(b, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-labelledby=\"%s\">", a->width,
                a->height, caption_id);
}

// What the axes are: under the middle of the one, turned beside the middle of the other.
static void draw_labels(qn_buf *b, const axis *a, qn_words x, qn_words y) {
    double middle = (LEFT + a->width - RIGHT) / 2, half = (TOP + a->height - BOTTOM) / 2;
    const char *lang[2] = {"en", "zh"};
    for (int i = 0; i < 2; i++)
        qn_buf_addf(b, "<text class=\"label\" lang=\"%s\" text-anchor=\"middle\" x=\"%.0f\" "
                    "y=\"%.0f\">%s</text><text class=\"label y\" lang=\"%s\" "
                    "text-anchor=\"middle\" transform=\"translate(14 %.0f) rotate(-90)\">%s</text>",
                    lang[i], middle, a->height - 6, i ? x.zh : x.en, lang[i], half,
                    i ? y.zh : y.en);
}

static void draw_broken(qn_buf *b, const qn_chart *c, const axis *a) {
    for (size_t i = 0; c->broken && i < c->n; i++) {
        if (!c->broken[i]) continue;
        qn_buf_addf(b, "<path class=\"broken\" transform=\"translate(%.1f %.0f)\" "
                    "d=\"M-4-4 4 4M-4 4 4-4\"><title>", x_of(a, c, i), TOP);
        qn_html_text(b, c->names[i]);
        qn_buf_adds(b, ": nan, inf</title></path>");
    }
}

static void draw_floor(qn_buf *b, const axis *a) {
    qn_buf_addf(b, "<line class=\"axis\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.0f\" y2=\"%.0f\"/>", LEFT,
                a->width - RIGHT, a->height - BOTTOM, a->height - BOTTOM);
}

void qn_html_chart(qn_buf *b, const qn_chart *c) {
    axis a = choose_axis(c);
    open_svg(b, &a, c->caption_id);
    draw_axis(b, &a);
    draw_floor(b, &a);
    draw_labels(b, &a, c->x_label, c->y_label);
    draw_names(b, &a, c);
    if (c->mark < c->n)
        qn_buf_addf(b, "<line class=\"mark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.0f\" y2=\"%.0f\"/>",
                    x_of(&a, c, c->mark), x_of(&a, c, c->mark), TOP, a.height - BOTTOM);
    for (int s = 1; s >= 0; s--) // A over B
        if (c->y[s] && !c->scatter) draw_line(b, c, &a, s);
    for (int s = 1; s >= 0; s--)
        if (c->y[s] && (c->scatter || c->n <= MANY)) draw_points(b, c, &a, s);
    draw_broken(b, c, &a);
    qn_buf_adds(b, "</svg>");
}

// ---- histograms ----

static double count_at(const json_t *list, size_t i) {
    return (double)json_integer_value(json_array_get(list, i));
}

static void draw_steps(qn_buf *b, const json_t *list, const axis *a, int s) {
    size_t n = json_array_size(list);
    double width = (a->width - LEFT - RIGHT) / (double)n, bottom = a->height - BOTTOM;
    qn_buf_addf(b, "<path class=\"area %s\" d=\"M%.1f %.1f", side_class[s], LEFT, bottom);
    for (size_t i = 0; i < n; i++)
        qn_buf_addf(b, "V%.1fH%.1f", y_of(a, count_at(list, i)),
                    LEFT + (double)(i + 1) * width);
    qn_buf_addf(b, "V%.1f\"/>", bottom);
}

void qn_html_histogram(qn_buf *b, const json_t *histogram, const char *caption_id) {
    const json_t *side[2] = {json_object_get(histogram, "a"), json_object_get(histogram, "b")};
    double low = json_number_value(json_object_get(histogram, "low")), top = 1;
    double high = json_number_value(json_object_get(histogram, "high"));
    for (int s = 0; s < 2; s++)
        for (size_t i = 0; i < json_array_size(side[s]); i++)
            top = fmax(top, count_at(side[s], i));
    axis a = {.width = 400, .height = 230, .high = top, .step = nice_step(top)};
    open_svg(b, &a, caption_id);
    draw_axis(b, &a);
    for (int s = 1; s >= 0; s--) draw_steps(b, side[s], &a, s);
    draw_floor(b, &a);
    draw_labels(b, &a, (qn_words){"value", "数值"}, (qn_words){"count", "计数"});
    double step = nice_step(0.7 * (high - low)), first = ceil(low / step);
    for (int i = 0; i < 12 && (first + i) * step <= high; i++) {
        double value = (first + i) * step;
        double x = LEFT + (value - low) / (high - low) * (a.width - LEFT - RIGHT);
        qn_buf_addf(b, "<text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.0f\">", x,
                    a.height - BOTTOM + 18);
        add_tick(b, value == 0 ? 0 : value); // no "-0"
        qn_buf_adds(b, "</text>");
    }
    qn_buf_adds(b, "</svg>");
}
