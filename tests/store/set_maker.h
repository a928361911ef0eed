// Small quantized sets for tests, made one field at a time from a matrix said as plainly as it
// can be. One matrix at a time: it and its tensors lie in this module.
#ifndef TESTS_STORE_SET_MAKER_H
#define TESTS_STORE_SET_MAKER_H

#include "store/weight.h"
#include "temp_model.h"

#define MAX_OUT 64
#define MAX_IN 512
typedef struct matrix {
    size_t out, in, n_groups;
    int bits;
    unsigned codes[MAX_OUT][MAX_IN], zeros[MAX_OUT][MAX_IN];
    float scales[MAX_OUT][MAX_IN];
    int32_t g_idx[MAX_IN];
} matrix;

extern matrix mx;
extern uint32_t words[3][MAX_OUT * MAX_IN]; // where tensors put their bytes
extern uint16_t scales16[MAX_OUT * MAX_IN];
extern int64_t ct_shape[2];

unsigned draw(uint64_t stream, size_t i, unsigned below);
// Random codes, zeros and scales (some negative), groups of consecutive inputs.
void make_matrix(size_t out, size_t in, size_t group, int bits, bool sym);

// Tensors "p.q.…" of the matrix; how many. GPTQ stores zeros less by offset, under the mask.
size_t gptq_tensors(st_tensor list[4], int offset, bool with_g_idx);
size_t gemv_tensors(st_tensor list[3], size_t zero_words);
size_t ct_tensors(st_tensor list[5], bool with_zeros, bool with_g_idx);
// A folder with them; label is the quantization_config or NULL.
void write_folder(const char *dir, const char *label, const st_tensor *list, size_t n);

qn_ckpt *open_ok(const char *dir, const qn_weight **w); // *w: "p.q.weight"
void check_values(const qn_weight *w); // decoded and loaded, against the matrix
// Refused strictly with this message; tolerantly a damage or a wrong label.
void expect_refused(const char *dir, qn_code code, const char *message);
void expect_label_error(const qn_ckpt *c, const char *message);

#define GPTQ(format, sym)                                                                          \
    "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"sym\":" sym \
    ",\"desc_act\":false,\"checkpoint_format\":\"" format "\"}"
#define CT "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\"}"

#endif
