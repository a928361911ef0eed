// Every family there is. A new one is a file family_NAME.c and a line here.
#include "model/family.h"

extern const qn_family qn_family_qwen2;
extern const qn_family qn_family_qwen3;
extern const qn_family qn_family_qwen3_moe;
extern const qn_family qn_family_qwen3_next;
extern const qn_family qn_family_qwen3_5;
extern const qn_family qn_family_qwen3_5_moe;

const qn_family *const qn_families[] = {
    &qn_family_qwen2,      &qn_family_qwen3,   &qn_family_qwen3_moe,
    &qn_family_qwen3_next, &qn_family_qwen3_5, &qn_family_qwen3_5_moe,
    NULL,
};
