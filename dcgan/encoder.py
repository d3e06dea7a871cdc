"""Train and export the encoder: visible pixels to a latent z and skip features for G."""

from collections.abc import Callable
from collections.abc import Generator as Steps
from copy import deepcopy
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, softplus

from dcgan import loss
from dcgan.augment import change_tones, draw_tones
from dcgan.checkpoint import load_run, restoring, training_record
from dcgan.config import EncoderConfig, NetworkConfig
from dcgan.dataset import Batches, digest
from dcgan.device import machine
from dcgan.graph import Batch, Graphed, capturable_adam, set_rate, tune
from dcgan.grow import new_and_old
from dcgan.holes import draw_holes, named_hole
from dcgan.metrics import psnr
from dcgan.networks import Discriminator, Encoder, Generator
from dcgan.perceptual import Perceptual
from dcgan.run import Run, RunInputs, TrainingStep
from dcgan.sampling import sample_z
from dcgan.step import MovingAverage, cosine, seeded
from dcgan.tensors import to_image, to_tensor
from dcgan.weights import Weights

START = "start.safetensors"  # in the run folder: copy of the weights that E is trained for; export adds E to it
# Measurement to the name of the hole it uses, see dcgan.holes.named_hole.
MEASURED = {"center": "center", "left": "left", "pattern": "pattern", "random80": "random:0.8"}
_SHOWN = 16  # faces per grid
_MEASURED = 200  # faces per measurement
_PENALTY_EVERY = 4  # steps of the critic
_LAST = 3  # layers of the copy of G that learn; what the earlier ones had learnt changed no PSNR by more than 0.1 dB
_PATCHES = (16, 8)  # sides of the critic's layers whose cells are judged: patches of 22 and 46 pixels at 128 px
_STOCK = 16_384  # holes for a GPU


def train_encoder(
    config: EncoderConfig,
    weights: Weights,
    faces: NDArray[np.uint8],
    folder: Path,
    device: torch.device,
    val: NDArray[np.uint8] | None = None,
) -> Steps[TrainingStep]:
    """Train E for the G and D of some weights, or resume from the newest checkpoint of the run folder.

    With an adversarial loss, a critic that starts as D learns to distinguish completed faces from real ones. G is
    frozen; with a learning rate for it, E learns together with a copy of G. G, and an E that starts from trained
    weights, keep their batch norm statistics. What is said of `dcgan.train.train` holds here, too.

    Args:
        config: the settings; only `kimg` may change when a run is resumed.
        weights: G and D for images of the size of the faces; training continues from their E, if any.
        faces: uint8 (N, S, S, 3); copied to the device.
        folder: run folder, which also gets a copy of the weights.
        device: where to compute.
        val: validation faces, uint8 (N, S, S, 3), for the grids and the PSNR inside holes.
    """
    # Load the data.
    batches = Batches(faces, config.batch, config.seed, config.flip, device)
    shown = to_tensor(_subsample(faces if val is None else val, _SHOWN if val is None else _MEASURED))

    # Build the networks and optimisers, then resume.
    trainer = EncoderTrainer(config, weights, device)
    inputs = RunInputs(digest(faces), len(faces), machine(device), weights.sha256)
    run = Run(folder, "encode", config, trainer.modules, inputs)
    if not run.resumed:
        weights.save(folder / START)

    def step(number: int) -> dict[str, Tensor]:
        return trainer.step(number, to_tensor(batches.at(number)))

    @torch.no_grad()
    def diagnose() -> dict[str, float]:
        with trainer.autocast():
            few = _subsample(shown, _SHOWN)
            run.grid(_pictures(trainer.ema, trainer.ema_g, few.to(device)), columns=len(few))
            return {} if val is None else _measure(trainer.ema, trainer.ema_g, shown, device)

    yield from run.loop(step, trainer.rate, diagnose)


class EncoderTrainer:
    """Everything that learns: E and its moving average, and, depending on the settings, a copy of G and the critic."""

    def __init__(self, config: EncoderConfig, weights: Weights, device: torch.device) -> None:
        self.config, self.device = config, device
        tune(device)
        torch.manual_seed(config.seed)
        self.G, self.critic = deepcopy(weights.completer), deepcopy(weights.discriminator)
        self.E = Encoder(self.G.config, config.nef, config.skips, config.inputs)
        self.judges: dict[str, nn.Module] = {"critic": self.critic}
        self.patches = PatchHeads(self.G.config) if config.patch_weight > 0 else None
        if self.patches is not None:
            self.judges["patches"] = self.patches
        self.perceptual = Perceptual() if config.perceptual_weight > 0 else None
        for network in (self.G, self.E, *self.judges.values(), *filter(None, [self.perceptual])):
            network.to(device).to(memory_format=torch.channels_last)
        if weights.encoder is not None and continues(weights.encoder, self.E):
            self.E.load_state_dict(widened(weights.encoder, self.E))
            self.E.eval()
        self.ema = deepcopy(self.E).eval().requires_grad_(False)
        self.ema_g = deepcopy(self.G).requires_grad_(False)
        self.averages = [MovingAverage(self.ema, self.E, config.ema_kimg, config.batch)]
        self.modules: dict[str, Any] = {"E": self.E, "ema": self.ema}
        param_groups = _param_groups(config, self.E, 1)
        if config.lr_generator > 0:
            kinds = nn.Linear | nn.Conv2d | nn.ConvTranspose2d
            starts = [index for index, layer in enumerate(self.G.layers) if isinstance(layer, kinds)]
            self.G.layers[starts[-_LAST] :].requires_grad_(True)
            param_groups += _param_groups(config, self.G, config.lr_generator)
            self.averages.append(MovingAverage(self.ema_g, self.G, config.ema_kimg, config.batch))
            self.modules |= {"G": self.G, "ema_g": self.ema_g}
        self.optimiser = self.modules["optimiser"] = capturable_adam(param_groups, config.lr, (0.9, 0.99))
        if config.adversarial_weight > 0 or config.patch_weight > 0:
            learning = [parameter for judge in self.judges.values() for parameter in judge.parameters()]
            self.opt_critic = capturable_adam(learning, config.lr_critic, (0.0, 0.99))
            self.modules |= self.judges | {"opt_critic": self.opt_critic}
        self._body = Graphed(self._train, device)
        self._holes = holes_by_step(config, self.G.config.size, device)

    def rate(self, number: int) -> float:
        """E's learning rate at a step: 0 while the critic warms up, then a linear rise to the cosine."""
        config, images = self.config, number * self.config.batch
        warm_ups = images / (config.warm_kimg * 1000) if config.warm_kimg else 2.0
        rise = min(1.0, max(0.0, warm_ups - 1))
        return rise * cosine(config.lr, config.lr_end, images / (config.kimg * 1000))

    def step(self, number: int, real: Tensor) -> dict[str, Tensor]:
        """Train E, and the copy of G if it learns, then the critic, on images (N, 3, S, S); returns the losses."""
        config, rate = self.config, self.rate(number)
        set_rate(self.optimiser, rate)
        tones = draw_tones(len(real), config.grey, config.contrast, seeded(config.seed, 4, number))
        batch = {"real": change_tones(real, tones.to(real.device))}
        batch |= draw(config, self.G.config, self._holes(number), seeded(config.seed, 3, number))
        losses = self._body((rate > 0, number % _PENALTY_EVERY == 0), [batch])
        for average in self.averages:
            average.update((number + 1) * config.batch)
        return losses

    def _train(self, kind: tuple[bool, bool], batches: list[Batch]) -> dict[str, Tensor]:
        """The body of a step, see `Graphed`. The kind: whether E learns, and whether the critic has its penalties."""
        (learns, penalised), [batch], config = kind, batches, self.config
        for judge in self.judges.values():
            judge.requires_grad_(False)
        self.optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            losses, completed = encoder_losses(
                config, self.E, self.G, self.critic, batch, self.patches, self.perceptual
            )
        if learns:
            weighted = [getattr(config, f"{name}_weight") * value for name, value in losses.items()]
            torch.stack(weighted).sum().backward()
            self.optimiser.step()
        if "critic" in self.modules:
            hole = batch["hole"][: len(completed)]
            losses["critic"] = self._train_critic(penalised, batch["real"].detach(), completed.detach(), hole)
        return {name: value.detach() for name, value in losses.items()}

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _train_critic(self, penalised: bool, real: Tensor, completed: Tensor, hole: Tensor) -> Tensor:
        """Train the critic; its lazy penalties are scaled up by the steps they stand for."""
        for judge in self.judges.values():
            judge.requires_grad_(True)
        self.opt_critic.zero_grad(set_to_none=True)
        real, completed = real.requires_grad_(penalised), completed.requires_grad_(penalised)
        with self.autocast():
            features, logits = self.critic.judged(real)
            features_completed, logits_completed = self.critic.judged(completed)
            total = loss.relativistic_d(logits, logits_completed)
            if self.patches is not None:
                patches, patches_completed = self.patches(features), self.patches(features_completed)
                weight = self.patches.weight(hole)
                total = total + (weight * softplus(patches_completed - patches)).sum()
                # The penalty is that of the sum of all logits.
                share = weight / weight.sum(dim=1, keepdim=True)
                logits = logits + (share * patches).sum(dim=1)
                logits_completed = logits_completed + (share * patches_completed).sum(dim=1)
        if penalised and self.config.penalty > 0:
            penalty = loss.gradient_penalty(real, logits) + loss.gradient_penalty(completed, logits_completed)
            total = total + self.config.penalty / 2 * _PENALTY_EVERY * penalty
        total.backward()
        self.opt_critic.step()
        return total


def _param_groups(config: EncoderConfig, network: Encoder | Generator, share: float) -> list[dict[str, Any]]:
    """Parameter groups for Adam, each with its share of the learning rate."""
    new, old = ([value for value in part if value.requires_grad] for part in new_and_old(network))
    old_share = share * (config.lr_old if new else 1)
    return [{"params": part, "share": times} for part, times in ((new, share), (old, old_share)) if part]


def holes_by_step(config: EncoderConfig, size: int, device: torch.device) -> Callable[[int], NDArray[np.bool_]]:
    """Return a function from the number of a step to its holes, bool (batch + pairs, S, S), real images first.

    Drawing takes longer than a step of a GPU, so there each hole is one of a stock that is drawn at the start.
    """
    stock = draw_holes(_STOCK, size, np.random.default_rng([config.seed, 3])) if device.type == "cuda" else None
    count = config.batch + config.pairs

    def at(number: int) -> NDArray[np.bool_]:
        rng = np.random.default_rng(seeded(config.seed, 3, number).initial_seed())
        return draw_holes(count, size, rng) if stock is None else stock[rng.integers(_STOCK, size=count)]

    return at


def draw(config: EncoderConfig, network: NetworkConfig, holes: NDArray[np.bool_], noise: torch.Generator) -> Batch:
    """Draw all random numbers of a step for its holes, bool (N + pairs, S, S); the last are for generated images.

    Returns:
        hole, bool (N + pairs, 1, S, S); z of the generated images, (pairs, nz); shift of E's z, (N + pairs, nz): the
        last real faces get noise of random strength, as inside their holes they need not match, only look real.
    """
    total = len(holes)
    count = total - config.pairs
    z = sample_z(config.pairs, network, noise)
    matched = _matched(config, count)
    strength = torch.zeros(total, 1)
    strength[matched:count] = torch.rand(count - matched, 1, generator=noise)
    return {"hole": torch.from_numpy(holes)[:, None], "z": z, "shift": strength * sample_z(total, network, noise)}


def encoder_losses(
    config: EncoderConfig,
    E: Encoder,
    G: Generator,
    critic: Discriminator,
    batch: Batch,
    patches: "PatchHeads | None" = None,
    perceptual: Perceptual | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of E on one batch of `draw`, with its real images (N, 3, S, S) in [-1, 1].

    Returns:
        The unweighted losses by the names of their weights in the config, and the completed faces, (N, 3, S, S).
    """
    real, z, hole = batch["real"], batch["z"], batch["hole"]
    count, matched = len(real), _matched(config, len(real))
    with torch.no_grad():
        made = G(z).float() if config.pairs else real[:0]
    guess, skips = E(torch.cat([real, made]), hole)
    guess = guess.float()
    noised = guess + batch["shift"]
    fake = G(noised, skips).float()[:count]
    hole = hole[:count]
    weight = torch.where(hole, config.hole_weight, 1.0)
    weight[matched:] = (~hole[matched:]).float()
    completed = torch.where(hole, fake, real)
    losses = {"image": (weight * (fake - real).abs()).mean() / weight.mean(), "z_square": guess[:count].square().mean()}
    if config.pairs:
        losses["z"] = (guess[count:] - z).square().mean()
    if perceptual is not None:
        with torch.no_grad():
            features = perceptual(real[:matched])
        losses["perceptual"] = loss.feature_distance(perceptual(completed[:matched]), features)
    if config.feature_weight > 0 or config.adversarial_weight > 0 or patches is not None:
        with torch.no_grad():
            features, logits = critic.judged(real)
            judged = patches(features) if patches is not None else None
        features_completed, logits_completed = critic.judged(completed)
        losses["adversarial"] = loss.relativistic_g(logits, logits_completed)
        losses["feature"] = loss.feature_distance(
            [layer[:matched] for layer in features_completed], [layer[:matched] for layer in features]
        )
        if patches is not None:
            losses["patch"] = (patches.weight(hole) * softplus(judged - patches(features_completed))).sum()
    return losses, completed


class PatchHeads(nn.Module):
    """Heads of the critic that judge patches, initially undecided, so that texture is learnt sooner than by one logit.

    Source: Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", section 3.2.2.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        blocks = {config.size >> (index + 1): index for index in range(config.doublings)}  # by the side of their output
        self._blocks = {side: blocks[side] for side in _PATCHES if side in blocks}
        self.heads = nn.ModuleList(nn.Conv2d(config.ndf * 2**index, 1, 3, padding=1) for index in self._blocks.values())
        for value in self.parameters():
            nn.init.zeros_(value)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map D's features to logits of patches: (N, cells of all layers)."""
        pairs = zip(self.heads, self._blocks.values(), strict=True)
        return torch.cat([head(features[index]).flatten(1).float() for head, index in pairs], dim=1)

    def weight(self, hole: Tensor) -> Tensor:
        """Weight of each cell, its share of the hole; 1 in sum, and each layer has the same part: (N, cells)."""
        shares = [avg_pool2d(hole.float(), hole.shape[2] // side).flatten(1) / side**2 for side in self._blocks]
        weight = torch.cat(shares, dim=1)
        return weight / weight.sum()


def _matched(config: EncoderConfig, count: int) -> int:
    """How many of the real faces, the first ones, get no noise."""
    return count - round(config.noised * count)


def _pictures(E: Encoder, G: Generator, real: Tensor) -> Tensor:
    """Rows of visible pixels, G(E(x)), completed faces and real ones: (4 N, 3, S, S)."""
    hole = torch.from_numpy(draw_holes(len(real), real.shape[2], np.random.default_rng(0)))[:, None].to(real.device)
    fake = G(*E(real, hole)).float()
    return torch.cat([torch.where(hole, 0.0, real), fake, torch.where(hole, fake, real), real])


def _measure(E: Encoder, G: Generator, seen: Tensor, device: torch.device) -> dict[str, float]:
    """Mean PSNR of G(E(x)) in dB inside several holes, without blending."""
    found = {}
    reals = to_image(seen)
    rng = np.random.default_rng(1)
    for name, mask in MEASURED.items():
        holes = np.stack([named_hole(mask, seen.shape[2], rng) for _ in range(len(seen))])
        pairs = zip(seen.split(50), torch.from_numpy(holes)[:, None].split(50), strict=True)
        fakes = np.concatenate([to_image(G(*E(part.to(device), hole.to(device)))) for part, hole in pairs])
        found[f"psnr_{name}"] = fmean(map(psnr, reals, fakes, holes))
    return found


def _subsample(faces: Any, count: int) -> Any:
    """At most `count` faces at even distances, since neighbours in a folder often show one person."""
    return faces[:: -(-len(faces) // count)]


def continues(start: Encoder, E: Encoder) -> bool:
    """Whether E can continue from another encoder's weights."""
    return start.settings["nef"] == E.settings["nef"] and start.settings["inputs"] <= E.settings["inputs"]


def widened(start: Encoder, E: Encoder) -> dict[str, Tensor]:
    """The state of an encoder as one of E, with zeros for inputs that it lacks, so that they have no effect yet.

    Skips that it lacks stay those of E, which start at zero.
    """
    state = E.state_dict()
    for name, value in start.state_dict().items():
        if name in state:
            state[name] = torch.zeros_like(state[name])
            state[name][tuple(map(slice, value.shape))] = value
    return state


def export_encoder(folder: Path, path: Path) -> dict[str, Any]:
    """Write the encoder of a run's newest checkpoint into a copy of the weights that it was trained for.

    What is said of `dcgan.export.export_run` holds here, too.

    Raises:
        WeightsError: the copy of the weights in the folder is absent or damaged.
    """
    saved = load_run(folder, "encode")
    start = Weights.open(folder / START, "cpu")
    with restoring(folder):
        config, G, completer = saved["config"], start.generator, start.completer
        E = Encoder(G.config, config["nef"], config["skips"], config["inputs"])
        E.load_state_dict(saved["ema"])
        if "ema_g" in saved:
            completer = Generator(G.config)
            completer.load_state_dict(saved["ema_g"])
    before = start.metadata.get("encoder", {}) if start.encoder and continues(start.encoder, E) else {}
    metadata = training_record(saved, config["batch"], before) | {"weights_sha256": saved["weights_sha256"]}
    everything = start.metadata | {"encoder": metadata}
    Weights.of(G, start.discriminator, start.template, everything, E, completer=completer).save(path)
    return metadata
