// Where a new checkpoint may go.
#ifndef QN_QUANT_OUT_PLACE_H
#define QN_QUANT_OUT_PLACE_H

#include "quern.h"

// Refuses OUT inside MODEL or MODEL inside OUT; with overwrite, an OUT that is there and is neither
// empty nor a checkpoint. (Without overwrite an OUT that is there is refused by who creates it.)
bool qn_out_place_ok(const char *model, const char *out, bool overwrite, qn_err *err);

#endif
