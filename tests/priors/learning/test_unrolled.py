"""Unrolled networks: the data step and its gradient, both ways of training, weights on disk; with a few weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from priors.classical.cg_sense import cg_sense
from priors.learning.cards import ModelCard
from priors.learning.checkpoints import write_checkpoint
from priors.learning.convolutional import ConvolutionalArchitecture
from priors.learning.recipe import Encoding, Run, Trained, TrainingSet, with_settings
from priors.learning.trainer import Trainer
from priors.learning.unrolled import UnrolledArchitecture, UnrolledNetwork, data_step
from priors.learning.unrolled_training import Reconstructing, UnrolledTraining, split_samples, train_unrolled
from priors.registry import load_prior, recipe_of
from priors.signal.encoding import SenseOperator
from priors.signal.fourier import fft2c
from priors.unrolled import TRAINED_MASK, UnrolledReconstruction, load_unrolled

SIZE, COILS = 12, 3
SMALL = UnrolledArchitecture(ConvolutionalArchitecture("dn_cnn", 2, 3, 4), turns=2, cg_iterations=40)
TINY = {
    "denoiser.layers": "3", "denoiser.width": "4", "turns": "2", "steps": "30", "warm_up": "0", "learning_rate": "0.01",
    "ema": "0",
}  # fmt: skip


def white(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def coil_maps(sets: int = 1) -> Tensor:
    maps = white(1, sets, COILS, SIZE, SIZE, seed=1)
    return maps / maps.abs().square().sum((1, 2), keepdim=True).sqrt()


def random_mask(seed: int = 2) -> Tensor:
    mask = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[SIZE // 2 - 3 : SIZE // 2 + 3, SIZE // 2 - 3 : SIZE // 2 + 3] = True
    return mask


def measured(maps: Tensor, mask: Tensor, seed: int = 3) -> Tensor:
    images = white(1, maps.shape[1], SIZE, SIZE, seed=seed)
    return mask * fft2c((maps * images[:, :, None]).sum(1))


@pytest.fixture
def training_set() -> TrainingSet:
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, SIZE)], indexing="ij")
    discs = torch.stack([((y - 0.1).square() + x.square()).sqrt() < radius for radius in (0.4, 0.6, 0.8)])
    images = discs.to(torch.complex64) * (1 - 0.4 * (y > 0.1))
    return TrainingSet(images, images[:0], None, "of discs", Encoding(coil_maps().cfloat(), random_mask(), "random:2"))


def trained(data: TrainingSet, folder: Path, **settings: str) -> Trained:
    recipe = recipe_of("unrolled")
    assert recipe is not None
    options = with_settings(recipe.options(), TINY | settings)
    folder.mkdir(exist_ok=True)
    return train_unrolled(options, data, Run(folder, torch.device("cpu")))


def test_gradients_flow_through_the_data_step() -> None:
    maps, mask = coil_maps(2), random_mask()
    operator = SenseOperator(maps, mask[None, None])
    right_side = operator.right_side(measured(maps, mask)).requires_grad_()
    estimate = white(1, 2, SIZE, SIZE, seed=4).requires_grad_()
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    solve = lambda b, z, w: torch.view_as_real(data_step(operator, b, z, w, 300))  # noqa: E731
    # Finite differences of 1e-3: the step is linear in all but the weight, and solved to 1e-6.
    given = (right_side, estimate, weight)
    assert torch.autograd.gradcheck(solve, given, eps=1e-3, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_gradients_flow_to_every_weight_of_the_network() -> None:
    torch.manual_seed(0)
    model = UnrolledNetwork(SMALL).double()
    maps, mask = coil_maps(), random_mask()
    kspace = measured(maps, mask)

    def loss(moved: dict[str, Tensor]) -> Tensor:
        weights = dict(model.named_parameters()) | moved
        image = torch.func.functional_call(model, weights, (kspace, mask[None, None], maps))
        return image.abs().square().sum()

    names = [name for name, _ in model.named_parameters()]
    gradients = torch.autograd.grad(loss({}), list(model.parameters()))
    for name, gradient in zip(names, gradients, strict=True):
        assert float(gradient.abs().max()) > 0, name
        weight = model.get_parameter(name).detach()
        step = 1e-4 * torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            change = float(loss({name: weight + step}) - loss({name: weight - step}))
        assert change == pytest.approx(2 * float((gradient * step).sum()), rel=0.01), name


def test_a_network_that_finds_nothing_is_regularised_sense() -> None:
    model = UnrolledNetwork(UnrolledArchitecture(SMALL.denoiser, turns=1, cg_iterations=200)).double()
    model.denoiser = nn.Identity()
    model.denoiser.forward = lambda planes: 0 * planes  # type: ignore[method-assign]
    maps, mask = coil_maps(), random_mask()
    kspace = measured(maps, mask)
    found = model(kspace, mask[None, None], maps)
    wanted = cg_sense(kspace, maps, mask[None, None], float(model.log_weight.detach().exp()), 200, 1e-9)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_images_scale_with_the_data_and_do_not_depend_on_their_neighbours() -> None:
    torch.manual_seed(0)
    model = UnrolledNetwork(SMALL).double()
    maps, mask = coil_maps(2), random_mask()
    maps[:, 1, :, :4] = 0
    kspace = torch.cat([measured(maps, mask, seed) for seed in (3, 4)])
    with torch.no_grad():
        both = model(kspace, mask[None, None], maps.expand(2, -1, -1, -1, -1))
        torch.testing.assert_close(model(1e-3 * kspace[1:], mask[None, None], maps), 1e-3 * both[1:])
        assert not both[:, 1, :4].any() and both[:, 1, 4:].any()  # nothing where a set has no maps
        assert not model(0 * kspace, mask[None, None], maps.expand(2, -1, -1, -1, -1)).any()
        assert torch.equal(model(kspace + 1e6 * ~mask, mask[None, None], maps.expand(2, -1, -1, -1, -1)), both)


@pytest.mark.slow
@pytest.mark.parametrize("supervision", ["references", "none"])
def test_training_lowers_the_loss_and_is_deterministic(
    supervision: str, training_set: TrainingSet, tmp_path: Path
) -> None:
    found = trained(training_set, tmp_path / "a", supervision=supervision)
    assert found.losses[-1] < 0.9 * found.losses[0]
    assert found.options["supervision"] == supervision and found.options["sampling"] == "random:2"
    assert found.quality["PSNR [dB], training images"] > found.quality["PSNR zero-filled [dB], training images"]
    again = trained(training_set, tmp_path / "b", supervision=supervision)
    assert again.losses == found.losses
    assert all(torch.equal(value, again.weights[name]) for name, value in found.weights.items())


def test_a_stopped_training_is_the_uninterrupted_one(
    training_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(training_set, tmp_path / "whole", steps="4")
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, progress=None: run(self, progress, until=2))
    trained(training_set, tmp_path / "parts", steps="4")
    monkeypatch.setattr(Trainer, "run", run)
    parts = trained(training_set, tmp_path / "parts", steps="4")
    assert all(torch.equal(value, parts.weights[name]) for name, value in whole.weights.items())


def test_the_split_covers_the_samples_and_leaves_the_centre() -> None:
    mask = random_mask()[None, None]
    seen, of_loss = split_samples(mask, 0.4, torch.Generator().manual_seed(0))
    assert torch.equal(seen | of_loss, mask) and not (seen & of_loss).any()
    assert not of_loss[..., 4:8, 4:8].any()
    assert 0.2 < float(of_loss.sum() / mask.sum()) < 0.5
    again = split_samples(mask, 0.4, torch.Generator().manual_seed(1))[1]
    assert not torch.equal(again, of_loss)


def test_the_data_step_never_sees_the_samples_of_the_loss(training_set: TrainingSet) -> None:
    class Looking(nn.Module):
        """Keeps what it is given, and gives images whose samples are known."""

        def forward(self, kspace: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
            self.kspace, self.mask = kspace, mask
            return torch.zeros(len(maps), 1, SIZE, SIZE, dtype=kspace.dtype)

    assert training_set.encoding is not None
    options = UnrolledTraining(supervision="none", held_back=0.3)
    objective = Reconstructing(training_set.images, training_set.encoding, options)
    looking, generator = Looking(), torch.Generator().manual_seed(0)
    held = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    for _ in range(8):
        # Nothing is found: the loss is all of what it compares with, whichever samples these are.
        assert float(objective.loss(looking, 2, generator, generator)) == pytest.approx(1)
        assert not looking.kspace[~looking.mask.expand_as(looking.kspace)].any()
        assert not (looking.mask & ~training_set.encoding.mask).any()
        of_loss = training_set.encoding.mask & ~looking.mask
        assert of_loss.flatten(1).any(1).all()
        held |= of_loss.any(0)[0]
    assert held.sum() > 0.7 * training_set.encoding.mask.sum() - 36


def test_ssdu_does_not_depend_on_samples_that_were_not_measured(training_set: TrainingSet, tmp_path: Path) -> None:
    encoding = training_set.encoding
    assert encoding is not None
    kspace = fft2c(encoding.maps[:, 0] * training_set.images[:, None])
    losses = []
    for number, given in enumerate((kspace, kspace * encoding.mask)):
        data = replace(training_set, encoding=replace(encoding, kspace=given))
        losses.append(trained(data, tmp_path / str(number), supervision="none", steps="10").losses)
    assert losses[0] == losses[1]


def test_weights_on_disk_give_the_same_images(training_set: TrainingSet, tmp_path: Path) -> None:
    found = trained(training_set, tmp_path / "run", steps="10")
    card = ModelCard(
        kind="unrolled", options=found.options, name="tiny", typical_gain=None, training_data="discs",
        training_data_sha256="0" * 64, steps=found.steps, date="2026-01-01", licence="MIT", intended_use="tests",
        quality=found.quality,
    )  # fmt: skip
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, found.weights, card)
    loaded, _ = load_unrolled(path)
    maps, mask = coil_maps().cfloat(), random_mask()
    kspace = measured(coil_maps(), mask).cfloat()
    model = UnrolledNetwork(loaded.options.architecture)
    model.load_state_dict({name: value for name, value in found.weights.items() if name != TRAINED_MASK})
    direct = UnrolledReconstruction(model, loaded.options, mask)
    assert torch.equal(loaded(kspace, mask[None, None], maps), direct(kspace, mask[None, None], maps))
    assert torch.equal(loaded.mask, mask)
    assert loaded.unlike_training(mask) == ""
    other = loaded.unlike_training(random_mask(9))
    assert other.startswith("unrolled was trained for random:2, R = ") and "another mask, R = " in other
    assert "a matrix of 8 x 8, R = 1.00" in loaded.unlike_training(torch.ones(8, 8))

    with pytest.raises(ValueError, match="are a reconstruction and no prior; take method unrolled") as caught:
        load_prior(path)
    assert "\n" not in str(caught.value)
    write_checkpoint(path, {name: v for name, v in found.weights.items() if name != TRAINED_MASK}, card)
    with pytest.raises(ValueError, match="tensor 'trained_mask' is missing or no mask"):
        load_unrolled(path)


def test_settings_that_are_wrong() -> None:
    for settings, message in (
        ({"supervision": "half"}, "supervision 'half' is unknown; take references or none"),
        ({"held_back": "1"}, "held_back 1.0 is not above 0 and below 1"),
        ({"coils": "0"}, "coils must be 1 or more"),
        ({"turns": "0"}, "turns 0 is not a whole number from 1 to 64"),
        ({"denoiser.channels": "3"}, "a denoiser of 3 channels; complex images have 2"),
    ):
        with pytest.raises(ValueError, match=message):
            with_settings(UnrolledTraining(), settings)
