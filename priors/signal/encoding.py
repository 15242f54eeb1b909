"""Agreement with the measured k-space: sample replacement per coil and the SENSE proximal step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from priors.signal.fourier import fft2c, ifft2c


class SenseOperator:
    r"""Multi-coil Cartesian encoding operator with one or more sets of coil maps.

    Parameters
    ----------
    maps : Tensor
        Coil maps, complex, shape (batch, set, coil, y, x).
    mask : Tensor
        Sampling mask (bool) or sample weights (float), shape (batch, 1, y, x) or anything that broadcasts to
        it.

    Raises
    ------
    ValueError
        If the shapes of `maps` and `mask` do not fit together.

    Notes
    -----
    :math:`A x = P F \sum_m S_m x_m` with the mask or weights P, the centred orthonormal Fourier transform F
    and the maps S; more than one set is the soft-SENSE model of ESPIRiT (Uecker et al., MRM 2014).
    """

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        if maps.ndim != 5:
            raise ValueError(f"maps: shape {tuple(maps.shape)} is not (batch, set, coil, y, x)")
        self.maps = maps
        self.mask = mask.to(dtype=maps.real.dtype, device=maps.device)
        batch, _, coils, height, width = maps.shape
        try:
            self.mask.expand(batch, coils, height, width)
        except RuntimeError as error:
            raise ValueError(
                f"mask: shape {tuple(mask.shape)} does not broadcast to (batch, 1, y, x) = {(batch, 1, height, width)}"
            ) from error
        # Image shifts are linear phases in k-space, which commute with the mask: only the mask is shifted.
        self._normal_weights = torch.fft.ifftshift(self.mask.expand(-1, -1, height, width) ** 2, dim=(-2, -1))

    def forward(self, image: Tensor) -> Tensor:
        """K-space of images.

        Parameters
        ----------
        image : Tensor
            Complex images, shape (batch, set, y, x).

        Returns
        -------
        Tensor
            K-space at the sampled positions, zero elsewhere, shape (batch, coil, y, x).
        """
        return self.mask * fft2c((self.maps * image.unsqueeze(2)).sum(1))

    def adjoint(self, kspace: Tensor) -> Tensor:
        """Coil-combined zero-filled images.

        Parameters
        ----------
        kspace : Tensor
            Complex k-space, shape (batch, coil, y, x).

        Returns
        -------
        Tensor
            Complex images, shape (batch, set, y, x).
        """
        return (self.maps.conj() * ifft2c(self.mask * kspace).unsqueeze(1)).sum(2)

    def right_side(self, kspace: Tensor) -> Tensor:
        r"""Right side of the normal equations of weighted least squares, :math:`S^H F^H P^2 y`.

        Parameters
        ----------
        kspace : Tensor
            Measured k-space y without weights, complex, shape (batch, coil, y, x).

        Returns
        -------
        Tensor
            Complex images, shape (batch, set, y, x): `normal` of the image that gives these data, for any weights.
        """
        return self.adjoint(self.mask * kspace)

    def normal(self, image: Tensor) -> Tensor:
        """Adjoint of the forward operator after the forward operator, without data shifts.

        Parameters
        ----------
        image : Tensor
            Complex images, shape (batch, set, y, x).

        Returns
        -------
        Tensor
            Complex images, shape (batch, set, y, x).
        """
        kspace = torch.fft.fft2((self.maps * image.unsqueeze(2)).sum(1))
        coil_images = torch.fft.ifft2(kspace.mul_(self._normal_weights))
        return (self.maps.conj() * coil_images.unsqueeze(1)).sum(2)

    def largest_eigenvalue(self, iterations: int = 10) -> Tensor:
        """Largest eigenvalue of the normal operator by power iteration.

        Parameters
        ----------
        iterations : int
            Number of power iterations.

        Returns
        -------
        Tensor
            Real eigenvalues, shape (batch,); zero where the maps or the mask are zero.
        """
        batch, sets, _, height, width = self.maps.shape
        vector = torch.ones(batch, sets, height, width, dtype=self.maps.dtype, device=self.maps.device)
        eigenvalue = _norm(vector)
        for _ in range(iterations):
            vector = self.normal(vector / _column(eigenvalue.clamp_min(torch.finfo(eigenvalue.dtype).tiny), vector))
            eigenvalue = _norm(vector)
        return eigenvalue


def check_maps(name: str, kspace: Tensor, maps: Tensor) -> None:
    """Raise ValueError, which begins with the name, when maps are not (batch, set, coil, y, x) for the k-space."""
    if maps.ndim != 5 or kspace.shape != (maps.shape[0], *maps.shape[2:]):
        raise ValueError(
            f"{name}: maps of shape {tuple(maps.shape)} are not (batch, set, coil, y, x) for k-space of "
            f"{tuple(kspace.shape)}"
        )


def _column(value: Tensor, image: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (image.ndim - 1))


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Real part of the inner product of every batch entry, shape (batch,)."""
    return torch.linalg.vecdot(_real_rows(left), _real_rows(right))


def _norm(image: Tensor) -> Tensor:
    """Norm of every batch entry, shape (batch,)."""
    return torch.linalg.vector_norm(_real_rows(image), dim=1)


def _real_rows(image: Tensor) -> Tensor:
    """Batch entries as real vectors: complex moduli are slow and not needed for norms."""
    return (torch.view_as_real(image) if image.is_complex() else image).flatten(1)


def conjugate_gradient(
    operator: Callable[[Tensor], Tensor],
    right_side: Tensor,
    initial: Tensor | None = None,
    iterations: int = 30,
    tolerance: float = 1e-4,
) -> Tensor:
    r"""Solve a Hermitian positive semi-definite system for every batch entry by conjugate gradients.

    Parameters
    ----------
    operator : callable
        Linear map from (batch, ...) to (batch, ...) that does not mix batch entries.
    right_side : Tensor
        Right side b, real or complex, shape (batch, ...).
    initial : Tensor, optional
        First estimate of the shape of `right_side`; zero if not given.
    iterations : int
        Most iterations.
    tolerance : float
        Stop when every residual norm is below this fraction of the norm of its right side; an entry that is
        there earlier is left as it is.

    Returns
    -------
    Tensor
        Solution x of the shape of `right_side`.

    Notes
    -----
    :math:`A x = b`; Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 1952.
    """
    solution = torch.zeros_like(right_side) if initial is None else initial.clone()
    residual = right_side.clone() if initial is None else right_side - operator(solution)
    target = (tolerance * _norm(right_side)) ** 2
    direction = residual.clone()
    energy = _dot(residual, residual)
    for _ in range(iterations):
        running = energy > target
        if not bool(running.any()):
            break
        mapped = operator(direction)
        curvature = _dot(direction, mapped)
        running = running & (curvature > 0)
        step = _column(torch.where(running, energy / torch.where(running, curvature, 1), 0), direction)
        solution = solution.add_(step * direction)
        residual = residual.sub_(step * mapped)
        previous, energy = energy, _dot(residual, residual)
        ratio = torch.where(running, energy / torch.where(running, previous, 1), 0)
        direction = residual + _column(ratio, direction) * direction
    return solution


def sense_proximal(
    operator: SenseOperator,
    kspace: Tensor,
    image: Tensor,
    weight: float | Tensor,
    iterations: int = 10,
    tolerance: float = 1e-4,
) -> Tensor:
    r"""Image closest to a given one that agrees with the measured k-space (SENSE proximal step).

    Parameters
    ----------
    operator : SenseOperator
        Encoding operator A.
    kspace : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
    image : Tensor
        Estimate of the prior, complex, shape (batch, set, y, x); also the first estimate of the solver.
    weight : float or Tensor
        Weight of the estimate, zero or above: one value, one for each batch entry, shape (batch,), or one for each
        sample of the images' k-space, shape (batch, 1, y, x).
    iterations : int
        Most conjugate gradient iterations.
    tolerance : float
        Relative residual at which the solver stops.

    Returns
    -------
    Tensor
        Complex images, shape (batch, set, y, x).

    Notes
    -----
    :math:`\arg\min_x \|P (F S x - y)\|_2^2 + w \|x - x_0\|_2^2` with the mask or weights P, solved from
    :math:`(A^H A + w) x = A^H P y + w x_0`.
    """
    weight = torch.as_tensor(weight, dtype=image.real.dtype, device=image.device)
    in_kspace = weight.ndim == 4 and weight.shape[-2:] != (1, 1)
    weight = weight if weight.ndim == 4 else weight.reshape(-1, 1, 1, 1)

    def weighted(x: Tensor) -> Tensor:
        return ifft2c(weight * fft2c(x)) if in_kspace else weight * x

    right_side = operator.right_side(kspace) + weighted(image)
    return conjugate_gradient(lambda x: operator.normal(x) + weighted(x), right_side, image, iterations, tolerance)


def replace_samples(estimate: Tensor, measured: Tensor, mask: Tensor) -> Tensor:
    r"""Replace the sampled positions of a k-space estimate by the measured samples.

    Parameters
    ----------
    estimate : Tensor
        Complex k-space, shape (batch, coil, y, x).
    measured : Tensor
        Measured k-space of the same shape.
    mask : Tensor
        Sampling mask (bool), or weights from 0 to 1 (float), that broadcasts to the k-space.

    Returns
    -------
    Tensor
        Complex k-space of the shape of `estimate`: :math:`(1 - P) k + P y`.
    """
    if mask.dtype == torch.bool:
        return torch.where(mask, measured, estimate)
    return estimate + mask * (measured - estimate)
