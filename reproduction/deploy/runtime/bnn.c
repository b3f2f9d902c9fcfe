/* A network of +1 and -1 without floating point. A bit is 1 for +1 and 0 for -1; the sum of n inputs
   x times weights w is n - 2 popcount(x xor w). The first layer adds 2 pixel - 255 or its negative. */

#define WORDS(n) (((n) + 31) / 32)

struct layer {
    const uint32_t *weights;    /* for each unit and each place, WORDS(channels) words */
    const int32_t *thresholds;  /* a unit is +1 if its sum is at least its threshold */
    const uint32_t *negative;   /* if the bit of a unit is 1: if its sum is less */
    int32_t channels, rows, columns; /* of the inputs */
    int32_t units;
    int32_t convolution; /* 1: 3x3, with a border of zeros; 0: dense */
    int32_t pool;        /* 2: the maximum of 2x2 sums; 1: no pooling */
};

static const struct layer layers[LAYERS] = {LAYER_TABLE};

static int32_t popcount(uint32_t word)
{
#ifdef __GNUC__
    return __builtin_popcount(word);
#else
    word -= word >> 1 & 0x55555555u;
    word = (word & 0x33333333u) + (word >> 2 & 0x33333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0fu;
    return (int32_t)((word * 0x01010101u & 0xffffffffu) >> 24);
#endif
}

/* The sum over the channels at one place, of pixels (channels are `area` apart) or of bits. */
static int32_t sum_at(const uint8_t *pixels, const uint32_t *bits, int32_t area,
                      const uint32_t *weights, int32_t channels)
{
    int32_t sum = 0, i;
    if (pixels == NULL) {
        for (i = 0; i < WORDS(channels); i++)
            sum += popcount(bits[i] ^ weights[i]);
        return channels - 2 * sum;
    }
    for (i = 0; i < channels; i++) {
        const int32_t value = 2 * pixels[i * area] - 255;
        sum += (weights[i / 32] >> (i % 32) & 1) ? value : -value;
    }
    return sum;
}

/* The sum of a unit at a row and a column of the image; `pixels` or `bits` is NULL. */
static int32_t sum_of(const struct layer *layer, const uint8_t *pixels, const uint32_t *bits,
                      int32_t unit, int32_t row, int32_t column)
{
    const int32_t words = WORDS(layer->channels), area = layer->rows * layer->columns;
    const int32_t places = layer->convolution ? 9 : area;
    const uint32_t *weights = layer->weights + (size_t)unit * places * words;
    int32_t sum = 0, i;
    for (i = 0; i < places; i++, weights += words) {
        int32_t place = i;
        if (layer->convolution) {
            const int32_t y = row + 1 - i / 3, x = column + 1 - i % 3;
            if (y < 0 || y >= layer->rows || x < 0 || x >= layer->columns)
                continue;
            place = y * layer->columns + x;
        }
        sum += pixels != NULL
                   ? sum_at(pixels + place, NULL, area, weights, layer->channels)
                   : sum_at(NULL, bits + (size_t)place * words, area, weights, layer->channels);
    }
    return sum;
}

/* The outputs of a layer: one bit for each place and each unit. */
static void run(const struct layer *layer, const uint8_t *pixels, const uint32_t *bits,
                uint32_t *outputs)
{
    const int32_t rows = layer->convolution ? layer->rows / layer->pool : 1;
    const int32_t columns = layer->convolution ? layer->columns / layer->pool : 1;
    int32_t row, column, unit, i;
    for (row = 0; row < rows; row++)
        for (column = 0; column < columns; column++, outputs += WORDS(layer->units)) {
            for (i = 0; i < WORDS(layer->units); i++)
                outputs[i] = 0;
            for (unit = 0; unit < layer->units; unit++) {
                int32_t largest = INT32_MIN;
                uint32_t bit;
                for (i = 0; i < layer->pool * layer->pool; i++) {
                    const int32_t sum = sum_of(layer, pixels, bits, unit,
                                               row * layer->pool + i / layer->pool,
                                               column * layer->pool + i % layer->pool);
                    largest = sum > largest ? sum : largest;
                }
                bit = largest >= layer->thresholds[unit];
                bit ^= layer->negative[unit / 32] >> (unit % 32) & 1;
                outputs[unit / 32] |= bit << (unit % 32);
            }
        }
}

void NETWORK_scores(const uint8_t *pixels, uint32_t *scores)
{
    uint32_t buffers[2][BUFFER];
    const uint32_t *bits = NULL;
    int32_t i;
    for (i = 0; i < LAYERS - 1; i++) {
        run(&layers[i], pixels, bits, buffers[i % 2]);
        pixels = NULL;
        bits = buffers[i % 2];
    }
    for (i = 0; i < CLASSES; i++) /* sums are LARGEST_SUM, LARGEST_SUM - 2, ... */
        scores[i] = scores_of_sums[i][(sum_of(&layers[LAYERS - 1], pixels, bits, i, 0, 0) +
                                       LARGEST_SUM) / 2];
}

/* An integer that orders scores as their values do; -0 is 0. */
static uint32_t rank(uint32_t bits)
{
    return bits == 0x80000000u || bits >> 31 == 0 ? bits | 0x80000000u : ~bits;
}

int NETWORK_classify(const uint8_t *pixels)
{
    uint32_t scores[CLASSES];
    int i, best = 0;
    NETWORK_scores(pixels, scores);
    for (i = 1; i < CLASSES; i++)
        if (rank(scores[i]) > rank(scores[best]))
            best = i;
    return best;
}
