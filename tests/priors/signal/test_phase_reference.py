"""The phase that images are relative to: without poles, the same for all images of a slice, the object's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priors.signal.phase_reference import PhaseReference

SIZE = 48


def plane(depth: int = 1) -> list[np.ndarray]:
    """Coordinates z, y, x from -1 to 1."""
    return list(np.meshgrid(*(np.linspace(-1, 1, size) for size in (depth, SIZE, SIZE)), indexing="ij"))


def loops(depth: int = 1, coils: int = 6) -> torch.Tensor:
    """Maps (z, coil, y, x) of loops around the object: phases turn with the place, and each coil has zeros."""
    z, y, x = plane(depth)
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = [
        np.exp(-1j * a) * (x - 1.2 * np.cos(a) + 1j * (y - 1.2 * np.sin(a)))
        / ((x - 1.2 * np.cos(a)) ** 2 + (y - 1.2 * np.sin(a)) ** 2 + 0.3 + 0.2 * z**2) ** 2
        for a in angles
    ]  # fmt: skip
    stack = np.stack(maps, axis=1)
    return torch.from_numpy((stack / np.linalg.norm(stack, axis=1, keepdims=True)).astype(np.complex64))


def disc(depth: int = 1) -> np.ndarray:
    _, y, x = plane(depth)
    return (x**2 + y**2 < 0.8**2).astype(float)


def gauge(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Factors of modulus 1 and any phase, one a pixel."""
    turns = np.random.default_rng(seed).uniform(-np.pi, np.pi, shape)
    return torch.from_numpy(np.exp(1j * turns).astype(np.complex64))


def residues(image: np.ndarray, inside: np.ndarray) -> int:
    """Number of poles of the phase of an image (y, x)."""
    corners = [image[:-1, :-1], image[:-1, 1:], image[1:, 1:], image[1:, :-1]]
    turns = sum(np.angle(corners[(k + 1) % 4] * corners[k].conj()) for k in range(4))
    whole = inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, 1:] & inside[1:, :-1]
    return int(np.abs(np.rint(turns / (2 * np.pi)) * whole).sum())


@pytest.mark.parametrize("depth", [1, 6])
def test_maps_of_any_phase_give_a_smooth_image(depth: int) -> None:
    """Also readout positions of a volume, each of which has maps of a phase of its own."""
    maps = loops(depth)
    own = gauge(maps[:, 0].shape, 0)
    image = torch.from_numpy(disc(depth)).to(torch.complex64)
    found = PhaseReference.of(maps * own[:, None], image * own.conj()).phasor(maps * own[:, None]) * image * own.conj()
    inside = disc(depth).astype(bool)
    for axis in range(3):
        if found.shape[axis] > 1:
            ahead = np.take(found.numpy(), range(1, found.shape[axis]), axis)
            behind = np.take(found.numpy(), range(found.shape[axis] - 1), axis)
            both = np.take(inside, range(1, found.shape[axis]), axis) & np.take(
                inside, range(found.shape[axis] - 1), axis
            )
            assert np.abs(np.angle(ahead * behind.conj()))[both].max() < 0.35
    assert all(residues(one, inside[0]) == 0 for one in found.numpy())


def test_a_combination_of_coils_has_a_pole_where_this_has_none() -> None:
    """Two bottles that see different coils: no coil, and no combination of coils, has signal everywhere."""
    _, y, x = plane()
    vortex = (x + 0.4) + 1j * y
    maps = np.stack([vortex, np.full_like(vortex, 0.7), np.conj(vortex) * 0.2], axis=1)
    maps = torch.from_numpy((maps / np.linalg.norm(maps, axis=1, keepdims=True)).astype(np.complex64))
    image = torch.ones(1, SIZE, SIZE, dtype=torch.complex64)
    of_first_coil = maps[:, 0].angle()
    inside = np.ones((SIZE, SIZE), bool)
    assert residues(torch.polar(torch.ones_like(of_first_coil), of_first_coil)[0].numpy(), inside) == 1
    assert residues(PhaseReference.of(maps, image).phasor(maps)[0].numpy(), inside) == 0


def test_coils_without_phase_leave_the_phase_of_the_object() -> None:
    _, y, x = plane()
    truth = 2.5 * x * y + 3 * y**2
    maps = loops().abs().to(torch.complex64)
    own = gauge((1, SIZE, SIZE), 1)
    image = torch.from_numpy(disc() * np.exp(1j * truth)).to(torch.complex64) * own.conj()
    found = (PhaseReference.of(maps * own[:, None], image).phasor(maps * own[:, None]) * image).numpy()
    left = (found * np.exp(-1j * truth))[disc() > 0]
    np.testing.assert_allclose(np.angle(left / left[0]), 0, atol=1e-4)


def test_images_of_other_maps_of_the_slice_have_the_same_reference() -> None:
    """Differences of phase between repetitions are those of the object, whatever phase their maps came with."""
    _, y, x = plane()
    first, second = 2 * x, 2 * x + 1.5 * np.cos(2 * y)
    maps = loops()
    reference, found = None, []
    for number, truth in enumerate((first, second)):
        own = gauge((1, SIZE, SIZE), number)
        image = torch.from_numpy(disc() * np.exp(1j * truth)).to(torch.complex64) * own.conj()
        reference = reference or PhaseReference.of(maps * own[:, None], image)
        found.append((reference.phasor(maps * own[:, None]) * image).numpy())
    difference = np.angle(found[1] * found[0].conj() * np.exp(-1j * (second - first)))
    assert np.abs(difference[disc() > 0]).max() < 1e-4


@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (1, 3, 1, 2), (4, 2, 6, 5)])
def test_any_size(shape: tuple[int, ...]) -> None:
    maps = torch.randn(*shape, dtype=torch.complex64)
    for images in (torch.zeros(shape[0], *shape[2:]), torch.ones(shape[0], *shape[2:])):
        reference = PhaseReference.of(maps, images.to(torch.complex64))
        found = reference.phasor(maps)
        assert found.shape == images.shape and reference.fits(maps)
        np.testing.assert_allclose(found.abs().numpy(), 1, atol=1e-5)
    assert not reference.fits(torch.zeros(shape[0], shape[1] + 1, *shape[2:]))


def test_maps_that_are_zero_leave_the_phase_alone() -> None:
    maps = loops()
    maps[..., :20] = 0
    found = PhaseReference.of(maps, torch.ones(1, SIZE, SIZE, dtype=torch.complex64)).phasor(maps)
    assert bool((found[..., :20] == 1).all())


def test_the_mean_of_the_first_image_is_real_and_positive() -> None:
    maps = loops()
    _, _, x = plane()
    for turn in (0.0, 2.0, 3.1):
        image = torch.from_numpy(disc() * np.exp(1j * (turn + 0.5 * x))).to(torch.complex64)
        mean = (PhaseReference.of(maps, image).phasor(maps) * image).mean()
        assert abs(mean.angle()) < 0.02
