"""An unrolled reconstruction: a small network and the solution of the data's normal equations in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from priors.learning.convolutional import ConvolutionalArchitecture, convolutional_network
from priors.learning.networks import check_whole_numbers
from priors.signal.encoding import SenseOperator, conjugate_gradient

TOLERANCE = 1e-6  # relative residual at which the data step is solved
FIRST_WEIGHT = 0.05  # of the network's image against the data, before training


@dataclass(frozen=True)
class UnrolledArchitecture:
    """Everything that decides the shapes and the meaning of the weights of an `UnrolledNetwork`.

    Parameters
    ----------
    denoiser : ConvolutionalArchitecture
        Network of every turn, the same one; two channels, the real and imaginary parts.
    turns : int
        How often network and data step take turns.
    cg_iterations : int
        Most iterations of conjugate gradients of a data step.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    denoiser: ConvolutionalArchitecture = field(default_factory=lambda: ConvolutionalArchitecture("dn_cnn", 2, 5, 48))
    turns: int = 6
    cg_iterations: int = 10

    def __post_init__(self) -> None:
        check_whole_numbers(self, turns=64, cg_iterations=1000)
        if self.denoiser.channels != 2:
            raise ValueError(f"architecture: a denoiser of {self.denoiser.channels} channels; complex images have 2")


class UnrolledNetwork(nn.Module):
    r"""Reconstruction by a fixed number of turns of a network D and of the SENSE data step.

    Parameters
    ----------
    architecture : UnrolledArchitecture
        Shapes and number of turns.

    Notes
    -----
    From :math:`x_0 = A^H y`: :math:`z_k = D(x_k)`, :math:`x_{k+1} = \arg\min_x \|A x - y\|^2 + \lambda \|x - z_k\|^2`
    with :math:`A = P F S` and one D and one learnt :math:`\lambda` for all turns (MoDL, Aggarwal et al., IEEE TMI
    2019). All is divided by the root mean square of :math:`x_0`, so that the images scale with the data.
    """

    def __init__(self, architecture: UnrolledArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.denoiser = convolutional_network(architecture.denoiser)
        self.log_weight = nn.Parameter(torch.tensor(math.log(FIRST_WEIGHT)))

    def forward(self, kspace: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
        """Images that the last data step ends at.

        Parameters
        ----------
        kspace : Tensor
            Measured k-space, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
        mask : Tensor
            Sampling mask, shape (batch, 1, y, x) or broadcasting to it.
        maps : Tensor
            Coil maps, complex, shape (batch, set, coil, y, x).

        Returns
        -------
        Tensor
            Complex images, shape (batch, set, y, x), zero where a set has no maps.
        """
        operator = SenseOperator(maps, mask)
        right_side = operator.right_side(torch.where(mask.to(torch.bool), kspace, 0))
        support = (maps != 0).any(2)
        level = right_side.abs().square().mean((1, 2, 3), keepdim=True).sqrt()
        images = right_side / torch.where(level > 0, level, 1)
        right_side = images
        for _ in range(self.architecture.turns):
            estimate = torch.where(support, self._denoised(images), 0)
            images = data_step(operator, right_side, estimate, self.log_weight.exp(), self.architecture.cg_iterations)
        return images * level

    def _denoised(self, images: Tensor) -> Tensor:
        """The network on the images (batch, set, y, x), each set by itself."""
        planes = torch.view_as_real(images.flatten(0, 1)).movedim(-1, 1)
        found = self.denoiser(planes.contiguous()).to(planes.dtype)
        return torch.complex(found[:, 0], found[:, 1]).reshape(images.shape)


def data_step(operator: SenseOperator, right_side: Tensor, estimate: Tensor, weight: Tensor, iterations: int) -> Tensor:
    r"""Image nearest to an estimate that agrees with the data, differentiable in the estimate and in its weight.

    Parameters
    ----------
    operator : SenseOperator
        Encoding operator A.
    right_side : Tensor
        :math:`A^H y`, complex, shape (batch, set, y, x).
    estimate : Tensor
        Estimate z, of the same shape.
    weight : Tensor
        Weight :math:`\lambda` above zero, shape ().
    iterations : int
        Most iterations of conjugate gradients, of the solution and again of its gradient.

    Returns
    -------
    Tensor
        :math:`x = (A^H A + \lambda)^{-1} (A^H y + \lambda z)`.

    Notes
    -----
    The gradient g of x becomes :math:`v = (A^H A + \lambda)^{-1} g` of A^H y, :math:`\lambda v` of z and
    :math:`\Re \langle v, z - x \rangle` of :math:`\lambda`: no iteration is kept (Aggarwal et al., IEEE TMI 2019).
    """
    found: Tensor = _Solution.apply(operator, right_side, estimate, weight, iterations)
    return found


class _Solution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operator: SenseOperator, right_side: Tensor, estimate: Tensor, weight: Tensor, iterations: int
    ) -> Tensor:
        ctx.operator, ctx.iterations = operator, iterations
        solution = _solved(operator, right_side + weight * estimate, weight, iterations, estimate)
        ctx.save_for_backward(solution, estimate, weight)
        return solution

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        solution, estimate, weight = ctx.saved_tensors
        pulled = _solved(ctx.operator, gradient, weight, ctx.iterations)
        of_weight = (pulled.conj() * (estimate - solution)).real.sum().reshape(weight.shape)
        return None, pulled, weight * pulled, of_weight, None


def _solved(
    operator: SenseOperator, right_side: Tensor, weight: Tensor, iterations: int, initial: Tensor | None = None
) -> Tensor:
    return conjugate_gradient(
        lambda x: operator.normal(x) + weight * x, right_side.contiguous(), initial, iterations, TOLERANCE
    )
