// The list of on-disk schemes. Order matters only between schemes that share their marking tensor
// and could both claim a set; the label's family is asked first.
#include "store/schemes.h"

extern const qn_scheme qn_scheme_gptq, qn_scheme_awq_gemm, qn_scheme_awq_gemv, qn_scheme_fp8,
    qn_scheme_ct_pack, qn_scheme_ct_int, qn_scheme_ct_float;

const qn_scheme *const qn_schemes[] = {
    &qn_scheme_gptq,    &qn_scheme_awq_gemm, &qn_scheme_awq_gemv, &qn_scheme_fp8,
    &qn_scheme_ct_pack, &qn_scheme_ct_int,   &qn_scheme_ct_float,
};
const size_t qn_n_schemes = sizeof qn_schemes / sizeof *qn_schemes;
