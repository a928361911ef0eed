// A few buffers more than threads. Who gives a block while nobody writes becomes the writer, and
// writes all that others give meanwhile before it goes back to making blocks.
#include "quant/put_queue.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"

enum { SPARE = 4 }; // blocks that may wait to be written

typedef struct block {
    uint8_t *bytes;
    size_t cap, n;
    uint64_t at;
    enum { FREE, TAKEN, GIVEN } state;
} block;

struct qn_put_queue {
    pthread_mutex_t lock;
    pthread_cond_t freed;
    bool writing;
    size_t n;
    block *blocks;
};

qn_put_queue *qn_put_queue_new(int threads) {
    qn_put_queue *q = QN_NEW(qn_put_queue);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->freed, NULL);
    q->n = (size_t)threads + SPARE;
    q->blocks = QN_NEW_ARRAY(block, q->n);
    return q;
}

void qn_put_queue_free(qn_put_queue *q) {
    if (!q) return;
    for (size_t i = 0; i < q->n; i++) free(q->blocks[i].bytes);
    pthread_cond_destroy(&q->freed);
    pthread_mutex_destroy(&q->lock);
    free(q->blocks);
    free(q);
}

static block *in_state(qn_put_queue *q, int state) {
    for (size_t i = 0; i < q->n; i++)
        if ((int)q->blocks[i].state == state) return &q->blocks[i];
    return NULL;
}

uint8_t *qn_put_queue_take(qn_put_queue *q, size_t n) {
    block *b;
    pthread_mutex_lock(&q->lock);
    while (!(b = in_state(q, FREE))) pthread_cond_wait(&q->freed, &q->lock);
    b->state = TAKEN;
    if (n > b->cap) { // under the lock: blocks are known by their bytes
        free(b->bytes);
        b->bytes = qn_alloc(n);
        b->cap = n;
    }
    uint8_t *bytes = b->bytes;
    pthread_mutex_unlock(&q->lock);
    return bytes;
}

static block *holding(qn_put_queue *q, const uint8_t *buffer) {
    size_t i = 0;
    while (q->blocks[i].state != TAKEN || q->blocks[i].bytes != buffer) i++;
    return &q->blocks[i];
}

bool qn_put_queue_put(qn_put_queue *q, qn_shards *s, uint64_t at, uint8_t *buffer, size_t n,
                      qn_err *err) {
    bool ok = true;
    pthread_mutex_lock(&q->lock);
    block *b = holding(q, buffer);
    b->state = GIVEN;
    b->at = at;
    b->n = n;
    while (!q->writing && (b = in_state(q, GIVEN))) {
        q->writing = true;
        pthread_mutex_unlock(&q->lock);
        ok = ok && qn_shards_put(s, b->at, b->bytes, b->n, err); // after an error they are let go
        pthread_mutex_lock(&q->lock);
        q->writing = false;
        b->state = FREE;
        pthread_cond_signal(&q->freed);
    }
    pthread_mutex_unlock(&q->lock);
    return ok;
}
