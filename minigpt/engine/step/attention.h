/* Queries against the keys and values in pages. A page holds a head's keys with the tokens side by side, so that one
   vector takes the scores of 16 of them, and its values with the channels side by side. */

#define TOGETHER 4               /* queries computed at a time */
#define UNROLL _Pragma("GCC unroll 4")

INLINE vec stored(const void *memory, long at, const int kind) {
    if (kind == FLOAT32) return load((const float *)memory + at);
    if (kind == BFLOAT16) return (vec)(__builtin_convertvector(*(const halves *)((const uint16_t *)memory + at), uvec) << 16);
#if defined(__AVX512F__)
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)((const int8_t *)memory + at))));
#else
    return __builtin_convertvector(__builtin_convertvector(*(const bytes *)((const int8_t *)memory + at), ivec), vec);
#endif
}

/* x[i] to memory[at + i * step], i < n; in eight bits, the scale is returned. */
INLINE float keep(const Model *m, const float *x, int n, void *memory, long at, long step) {
    float scale = 1;
    if (m->cache == INT8) {
        int8_t numbers[n];
        scale = in_bytes(x, numbers, n);
        for (int i = 0; i < n; i++) ((int8_t *)memory)[at + i * step] = numbers[i];
    } else if (m->cache == BFLOAT16) {
        for (int i = 0; i < n; i++) {
            uint32_t all;
            memcpy(&all, x + i, 4);
            all += 0x7fff + ((all >> 16) & 1);                       /* to the nearest, ties to even */
            ((uint16_t *)memory)[at + i * step] = (uint16_t)(all >> 16);
        }
    } else {
        for (int i = 0; i < n; i++) ((float *)memory)[at + i * step] = x[i];
    }
    return scale;
}

/* Where a page holds layer and head: in units of a head's part of a page. */
INLINE long part(const Model *m, int page, int layer, int g) { return ((long)layer * m->held + page) * m->G + g; }

/* Queries that look at the same keys: neighbours in a text, heads that share keys. */
typedef struct {
    const float *q;
    float *y;
    int position, head;
} Query;

/* scores[r] of the keys from `begin` to `end`, for the queries r < n. A key is loaded once for all of them. */
INLINE void score(const int n, const int kind, const Model *m, const Query *query, const int32_t *pages, int layer,
                  int g, int begin, int end, float *scores, int room) {
    const int D = m->D, P = m->page;
    const float shrink = 1 / sqrtf(D), *q[TOGETHER];
    for (int r = 0; r < n; r++) q[r] = query[r].q;
    const vec steps = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int key = begin; key < end; key += P) {
        const long at = part(m, pages[key / P], layer, g);
        for (int j = 0; j < P && key + j < end; j += LANES) {
            vec sums[TOGETHER][2];
            UNROLL
            for (int r = 0; r < n; r++) sums[r][0] = sums[r][1] = (vec){0};
            int d = 0;
            for (; d + 1 < D; d += 2) {
                const vec even = stored(m->keys, (at * D + d) * P + j, kind);
                const vec odd = stored(m->keys, (at * D + d + 1) * P + j, kind);
                UNROLL
                for (int r = 0; r < n; r++) sums[r][0] += q[r][d] * even, sums[r][1] += q[r][d + 1] * odd;
            }
            for (; d < D; d++)
                for (int r = 0; r < n; r++) sums[r][0] += q[r][d] * stored(m->keys, (at * D + d) * P + j, kind);
            for (int r = 0; r < n; r++) {
                vec value = (sums[r][0] + sums[r][1]) * shrink;
                if (kind == INT8) value *= load(m->key_scale + at * P + j);
                if (m->alibi) {
                    vec bias = m->alibi[query[r].head] * ((float)(query[r].position - key - j) - steps);
                    rounded(&value), rounded(&bias);
                    value -= bias;
                }
                store(scores + (long)r * room + key - begin + j, value);
            }
        }
    }
}

/* e^(score - largest) of the keys from `first` to `last`, 0 for the others up to `end`; returns their sum.
   Vectors begin at `start`, with the first page that the query sees, so that nobody else's range moves them. */
INLINE float weigh(float *scores, int start, int first, int last, int end) {
    vec most = all(-INFINITY), sum = {0};
    for (int i = 0; i < start; i++) scores[i] = 0;
    for (int i = start; i < first; i++) scores[i] = -INFINITY;
    for (int i = last + 1; i < start + widened(end - start); i++) scores[i] = -INFINITY;
    for (int i = start; i <= last; i += LANES) most = where(load(scores + i) > most, load(scores + i), most);
    float largest = most[0];
    for (int i = 1; i < LANES; i++) largest = most[i] > largest ? most[i] : largest;
    for (int i = start; i < end; i += LANES) {
        vec e = exponential(load(scores + i) - largest);
        store(scores + i, e);
        sum += e;
    }
    return total(sum);
}

/* y[r] += weights of the keys in a page times their values, `wide` vectors of them. */
INLINE void weighed(const int n, const int wide, const int kind, const float *weights, int room, const float *scale,
                    const void *values, long at, int stride, int from, int to, vec y[][4]) {
    for (int j = from; j < to; j++) {
        vec value[4];
        UNROLL
        for (int i = 0; i < wide; i++) value[i] = stored(values, at + (long)j * stride + LANES * i, kind);
        UNROLL
        for (int r = 0; r < n; r++) {
            const float one = weights[(long)r * room + j], weight = kind == INT8 ? one * scale[j] : one;
            UNROLL
            for (int i = 0; i < wide; i++) y[r][i] += weight * value[i];
        }
    }
}

/* softmax(q kᵀ · scale + bias) v of n queries, each over the keys that it sees. */
INLINE void attended(const int n, const int kind, const Model *m, const Query *query, const int32_t *pages, int layer,
                     int g, float *scores, int room) {
    const int D = m->D, P = m->page, wide = widened(D);
    int first[TOGETHER], begin = query[0].position, end = 0;
    for (int r = 0; r < n; r++) {
        const int position = query[r].position;
        first[r] = m->window && position >= m->window ? position - m->window + 1 : 0;
        begin = first[r] < begin ? first[r] : begin;
        end = position + 1 > end ? position + 1 : end;
    }
    begin = begin / P * P;
    score(n, kind, m, query, pages, layer, g, begin, end, scores, room);
    float whole[TOGETHER];
    for (int r = 0; r < n; r++)
        whole[r] = weigh(scores + (long)r * room, first[r] / P * P - begin, first[r] - begin, query[r].position - begin,
                         end - begin);
    for (int d = 0; d < wide;) {
        const int four = wide - d >= 4 * LANES;
        vec y[TOGETHER][4];
        for (int r = 0; r < n; r++)
            for (int i = 0; i < 4; i++) y[r][i] = (vec){0};
        for (int key = begin; key < end; key += P) {
            const long at = part(m, pages[key / P], layer, g) * P;
            const int from = first[0] > key ? first[0] - key : 0, to = end - key < P ? end - key : P;
            const float *weights = scores + key - begin, *scale = m->value_scale + at;
            if (four) weighed(n, 4, kind, weights, room, scale, m->values, at * wide + d, wide, from, to, y);
            else weighed(n, 1, kind, weights, room, scale, m->values, at * wide + d, wide, from, to, y);
        }
        for (int i = 0; i < (four ? 4 : 1); i++, d += LANES)
            for (int r = 0; r < n; r++) put(query[r].y + d, y[r][i] / whole[r], D - d, 0);
    }
}

static void attended_by(int n, const Model *m, const Query *query, const int32_t *pages, int layer, int g,
                        float *scores, int room) {
#define FOR(count)                                                                                                   \
    case count:                                                                                                      \
        if (m->cache == FLOAT32) attended(count, FLOAT32, m, query, pages, layer, g, scores, room);                  \
        else if (m->cache == BFLOAT16) attended(count, BFLOAT16, m, query, pages, layer, g, scores, room);           \
        else attended(count, INT8, m, query, pages, layer, g, scores, room);                                         \
        break;
    switch (n) { FOR(1) FOR(2) FOR(3) FOR(4) }
#undef FOR
}

/* Attention of every row, after the keys and values of all rows are stored. */
static void attention(const Model *m, const Step *s, const Block *b, int layer) {
    const int D = m->D, H = m->H, G = m->G, P = m->page, wide = widened(D);
    #pragma omp for schedule(static)
    for (int r = 0; r < s->rows; r++) {
        const int position = s->position[r], page = s->pages[s->table[r] + position / P], j = position % P;
        float *q = m->q + (long)r * widened(H * D), *k = m->k + (long)r * widened(G * D);
        const float *v = m->v + (long)r * widened(G * D);
        const float *cos = m->cos + (long)position * (D / 2), *sin = m->sin + (long)position * (D / 2);
        for (int h = 0; h < H; h++) {
            if (b->q_norm.weight) normed(&b->q_norm, q + h * D, q + h * D, D);
            if (m->cos) turned(q + h * D, cos, sin, D);
        }
        for (int g = 0; g < G; g++) {
            const long at = part(m, page, layer, g);
            if (b->k_norm.weight) normed(&b->k_norm, k + g * D, k + g * D, D);
            if (m->cos) turned(k + g * D, cos, sin, D);
            float of_key = keep(m, k + g * D, D, m->keys, at * D * P + j, P);
            float of_value = keep(m, v + g * D, D, m->values, (at * P + j) * wide, 1);
            if (m->cache == INT8) m->key_scale[at * P + j] = of_key, m->value_scale[at * P + j] = of_value;
        }
    }
    const int shared = H / G, room = m->context + P + LANES;
#if defined(_OPENMP)
    float *scores = m->scores + (long)omp_get_thread_num() * TOGETHER * room;
#else
    float *scores = m->scores;
#endif
    #pragma omp for schedule(static)
    for (int item = 0; item < s->tiles * G; item++) {   /* head by head: its keys stay in the cache for all rows */
        const int tile = item % s->tiles, g = item / s->tiles;
        const int from = s->tile[tile], count = (s->tile[tile + 1] - from) * shared;
        for (int i = 0; i < count; i += TOGETHER) {
            Query query[TOGETHER];
            int n = 0;
            for (; n < TOGETHER && i + n < count; n++) {
                const int r = from + (i + n) / shared, h = g * shared + (i + n) % shared;
                const long at = (long)r * widened(H * D) + h * D;
                query[n] = (Query){m->q + at, m->y + at, s->position[r], h};
            }
            attended_by(n, m, query, s->pages + s->table[from], layer, g, scores, room);
        }
    }
}
