// 3x3 convolutions of +-1 and of pixels; see xnor.py and counts.h.
#include "patches.h"
#include "planes.h"

namespace xnor
{

// Patches of the 8 planes of pixels [batch][channels][height][width], with bits (tap, channel).
struct PixelPatches : Patches {
    const uint8_t *data;
    long channels;
    long scratch(long n) const
    {
        return Patches::scratch(n) + 8 * words; // the bytes of a patch
    }
    const uint64_t *rows(long first, long end, uint64_t *scratch) const
    {
        uint8_t *bytes = (uint8_t *)(scratch + Patches::scratch(end - first));
        const long area = height * width;
        for (long pixel = first; pixel < end; pixel++) {
            for (int tap = 0; tap < 9; tap++) {
                const long from = source(pixel, tap);
                uint8_t *to = bytes + tap * channels;
                if (from < 0) {
                    memset(to, 0, channels);
                    continue;
                }
                const uint8_t *image = data + from / area * channels * area + from % area;
                for (long c = 0; c < channels; c++)
                    to[c] = image[c * area];
            }
            split_planes(bytes, 9 * channels, words, scratch + (pixel - first) * 8 * words);
        }
        return scratch;
    }
};

// The convolution of `batch` images of that source.
template <class Source>
static void convolve_patches(const Source &source, long batch, PyArrayObject *panels, long channels,
                             long step, long filters, PyArrayObject **out)
{
    check_sums(9 * channels, source.planes);
    const fused::Array<uint64_t> array(panels);
    const Weights w(array, filters, source.words);
    int32_t *to = fused::prepare<int32_t>(out, {batch, source.height, source.width, filters});
    multiply(source, batch * source.height * source.width, w,
             border(w, channels, step, source.planes), to);
}

static void convolve(PyArrayObject *bits, PyArrayObject *panels, PyArrayObject **out, long channels,
                     long filters)
{
    const fused::Array<uint64_t> images(bits);
    const long size = images.dim(3);
    if (size != fused::ceil_div(channels, 64))
        fused::raise_value_error("xnor: pixels of %ld words do not hold %ld channels", size,
                                 channels);
    BitPatches source;
    (Patches &)source = {images.dim(1), images.dim(2), 9 * size, 1};
    source.data = images.data();
    convolve_patches(source, images.dim(0), panels, channels, 64 * size, filters, out);
}

static void convolve_pixels(PyArrayObject *pixels, PyArrayObject *panels, PyArrayObject **out,
                            long channels, long filters)
{
    const fused::Array<uint8_t> images(pixels);
    if (images.dim(1) != channels)
        fused::raise_value_error("xnor: images have %ld channels, expected %ld", images.dim(1),
                                 channels);
    PixelPatches source;
    (Patches &)source = {images.dim(2), images.dim(3), fused::ceil_div(9 * channels, 64), 8};
    source.data = images.data();
    source.channels = channels;
    convolve_patches(source, images.dim(0), panels, channels, channels, filters, out);
}

} // namespace xnor
