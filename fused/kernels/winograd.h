// Winograd's minimal filtering: the transforms of F(2x2, 3x3) and of F(4x4, 3x3) of Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks" (2016).
#pragma once

#include "images.h"

namespace convolution
{

// One-dimensional transforms. Two-dimensional transforms apply them to columns and then to rows.
// F(2, 3) evaluates polynomials at 0, 1, -1 and infinity.
template <int M>
struct Input; // B^T d
template <int M>
struct Filter; // G g
template <int M>
struct Output; // A^T m
template <int M>
struct OutputAdjoint; // A y
template <int M>
struct FilterAdjoint; // G^T u

template <>
struct Input<2> {
    enum { IN = 4, OUT = 4 };
    static void apply(const vec *d, vec *v)
    {
        v[0] = d[0] - d[2];
        v[1] = d[1] + d[2];
        v[2] = d[2] - d[1];
        v[3] = d[1] - d[3];
    }
};
template <>
struct Filter<2> {
    enum { IN = 3, OUT = 4 };
    static void apply(const vec *g, vec *u)
    {
        u[0] = g[0];
        u[1] = (g[0] + g[1] + g[2]) * 0.5f;
        u[2] = (g[0] - g[1] + g[2]) * 0.5f;
        u[3] = g[2];
    }
};
template <>
struct Output<2> {
    enum { IN = 4, OUT = 2 };
    static void apply(const vec *m, vec *y)
    {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
    }
};

// F(4, 3) at 0, ROOT / 2, -ROOT / 2, ROOT, -ROOT and infinity. Errors are a fifth of the errors
// with the points 0, 1, -1, 2, -2 and infinity.
static const float ROOT = 1.41421356f;

template <>
struct Input<4> {
    enum { IN = 6, OUT = 6 };
    static void apply(const vec *d, vec *v)
    {
        const vec even = d[4] - d[2] * 2.f, odd = (d[3] - d[1] * 2.f) * (ROOT / 2);
        const vec even2 = d[4] - d[2] * .5f, odd2 = (d[3] - d[1] * .5f) * ROOT;
        v[0] = d[0] - d[2] * 2.5f + d[4];
        v[1] = even + odd;
        v[2] = even - odd;
        v[3] = even2 + odd2;
        v[4] = even2 - odd2;
        v[5] = d[1] - d[3] * 2.5f + d[5];
    }
};
template <>
struct Filter<4> {
    enum { IN = 3, OUT = 6 };
    static void apply(const vec *g, vec *u)
    {
        const vec even = (g[0] + g[2] * .5f) * (-2.f / 3), odd = g[1] * (-ROOT / 3);
        const vec even2 = (g[0] + g[2] * 2.f) * (1.f / 6), odd2 = g[1] * (ROOT / 6);
        u[0] = g[0];
        u[1] = even + odd;
        u[2] = even - odd;
        u[3] = even2 + odd2;
        u[4] = even2 - odd2;
        u[5] = g[2];
    }
};
template <>
struct Output<4> {
    enum { IN = 6, OUT = 4 };
    static void apply(const vec *m, vec *y)
    {
        const vec sum = m[1] + m[2], difference = (m[1] - m[2]) * (ROOT / 2);
        const vec sum2 = m[3] + m[4], difference2 = (m[3] - m[4]) * ROOT;
        y[0] = m[0] + sum + sum2;
        y[1] = difference + difference2;
        y[2] = sum * .5f + sum2 * 2.f;
        y[3] = difference * .5f + difference2 * 2.f + m[5];
    }
};
template <>
struct OutputAdjoint<4> {
    enum { IN = 4, OUT = 6 };
    static void apply(const vec *y, vec *m)
    {
        const vec even = y[0] + y[2] * .5f, odd = (y[1] + y[3] * .5f) * (ROOT / 2);
        const vec even2 = y[0] + y[2] * 2.f, odd2 = (y[1] + y[3] * 2.f) * ROOT;
        m[0] = y[0];
        m[1] = even + odd;
        m[2] = even - odd;
        m[3] = even2 + odd2;
        m[4] = even2 - odd2;
        m[5] = y[3];
    }
};
template <>
struct FilterAdjoint<4> {
    enum { IN = 6, OUT = 3 };
    static void apply(const vec *u, vec *g)
    {
        const vec sum = (u[1] + u[2]) * (-2.f / 3), sum2 = (u[3] + u[4]) * (1.f / 6);
        g[0] = u[0] + sum + sum2;
        g[1] = (u[2] - u[1]) * (ROOT / 3) + (u[3] - u[4]) * (ROOT / 6);
        g[2] = sum * .5f + sum2 * 2.f + u[5];
    }
};

// out = F in F^T. Element (i, j) of in is at in + i * in_row + j * in_column, in floats; likewise
// for out.
template <class F>
static inline void transform(const float *in, long in_row, long in_column, float *out, long out_row,
                             long out_column)
{
    vec half[F::IN][F::OUT]; // column j of F in
#pragma GCC unroll 8
    for (int j = 0; j < F::IN; j++) {
        vec column[F::IN];
#pragma GCC unroll 8
        for (int i = 0; i < F::IN; i++)
            column[i] = *(const vec *)(in + i * in_row + j * in_column);
        F::apply(column, half[j]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < F::OUT; i++) {
        vec row[F::IN], result[F::OUT];
#pragma GCC unroll 8
        for (int j = 0; j < F::IN; j++)
            row[j] = half[j][i];
        F::apply(row, result);
#pragma GCC unroll 8
        for (int j = 0; j < F::OUT; j++)
            *(vec *)(out + i * out_row + j * out_column) = result[j];
    }
}

} // namespace convolution
