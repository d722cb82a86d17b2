/* Queries against the keys and values in pages. A page holds a head's keys with the tokens side by side, so that one
   vector takes the scores of 16 of them, and its values with the channels side by side. */

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
INLINE long part(const Model *m, int page, int layer, int g) { return ((long)page * m->layers + layer) * m->G + g; }

/* y += weights of keys `from` to `to` times their values, `wide` vectors of them. */
INLINE void weighed(const int wide, const int kind, const float *weights, const float *scale, const void *values,
                    long at, int stride, int from, int to, vec *y) {
    for (int j = from; j < to; j++) {
        float weight = kind == INT8 ? weights[j] * scale[j] : weights[j];
        for (int i = 0; i < wide; i++) y[i] += weight * stored(values, at + (long)j * stride + LANES * i, kind);
    }
}

/* One head of one row: softmax(q kᵀ · scale + bias) v over the keys it sees. */
INLINE void attended(const Model *m, const int32_t *pages, int position, int layer, int h, const float *q, float *y,
                     float *scores, const int kind) {
    const int D = m->D, P = m->page, wide = widened(D), g = h / (m->H / m->G);
    const int first = m->window && position >= m->window ? position - m->window + 1 : 0;
    const int begin = first / P * P, end = position + 1;              /* scores[i] belongs to key begin + i */
    const float shrink = 1 / sqrtf(D), slope = m->alibi ? m->alibi[h] : 0;
    const vec steps = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int key = begin; key < end; key += P) {
        const long at = part(m, pages[key / P], layer, g);
        for (int j = 0; j < P && key + j < end; j += LANES) {
            vec a = {0}, b = {0};
            int d = 0;
            for (; d + 1 < D; d += 2) {
                a += q[d] * stored(m->keys, (at * D + d) * P + j, kind);
                b += q[d + 1] * stored(m->keys, (at * D + d + 1) * P + j, kind);
            }
            if (d < D) a += q[d] * stored(m->keys, (at * D + d) * P + j, kind);
            vec score = (a + b) * shrink;
            if (kind == INT8) score *= load(m->key_scale + at * P + j);
            if (m->alibi) score -= slope * ((float)(position - key - j) - steps);
            store(scores + key - begin + j, score);
        }
    }
    const int count = end - begin;
    for (int i = 0; i < first - begin; i++) scores[i] = -INFINITY;
    for (int i = count; i < widened(count); i++) scores[i] = -INFINITY;
    vec most = all(-INFINITY), sum = {0};
    for (int i = 0; i < count; i += LANES) most = where(load(scores + i) > most, load(scores + i), most);
    float largest = most[0];
    for (int i = 1; i < LANES; i++) largest = most[i] > largest ? most[i] : largest;
    for (int i = 0; i < count; i += LANES) {
        vec e = exponential(load(scores + i) - largest);
        store(scores + i, e);
        sum += e;
    }
    const float whole = total(sum);
    for (int d = 0; d < wide;) {
        const int four = wide - d >= 4 * LANES;
        vec parts[4] = {{0}, {0}, {0}, {0}};
        for (int key = begin; key < end; key += P) {
            const long at = part(m, pages[key / P], layer, g) * P;
            const int from = first > key ? first - key : 0, to = end - key < P ? end - key : P;
            const float *weights = scores + key - begin, *scale = m->value_scale + at;
            if (four) weighed(4, kind, weights, scale, m->values, at * wide + d, wide, from, to, parts);
            else weighed(1, kind, weights, scale, m->values, at * wide + d, wide, from, to, parts);
        }
        for (int i = 0; i < (four ? 4 : 1); i++, d += LANES) put(y + d, parts[i] / whole, D - d, 0);
    }
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
#if defined(_OPENMP)
    float *scores = m->scores + (long)omp_get_thread_num() * (m->context + m->page + LANES);
#else
    float *scores = m->scores;
#endif
    #pragma omp for schedule(static)
    for (int item = 0; item < s->rows * H; item++) {
        const int r = item / H, h = item % H;
        const int32_t *pages = s->pages + s->table[r];
        const float *q = m->q + (long)r * widened(H * D) + h * D;
        float *y = m->y + (long)r * widened(H * D) + h * D;
        if (m->cache == FLOAT32) attended(m, pages, s->position[r], layer, h, q, y, scores, FLOAT32);
        else if (m->cache == BFLOAT16) attended(m, pages, s->position[r], layer, h, q, y, scores, BFLOAT16);
        else attended(m, pages, s->position[r], layer, h, q, y, scores, INT8);
    }
}
