"""The preprocessing of the published experiments, as functions of arrays that return new arrays.

MNIST is centred. CIFAR-10 gets global contrast normalization and ZCA whitening, SVHN gets global
and then local contrast normalization.
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
    """2 pixel - 255 for every pixel, rounded to an integer, as float32 of the same shape."""
    return np.rint(np.asarray(images, np.float32)) * np.float32(2) - np.float32(255)


def global_contrast_normalize(images, scale=1.0):
    """Each image minus its mean over pixels and channels, divided by its norm, times `scale`.

    A constant image (norm below 1e-8 `scale`) becomes zero.

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

    The matrix is E (D + filter_bias)^(-1/2) E^T, where E and D are the eigenvectors and eigenvalues
    of the covariance of the images. The covariance is summed in float64, because rounding errors in
    float32 come near `filter_bias`.

    Parameters
    ----------
    images : array of shape (n, ...) with d values per image
    filter_bias : float
        Added to the eigenvalues; 0.1 in the released code.
    block : int
        Images per block; each takes 8 d bytes of memory.

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
    """Images whitened by the mean and the matrix of `fit_zca`.

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
    """LeCun's local contrast normalization of some channels, separately; others do not change.

    From each pixel, the Gaussian mean of its 7x7 neighborhood is subtracted. The difference is
    divided by the largest of three numbers: the Gaussian root mean square of the pixels in the
    neighborhood (as in the released code, not of their differences from the mean), the average of
    these root mean squares over the image, and `threshold`. Pixels outside the image count as zero.
    The Gaussian (standard deviation 2, sum 1) is separable, so its convolution is a product with a
    band matrix from each side.

    Parameters
    ----------
    images : array of shape (n, channels, size, size)
    channels : list of int, optional
        Channels to normalize; the default is all. The released code normalizes only [0], because it
        returns inside its loop over channels.
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


# Preprocessing of pixels: the function, and its description in the records.
PIXELS = {
    "centred": (
        lambda images: center(np.asarray(images, np.float32) / np.float32(255)),
        "pixels / 255 minus the mean image (of training and validation; the test set: its own)",
    ),
    "signed": (signed, "2 pixel - 255, divided by 255 after the first layer's sum"),
}
