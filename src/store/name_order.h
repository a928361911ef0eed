// Look-up by name in an array of structs whose first member is their name: a sorted order beside
// the array. No hashing, so no names can be chosen that make it slow.
#ifndef QN_STORE_NAME_ORDER_H
#define QN_STORE_NAME_ORDER_H

#include <stddef.h>

// Indices of n structs, stride bytes apart, by name and then by index; allocated.
size_t *qn_name_order_new(const void *list, size_t n, size_t stride);
// The struct called so (the first of several), or NULL.
void *qn_name_order_find(const size_t *order, const void *list, size_t n, size_t stride,
                         const char *name);

#endif
