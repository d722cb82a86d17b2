/* What is done to one row by itself: norms, turns, rounding, the bend of the MLP. */

/* x / rms(x) · weight, or (x - mean) / deviation · weight + bias; in and out may be the same. */
static void normed(const Norm *norm, const float *x, float *y, int n) {
    vec sum = {0}, squares = {0};
    float rest = 0, mean = 0, gained;
    int i;
    if (norm->centred) {
        for (i = 0; i + LANES <= n; i += LANES) sum += load(x + i);
        for (; i < n; i++) rest += x[i];
        mean = (total(sum) + rest) / n;
    }
    for (i = 0, rest = 0; i + LANES <= n; i += LANES) squares += (load(x + i) - mean) * (load(x + i) - mean);
    for (; i < n; i++) rest += (x[i] - mean) * (x[i] - mean);
    gained = 1.0f / sqrtf((total(squares) + rest) / n + norm->eps);
    for (i = 0; i < n; i++) y[i] = (x[i] - mean) * gained * norm->weight[i];
    if (norm->bias)
        for (i = 0; i < n; i++) y[i] += norm->bias[i];
}

/* Channels i and i + D/2 are a pair, turned by the row's angle. */
static void turned(float *x, const float *cos, const float *sin, int D) {
    for (int i = 0; i < D / 2; i++) {
        float a = x[i], b = x[i + D / 2];
        x[i] = a * cos[i] - b * sin[i];
        x[i + D / 2] = b * cos[i] + a * sin[i];
    }
}

/* x as whole numbers of eight bits, and what they are multiplied by: the largest becomes 127. NaN makes it NaN. */
static float in_bytes(const float *x, int8_t *numbers, int n) {
    vec most = {0}, nothing = {0};
    float largest = 0, rest = 0, scale;
    int i;
    for (i = 0; i + LANES <= n; i += LANES) {
        vec size = (vec)((uvec)load(x + i) & 0x7fffffffu);
        most = where(size > most, size, most);
        nothing += size * 0.0f;
    }
    for (int j = 0; j < LANES; j++) largest = most[j] > largest ? most[j] : largest;
    for (; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest, rest += x[i] * 0.0f;
    scale = largest / 127 + 1e-30f + total(nothing) + rest;
    for (i = 0; i < n; i++) {
        float rounded = (x[i] / scale + 12582912.0f) - 12582912.0f;
        numbers[i] = (int8_t)(int32_t)rounded;
    }
    return scale;
}

static void activated(int kind, const float *gate, const float *up, float *y, int n) {
    int i = 0;
    for (; i < n; i += LANES) {                     /* rows of F have room for whole vectors */
        vec u = load(up + i);
        if (kind == SWIGLU) {
            vec g = load(gate + i);
            u = u * g / (1.0f + exponential(-g));
        } else if (kind == GELU) {
            vec inner = 0.7978845608f * (u + 0.044715f * u * u * u);
            u = u - u / (1.0f + exponential(2.0f * inner));          /* u/2 (1 + tanh inner) */
        } else {
            u = where(u < (vec){0}, (vec){0}, u * u);               /* so that NaN stays NaN */
        }
        store(y + i, u);
    }
}
