/* Vectors of 16 numbers: GCC's and Clang's own, the same on every machine, whatever its registers. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#define LANES 16                 /* numbers in a vector */
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1)));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec x) { *(vec *)p = x; }
INLINE vec all(float x) { return x - (vec){0}; }

/* Rounds a product before it is added to. Of two products in a sum a compiler may fuse either with the addition, and it
   may decide anew in each copy of an inlined function: then a row's bits would depend on its company. */
INLINE void rounded(vec *x) { __asm__("" : "+m"(*x)); }

INLINE float total(vec x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

INLINE vec where(ivec yes, vec a, vec b) { return (vec)(((ivec)a & yes) | ((ivec)b & ~yes)); }

/* e^x to 2e-7: 2^n · e^r with |r| <= ln 2 / 2, e^r by its series. */
INLINE vec exponential(vec x) {
    ivec tiny = x < all(-87);                                         /* not so for NaN, which is never hidden */
    x = where(tiny, all(-87), where(x > all(88), all(88), x));
    vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;            /* rounded: 1.5 · 2^23 has no place for fractions */
    vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec e = all(1.0f / 720);
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return where(tiny, (vec){0}, e * (vec)power);
}
