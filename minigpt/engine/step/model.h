/* What Python fills in: the same fields in the same order as in `compiled.py`. */

enum { FLOAT32, BFLOAT16, INT8, INT4 };      /* what weights, keys and values are stored as */
enum { SWIGLU, GELU, RELU2 };

#define OUTS 64                  /* outputs whose weights lie side by side: a panel */
#define GROUP 32                 /* four-bit numbers with one scale */

typedef struct {
    int32_t outs, ins, kind;
    const void *weight;          /* panels of OUTS outputs */
    const float *scale;          /* int8: (outs,); int4: (groups, outs), whole panels of both */
    const int32_t *sums;         /* int8: what takes the offset of 128 off again, see products.h */
    const float *bias;           /* or NULL */
} Linear;

typedef struct {
    const float *weight, *bias;  /* bias or NULL */
    float eps;
    int32_t centred;             /* LayerNorm; else RMSNorm */
} Norm;

typedef struct {
    Norm attention_norm, mlp_norm, q_norm, k_norm;  /* q_norm.weight may be NULL */
    Linear q, k, v, out, gate, up, down;            /* gate.outs is 0 where there is none */
} Block;

typedef struct {
    int32_t layers, C, H, G, D, F, context, window, mlp, cache, page, held;  /* held: pages */
    int32_t of_embedding, group;                    /* kind; numbers with one scale */
    const void *embedding;       /* (V, C) floats or bytes, or (V, C/2) */
    const float *row_scales;     /* of integers: (V, C/group) */
    int32_t earlier;             /* tokens before each that join its embedding, */
    const float *short_conv;     /* (earlier, C): the nearest first */
    float embedding_scale;
    const float *start;          /* (context, C), added to embeddings, or NULL */
    const float *cos, *sin;      /* (context, D/2), or NULL */
    const float *alibi;          /* (H,), or NULL */
    const Block *blocks;
    Norm final_norm;
    Linear head;
    void *keys, *values;         /* (layers, pages, G, D, page) and (layers, pages, G, page, wide D) */
    float *key_scale, *value_scale;                 /* int8: (layers, pages, G, page) */
    float *x, *h, *q, *k, *v, *y, *gate, *up, *row_scale, *scores;  /* room for the rows of a step */
    int8_t *numbers;             /* rows in eight bits */
} Model;

typedef struct {
    int32_t rows, wanted, tiles, threads;
    const int32_t *ids, *earlier;    /* (rows,), and (rows, earlier): those before, the nearest first; -1 is none */
    const int32_t *position;         /* (rows,) */
    const int32_t *table;            /* (rows,): where the row's pages stand in `pages` */
    const int32_t *pages;
    const int32_t *tile;             /* (tiles + 1,): where some rows of one sequence begin; and the end */
    const int32_t *which;            /* (wanted,): the rows whose logits are wanted */
    float *logits;                   /* (wanted, V) */
} Step;

const int32_t sizes[] = {sizeof(Linear), sizeof(Norm), sizeof(Block), sizeof(Model), sizeof(Step)};

INLINE int widened(int n) { return (n + LANES - 1) / LANES * LANES; }       /* floats in a row of n */
INLINE int bytes_of(int n) { return (n + GROUP - 1) / GROUP * GROUP; }      /* bytes in a row of n in eight bits */
