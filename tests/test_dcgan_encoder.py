"""The encoder's training: it learns, resumes, stops and is exported beside an unchanged G and D."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import softplus

from align.photo import read_photo
from dcgan import encoder, loss
from dcgan.__main__ import main
from dcgan.augment import change_tones, draw_tones
from dcgan.checkpoint import CheckpointError, load_checkpoint
from dcgan.config import EncoderConfig, NetworkConfig
from dcgan.encoder import PatchHeads, holes_by_step, train_encoder
from dcgan.holes import draw_holes
from dcgan.networks import Discriminator, Encoder, Generator
from dcgan.perceptual import Perceptual
from dcgan.run import read_stats
from dcgan.sampling import sample_z
from dcgan.step import seeded
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights

CPU = torch.device("cpu")
NETWORK = NetworkConfig(size=16, nz=4, ngf=8, ndf=4)
CONFIG = EncoderConfig(nef=8, kimg=0.048, batch=8, pairs=4, tick_kimg=0.016, sample_kimg=0.032, precision="fp32")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    G = Generator(NETWORK)
    with torch.no_grad():  # untrained weights give a flat grey image; stronger ones make z matter
        for weight in G.parameters():
            weight.mul_(4)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    Weights.of(G, Discriminator(NETWORK), "face", {"images": 7}).save(path)
    return path


@pytest.fixture
def weights(file: Path) -> Weights:
    return Weights.open(file, "cpu")


@pytest.fixture(scope="module")
def faces(file: Path) -> NDArray[np.uint8]:
    """Generated images, so that there is a z for each."""
    G = Weights.open(file, "cpu").generator
    return to_image(G(sample_z(64, NETWORK, torch.Generator().manual_seed(5))))


def finish(config: EncoderConfig, weights: Weights, faces: NDArray[np.uint8], folder: Path) -> dict[str, Tensor]:
    return runs.finish(train_encoder(config, weights, faces, folder, CPU), folder)


def holes(count: int) -> Tensor:
    return torch.from_numpy(draw_holes(count, 16, np.random.default_rng(0)))[:, None]


def z_error(weights: Weights, E: Encoder) -> float:
    generator = torch.Generator().manual_seed(123)
    z, hole = sample_z(256, NETWORK, generator), holes(256)
    with torch.no_grad():
        return float((E.eval()(weights.generator(z), hole)[0] - z).square().mean())


def test_e_predicts_the_z_of_generated_images(tmp_path: Path, weights: Weights, faces: NDArray[np.uint8]) -> None:
    """Predicting the mean of z has an error of 1."""
    E = Encoder(NETWORK, 16)
    assert z_error(weights, E) > 0.9
    config = replace(CONFIG, nef=16, kimg=0.8, batch=32, pairs=32, ema_kimg=0.2, z_weight=1, lr=1e-2)
    finish(config, weights, faces, tmp_path)
    E.load_state_dict((load_checkpoint(tmp_path) or {})["ema"])
    assert z_error(weights, E) < 0.6


@pytest.mark.parametrize("inputs", [4, 8])
def test_pixels_under_the_hole_have_no_effect(weights: Weights, inputs: int) -> None:
    E = with_skips(Encoder(NETWORK, 8, inputs=inputs)).eval()
    images, hole = torch.randn(20, 3, 16, 16), holes(20)
    made = weights.generator(*E(images, hole))
    for other in (torch.randn(20, 3, 16, 16), torch.full((20, 3, 16, 16), float("nan"))):
        assert torch.equal(made, weights.generator(*E(torch.where(hole, other, images), hole)))
        assert torch.equal(E(images, hole)[0], E(torch.where(hole, other, images), hole)[0])
    assert not torch.equal(made, weights.generator(*E(torch.where(hole, images, -images), hole)))
    black = torch.zeros(1, 3, 16, 16)  # a masked pixel differs from a grey one
    assert not torch.equal(E(black, hole[:1])[0], E(black, torch.zeros_like(hole[:1]))[0])


def with_skips(E: Encoder) -> Encoder:
    """Give skips, which start at zero, random weights."""
    for weight in E.skips.parameters():
        torch.nn.init.normal_(weight, 0, 0.3)
    return E


def test_skips_start_at_zero_and_apply_to_every_z_of_their_image(weights: Weights) -> None:
    G, E = weights.generator, Encoder(NETWORK, 8).eval()
    generator = torch.Generator().manual_seed(0)
    images, hole = torch.randn(2, 3, 16, 16), holes(2)
    z, skips = E(images, hole)
    assert len(skips) == 2 and torch.equal(G(z, skips), G(z))
    z, skips = with_skips(E)(images, hole)
    assert not torch.allclose(G(z, skips), G(z), atol=1e-2)
    several = sample_z(6, NETWORK, generator)  # three of each
    for index in range(2):
        alone = E(images[index : index + 1], hole[index : index + 1])[1]
        part = slice(3 * index, 3 * index + 3)
        torch.testing.assert_close(G(several, skips)[part], G(several[part], alone))
    without = Encoder(NETWORK, 8, skips=False)
    assert without(images, hole)[1] == [] and not any(name.startswith("skips") for name in without.state_dict())


def test_the_mirror_image_starts_without_effect_and_is_seen(weights: Weights) -> None:
    """E with 8 inputs that continues from one with 4 equals it, and a mirrored one sees what the other one hides."""
    G, E = weights.generator, with_skips(Encoder(NETWORK, 8)).eval()
    wide = Encoder(NETWORK, 8, inputs=8).eval()
    assert encoder.continues(E, wide) and not encoder.continues(wide, E)
    wide.load_state_dict(encoder.widened(E, wide))
    images, hole = torch.randn(20, 3, 16, 16), holes(20)
    assert torch.equal(G(*wide(images, hole)), G(*E(images, hole)))
    seen: list[Tensor] = []
    wide.layers[0].register_forward_pre_hook(lambda layer, inputs: seen.extend(inputs))
    wide(images, hole), wide(images.flip(3), hole.flip(3))
    assert torch.equal(seen[0][:, :4], torch.cat([torch.where(hole, 0.0, images), hole.float()], dim=1))
    assert torch.equal(seen[0].roll(4, dims=1), seen[0].flip(3)) and torch.equal(seen[1], seen[0].flip(3))


@pytest.mark.parametrize("inputs", [4, 8])
def test_skips_act_only_near_visible_and_mirrored_pixels(inputs: int) -> None:
    E = with_skips(Encoder(NETWORK, 8, inputs=inputs)).eval()
    hole = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    hole[..., :4] = False
    for skip, hidden, far in zip(
        E(torch.randn(1, 3, 16, 16), hole)[1],
        (torch.randn(1, 16, 4, 4), torch.randn(1, 8, 8, 8)),
        (slice(2, 4 if inputs == 4 else 2), slice(3, 8 if inputs == 4 else 5)),
        strict=True,
    ):
        columns = (skip(hidden) != 0).all(dim=(0, 1, 2))
        assert not skip(hidden)[..., far].any() and columns.sum() == len(columns) - (far.stop - far.start)


def test_skips_act_everywhere_among_scattered_pixels() -> None:
    scattered = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.8
    _, skips = with_skips(Encoder(NETWORK, 8)).eval()(torch.randn(1, 3, 16, 16), scattered)
    for skip, hidden in zip(skips, (torch.randn(1, 16, 4, 4), torch.randn(1, 8, 8, 8)), strict=True):
        assert (skip(hidden) != 0).float().mean() > 0.9


def test_faces_with_noise_are_compared_on_visible_pixels_only(weights: Weights, faces: NDArray[np.uint8]) -> None:
    real, E = to_tensor(faces[:8]), Encoder(NETWORK, 8)
    alone = replace(CONFIG, adversarial_weight=0, feature_weight=0, pairs=0)

    def image_loss(noised: float, hole_weight: float) -> float:
        config = replace(alone, noised=noised, hole_weight=hole_weight)
        drawn = holes_by_step(config, 16, CPU)(0)
        batch = encoder.draw(config, NETWORK, drawn, torch.Generator().manual_seed(0)) | {"real": real}
        losses, _ = encoder.encoder_losses(config, E, weights.generator, weights.discriminator, batch)
        assert losses.keys() == {"image", "z_square"}
        return float(losses["image"].detach())

    assert image_loss(1.0, 1.0) == image_loss(1.0, 30.0)
    assert image_loss(0.0, 1.0) != image_loss(0.0, 30.0)


def test_the_perceptual_distance_ignores_faces_with_noise(weights: Weights, faces: NDArray[np.uint8]) -> None:
    real, E, perceptual = to_tensor(faces[:8]), Encoder(NETWORK, 8).eval(), Perceptual()
    config = replace(CONFIG, adversarial_weight=0, feature_weight=0, pairs=0, noised=0.5)
    batch = encoder.draw(config, NETWORK, draw_holes(8, 16, np.random.default_rng(0)), torch.Generator().manual_seed(0))
    batch |= {"real": real}

    def distance() -> float:
        networks = E, weights.generator, weights.discriminator
        return float(encoder.encoder_losses(config, *networks, batch, perceptual=perceptual)[0]["perceptual"].detach())

    first = distance()
    batch["hole"][4:] = False
    assert first == pytest.approx(distance()) and first > 0
    batch["hole"][:4] = False
    assert distance() == 0


def test_z_stays_within_a_uniform_prior() -> None:
    E = Encoder(replace(NETWORK, z_prior="uniform"), 8)
    with torch.no_grad():
        for weight in E.parameters():
            weight.mul_(10)
    z, _ = E(torch.randn(20, 3, 16, 16), holes(20))
    assert z.shape == (20, 4) and 0.9 < z.abs().max() <= 1


def test_a_run_writes_grids_and_psnr(tmp_path: Path, weights: Weights, faces: NDArray[np.uint8]) -> None:
    runs.finish(train_encoder(CONFIG, weights, faces, tmp_path, CPU, faces[:30]), tmp_path)
    ticks = read_stats(tmp_path)
    assert ["psnr_center" in tick for tick in ticks] == [False, True, True]
    for name in ("center", "left", "pattern", "random80"):
        assert 3 < ticks[-1][f"psnr_{name}"] < 40
    grid = read_photo(tmp_path / "samples" / "0000000048.png").pixels
    rows = grid.reshape(4, 16, 15, 16, 3)  # every other one of 30 faces
    assert np.array_equal(rows[3].swapaxes(0, 1), faces[:30:2])
    known = (rows[0] == rows[3]).all(axis=-1)
    assert np.array_equal(rows[2][known], rows[3][known]) and known.any()
    assert np.array_equal(rows[2][~known], rows[1][~known]) and not known.all()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, weights: Weights, faces: NDArray[np.uint8]) -> None:
    config = replace(CONFIG, precision="bf16")
    runs.resumes_bit_equal(lambda folder: train_encoder(config, weights, faces, folder, CPU), tmp_path, 24)


def test_export_keeps_g_and_d_unchanged(
    tmp_path: Path, weights: Weights, faces: NDArray[np.uint8], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = finish(CONFIG, weights, faces, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "e.safetensors")]) == 0
    written = [tmp_path / "e.safetensors", tmp_path / "e.onnx", tmp_path / "run" / "losses.png"]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in written]
    assert all(path.is_file() for path in written)
    before, after = load_file(file), load_file(tmp_path / "e.safetensors")
    assert all(name.startswith("E.") for name in after.keys() - before.keys())
    assert len(before) >= 20 and before.keys() < after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype and value.numpy().tobytes() == after[name].numpy().tobytes()
    exported = Weights.open(tmp_path / "e.safetensors", "cpu")
    assert exported.encoder is not None
    assert exported.template == "face"
    assert exported.metadata["images"] == 7
    metadata = exported.metadata["encoder"]
    assert metadata["images"] == 48 and metadata["data_images"] == 64 and metadata["weights_sha256"] == weights.sha256
    assert metadata["training"]["nef"] == 8
    ours = {name.removeprefix("E."): value for name, value in after.items() if name.startswith("E.")}
    same = [
        all(torch.equal(value, saved[f"{part}.{name}"].to(value)) for name, value in ours.items())
        for part in ("ema", "E")
    ]
    assert same == [True, False]


def test_a_copy_of_g_learns_along(
    tmp_path: Path, weights: Weights, faces: NDArray[np.uint8], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G stays what it is; the last layers of its copy are saved beside it, and training continues from the copy."""
    monkeypatch.setattr(encoder, "_LAST", 2)
    config = replace(CONFIG, lr_generator=1)
    saved = finish(config, weights, faces, tmp_path / "run")
    encoder.export_encoder(tmp_path / "run", tmp_path / "e.safetensors")
    before, after = load_file(file), load_file(tmp_path / "e.safetensors")
    for name in Generator(NETWORK).state_dict():
        assert torch.equal(after[f"G.{name}"], before[f"G.{name}"])
    learnt = {"layers.4.weight", "layers.5.weight", "layers.5.bias", "layers.8.weight", "layers.8.bias"}
    assert {name for name in after if name.startswith("C.")} == {f"C.{name}" for name in learnt}
    exported = Weights.open(tmp_path / "e.safetensors", "cpu")
    for name, value in exported.completer.state_dict().items():
        assert torch.equal(value, saved[f"ema_g.{name}"].half().to(value))
        assert torch.equal(value, exported.generator.state_dict()[name]) == (name not in learnt)
    still = replace(config, kimg=0.008, lr=1e-9, lr_end=0)
    again = finish(still, exported, faces, tmp_path / "again")
    for name, value in exported.completer.named_parameters():
        assert torch.allclose(again[f"G.{name}"], value, atol=1e-6)
    finish(replace(still, lr_generator=0), exported, faces, tmp_path / "frozen")
    encoder.export_encoder(tmp_path / "frozen", tmp_path / "f.safetensors")
    frozen = Weights.open(tmp_path / "f.safetensors", "cpu").completer
    assert all(map(torch.equal, frozen.state_dict().values(), exported.completer.state_dict().values()))


def test_patches_count_by_their_share_of_the_hole() -> None:
    config = replace(NETWORK, size=32)
    patches, D = PatchHeads(config), Discriminator(config)
    hole = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    hole[0, 0, :8, :2] = True  # 4 whole cells of 16x16; 2 halves of 8x8
    weight = patches.weight(hole)
    fine, coarse = weight[0, :256].view(16, 16), weight[0, 256:].view(8, 8)
    assert weight[1].sum() == 0 and torch.allclose(fine.sum(), torch.tensor(0.5))
    assert torch.allclose(fine[:4, 0], torch.tensor(1 / 8)) and torch.allclose(coarse[:2, 0], torch.tensor(1 / 4))
    assert weight.count_nonzero() == 6
    images = torch.randn(2, 3, 32, 32)
    logits = patches(D.features(images))
    assert logits.shape == (2, 256 + 64) and not logits.any()
    for value in patches.parameters():
        torch.nn.init.normal_(value)
    other = images.clone()
    other[..., 31] = 0
    changed = patches(D.features(other)) != patches(D.features(images))
    fine, coarse = changed[:, :256].view(2, 16, 16), changed[:, 256:].view(2, 8, 8)
    assert fine[..., 14:].all() and not fine[..., :14].any()  # a 4x4 kernel of stride 2, then one of 3x3
    assert coarse[..., 6:].all() and not coarse[..., :6].any()


def test_a_run_for_other_weights_is_not_resumed(tmp_path: Path, weights: Weights, faces: NDArray[np.uint8]) -> None:
    finish(replace(CONFIG, kimg=0.008), weights, faces, tmp_path)
    with pytest.raises(CheckpointError, match="other weights"):
        other = Weights.of(weights.generator, weights.discriminator, sha256="another")
        next(train_encoder(CONFIG, other, faces, tmp_path, CPU))


def test_export_without_the_copy_of_the_weights_is_refused(
    tmp_path: Path, weights: Weights, faces: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    finish(replace(CONFIG, kimg=0.008), weights, faces, tmp_path)
    (tmp_path / encoder.START).unlink()
    assert main(["export", str(tmp_path), str(tmp_path / "e.safetensors")]) == 2
    assert encoder.START in capsys.readouterr().err


def test_training_continues_from_the_encoder_of_the_weights(
    tmp_path: Path, faces: NDArray[np.uint8], weights: Weights
) -> None:
    """With a negligible learning rate, the exported E equals the one of the weights."""
    finish(CONFIG, weights, faces, tmp_path / "first")
    encoder.export_encoder(tmp_path / "first", tmp_path / "first.safetensors")
    begun = Weights.open(tmp_path / "first.safetensors", "cpu")
    assert begun.encoder is not None
    after = finish(replace(CONFIG, kimg=0.016, lr=1e-9, lr_end=0), begun, faces, tmp_path / "second")
    for name, value in begun.encoder.named_parameters():
        assert torch.allclose(after[f"E.{name}"], value, atol=1e-6)
    metadata = encoder.export_encoder(tmp_path / "second", tmp_path / "second.safetensors")
    assert metadata["images"] == 48 + 16


def test_holes_for_a_gpu_come_from_a_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_STOCK", 32)
    stock, again = (holes_by_step(CONFIG, 16, torch.device("cuda")) for _ in range(2))
    assert all(np.array_equal(stock(number), again(number)) for number in range(3))
    drawn = np.concatenate([stock(number) for number in range(20)])
    assert len(drawn) == 20 * 12 and 16 < len(np.unique(drawn, axis=0)) <= 32


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"lr_generator": 0.5},
        {"adversarial_weight": 0},
        {"pairs": 0},
        {"warm_kimg": 0.024},
        {"patch_weight": 0.5},
        {"perceptual_weight": 0.5},
        {"inputs": 8, "grey": 0.5, "contrast": 0.5},
    ],
    ids=str,
)
def test_ten_steps_equal_a_plain_loop(weights: Weights, faces: NDArray[np.uint8], changes: dict[str, Any]) -> None:
    config = replace(CONFIG, **changes)
    torch.manual_seed(config.seed)
    G, critic = deepcopy(weights.generator), deepcopy(weights.discriminator)
    E = Encoder(NETWORK, config.nef, inputs=config.inputs)
    patches = PatchHeads(NETWORK) if config.patch_weight else None
    perceptual = Perceptual().to(memory_format=torch.channels_last) if config.perceptual_weight else None
    judges = [critic] if patches is None else [critic, patches]
    for network in (G, E, *judges):
        network.to(memory_format=torch.channels_last)
    groups = [{"params": [*E.parameters()], "share": 1.0}]
    if config.lr_generator:
        groups.append({"params": [*G.requires_grad_(True).parameters()], "share": config.lr_generator})  # three layers
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)
    learning = [value for judge in judges for value in judge.parameters()]
    adam_critic = torch.optim.Adam(learning, config.lr_critic, (0.0, 0.99), fused=True)
    trainer = encoder.EncoderTrainer(config, weights, CPU)
    for number in range(10):
        found = trainer.step(number, to_tensor(faces[:8]))
        tones = draw_tones(8, config.grey, config.contrast, seeded(config.seed, 4, number))
        real = change_tones(to_tensor(faces[:8]), tones)
        noise = seeded(config.seed, 3, number)
        drawn = draw_holes(8 + config.pairs, 16, np.random.default_rng(noise.initial_seed()))
        batch = encoder.draw(config, NETWORK, drawn, noise) | {"real": real}
        rate = trainer.rate(number)
        assert (rate == 0) == (number < 3 and config.warm_kimg > 0) or number == 3
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            critic.requires_grad_(False)
            losses, completed = encoder.encoder_losses(config, E, G, critic, batch, patches, perceptual)
        if rate > 0:
            adam.zero_grad()
            torch.stack([getattr(config, f"{name}_weight") * value for name, value in losses.items()]).sum().backward()
            for group in adam.param_groups:
                group["lr"] = rate * group["share"]
            adam.step()
        if config.adversarial_weight:
            adam_critic.zero_grad()
            critic.requires_grad_(True)
            pair = [images.detach().clone().requires_grad_() for images in (real, completed)]
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
                features = [critic.features(images) for images in pair]
                logits = [critic.head(each[-1]).flatten().float() for each in features]
                losses["critic"] = loss.relativistic_d(*logits)
                if patches is not None:
                    weight = patches.weight(batch["hole"][:8])
                    maps = [patches(each) for each in features]
                    losses["critic"] = losses["critic"] + (weight * softplus(maps[1] - maps[0])).sum()
                    shares = weight / weight.sum(dim=1, keepdim=True)
                    logits = [each + (shares * judged).sum(dim=1) for each, judged in zip(logits, maps, strict=True)]
            if number % 4 == 0:
                penalty = sum(map(loss.gradient_penalty, pair, logits))
                losses["critic"] = losses["critic"] + config.penalty / 2 * 4 * penalty
            losses["critic"].backward()
            adam_critic.step()
        assert found.keys() == losses.keys()
        assert all(torch.equal(value, losses[name]) for name, value in found.items())
    for ours, plain in ((trainer.E, E), (trainer.G, G), (trainer.critic, critic)):
        for name, value in plain.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)
