#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An image is $PIXELS bytes from 0 to 255: $SHAPE (channels, rows, columns). */

/* The class of an image, from 0 to $CLASSES - 1. */
int NETWORK_classify(const uint8_t *pixels);

/* $CLASSES scores of an image$SCORES. */
void NETWORK_scores(const uint8_t *pixels, $SCORE *scores);

#ifdef __cplusplus
}
#endif

#endif
