// Loading and encoding speed of a tokenizer.
//   bench_tokenizer FOLDER FILE...     each file for itself, then all of them mixed in 4 KB pieces
//   bench_tokenizer --json FOLDER OUT  writes FOLDER's vocab.json and merges.txt as tokenizer.json
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "text/tokenizer.h"

static int stop(const qn_err *err) {
    fprintf(stderr, "bench_tokenizer: %s\n", err->text);
    return qn_exit_status(err->code);
}

// Processor time: other work on the machine is left out of account.
static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void encode(const qn_tokenizer *t, const char *name, const qn_buf *text) {
    qn_err err = {0};
    double best = 1e9;
    size_t n_ids = 0;
    for (int i = 0; i < 15; i++) {
        int32_t *ids;
        double start = cpu_now();
        if (!qn_encode(t, text->data, text->n, 0, &ids, &n_ids, &err)) exit(stop(&err));
        double seconds = cpu_now() - start;
        if (seconds < best) best = seconds;
        qn_free(ids);
    }
    printf("%-40s %9zu bytes %8zu ids %7.1f MB/s\n", name, text->n, n_ids,
           (double)text->n / best / 1e6);
}

static void load(const char *folder) {
    qn_err err = {0};
    size_t before = qn_rss_bytes();
    double start = cpu_now();
    qn_tokenizer *t = qn_tokenizer_load(folder, &err);
    if (!t) exit(stop(&err));
    double seconds = cpu_now() - start;
    size_t after = qn_rss_bytes(), peak = qn_rss_peak_bytes();
    printf("load %.3f s, %.1f MB kept, %.1f MB at its peak\n", seconds,
           (double)(after - before) / 1e6, (double)(peak - before) / 1e6);
    qn_tokenizer_free(t);
}

// Pieces of all texts in turn, cut at line ends.
static void mix(const qn_buf *texts, int n, qn_buf *out) {
    size_t *at = QN_NEW_ARRAY(size_t, (size_t)n);
    for (bool any = true; any;) {
        any = false;
        for (int i = 0; i < n; i++) {
            size_t to = at[i] + 4096 < texts[i].n ? at[i] + 4096 : texts[i].n;
            while (to < texts[i].n && texts[i].data[to - 1] != '\n') to++;
            qn_buf_add(out, texts[i].data + at[i], to - at[i]);
            any |= to < texts[i].n;
            at[i] = to;
        }
    }
    free(at);
}

static int write_json(const char *folder, const char *out) {
    qn_err err = {0};
    char *vocab_path = qn_path_join(folder, "vocab.json");
    char *merges_path = qn_path_join(folder, "merges.txt");
    json_t *vocab = qn_json_load(vocab_path, (size_t)1 << 28, &err), *merges = json_array();
    qn_buf text = {0};
    if (!vocab || !qn_file_read(merges_path, (size_t)1 << 28, &text, &err)) return stop(&err);
    for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n")) {
        char *blank = strchr(line, ' ');
        if (!blank || strncmp(line, "#version", 8) == 0) continue;
        *blank = 0;
        json_array_append_new(merges, json_pack("[ss]", line, blank + 1));
    }
    json_t *doc = json_pack("{s:{s:s}, s:{s:s, s:b}, s:{s:s}, s:{s:s, s:o, s:o}}", "normalizer",
                            "type", "NFC", "pre_tokenizer", "type", "ByteLevel", "use_regex", 1,
                            "decoder", "type", "ByteLevel", "model", "type", "BPE", "vocab", vocab,
                            "merges", merges);
    char *written = json_dumps(doc, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    if (!qn_file_write(out, written, strlen(written), &err)) return stop(&err);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--json") == 0) return write_json(argv[2], argv[3]);
    if (argc < 2) {
        fprintf(stderr, "usage: bench_tokenizer FOLDER FILE...\n");
        return 2;
    }
    load(argv[1]);
    qn_err err = {0};
    qn_tokenizer *t = qn_tokenizer_load(argv[1], &err);
    if (!t) return stop(&err);
    qn_buf *texts = QN_NEW_ARRAY(qn_buf, (size_t)argc), all = {0};
    for (int i = 2; i < argc; i++) {
        if (!qn_file_read(argv[i], (size_t)1 << 28, &texts[i - 2], &err)) return stop(&err);
        encode(t, argv[i], &texts[i - 2]);
    }
    if (argc > 3) {
        mix(texts, argc - 2, &all);
        encode(t, "all, mixed", &all);
    }
    for (int i = 2; i < argc; i++) qn_buf_done(&texts[i - 2]);
    qn_buf_done(&all);
    free(texts);
    qn_tokenizer_free(t);
    return 0;
}
