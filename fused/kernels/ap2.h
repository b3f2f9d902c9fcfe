// The power of two nearest to x, with its sign: the sign and exponent of a float alone are a power of
// two. The mantissa of sqrt(2) is 0x3504F3; adding 0x4AFB0C carries every larger mantissa into the
// exponent. A function, because the compiler does not vectorize a loop that copies memory.
static inline float ap2(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x4AFB0Cu) & 0xFF800000u;
    memcpy(&x, &bits, sizeof bits);
    return x;
}
