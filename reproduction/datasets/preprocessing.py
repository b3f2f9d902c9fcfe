"""What the published experiments do to images. Arrays in, new arrays out.

MNIST: centring. CIFAR-10: global contrast normalization, ZCA whitening. SVHN: global, then local
contrast normalization.
"""

import numpy as np

THRESHOLD = 1e-4  # smallest divisor of local contrast normalization


def center(images):
    """Images minus their mean image.

    Parameters
    ----------
    images : array of shape (n, ...)

    Returns
    -------
    float32 array of the same shape
    """
    mean = np.mean(images, axis=0, dtype=np.float64)
    return np.subtract(images, mean.astype(np.float32), dtype=np.float32)


def signed(images):
    """2 pixel - 255 of every pixel, rounded to an integer: float32 of the same shape."""
    return np.rint(np.asarray(images, np.float32)) * np.float32(2) - np.float32(255)


def global_contrast_normalize(images, scale=1.0):
    """Each image minus its mean over pixels and channels, divided by its norm, times `scale`.

    An image of one value only (norm below 1e-8 `scale`) has nothing to normalize and becomes zero.

    Parameters
    ----------
    images : array of shape (n, ...)
    scale : float
        Norm of the resulting images: 55 for CIFAR-10, 1 for SVHN (released code).

    Returns
    -------
    float32 array of the same shape
    """
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows)) / np.float32(scale)
    norms[norms < 1e-8] = 1
    rows /= norms[:, np.newaxis]
    return rows.reshape(images.shape)


def fit_zca(images, filter_bias=0.1, block=5000):
    """Mean image and whitening matrix of the zero-phase component analysis of `images`.

    The matrix is E (D + filter_bias)^(-1/2) E^T with E and D the eigenvectors and eigenvalues of
    the covariance of the images. The covariance is summed in float64, because in float32 its
    rounding errors come near `filter_bias`.

    Parameters
    ----------
    images : array of shape (n, ...) with d values per image
    filter_bias : float
        Released code: 0.1.
    block : int
        Images per block, 8 d bytes of memory each.

    Returns
    -------
    mean : float64 array of shape (d,)
    matrix : float64 array of shape (d, d), symmetric
    """
    rows = images.reshape(len(images), -1)
    mean = rows.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(rows), block):
        centered = rows[start : start + block] - mean
        covariance += centered.T @ centered
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / len(rows))
    return mean, (eigenvectors / np.sqrt(eigenvalues + filter_bias)) @ eigenvectors.T


def whiten(images, mean, matrix):
    """Images whitened by what `fit_zca` found.

    Parameters
    ----------
    images : array of shape (n, ...) with d values per image
    mean : array of shape (d,)
    matrix : array of shape (d, d)

    Returns
    -------
    float32 array of the shape of `images`
    """
    rows = images.reshape(len(images), -1) - mean.astype(np.float32)
    return (rows @ matrix.astype(np.float32)).reshape(images.shape)


def gaussian_band(size):
    """The band matrix of the Gaussian of `local_contrast_normalize`, float32 (size, size)."""
    distance = np.arange(size) - np.arange(size)[:, np.newaxis]
    weights = np.exp(-(distance**2) / 8.0) * (abs(distance) <= 3)
    return (weights / np.exp(-(np.arange(-3, 4) ** 2) / 8.0).sum()).astype(np.float32)


def local_contrast_normalize(images, channels=None, threshold=THRESHOLD):
    """LeCun's local contrast normalization of some channels, each by itself; others pass unchanged.

    Each pixel minus the Gaussian mean of its 7x7 neighbourhood, divided by the Gaussian root mean
    square of the neighbourhood (in the released code that of the pixels, not of their differences
    from the mean), or by that of the image on average where this is larger, and by no less than
    `threshold`. Outside the image is zero. The Gaussian (standard deviation 2, sum 1) is separable:
    its convolution is a product with a band matrix from each side.

    Parameters
    ----------
    images : array of shape (n, channels, size, size)
    channels : list of int, optional
        Channels to normalize, default all. The released code normalizes [0] only: it returns inside
        its loop over channels.
    threshold : float
        Smallest divisor.

    Returns
    -------
    float32 array of the same shape
    """
    band = gaussian_band(images.shape[-1])
    result = images.astype(np.float32)
    for channel in range(images.shape[1]) if channels is None else channels:
        pixels = result[:, channel]
        rms = np.sqrt(band @ np.square(pixels) @ band)
        divisor = np.maximum(rms, rms.mean(axis=(1, 2), keepdims=True))
        result[:, channel] = (pixels - band @ pixels @ band) / np.maximum(
            divisor, np.float32(threshold)
        )
    return result


# What is done to pixels of MNIST's kind: the function, and its description in records.
PIXELS = {
    "centred": (
        lambda images: center(np.asarray(images, np.float32) / np.float32(255)),
        "pixels / 255 minus the mean image (of training and validation; the test set: its own)",
    ),
    "signed": (signed, "2 pixel - 255, divided by 255 after the first layer's sum"),
}
