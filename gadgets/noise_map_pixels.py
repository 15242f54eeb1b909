"""Pixels of SNR and g-factor maps, on the matrix of the images at the chain's end."""

from __future__ import annotations

from typing import Any

import numpy as np

from gadgets.buffers import image_from_problems, is_3d
from gadgets.image_headers import recon_steps
from gadgets.outputs import SNR, Output
from gadgets.solvers.work import BufferWork, ImageWork
from gadgets.twins.field_of_view import adjustment_gain, centre_resized, resize_image

Array = np.ndarray[Any, np.dtype[Any]]

HIGHEST_G = 32.0  # stands for all above, so that 16 bit hold g at its gain


def noise_map_pixels(output: Output, work: BufferWork, image: ImageWork) -> Array:
    """Values of a noise map: float32 [RO, E1, E2] on the reconstructed matrix; 0 where the method has no image.

    The chain's GenericReconFieldOfViewAdjustmentGadget interpolates images by the Fourier transform, which maps with an
    edge must not go through. The SNR is that of the image after it: interpolated by zeros in k-space it keeps its SNR;
    where the outer k-space is cut off, its noise is less. Deviations are interpolated linearly between pixels.

    Parameters
    ----------
    output : SNR or GFACTOR
    work : buffer of the image
    image : with noise maps, whose level is known for SNR
    """
    maps = image.noise_maps
    assert maps is not None
    buffer, three_d = work.bit.data, is_3d(work.data)
    steps = recon_steps(buffer)
    matrix = final_matrix(work)
    deviation = image_from_problems(maps.deviation, three_d)
    shape = work.data.shape[:3]
    noise_gain = 1.0
    image_on_grid = image_from_problems(maps.images, three_d)
    for step in steps:
        if all(new >= old for new, old in zip(step, shape, strict=True)):
            noise_gain *= adjustment_gain(shape, [step])  # white noise stays as it is where k-space is cropped
        image_on_grid, shape = resize_image(image_on_grid, step), step
    deviation = centre_resized(resampled(deviation, shape), matrix)
    if output is not SNR:
        return np.minimum(deviation / (maps.fully_sampled or 1.0), HIGHEST_G).astype(np.float32)
    noise = deviation * (noise_gain * maps.level)
    magnitude = np.abs(centre_resized(image_on_grid, matrix))
    return np.divide(magnitude, noise, out=np.zeros_like(noise), where=noise > 0).astype(np.float32)


def final_matrix(work: BufferWork) -> tuple[int, int, int]:
    """Matrix of the images of a buffer at the chain's end."""
    if not recon_steps(work.bit.data):
        x, y, z = work.data.shape[:3]
    else:
        x, y, z = (int(size) for size in work.bit.data.sampling.recon_matrix)
    return (x, y, z if is_3d(work.data) else 1)


def resampled(values: Array, shape: tuple[int, ...]) -> Array:
    """Interpolate values to another matrix of the same field of view, linearly and as if periodic.

    Zeros are no values: they take no part, and stay where they are nearer than values.

    Parameters
    ----------
    values : real array of non-negative numbers, any number of axes
    shape : new sizes; the centre is pixel n // 2 of old and new
    """
    if values.shape == tuple(shape):
        return values
    weight = (values > 0).astype(np.float64)
    found = values.astype(np.float64)
    for axis, size in enumerate(shape):
        old = values.shape[axis]
        if old == size:
            continue
        place = (np.arange(size) - size // 2) * (old / size) + old // 2
        before = np.floor(place).astype(int)
        share = (place - before).reshape([-1 if other == axis else 1 for other in range(values.ndim)])
        found, weight = (
            array.take(before % old, axis) * (1 - share) + array.take((before + 1) % old, axis) * share
            for array in (found, weight)
        )
    result: Array = np.divide(found, weight, out=np.zeros_like(found), where=weight >= 0.5)
    return result
