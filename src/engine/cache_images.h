// Embedding rows of images already seen, by content, within a byte budget, least recently used
// out first. Requests hold what they use.
#ifndef QN_ENGINE_CACHE_IMAGES_H
#define QN_ENGINE_CACHE_IMAGES_H

#include "engine/content_hash.h"
#include "model/model.h"

typedef struct qn_picture {
    struct qn_picture *next; // more recently used first
    qn_digest digest;
    int grid[3];
    float *rows;
    size_t n_rows, bytes, refs;
} qn_picture;

typedef struct qn_pictures {
    qn_picture *first;
    size_t bytes, max_bytes;
    uint64_t key[2], hits;
} qn_pictures;

void qn_pictures_init(qn_pictures *p, const uint64_t key[2], size_t max_bytes);
void qn_pictures_done(qn_pictures *p);
// Finds or computes; the caller holds the result until _drop. A picture of more than max_rows is
// refused.
qn_picture *qn_pictures_get(qn_pictures *p, const qn_model *m, qn_compute *c,
                            const qn_image *image, size_t max_rows, qn_err *err);
void qn_pictures_drop(qn_pictures *p, qn_picture *x);

#endif
