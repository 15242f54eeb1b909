"""The data step of any linear operator, for instance the projections of CT."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from priors.data_steps.step import DataStep
from priors.domains import Domain
from priors.signal.encoding import conjugate_gradient
from priors.signal.fourier import fft2c, ifft2c

CG_ITERATIONS, CG_TOLERANCE = 50, 1e-6
FIRST_ITERATIONS = 10  # of least squares, for the first estimate


class LinearStep(DataStep):
    r"""Agreement of images with the data of a linear operator, by the exact proximal step.

    Parameters
    ----------
    forward, adjoint : callable
        Operator A from complex images (batch, array, y, x) to data (batch, ...), and its adjoint.
    data : Tensor
        Measured data y, shape (batch, ...).
    noise : Tensor
        Standard deviation of the noise of the data in each part, shape (batch,), above zero.
    domain : Domain
        Domain of the prior, for its metric.

    Notes
    -----
    :math:`x = \arg\min_x \|A x - y\|_2^2 / \sigma_y^2 + \|W x - W x_0\|_2^2 / \tau` by conjugate gradients, with the
    variance :math:`\tau` of the prior's step in its domain.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
        data: Tensor,
        noise: Tensor,
        domain: Domain,
    ) -> None:
        self._forward, self._adjoint = forward, adjoint
        self._back_projection = adjoint(data)
        self._noise, self._domain = noise, domain

    def begin(self) -> Tensor:
        self.moved = True
        return conjugate_gradient(
            lambda x: self._adjoint(self._forward(x)), self._back_projection, iterations=FIRST_ITERATIONS
        )

    def __call__(self, images: Tensor, variance: Tensor) -> Tensor:
        self.moved = False
        metric = self._domain.metric(images.shape[-2], images.shape[-1], images.device)
        ratio = (self._noise.double() ** 2 / variance.to(self._noise.device)).float().reshape(-1, 1, 1, 1) * metric

        def prior_term(x: Tensor) -> Tensor:
            return ratio * x if metric.ndim == 0 else ifft2c(ratio * fft2c(x))

        return conjugate_gradient(
            lambda x: self._adjoint(self._forward(x)) + prior_term(x),
            self._back_projection + prior_term(images),
            images,
            CG_ITERATIONS,
            CG_TOLERANCE,
        )
