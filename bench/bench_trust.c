// How near check and convert come to the machine: bench_trust FOLDER [LAYERS]. Writes checkpoints with
// the shapes of Qwen3-1.7B (random weights; LAYERS of 28, default 6) to FOLDER, then times
//   check    against reading the same file from the page cache with read(), 1 MiB at a time
//   convert  against writing as many bytes there with write() and fsync()
// each the best of three. Needs about 5 GB in FOLDER and removes what it wrote.
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/err.h"
#include "base/f16.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/check.h"
#include "quant/convert.h"
#include "store/shard_writer.h"

enum { HIDDEN = 2048, INTERMEDIATE = 6144, VOCAB = 151936, Q = 2048, KV = 1024, HEAD = 128,
       GROUP = 128, ROUNDS = 3 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop_if(bool bad, const qn_err *err) {
    if (!bad) return;
    fprintf(stderr, "bench_trust: %s\n", err->text);
    exit(1);
}

// ---- a checkpoint ----

typedef struct maker {
    qn_shards *out;
    int bits; // 16: bf16
    int pass; // 0: declare, 1: write
    uint64_t state;
    qn_err err;
} maker;

static uint64_t next(maker *m) { // xorshift64 (Marsaglia 2003)
    m->state ^= m->state << 13;
    m->state ^= m->state >> 7;
    return m->state ^= m->state << 17;
}

// About Gaussian with deviation 0.02: the sum of eight bytes, and what lies between two of them.
static float weight(maker *m) {
    uint64_t x = next(m);
    int sum = 0;
    for (int i = 0; i < 8; i++) sum += (int)(x >> 8 * i & 255);
    float between = (float)(uint32_t)(x * 0x9E3779B97F4A7C15u >> 40) * 0x1p-24f;
    return ((float)(sum - 1020) + between - 0.5f) * (0.02f / 209);
}

static void put(maker *m, const char *name, qn_dtype dtype, size_t rows, size_t cols, int kind) {
    size_t shape[2] = {rows, cols}, n = rows * cols, width = qn_dtype_bytes(dtype);
    if (m->pass == 0) {
        stop_if(!qn_shards_declare(m->out, name, dtype, rows > 1 ? shape : shape + 1,
                                   rows > 1 ? 2 : 1, &m->err), &m->err);
        return;
    }
    uint8_t *data = qn_alloc(n * width);
    for (size_t i = 0; i < n; i++) {
        uint16_t half = kind == 'w' ? qn_f32_to_bf16(weight(m)) : kind == '1' ? 0x3F80 : 0;
        uint32_t word = kind == 'c' ? (uint32_t)next(m) : kind == 'g' ? (uint32_t)(i / GROUP)
                        : m->bits == 8 ? 0x7F7F7F7Fu : 0x77777777u;
        if (kind == 's') half = qn_f32_to_f16(0.0002f + fabsf(weight(m)) * 0.01f);
        memcpy(data + i * width, width == 2 ? (void *)&half : (void *)&word, width);
    }
    stop_if(!qn_shards_add(m->out, data, n * width, &m->err), &m->err);
    qn_free(data);
}

static void put_linear(maker *m, int layer, const char *what, size_t out, size_t in) {
    char name[128], *end;
    int at = snprintf(name, sizeof name, "model.layers.%d.%s.", layer, what);
    end = name + at;
    if (m->bits == 16) {
        strcpy(end, "weight"), put(m, name, QN_DT_BF16, out, in, 'w');
        return;
    }
    size_t fields = 32 / (size_t)m->bits;
    strcpy(end, "g_idx"), put(m, name, QN_DT_I32, 1, in, 'g');
    strcpy(end, "qweight"), put(m, name, QN_DT_I32, in / fields, out, 'c');
    strcpy(end, "qzeros"), put(m, name, QN_DT_I32, in / GROUP, out / fields, 'z');
    strcpy(end, "scales"), put(m, name, QN_DT_F16, in / GROUP, out, 's');
}

static void put_norm(maker *m, int layer, const char *what, size_t n) {
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, what);
    put(m, name, QN_DT_BF16, 1, n, '1');
}

static void put_all(maker *m, int layers) {
    put(m, "model.embed_tokens.weight", QN_DT_BF16, VOCAB, HIDDEN, 'w');
    for (int l = 0; l < layers; l++) {
        put_linear(m, l, "self_attn.q_proj", Q, HIDDEN);
        put_linear(m, l, "self_attn.k_proj", KV, HIDDEN);
        put_linear(m, l, "self_attn.v_proj", KV, HIDDEN);
        put_linear(m, l, "self_attn.o_proj", HIDDEN, Q);
        put_linear(m, l, "mlp.gate_proj", INTERMEDIATE, HIDDEN);
        put_linear(m, l, "mlp.up_proj", INTERMEDIATE, HIDDEN);
        put_linear(m, l, "mlp.down_proj", HIDDEN, INTERMEDIATE);
        put_norm(m, l, "input_layernorm", HIDDEN);
        put_norm(m, l, "post_attention_layernorm", HIDDEN);
        put_norm(m, l, "self_attn.q_norm", HEAD);
        put_norm(m, l, "self_attn.k_norm", HEAD);
    }
    put(m, "model.norm.weight", QN_DT_BF16, 1, HIDDEN, '1');
}

static char *make(const char *folder, int bits, int layers) {
    maker m = {.bits = bits, .state = 88172645463325252u};
    char *dir = qn_strf("%s/bench-%d", folder, bits);
    char *quant = bits == 16 ? qn_strdup("") :
        qn_strf(",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":%d,\"group_size\":%d,"
                "\"desc_act\":false,\"sym\":true,\"checkpoint_format\":\"gptq\"}", bits, GROUP);
    char *config = qn_strf(
        "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"hidden_size\":%d,"
        "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":16,"
        "\"num_key_value_heads\":8,\"head_dim\":%d,\"vocab_size\":%d,\"rms_norm_eps\":1e-6,"
        "\"rope_theta\":1000000,\"tie_word_embeddings\":true,\"max_position_embeddings\":40960,"
        "\"hidden_act\":\"silu\",\"torch_dtype\":\"bfloat16\"%s}",
        HIDDEN, INTERMEDIATE, layers, HEAD, VOCAB, quant);
    char *path = qn_path_join(dir, "config.json");
    mkdir(dir, 0777);
    m.out = qn_shards_new(dir, "model", 0, NULL, &m.err);
    stop_if(!m.out || !qn_file_write(path, config, strlen(config), &m.err), &m.err);
    for (m.pass = 0; m.pass < 2; m.pass++) put_all(&m, layers);
    stop_if(!qn_shards_finish(m.out, &m.err), &m.err);
    qn_shards_free(m.out);
    qn_free(config);
    qn_free(quant);
    qn_free(path);
    return dir;
}

// ---- the machine ----

static char block[1 << 20];

static double read_speed(const char *path) {
    double best = 0;
    for (int round = 0; round < ROUNDS + 1; round++) { // the first brings it into the page cache
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        uint64_t n = 0;
        double t = now();
        for (ssize_t got; fd >= 0 && (got = read(fd, block, sizeof block)) > 0;) n += (uint64_t)got;
        t = now() - t;
        if (fd >= 0) close(fd);
        if (round > 0 && (double)n / t > best) best = (double)n / t;
    }
    return best;
}

static double write_speed(const char *path, uint64_t bytes) {
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        double t = now();
        bool ok = fd >= 0;
        for (uint64_t n = 0; ok && n < bytes; n += sizeof block)
            ok = write(fd, block, sizeof block) == (ssize_t)sizeof block;
        ok = ok && fsync(fd) == 0;
        t = now() - t;
        if (fd >= 0) close(fd);
        unlink(path);
        if (!ok) exit(fprintf(stderr, "bench_trust: cannot write %s\n", path) ? 1 : 1);
        if ((double)bytes / t > best) best = (double)bytes / t;
    }
    return best;
}

// ---- quern ----

static void line(const char *what, const char *model, uint64_t bytes, double speed, double machine) {
    printf("%-8s %-10s %7.2f GB %8.2f GB/s %10.2f GB/s %6.0f %%\n", what, model,
           (double)bytes / 1e9, speed / 1e9, machine / 1e9, 100 * speed / machine);
    fflush(stdout);
}

static void time_check(const char *dir, const char *model) {
    char *path = qn_path_join(dir, "model.safetensors");
    double machine = read_speed(path), best = 0;
    uint64_t bytes = (uint64_t)qn_file_size(path);
    for (int round = 0; round < ROUNDS; round++) {
        qn_check_options o = {0};
        qn_err err = {0};
        json_t *report = NULL;
        double t = now();
        stop_if(!qn_check(dir, &o, &report, &err), &err);
        t = now() - t;
        json_decref(report);
        if ((double)bytes / t > best) best = (double)bytes / t;
    }
    line("check", model, bytes, best, machine);
    qn_free(path);
}

static void time_convert(const char *folder, const char *dir, const char *model) {
    char *out = qn_path_join(folder, "bench-out"), *probe = qn_path_join(folder, "bench-probe");
    char *path = qn_path_join(out, "model.safetensors");
    char *source = qn_path_join(dir, "model.safetensors"), *command = qn_strf("rm -r '%s'", out);
    uint64_t bytes = 0;
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        qn_convert_options o = {.dtype = QN_TO_F16};
        qn_err err = {0};
        json_t *report = NULL;
        read_speed(source); // it may have left the page cache meanwhile
        double t = now();
        stop_if(!qn_convert(dir, out, &o, &report, &err), &err);
        t = now() - t;
        json_decref(report);
        bytes = (uint64_t)qn_file_size(path);
        if ((double)bytes / t > best) best = (double)bytes / t;
        if (system(command) != 0) fprintf(stderr, "bench_trust: %s is left\n", out);
    }
    line("convert", model, bytes, best, write_speed(probe, bytes));
    qn_free(command);
    qn_free(out);
    qn_free(probe);
    qn_free(path);
    qn_free(source);
}

int main(int argc, char **argv) {
    static const struct {
        int bits;
        const char *name;
    } models[] = {{16, "bf16"}, {8, "gptq-int8"}, {4, "gptq-int4"}};
    if (argc < 2) return fprintf(stderr, "bench_trust FOLDER [LAYERS]\n") ? 2 : 2;
    int layers = argc > 2 ? atoi(argv[2]) : 6;
    printf("%s, %d cores; %d layers of Qwen3-1.7B\n", qn_cpu_model(), qn_cpu_cores(), layers);
    printf("%-8s %-10s %10s %13s %15s\n", "", "", "size", "quern", "machine");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char *dir = make(argv[1], models[i].bits, layers);
        time_check(dir, models[i].name);
        time_convert(argv[1], dir, models[i].name);
        char *command = qn_strf("rm -r '%s'", dir);
        if (system(command) != 0) fprintf(stderr, "bench_trust: %s is left\n", dir);
        qn_free(command);
        qn_free(dir);
    }
    return 0;
}
