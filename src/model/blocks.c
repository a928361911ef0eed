// Every block kind there is, in the order of the identifiers in family.h.
#include "model/block.h"

extern const qn_block_kind qn_block_attention;
extern const qn_block_kind qn_block_deltanet;
extern const qn_block_kind qn_block_mlp;
extern const qn_block_kind qn_block_moe;

const qn_block_kind *const qn_mixers[] = {
    [QN_MIXER_ATTENTION] = &qn_block_attention,
    [QN_MIXER_DELTANET] = &qn_block_deltanet,
};

const qn_block_kind *const qn_ffns[] = {
    [QN_FFN_MLP] = &qn_block_mlp,
    [QN_FFN_MOE] = &qn_block_moe,
};
