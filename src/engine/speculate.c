// Drafting k tokens costs time(k) and brings 1 + c1 + c1 c2 + … tokens, c being the chance that a
// draft is right. Times are measured per batch size, chances over everything. When no k beats
// k = 0 the speculator falls asleep: requests that run lose their drafts, and only every so many
// new ones tries again, twice as rarely each time it did not help.
#include "engine/speculate.h"

#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"

#define KNOWN "mtp, or a family's own name for it, FAMILY_mtp"
#define TRY_PLAIN 3  // steps measured without drafts …
#define TRY_DRAFT 4  // … and with, before the first verdict
#define SURE_DRAFT 16
#define PRIOR 4      // tries that the first guess of a chance is worth
#define RECHECK 128  // steps between two looks at plain decoding while drafting
#define GRACE 0.05   // seconds that filling may cost before it has to have paid
#define FIRST_SLEEP 16
#define LONGEST_SLEEP 4096

// vLLM has a name per family (…_mtp), all of which mean the same.
static bool known_method(const char *m) { return !strcmp(m, "mtp") || qn_str_ends(m, "_mtp"); }

static bool read_config(qn_speculator *s, const json_t *j, bool has_mtp, qn_err *err) {
    const char *what = "speculative config", *method = NULL, *key;
    json_t *value;
    int64_t n = 1;
    if (!json_is_object(j))
        return qn_fail(err, QN_INPUT, "%s: not a JSON object, expected {\"method\": …}", what);
    if (!qn_json_str(j, "method", &method, what, err)) return false;
    if (!method)
        return qn_fail(err, QN_INPUT, "%s: method is missing, expected " KNOWN, what);
    if (!known_method(method))
        return qn_fail(err, QN_UNSUPPORTED, "%s: method is \"%s\", expected " KNOWN, what,
                       method);
    if (!qn_json_int(j, "num_speculative_tokens", 1, QN_MAX_DRAFTS, &n, what, err) ||
        !qn_json_bool(j, "always", &s->always, what, err))
        return false;
    if (!has_mtp)
        return qn_fail(err, QN_UNSUPPORTED, "%s: method is \"%s\", but the checkpoint has no "
                       "multi-token prediction layer", what, method);
    s->most = (int)n;
    json_object_foreach((json_t *)(uintptr_t)j, key, value)
        if (strcmp(key, "method") && strcmp(key, "num_speculative_tokens") && strcmp(key, "always"))
            qn_note("%s: %s is not used", what, key);
    return true;
}

bool qn_speculator_init(qn_speculator *s, const char *config, bool has_mtp, qn_err *err) {
    *s = (qn_speculator){.sleep_length = FIRST_SLEEP};
    for (int i = 0; i < QN_MAX_DRAFTS; i++) s->chance[i] = 0.7;
    if (!config) return true;
    json_t *j = qn_json_parse(config, strlen(config), "speculative config", err);
    bool ok = j && read_config(s, j, has_mtp, err);
    json_decref(j);
    return ok;
}

static qn_pace *paces(qn_speculator *s, size_t n_seqs) {
    size_t i = 0;
    while (i + 1 < QN_BATCH_SIZES && (size_t)1 << i < n_seqs) i++;
    return s->pace[i];
}

static double tokens_at(const qn_speculator *s, int depth) {
    double sum = 1, p = 1;
    for (int i = 0; i < depth; i++) sum += p *= s->chance[i];
    return sum;
}

// Measured, or on the line between what was measured at 0 and at the most.
static double seconds_at(const qn_speculator *s, const qn_pace *pace, int depth) {
    if (pace[depth].samples >= TRY_DRAFT) return pace[depth].seconds;
    double a = pace[0].seconds, b = pace[s->most].seconds;
    return a + (b - a) * depth / s->most;
}

static int best_depth(const qn_speculator *s, const qn_pace *pace) {
    int best = 0;
    double rate = 1 / pace[0].seconds;
    for (int k = 1; k <= s->most; k++) {
        double r = tokens_at(s, k) / seconds_at(s, pace, k);
        if (r > rate) rate = r, best = k;
    }
    return best;
}

static void fall_asleep(qn_speculator *s) {
    s->asleep = true;
    s->sleep_left = s->sleep_length;
    if (s->sleep_length < LONGEST_SLEEP) s->sleep_length *= 2;
}

// Few samples must be clear to end it; many need not be.
static bool is_verdict(const qn_speculator *s, const qn_pace *pace) {
    int n = pace[s->most].samples;
    double plain = 1 / pace[0].seconds;
    double drafted = tokens_at(s, s->most) / pace[s->most].seconds;
    return n >= SURE_DRAFT || drafted < 0.85 * plain;
}

int qn_speculator_depth(qn_speculator *s, size_t n_seqs) {
    if (!s->most || s->always) return s->most;
    if (s->asleep) return 0;
    qn_pace *pace = paces(s, n_seqs);
    if (pace[s->most].samples < TRY_DRAFT) return s->most;
    if (pace[0].samples < TRY_PLAIN) return 0;
    if (s->balance < -GRACE && s->balance < -0.03 * s->spent) {
        fall_asleep(s);
        return 0;
    }
    int best = best_depth(s, pace);
    if (best == 0) {
        if (!is_verdict(s, pace)) return s->most;
        fall_asleep(s);
        return 0;
    }
    s->sleep_length = FIRST_SLEEP;
    if (s->steps % RECHECK < 3) return 0; // the context has grown: look at plain steps again
    return best;
}

bool qn_speculator_admit(qn_speculator *s) {
    if (!s->most) return false;
    if (!s->asleep) return true;
    if (s->sleep_left-- > 1) return false;
    s->asleep = false; // one more try, with a clean sheet
    s->balance = s->spent = 0;
    memset(s->pace, 0, sizeof s->pace);
    return true;
}

void qn_speculator_saw_drafts(qn_speculator *s, int n_drafts, int n_accepted) {
    for (int i = 0; i < n_drafts && i <= n_accepted; i++) {
        if (s->tried[i] < 100) s->tried[i]++;
        s->chance[i] += ((i < n_accepted) - s->chance[i]) / (s->tried[i] + PRIOR);
    }
}

// Keeps to the low side: a step that something else on the machine interrupted says nothing.
static void take_sample(qn_pace *p, double seconds) {
    if (p->samples < 1000) p->samples++;
    if (p->samples == 1) p->seconds = seconds;
    if (seconds > 1.5 * p->seconds) seconds = 1.5 * p->seconds;
    p->seconds += (seconds < p->seconds ? 0.5 : 0.1) * (seconds - p->seconds);
}

static void win(qn_speculator *s, double seconds) {
    s->balance += seconds;
    s->saved += seconds;
}

void qn_speculator_saw_step(qn_speculator *s, size_t n_seqs, int depth, double tokens,
                            double seconds) {
    qn_pace *pace = paces(s, n_seqs);
    take_sample(&pace[depth], seconds);
    s->steps++;
    s->spent += seconds;
    if (depth > 0 && pace[0].samples > 0) win(s, tokens * pace[0].seconds - seconds);
}

void qn_speculator_saw_fill(qn_speculator *s, double seconds) { win(s, -seconds); }

void qn_speculator_saw_other(qn_speculator *s, double seconds) { s->spent += seconds; }
