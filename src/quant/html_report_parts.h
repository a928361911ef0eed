// What the files of the page share.
#ifndef QN_QUANT_HTML_REPORT_PARTS_H
#define QN_QUANT_HTML_REPORT_PARTS_H

#include <jansson.h>

#include "base/str.h"

// html_report_assets.c: style and script, and their hashes for the security policy.
extern const char qn_html_report_css[], qn_html_report_css_hash[];
extern const char qn_html_report_js[], qn_html_report_js_hash[];

// Foreign text: & < > " ' become entities, so it ends neither an element nor an attribute.
void qn_html_text(qn_buf *b, const char *s);

#define QN_NO_MARK ((size_t)-1)

// Our own words, in both languages; they may hold markup.
typedef struct qn_words {
    const char *en, *zh;
} qn_words;

// Values over an index, one or two series (y[1] NULL: one, which is neither A's nor B's). Values
// that are not finite leave gaps.
typedef struct qn_chart {
    size_t n;
    const double *y[2];
    const bool *broken;       // NULL, or per point: a cross says that something is not finite
    qn_words x_label, y_label;
    const char *const *names; // of the n points, shown at some ticks and on hovering
    bool ticks;               // names are short enough to stand under the axis; else the index
    bool scatter;             // no lines between the points
    size_t mark;              // a vertical line at this point, or QN_NO_MARK
    const char *caption_id;   // the element that says what this is
} qn_chart;
void qn_html_chart(qn_buf *b, const qn_chart *c);

// One entry {low, high, a[], b[]} of the report's histograms, with the same words for its axes.
void qn_html_histogram(qn_buf *b, const json_t *histogram, const char *caption_id);

#endif
