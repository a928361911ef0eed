// Blocks of one tensor, made by several threads and put into the file by one at a time: a file
// system lets one write into a file at a time, and threads that wait for their turn make nothing.
#ifndef QN_QUANT_PUT_QUEUE_H
#define QN_QUANT_PUT_QUEUE_H

#include "store/shard_writer.h"

typedef struct qn_put_queue qn_put_queue;
qn_put_queue *qn_put_queue_new(int threads);
void qn_put_queue_free(qn_put_queue *q);

// A buffer of n bytes to fill and put. Waits while too many wait to be written.
uint8_t *qn_put_queue_take(qn_put_queue *q, size_t n);
// The buffer's first n bytes belong at `at` of the tensor reserved in s. Written by this thread or,
// if one is writing, by that one: an error shows in the thread that wrote. When all threads have
// come back from here everything given so far has been written or has failed.
bool qn_put_queue_put(qn_put_queue *q, qn_shards *s, uint64_t at, uint8_t *buffer, size_t n,
                      qn_err *err);

#endif
