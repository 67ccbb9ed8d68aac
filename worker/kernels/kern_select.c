/*
 * What is the same at every level: arg max, the k largest, rotary tables.
 * Built on the table's `max`.
 */
#include <math.h>

#include "worker/kernels/kern_internal.h"

/* Values whose maximum is compared at once before any is looked at. */
#define KERN_SCAN   256u


uint32_t
kern_argmax(const float *x, uint32_t n)
{
    float     best = -INFINITY, m;
    uint32_t  at = 0, len;

    KERN_ASSERT(n > 0);

    for (uint32_t i = 0; i < n; i += KERN_SCAN) {
        len = n - i < KERN_SCAN ? n - i : KERN_SCAN;
        m = kern_ops.max(x + i, len);

        if (m > best) {
            best = m;
            at = i;
        }
    }

    for (uint32_t i = at; i < n; i++) {
        if (x[i] == best) {
            return i;
        }
    }

    return 0;       /* nothing but NaN */
}


/* 1 if a ranks after b: smaller, or equal with the larger index. */
static int
kern_after(float a, uint32_t ia, float b, uint32_t ib)
{
    return a < b || (a == b && ia > ib);
}


/* Heap with the last-ranking element at its root; moves element i down. */
static void
kern_heap_down(float *val, uint32_t *idx, uint32_t n, uint32_t i)
{
    float     v = val[i];
    uint32_t  id = idx[i], c;

    for ( ;; ) {
        c = 2 * i + 1;

        if (c >= n) {
            break;
        }

        if (c + 1 < n && kern_after(val[c + 1], idx[c + 1], val[c], idx[c])) {
            c++;
        }

        if (!kern_after(val[c], idx[c], v, id)) {
            break;
        }

        val[i] = val[c];
        idx[i] = idx[c];
        i = c;
    }

    val[i] = v;
    idx[i] = id;
}


uint32_t
kern_topk(const float *x, uint32_t n, uint32_t k, uint32_t *idx, float *val)
{
    float     v;
    uint32_t  count = 0, len, id;

    KERN_ASSERT(k > 0 && k <= n && k <= KERN_TOPK_MAX);

    for (uint32_t i = 0; i < n; i += KERN_SCAN) {
        len = n - i < KERN_SCAN ? n - i : KERN_SCAN;

        /* An equal value of a later index never replaces an earlier one. */
        if (count == k && !(kern_ops.max(x + i, len) > val[0])) {
            continue;
        }

        for (uint32_t j = i; j < i + len; j++) {
            if (x[j] != x[j]) {
                continue;
            }

            if (count < k) {
                val[count] = x[j];
                idx[count++] = j;

                for (uint32_t h = k / 2; count == k && h > 0; h--) {
                    kern_heap_down(val, idx, k, h - 1);
                }

            } else if (x[j] > val[0]) {
                val[0] = x[j];
                idx[0] = j;
                kern_heap_down(val, idx, k, 0);
            }
        }
    }

    for (uint32_t h = count / 2; count < k && h > 0; h--) {
        kern_heap_down(val, idx, count, h - 1);
    }

    /* The root goes to the end: descending order remains. */
    for (uint32_t end = count; end > 1; end--) {
        v = val[0];
        id = idx[0];
        val[0] = val[end - 1];
        idx[0] = idx[end - 1];
        val[end - 1] = v;
        idx[end - 1] = id;
        kern_heap_down(val, idx, end - 1, 0);
    }

    return count;
}


void
kern_rope_table(float *cs, float *sn, const float *freq, uint32_t half,
    uint32_t pos, float mscale)
{
    double  angle;

    for (uint32_t i = 0; i < half; i++) {
        angle = (double) pos * (double) freq[i];
        cs[i] = (float) (cos(angle) * (double) mscale);
        sn[i] = (float) (sin(angle) * (double) mscale);
    }
}
