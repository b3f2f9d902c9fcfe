/* A network of binary weights: additions and subtractions of the inputs by the signs of the weights,
   then one multiplication and one addition for each unit. A bit is 1 for a weight +1 and 0 for -1. */

struct layer {
    const uint32_t *weights; /* each unit begins a new word */
    const float *scale, *shift;
    int32_t inputs, units, rectify;
};

static const struct layer layers[LAYERS] = {LAYER_TABLE};

static void run(const struct layer *layer, const float *inputs, float *outputs)
{
    const uint32_t *weights = layer->weights;
    int32_t unit, i;
    for (unit = 0; unit < layer->units; unit++, weights += (layer->inputs + 31) / 32) {
        float sum = 0;
        for (i = 0; i < layer->inputs; i++)
            sum += (weights[i / 32] >> (i % 32) & 1) ? inputs[i] : -inputs[i];
        sum = sum * layer->scale[unit] + layer->shift[unit];
        outputs[unit] = layer->rectify && sum < 0 ? 0 : sum;
    }
}

void NETWORK_scores(const uint8_t *pixels, float *scores)
{
    float buffers[2][BUFFER];
    int32_t i;
    for (i = 0; i < PIXELS; i++)
        buffers[0][i] = (float)pixels[i] / 255 - mean[i];
    for (i = 0; i < LAYERS; i++)
        run(&layers[i], buffers[i % 2], i < LAYERS - 1 ? buffers[(i + 1) % 2] : scores);
}

int NETWORK_classify(const uint8_t *pixels)
{
    float scores[CLASSES];
    int i, best = 0;
    NETWORK_scores(pixels, scores);
    for (i = 1; i < CLASSES; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}
