// A list in order of use; a conversation has a handful of images, so a scan will do.
#include "engine/cache_images.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

void qn_pictures_init(qn_pictures *p, const uint64_t key[2], size_t max_bytes) {
    *p = (qn_pictures){.max_bytes = max_bytes, .key = {key[0], key[1]}};
}

static void picture_free(qn_picture *x) {
    qn_free(x->rows);
    free(x);
}

void qn_pictures_done(qn_pictures *p) {
    while (p->first) {
        qn_picture *x = p->first;
        p->first = x->next;
        picture_free(x);
    }
    *p = (qn_pictures){0};
}

static qn_digest content(const qn_pictures *p, const qn_image *image) {
    qn_hasher h;
    qn_hash_init(&h, p->key);
    int size[2] = {image->width, image->height};
    qn_hash_add(&h, size, sizeof size);
    qn_hash_add(&h, image->data, image->bytes);
    return qn_hash_finish(&h);
}

// Takes the picture out of the list, when it is there.
static qn_picture *pull(qn_pictures *p, qn_digest d) {
    for (qn_picture **at = &p->first; *at; at = &(*at)->next)
        if (qn_digest_equal((*at)->digest, d)) {
            qn_picture *x = *at;
            *at = x->next;
            return x;
        }
    return NULL;
}

static void shrink(qn_pictures *p) {
    while (p->bytes > p->max_bytes) {
        qn_picture **victim = NULL; // the last one that nobody holds
        for (qn_picture **at = &p->first; *at; at = &(*at)->next)
            if (!(*at)->refs) victim = at;
        if (!victim) return;
        qn_picture *x = *victim;
        *victim = x->next;
        p->bytes -= x->bytes;
        picture_free(x);
    }
}

static qn_picture *encode(const qn_model *m, qn_compute *c, const qn_image *image, size_t max_rows,
                          qn_err *err) {
    qn_picture *x = QN_NEW(qn_picture);
    x->n_rows = max_rows;
    if (!qn_model_encode_image(m, c, image, x->grid, &x->rows, &x->n_rows, NULL, err)) {
        picture_free(x);
        return NULL;
    }
    size_t row = (size_t)qn_model_get_info(m)->hidden_size * sizeof(float);
    x->bytes = x->n_rows * row;
    return x;
}

qn_picture *qn_pictures_get(qn_pictures *p, const qn_model *m, qn_compute *c,
                            const qn_image *image, size_t max_rows, qn_err *err) {
    if (!image->data || !image->bytes)
        return qn_fail_null(err, QN_INPUT, "image: empty, expected pixels or an encoded file");
    if (image->width < 0 || image->height < 0)
        return qn_fail_null(err, QN_INPUT, "image: size %d x %d", image->width, image->height);
    qn_digest d = content(p, image);
    qn_picture *x = pull(p, d);
    if (x) {
        p->hits++;
    } else {
        if (!(x = encode(m, c, image, max_rows, err))) return NULL;
        x->digest = d;
        p->bytes += x->bytes;
    }
    x->refs++;
    x->next = p->first;
    p->first = x;
    shrink(p);
    return x;
}

void qn_pictures_drop(qn_pictures *p, qn_picture *x) {
    x->refs--;
    shrink(p);
}
