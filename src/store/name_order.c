// Owns sorted orders by name.
#include "store/name_order.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

typedef struct array {
    const char *list;
    size_t stride;
} array;

static const char *name_at(const array *a, size_t i) {
    return *(char *const *)(const void *)(a->list + i * a->stride);
}

static int compare(const void *x, const void *y, void *user) {
    size_t i = *(const size_t *)x, j = *(const size_t *)y;
    int c = strcmp(name_at(user, i), name_at(user, j));
    return c ? c : (i > j) - (i < j);
}

size_t *qn_name_order_new(const void *list, size_t n, size_t stride) {
    array a = {list, stride};
    size_t *order = qn_alloc(n * sizeof *order);
    for (size_t i = 0; i < n; i++) order[i] = i;
    if (n) qsort_r(order, n, sizeof *order, compare, &a);
    return order;
}

void *qn_name_order_find(const size_t *order, const void *list, size_t n, size_t stride,
                         const char *name) {
    array a = {list, stride};
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(name_at(&a, order[mid]), name) < 0) lo = mid + 1;
        else hi = mid;
    }
    if (lo == n || strcmp(name_at(&a, order[lo]), name) != 0) return NULL;
    return (void *)(uintptr_t)(a.list + order[lo] * stride);
}
