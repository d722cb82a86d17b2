/* y = x Wᵀ for weights of floats, eight bits and four, a panel of 64 outputs at a time.

   An output's sum runs along K, one product after the other, however many rows are computed beside it. */

#if defined(__AVX512F__)
#define ROWS 6                   /* rows computed at a time: as many sums as there are registers */
#else
#define ROWS 2
#endif

/* `sums` of 16 outputs += four numbers of a row times their weights. The four lie in the bytes of x. */
INLINE ivec dot4(ivec sums, int32_t x, const int8_t *weight) {
#if defined(__AVX512VNNI__)
    __m512i four = _mm512_xor_si512(_mm512_set1_epi32(x), _mm512_set1_epi32((int32_t)0x80808080));  /* 128 more */
    return (ivec)_mm512_dpbusd_epi32((__m512i)sums, four, _mm512_loadu_si512(weight));
#elif defined(__AVX2__)
    __m256i four = _mm256_set1_epi32(x), size = _mm256_abs_epi8(four), ones = _mm256_set1_epi16(1);
    for (int half = 0; half < 2; half++) {          /* |x| · (sign of x) w: two such products fit into 16 bits */
        __m256i w = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(weight + 32 * half)), four);
        __m256i pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(size, w), ones);
        ((__m256i *)&sums)[half] = _mm256_add_epi32(((__m256i *)&sums)[half], pairs);
    }
    return sums;
#else
    const int8_t *four = (const int8_t *)&x;
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++) sums[i] += four[j] * weight[4 * i + j];
    return sums;
#endif
}

/* The same with weights of 0 to 15, which need no sign. */
INLINE ivec dot4_unsigned(ivec sums, int32_t x, uvec weight) {
#if defined(__AVX512VNNI__)
    return (ivec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)weight, _mm512_set1_epi32(x));
#elif defined(__AVX2__)
    __m256i four = _mm256_set1_epi32(x), ones = _mm256_set1_epi16(1);
    for (int half = 0; half < 2; half++) {
        __m256i pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(((__m256i *)&weight)[half], four), ones);
        ((__m256i *)&sums)[half] = _mm256_add_epi32(((__m256i *)&sums)[half], pairs);
    }
    return sums;
#else
    return dot4(sums, x, (const int8_t *)&weight);
#endif
}

#if defined(__AVX512VNNI__)
#define OFFSET 1                 /* the instruction wants rows without sign: 128 more, taken off by `sums` */
#else
#define OFFSET 0
#endif

/* What a product adds to an output's row, or begins it with. */
INLINE void put(float *y, vec value, int outs, int add) {
    if (outs >= LANES) {
        store(y, add ? load(y) + value : value);
    } else {
        for (int i = 0; i < outs; i++) y[i] = add ? y[i] + value[i] : value[i];
    }
}

INLINE void float_tile(const int rows, const float *w, int K, const float *x, int stride, vec sums[][4]) {
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 4; j++) sums[r][j] = (vec){0};
    for (int k = 0; k < K; k++, w += OUTS) {
        vec w0 = load(w), w1 = load(w + 16), w2 = load(w + 32), w3 = load(w + 48);
        for (int r = 0; r < rows; r++) {
            float a = x[r * stride + k];
            sums[r][0] += a * w0, sums[r][1] += a * w1, sums[r][2] += a * w2, sums[r][3] += a * w3;
        }
    }
}

INLINE void byte_tile(const int rows, const int8_t *w, int K, const int8_t *x, int stride, const int32_t *begin,
                      ivec sums[][4]) {
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 4; j++) sums[r][j] = OFFSET ? *(const ivec *)(begin + 16 * j) : (ivec){0};
    for (int k = 0; k < K; k += 4, w += 4 * OUTS)
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * stride + k, 4);
            for (int j = 0; j < 4; j++) sums[r][j] = dot4(sums[r][j], four, w + 64 * j);
        }
}

/* Four bits: of eight neighbours along K, a byte holds number k (low) and number k + 4 (high), each with 8 more. */
INLINE void nibble_tile(const int rows, const uint8_t *w, const float *scale, int outs, int K, const int8_t *x,
                        int stride, vec sums[][4]) {
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 4; j++) sums[r][j] = (vec){0};
    for (int k = 0; k < K; k += GROUP, scale += outs) {
        ivec whole[ROWS][4], extra[ROWS];
        for (int r = 0; r < rows; r++) {
            extra[r] = (ivec){0};
            for (int j = 0; j < 4; j++) whole[r][j] = (ivec){0};
        }
        for (int i = k; i < k + GROUP; i += 8, w += 4 * OUTS)
            for (int r = 0; r < rows; r++) {
                int32_t low, high;
                memcpy(&low, x + r * stride + i, 4);
                memcpy(&high, x + r * stride + i + 4, 4);
                extra[r] = dot4_unsigned(extra[r], low, (uvec){0} + 0x08080808u);
                extra[r] = dot4_unsigned(extra[r], high, (uvec){0} + 0x08080808u);
                for (int j = 0; j < 4; j++) {
                    uvec both = *(const uvec *)(w + 64 * j);
                    whole[r][j] = dot4_unsigned(whole[r][j], low, both & 0x0f0f0f0fu);
                    whole[r][j] = dot4_unsigned(whole[r][j], high, (both >> 4) & 0x0f0f0f0fu);
                }
            }
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < 4; j++)
                sums[r][j] += __builtin_convertvector(whole[r][j] - extra[r], vec) * load(scale + 16 * j);
    }
}

/* Rows as products read them: floats (N, ins), and the same in eight bits where a matrix is of integers. */
typedef struct {
    const float *floats;
    const int8_t *numbers;
    const float *scale;          /* (N,) of the numbers */
    int count;
} Rows;

INLINE void tile(const int rows, const Linear *w, int panel, const Rows *x, int first, float *y, int stride, int add) {
    const int outs = (w->outs + OUTS - 1) / OUTS * OUTS, whole = bytes_of(w->ins), at = panel * OUTS;
    const int8_t *numbers = x->numbers + (long)first * whole;
    vec sums[ROWS][4];
    ivec exact[ROWS][4];
    if (w->kind == FLOAT32) {
        const float *weight = (const float *)w->weight + (long)at * w->ins;
        float_tile(rows, weight, w->ins, x->floats + (long)first * widened(w->ins), widened(w->ins), sums);
    } else if (w->kind == INT8) {
        const int8_t *weight = (const int8_t *)w->weight + (long)at * whole;
        byte_tile(rows, weight, whole, numbers, whole, w->sums + at, exact);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < 4; j++)
                sums[r][j] = __builtin_convertvector(exact[r][j], vec) * load(w->scale + at + 16 * j);
    } else {
        const uint8_t *weight = (const uint8_t *)w->weight + (long)at * whole / 2;
        nibble_tile(rows, weight, w->scale + at, outs, whole, numbers, whole, sums);
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 4; j++) {
            const int o = at + 16 * j;
            if (o >= w->outs) break;
            vec value = sums[r][j];
            if (w->kind != FLOAT32) value *= x->scale[first + r], rounded(&value);
            if (w->bias) value += load(w->bias + o);
            put(y + (long)(first + r) * stride + o, value, w->outs - o, add);
        }
}

/* y = x Wᵀ + bias, or y += it, for all rows; y has rows of `stride`. A panel stays in the cache for all of them. */
static void product(const Linear *w, const Rows *x, float *y, int stride, int add) {
    #pragma omp for schedule(static)
    for (int panel = 0; panel < (w->outs + OUTS - 1) / OUTS; panel++) {
        int r = 0;
        for (; r + ROWS <= x->count; r += ROWS) tile(ROWS, w, panel, x, r, y, stride, add);
        switch (x->count - r) {
#if ROWS > 2
            case 5: tile(5, w, panel, x, r, y, stride, add); break;
            case 4: tile(4, w, panel, x, r, y, stride, add); break;
            case 3: tile(3, w, panel, x, r, y, stride, add); break;
            case 2: tile(2, w, panel, x, r, y, stride, add); break;
#endif
            case 1: tile(1, w, panel, x, r, y, stride, add); break;
        }
    }
}

/* A row of n for the products to come: in eight bits too, unless all their matrices are of floats. */
INLINE void prepare(const Model *m, const float *x, int row, int n, int kinds) {
    if (kinds != FLOAT32) {
        int8_t *numbers = m->numbers + (long)row * bytes_of(n);
        m->row_scale[row] = in_bytes(x, numbers, n);
        memset(numbers + n, 0, bytes_of(n) - n);
    }
}
