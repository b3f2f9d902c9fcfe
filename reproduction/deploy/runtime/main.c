#ifdef NETWORK_MAIN
/* Prints the class of each image in a file: IDX of uint8, not compressed, or raw pixels. */

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    static uint8_t pixels[PIXELS];
    const uint8_t idx[] = IDX_HEAD; /* of an IDX file, without the number of images */
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    uint8_t head[sizeof idx + 4];
    size_t size;
    if (file == NULL) {
        fprintf(stderr, "usage: %s FILE, of %d bytes an image or IDX; it must be readable\n",
                argv[0], PIXELS);
        return 2;
    }
    size = fread(head, 1, sizeof head, file);
    if (size < sizeof head || memcmp(head, idx, 4) != 0 ||
        memcmp(head + 8, idx + 4, sizeof idx - 4) != 0)
        rewind(file);
    while ((size = fread(pixels, 1, PIXELS, file)) == PIXELS)
        printf("%d\n", NETWORK_classify(pixels));
    if (size != 0 || ferror(file)) {
        fprintf(stderr, "%s: the last image has %d of %d bytes\n", argv[1], (int)size, PIXELS);
        return 2;
    }
    return fclose(file) == 0 && fflush(stdout) == 0 ? 0 : 2;
}
#endif
