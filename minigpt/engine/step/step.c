/* One step of the engine in C: `forward.py` and `lanes.py` are its twin in torch, `compiled.py` calls it.

   A step computes N rows, each a token of some sequence at some position. Whatever a row's result is made of is added
   up in an order that the row's own position decides: so a row has the same bits in any company, by construction.

       floats    y = x Wᵀ     along K, one product after the other
       integers  exact, in whatever order
       keys      from the oldest to the newest, page by page

   Loops marked `omp for` are shared by threads; the threads of a step all run through `step` together. */

#include "vectors.h"
#include "model.h"
#include "rows.h"
#include "products.h"
#include "attention.h"

/* A token's row, as floats. */
static void look_up(const Model *m, long id, float *x) {
    if (m->of_embedding == FLOAT32) {
        memcpy(x, (const float *)m->embedding + id * m->C, m->C * sizeof(float));
        return;
    }
    const float *scale = m->row_scales + id * (m->C / m->group);
    if (m->of_embedding == INT8) {
        const int8_t *row = (const int8_t *)m->embedding + id * m->C;
        for (int i = 0; i < m->C; i++) x[i] = row[i] * scale[i / m->group];
    } else {
        const uint8_t *row = (const uint8_t *)m->embedding + id * m->C / 2;
        for (int i = 0; i < m->C; i++) x[i] = ((row[i / 2] >> (i % 2 * 4) & 15) - 8) * scale[i / m->group];
    }
}

static void embed(const Model *m, const Step *s) {
    #pragma omp for schedule(static)
    for (int r = 0; r < s->rows; r++) {
        float *x = m->x + (long)r * widened(m->C);
        const float *start = m->start + (long)s->position[r] * m->C;
        look_up(m, s->ids[r], x);
        for (int j = 0; j < m->earlier; j++) {
            const int32_t id = s->earlier[r * m->earlier + j];
            float *before = m->h + (long)r * widened(m->C);
            if (id < 0) break;
            look_up(m, id, before);
            for (int i = 0; i < m->C; i++) x[i] += m->short_conv[j * m->C + i] * before[i];
        }
        for (int i = 0; m->start && i < m->C; i++) x[i] = x[i] * m->embedding_scale + start[i];
    }
}

/* Rows of x after a norm, into h. */
static void norm_rows(const Model *m, const Norm *norm, const int32_t *which, int N, int kinds) {
    #pragma omp for schedule(static)
    for (int r = 0; r < N; r++) {
        float *h = m->h + (long)r * widened(m->C);
        normed(norm, m->x + (long)(which ? which[r] : r) * widened(m->C), h, m->C);
        prepare(m, h, r, m->C, kinds);
    }
}

static void block(const Model *m, const Step *s, const Block *b, int layer) {
    const int N = s->rows, HD = m->H * m->D, GD = m->G * m->D;
    Rows h = {m->h, m->numbers, m->row_scale, N}, y = {m->y, m->numbers, m->row_scale, N};
    Rows up = {m->up, m->numbers, m->row_scale, N};
    norm_rows(m, &b->attention_norm, NULL, N, b->q.kind | b->k.kind | b->v.kind);
    product(&b->q, &h, m->q, widened(HD), 0);
    product(&b->k, &h, m->k, widened(GD), 0);
    product(&b->v, &h, m->v, widened(GD), 0);
    attention(m, s, b, layer);
    #pragma omp for schedule(static)
    for (int r = 0; r < N; r++) prepare(m, m->y + (long)r * widened(HD), r, HD, b->out.kind);
    product(&b->out, &y, m->x, widened(m->C), 1);
    norm_rows(m, &b->mlp_norm, NULL, N, b->up.kind | b->gate.kind);
    if (b->gate.outs) product(&b->gate, &h, m->gate, widened(m->F), 0);
    product(&b->up, &h, m->up, widened(m->F), 0);
    #pragma omp for schedule(static)
    for (int r = 0; r < N; r++) {
        float *row = m->up + (long)r * widened(m->F);
        activated(m->mlp, m->gate + (long)r * widened(m->F), row, row, m->F);
        prepare(m, row, r, m->F, b->down.kind);
    }
    product(&b->down, &up, m->x, widened(m->C), 1);
}

/* ids at positions -> keys and values in their pages, and the logits that are wanted. */
void step(const Model *m, const Step *s) {
    #pragma omp parallel num_threads(s->threads)
    {
        Rows h = {m->h, m->numbers, m->row_scale, s->wanted};
        embed(m, s);
        for (int layer = 0; layer < m->layers; layer++) block(m, s, m->blocks + layer, layer);
        norm_rows(m, &m->final_norm, s->which, s->wanted, m->head.kind);
        product(&m->head, &h, s->logits, m->head.outs, 0);
    }
}
