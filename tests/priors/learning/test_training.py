"""Training: loss, variation of the images, the run and its resumption."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from priors.learning.augmentation import Augmentation, augmented_batch, with_detailed_phase
from priors.learning.networks import Architecture, EdmDenoiser
from priors.learning.noise_schedule import LogNormalSigma
from priors.learning.trainer import Trainer, forgotten
from priors.learning.training import ImageCrops, TrainingSettings, denoising_loss, denoising_trainer
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.weighting import Weighting

ARCHITECTURE = Architecture(8, (1, 2), groups=4, sigma_data=0.15)
PLAIN = Augmentation(
    flips_and_turns=False, affine=0.0, scale=(1.0, 1.0), smooth_phase=0.0, detailed_phase=0.0, removed_phase=0.0,
    shading=0.0, contrast=0.0, resolution=0.0,
)  # fmt: skip


def discs(count: int = 4, height: int = 32, width: int = 32) -> torch.Tensor:
    """Complex pictures of discs, their maximum 1."""
    y, x = torch.arange(height)[:, None] - height // 2, torch.arange(width) - width // 2
    radii = torch.linspace(0.15, 0.4, count)[:, None, None] * min(height, width)
    pictures = ((y.square() + (x + 2).square()).sqrt() < radii) + 0.5 * ((y - 3).square() + x.square() < 9)
    return (pictures / pictures.amax((-2, -1), keepdim=True)).to(torch.complex64)


def settings(**values: Any) -> TrainingSettings:
    standard: dict[str, Any] = {
        "steps": 12, "batch": 2, "crop": 16, "bf16": False, "warm_up": 2, "ema": 0.9, "learning_rate": 3e-3
    }  # fmt: skip
    return TrainingSettings(**(standard | values))


def model() -> EdmDenoiser:
    torch.manual_seed(0)
    return EdmDenoiser(ARCHITECTURE)


def trainer_of(network: EdmDenoiser, images: torch.Tensor, run: TrainingSettings, path: Path | None = None) -> Trainer:
    return denoising_trainer(network, ImageCrops(images, Weighting(), run), run, path)


def weights(module: EdmDenoiser) -> torch.Tensor:
    return torch.cat([value.flatten() for value in module.state_dict().values()])


def test_plain_batch_is_weighted_kspace() -> None:
    images, weighting = discs(1), Weighting()
    batch = augmented_batch(images, weighting, PLAIN, 3, 64, torch.Generator())
    expected = weighting.weight(fft2c(images)).expand(3, -1, -1)
    torch.testing.assert_close(batch, expected, rtol=1e-4, atol=1e-5)


def test_crops_are_parts_of_the_weighted_image() -> None:
    images, weighting = discs(1), Weighting()
    whole = ifft2c(weighting.weight(fft2c(images)))[0]
    crops = ifft2c(augmented_batch(images, weighting, PLAIN, 20, 12, torch.Generator()))
    places = whole.unfold(0, 12, 1).unfold(1, 12, 1).reshape(-1, 12, 12)
    distance = torch.stack([(places - crop).abs().amax((-2, -1)).min() for crop in crops])
    assert distance.max() < 1e-5
    assert len({int((places - crop).abs().amax((-2, -1)).argmin()) for crop in crops}) > 5


def test_several_crops_of_each_varied_image() -> None:
    scaled = dataclasses.replace(PLAIN, scale=(0.3, 1.2))
    flat = torch.ones(1, 64, 64, dtype=torch.complex64)
    crops = augmented_batch(flat, Weighting(1, 1, 1, 0), scaled, 8, 16, torch.Generator(), crops_of_each=3)
    scales = ifft2c(crops).abs().mean((-2, -1))
    assert len(crops) == 8
    torch.testing.assert_close(scales, scales[[0, 0, 0, 3, 3, 3, 6, 6]])
    assert len({round(float(scale), 4) for scale in scales}) == 3


@pytest.mark.parametrize("shape", [(32, 32), (20, 32)])
def test_variations(shape: tuple[int, int]) -> None:
    images = discs(1, *shape)
    base = ifft2c(augmented_batch(images, Weighting(), PLAIN, 1, 64, torch.Generator()))[0]

    def varied(count: int = 12, **values: Any) -> torch.Tensor:
        fields = {name: getattr(PLAIN, name) for name in PLAIN.__dataclass_fields__} | values
        generator = torch.Generator().manual_seed(0)
        return ifft2c(augmented_batch(images, Weighting(), Augmentation(**fields), count, 64, generator))

    scaled = varied(scale=(0.5, 2.0)) / base.abs().max()
    peaks = scaled.abs().amax((-2, -1))
    assert 0.5 <= peaks.min() < 0.8 and 1.5 < peaks.max() <= 2.01
    flipped = varied(flips_and_turns=True)
    torch.testing.assert_close(flipped.abs().sum((-2, -1)), base.abs().sum().expand(12), rtol=1e-4, atol=0)
    kinds = {tuple(picture.abs().flatten()[::7].mul(1e3).round().tolist()) for picture in flipped}
    assert len(kinds) >= (4 if shape[0] != shape[1] else 6)
    for values in ({"smooth_phase": 2.0}, {"shading": 1.0}, {"contrast": 1.0}, {"affine": 1.0}, {"resolution": 1.0}):
        other = varied(**values)
        assert other.shape == (12, *shape)
        assert (other - base).norm(dim=(-2, -1)).min() > 1e-3 * base.norm()
        assert bool(torch.isfinite(torch.view_as_real(other)).all())


def test_low_resolution_phase_is_taken_away_from_a_fraction() -> None:
    generator = torch.Generator()
    weighting = Weighting(slope=1.0, p=0.0)

    def imaginary_share(removed: float) -> torch.Tensor:
        augmentation = dataclasses.replace(PLAIN, smooth_phase=2.0, removed_phase=removed)
        generator.manual_seed(0)
        batch = ifft2c(augmented_batch(discs(1), weighting, augmentation, 20, 64, generator, phase_width=16))
        return batch.imag.norm(dim=(-2, -1)) / batch.abs().norm(dim=(-2, -1))

    assert imaginary_share(1.0).max() < 0.1
    assert 4 <= int((imaginary_share(0.5) < 0.1).sum()) <= 16
    assert imaginary_share(0.0).median() > 0.3


def test_resolution_takes_high_frequencies_only() -> None:
    images, weighting = discs(1), Weighting(slope=1.0, p=0.0)
    whole = fft2c(images)[0].abs()
    augmentation = dataclasses.replace(PLAIN, resolution=1.0)
    batch = augmented_batch(images, weighting, augmentation, 10, 64, torch.Generator()).abs()
    middle = slice(whole.shape[0] // 2 - 1, whole.shape[0] // 2 + 2)
    torch.testing.assert_close(batch[:, middle, middle], whole[middle, middle].expand(10, 3, 3), rtol=0.05, atol=1e-4)
    assert int((batch[:, 0].norm(dim=-1) < 0.7 * whole[0].norm()).sum()) >= 5
    assert bool((batch <= whole + 1e-4).all())


def test_zoom_changes_the_size() -> None:
    images, weighting = discs(1), Weighting(slope=1.0, p=0.0)
    area = float((images[0].abs() > 0.5).sum())
    for zoom in (0.7, 1.3):
        augmentation = dataclasses.replace(PLAIN, affine=1.0, zoom=(zoom, zoom))
        batch = ifft2c(augmented_batch(images, weighting, augmentation, 4, 64, torch.Generator())).abs()
        areas = (batch > 0.5).sum((-2, -1)) / area
        torch.testing.assert_close(areas, torch.full((4,), zoom**2), rtol=0.15, atol=0)


def test_contrast_keeps_the_background_empty_and_stays_below_one() -> None:
    images = discs(1)
    weighting = Weighting(slope=1.0, p=0.0)
    augmentation = dataclasses.replace(PLAIN, contrast=1.0)
    pictures = ifft2c(augmented_batch(images, weighting, augmentation, 10, 64, torch.Generator()))
    background = (images[0] == 0).expand_as(pictures)
    assert pictures[background].abs().max() < 1e-5
    assert pictures.abs().max() <= 1.0001


def test_magnitudes_get_a_phase_with_detail_and_images_with_one_keep_theirs() -> None:
    magnitudes = torch.cat((discs(), discs())).abs().to(torch.complex64)
    images = torch.cat((magnitudes, 1j * magnitudes[:1]))
    found = with_detailed_phase(images, 0.2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[-1], images[-1])
    torch.testing.assert_close(found.abs(), images.abs())
    for one in found[:-1]:
        phase = one[one.abs() > 0.5].angle()
        assert 0 < phase.std() < 0.4
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("copies", [1, 3])
def test_loss_of_known_denoisers(copies: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sigma_data = 0.2
    clean = sigma_data * math.sqrt(2) * torch.randn(4, 64, 64, dtype=torch.complex64, generator=generator)
    noise = math.sqrt(2) * torch.randn(4, copies, 64, 64, dtype=torch.complex64, generator=generator)
    sigma = torch.tensor([0.01, 0.1, 0.5, 2.0])

    class Linear(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            return noisy * (sigma_data**2 / (level.square() + sigma_data**2)).reshape(-1, 1, 1, 1)

    class Perfect(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            return clean[:, None].expand_as(noisy)

    # White Gaussian data have no structure: the linear shrinkage is the best there is, of loss 1.
    assert denoising_loss(Linear(), clean, sigma, noise, sigma_data).item() == pytest.approx(1, rel=0.02)
    assert denoising_loss(Perfect(), clean, sigma, noise, sigma_data).item() == 0


@pytest.mark.parametrize(("parameterisation", "fraction"), [("kspace", 0.97), ("fourier_conjugate", 0.85)])
def test_training_lowers_the_loss(parameterisation: Any, fraction: float) -> None:
    torch.manual_seed(0)
    network = EdmDenoiser(dataclasses.replace(ARCHITECTURE, parameterisation=parameterisation))
    sigma = LogNormalSigma(-1.5, 0.7)
    trainer = trainer_of(network, discs(), settings(steps=50, sigma=sigma, learning_rate=1e-2, augmentation=PLAIN))
    generator = torch.Generator().manual_seed(0)
    clean = augmented_batch(discs(), Weighting(), PLAIN, 8, 32, generator)
    noise = math.sqrt(2) * torch.randn(8, 1, 32, 32, dtype=torch.complex64, generator=generator)
    levels = sigma.sample(8, generator)

    def loss() -> float:
        return denoising_loss(trainer.average, clean, levels, noise, ARCHITECTURE.sigma_data).item()

    before = loss()
    seen: list[tuple[int, float]] = []
    trainer.run(lambda step, loss: seen.append((step, loss)))
    assert [step for step, _ in seen] == [10, 20, 30, 40, 50]
    assert trainer.losses == [loss for _, loss in seen]
    assert loss() < fraction * before
    assert not torch.equal(weights(trainer.average), weights(trainer.model))


def test_a_network_that_forgets_what_it_learnt_ends_the_run() -> None:
    trainer = trainer_of(model(), discs(), settings(steps=1000))
    trainer.losses = [1.0] + 60 * [0.4] + 19 * [1.0]
    trainer._pending += 10 * 1.0  # the loss of ten steps
    with pytest.raises(ValueError, match=r"the loss was 0\.4\d and is 1\.0\d* again at step 1: .*below 0\.003"):
        trainer.step = 1
        trainer._note_loss(None)
    assert forgotten([1.0] + 60 * [0.4] + 10 * [1.0]) is None  # a short rise
    assert forgotten(100 * [1.0]) is None  # nothing learnt yet
    assert forgotten([1.0, *torch.linspace(0.8, 0.3, 100).tolist()]) is None


def test_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = trainer_of(model(), discs(), settings())
    whole.run()
    path = tmp_path / "state.safetensors"
    trainer_of(model(), discs(), settings(), path).run(until=5)
    # A writer that was killed leaves a part of a file; the whole one counts.
    path.with_name(path.name + ".part").write_bytes(b"half")
    again = trainer_of(model(), discs(), settings(save_every_s=0.0), path)
    assert again.step == 5
    again.run()
    assert again.step == 12
    assert torch.equal(weights(again.model), weights(whole.model))
    assert torch.equal(weights(again.average), weights(whole.average))
    assert again.losses == whole.losses
    other_seed = trainer_of(model(), discs(), settings(seed=1))
    other_seed.run()
    assert not torch.equal(weights(other_seed.model), weights(whole.model))


def test_keyboard_interrupt_saves_whole_steps_only(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    trainer = trainer_of(model(), discs(), settings(), path)

    def interrupt(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(interrupt)
    assert trainer_of(model(), discs(), settings(), path).step == 10
    step = trainer.optimizer.step

    def interrupted_step() -> None:
        step()
        raise KeyboardInterrupt

    trainer.optimizer.step = interrupted_step  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    trainer.optimizer.step = step  # type: ignore[method-assign]
    resumed = trainer_of(model(), discs(), settings(), path)
    whole = trainer_of(model(), discs(), settings())
    resumed.run()
    whole.run()
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_states_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    trainer_of(model(), discs(), settings(), path).run(until=2)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="other settings"):
        trainer_of(model(), discs(), settings(learning_rate=1e-4), path)
    with pytest.raises(ValueError, match="other settings"):
        trainer_of(model(), discs(3), settings(), path)
    for broken in (content[:-10], b"", b"\x80\x04."):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="not a saved training state"):
            trainer_of(model(), discs(), settings(), path)


def test_diverged_run_says_so_and_keeps_the_saved_state(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    trainer = trainer_of(model(), discs(), settings(), path)
    trainer.run(until=5)
    content = path.read_bytes()
    with torch.no_grad():
        trainer.model.network.enter.weight[0] = torch.nan
    with pytest.raises(ValueError, match="the loss is nan at step 10"):
        trainer.run()
    assert path.read_bytes() == content


def test_learning_rate_rises_and_falls() -> None:
    rates = [settings(steps=100, warm_up=9, decay=0.2, learning_rate=1.0).learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == pytest.approx([1.0] * 72)
    assert rates[81:] == pytest.approx([(100 - step) / 20 for step in range(81, 100)])


def test_errors() -> None:
    for images in (discs().real, discs()[0], torch.zeros(2, 8, 8, dtype=torch.complex64), discs() / 0):
        with pytest.raises(ValueError, match="training"):
            trainer_of(model(), images, settings())
    for values in ({"steps": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"ema": 1.0}, {"warm_up": -1}):
        with pytest.raises(ValueError, match="training"):
            settings(**values)
