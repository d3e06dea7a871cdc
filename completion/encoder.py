"""Train and export the encoder: visible pixels to a latent z and skip features for G."""

import time
from collections.abc import Generator as Steps
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from completion.holes import draw_holes, named_hole
from dcgan import loss
from dcgan.checkpoint import CheckpointError, Weights, load_checkpoint, load_weights, save_checkpoint, save_weights
from dcgan.config import EncoderConfig
from dcgan.dataset import Batches, digest
from dcgan.grow import new_and_old
from dcgan.metrics import psnr
from dcgan.networks import Discriminator, Encoder, Generator
from dcgan.run import RunFolder, TrainingError, TrainingStep, check_same_run, crosses, machine
from dcgan.sampling import sample_z
from dcgan.step import cosine, seeded, update_average
from dcgan.tensors import to_image, to_tensor

START = "start.safetensors"  # in the run folder: the weights that E is trained for, which export adds it to
# Name of a figure to the hole that it is measured on, see completion.holes.named_hole.
MEASURED = {"center": "center", "left": "left", "pattern": "pattern", "random80": "random:0.8"}
_SHOWN = 16  # faces in a grid
_MEASURED = 200  # faces that figures are means over
_PENALTY_EVERY = 4  # steps of the critic


def train_encoder(
    config: EncoderConfig,
    weights: Weights,
    faces: NDArray[np.uint8],
    folder: Path,
    device: torch.device,
    val: NDArray[np.uint8] | None = None,
) -> Steps[TrainingStep]:
    """Train E, or resume where the folder's newest checkpoint stands.

    With an adversarial loss a critic, which begins as D, learns to tell completed faces from real ones. G stays as it
    is unless it has a learning rate of its own. An E that begins as another, and G, keep their batch norms' statistics.

    As `train`: what is random is a function of the seed and the step, and closing the iterator saves a checkpoint.

    Args:
        config: the run's settings; only `kimg` may differ from those that the folder was begun with.
        weights: G and D, on any device, of the size of the faces; an E among them is trained on.
        faces: uint8 (N, S, S, 3).
        folder: the run folder; gets what `train` writes, and a copy of the weights.
        device: where to compute; the faces go there, too.
        val: faces that are not trained on, uint8 (N, S, S, 3), for the grids and the PSNR of holes.
    Yields:
        Where the run begins, then one TrainingStep a step.
    Raises:
        TrainingError: a loss or a weight is no finite number.
        CheckpointError: the folder holds another run.
        DatasetError: there are fewer images than a batch.
    """
    # Load the data.
    batches = Batches(faces, config.batch, config.seed, config.flip, device)
    data_sha256 = digest(faces)
    seen = to_tensor(_spread(faces, _SHOWN) if val is None else _spread(val, _MEASURED))

    # Build E and its average beside G and the critic.
    torch.manual_seed(config.seed)
    G, critic, begun = deepcopy(weights.generator), deepcopy(weights.discriminator), weights.encoder
    E = Encoder(G.config, config.nef, config.skips)
    for network in (G, critic, E):
        network.to(device).to(memory_format=torch.channels_last)
    if begun is not None and carries_on(begun, E):
        E.load_state_dict(begun.state_dict(), strict=False)  # skips that it has not begin at nothing
        E.eval()
    ema, ema_g = deepcopy(E).eval().requires_grad_(False), deepcopy(G).requires_grad_(False)
    optimiser = torch.optim.Adam(_rates(config, E, 1), config.lr, (0.9, 0.99), fused=True)
    parts: dict[str, Any] = {"E": E, "ema": ema, "optimiser": optimiser}
    if config.lr_generator > 0:
        G.requires_grad_(True)
        for group in _rates(config, G, config.lr_generator):
            optimiser.add_param_group(group)
        parts |= {"G": G, "ema_g": ema_g}
    if config.adversarial_weight > 0:
        opt_critic = torch.optim.Adam(critic.parameters(), config.lr_critic, (0.0, 0.99), fused=True)
        parts |= {"critic": critic, "opt_critic": opt_critic}
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

    # Resume.
    saved = load_checkpoint(folder)
    step, seconds = 0, 0.0
    if saved is not None:
        check_same_run(saved, asdict(config), data_sha256, folder)
        if saved["weights_sha256"] != weights.sha256:
            raise CheckpointError(f"{folder} was begun with other weights; give the same ones or another run folder")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        step, seconds = saved["step"], saved["seconds"]
    run = RunFolder(folder, step * config.batch)
    run.settings(asdict(config))
    if saved is None:
        save_weights(folder / START, G, weights.discriminator, weights.template, weights.facts, begun)
    yield TrainingStep(step * config.batch)

    def save() -> None:
        _check_finite(sums, E)
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": step, "seconds": seconds, "config": asdict(config), "machine": machine(device)}
        state |= {"data_sha256": data_sha256, "data_images": len(faces), "weights_sha256": weights.sha256}
        save_checkpoint(folder, step * config.batch, state)

    def rate() -> float:
        """0 while the critic warms up, then a rise to the cosine."""
        warm_ups = step * config.batch / (config.warm_kimg * 1000) if config.warm_kimg else 2.0
        rise = min(1.0, max(0.0, warm_ups - 1))
        return rise * cosine(config.lr, config.lr_end, step * config.batch / (config.kimg * 1000))

    sums: dict[str, Tensor] = {}
    ticked = step, seconds
    last_save = time.monotonic()
    try:
        while step * config.batch < config.kimg * 1000:
            began = time.monotonic()
            for group in optimiser.param_groups:
                group["lr"] = rate() * group["share"]
            real = to_tensor(batches.at(step))
            critic.requires_grad_(False)
            optimiser.zero_grad(set_to_none=True)
            with autocast:
                losses, completed = _losses(config, E, G, critic, real, seeded(config.seed, 3, step))
            if rate() > 0:
                weighted = [getattr(config, f"{name}_weight") * value for name, value in losses.items()]
                torch.stack(weighted).sum().backward()
                optimiser.step()
            if config.adversarial_weight > 0:
                critic.requires_grad_(True)
                opt_critic.zero_grad(set_to_none=True)
                with autocast:
                    penalised = step % _PENALTY_EVERY == 0
                    losses["critic"] = _critic_loss(config, critic, real, completed.detach(), penalised)
                losses["critic"].backward()
                opt_critic.step()
            step += 1
            images = step * config.batch
            update_average(ema, E, config.ema_kimg, images, config.batch)
            if config.lr_generator > 0:
                update_average(ema_g, G, config.ema_kimg, images, config.batch)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach()
            last = images >= config.kimg * 1000
            tick = last or crosses(images, config.batch, config.tick_kimg)
            if tick:
                _check_finite(sums, E)  # waits for the device
            seconds += time.monotonic() - began

            # Maintenance: log, samples, checkpoint.
            stats: dict[str, float] = {}
            if tick:
                stats = {"kimg": images / 1000, "lr": rate(), "seconds": seconds}
                stats |= {name: float(value) / (step - ticked[0]) for name, value in sums.items()}
                stats["images_per_second"] = (step - ticked[0]) * config.batch / (seconds - ticked[1])
                sums.clear()
                ticked = step, seconds
            if last or crosses(images, config.batch, config.sample_kimg):
                with torch.no_grad(), autocast:
                    shown = _spread(seen, _SHOWN)
                    run.grid(_pictures(ema, ema_g, shown.to(device)), images, columns=len(shown))
                    if val is not None:
                        stats |= {"kimg": images / 1000} | _measure(ema, ema_g, seen, device)
            if stats:
                run.tick(stats)
            if time.monotonic() - last_save > config.save_minutes * 60:
                save()
                last_save = time.monotonic()
            yield TrainingStep(images, stats or None)
    except GeneratorExit:  # the caller stops between two steps: keep what was learnt since the last checkpoint
        save()
        raise
    finally:
        run.close()
    save()


def carries_on(begun: Encoder, E: Encoder) -> bool:
    """Whether E can begin with another encoder's weights."""
    return begun.settings["nef"] == E.settings["nef"]


def export_encoder(folder: Path, path: Path) -> dict[str, Any]:
    """Write the weights that a run's encoder was trained for, with the encoder of the newest checkpoint.

    Args:
        folder: the run folder of `train_encoder`.
        path: the weights file to write, .safetensors.
    Returns:
        The metadata of the encoder's training, as the file carries it.
    Raises:
        CheckpointError: the folder has no readable checkpoint.
        WeightsError: the copy of the weights in the folder is damaged.
    """
    saved = load_checkpoint(folder)
    if saved is None:
        raise CheckpointError(f"{folder} has no checkpoint; run python -m dcgan encode to the first one")
    start = load_weights(folder / START)
    config = saved["config"]
    G = start.generator
    E = Encoder(G.config, config["nef"], config.get("skips", False))
    E.load_state_dict(saved["ema"])
    if "ema_g" in saved:
        G.load_state_dict(saved["ema_g"])
    facts = {name: saved[name] for name in ("machine", "data_images", "data_sha256", "weights_sha256")}
    begun = start.facts.get("encoder", {}) if start.encoder and carries_on(start.encoder, E) else {}
    facts["images"] = saved["step"] * config["batch"] + begun.get("images", 0)
    facts["seconds"] = round(saved["seconds"]) + begun.get("seconds", 0)
    facts["training"] = config
    save_weights(path, G, start.discriminator, start.template, start.facts | {"encoder": facts}, E)
    return facts


def _rates(config: EncoderConfig, network: Encoder | Generator, share: float) -> list[dict[str, Any]]:
    """Parameter groups for Adam, each with its share of the learning rate."""
    new, old = new_and_old(network)
    rate = config.lr_old if new else 1
    return [{"params": part, "share": times} for part, times in ((new, share), (old, share * rate)) if part]


def _losses(
    config: EncoderConfig, E: Encoder, G: Generator, critic: Discriminator, real: Tensor, noise: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of one step, unweighted, by the names of their weights, and the completed faces."""
    count = len(real)
    rng = np.random.default_rng(noise.initial_seed())
    hole = torch.from_numpy(draw_holes(count + config.pairs, real.shape[2], rng))[:, None].to(real.device)
    z = sample_z(config.pairs, G.config, noise).to(real.device)
    with torch.no_grad():
        made = G(z).float() if config.pairs else real[:0]
    guess, skips = E(torch.cat([real, made]), hole)
    guess = guess.float()
    # The last faces get noise of any strength: what is under their holes is then not given, but must look real.
    guessed = count - round(config.noised * count)
    strength = torch.zeros(len(guess), 1)
    strength[guessed:count] = torch.rand(count - guessed, 1, generator=noise)
    noised = guess + (strength * sample_z(len(guess), G.config, noise)).to(real.device)
    fake = G(noised, skips).float()[:count]
    hole = hole[:count]
    weight = torch.where(hole, config.hole_weight, 1.0)
    weight[guessed:] = (~hole[guessed:]).float()
    completed = torch.where(hole, fake, real)
    losses = {
        "image": (weight * (fake - real).abs()).mean() / weight.mean(),
        "z_square": guess[:count].square().mean(),
    }
    if config.pairs:
        losses["z"] = (guess[count:] - z).square().mean()
    if config.feature_weight > 0 or config.adversarial_weight > 0:
        with torch.no_grad():
            features = critic.features(real)
            logits = critic.head(features[-1]).flatten().float()
        features_completed = critic.features(completed)
        logits_completed = critic.head(features_completed[-1]).flatten().float()
        losses["adversarial"] = loss.relativistic_g(logits, logits_completed)
        losses["feature"] = loss.feature_distance(
            [layer[:guessed] for layer in features_completed], [layer[:guessed] for layer in features]
        )
    return losses, completed


def _critic_loss(
    config: EncoderConfig, critic: Discriminator, real: Tensor, completed: Tensor, penalised: bool
) -> Tensor:
    """What the critic minimises; its penalties come every few steps and count for those between."""
    real, completed = real.requires_grad_(penalised), completed.requires_grad_(penalised)
    logits, logits_completed = critic(real).float(), critic(completed).float()
    total = loss.relativistic_d(logits, logits_completed)
    if penalised and config.penalty > 0:
        penalty = loss.gradient_penalty(real, logits) + loss.gradient_penalty(completed, logits_completed)
        total = total + config.penalty / 2 * _PENALTY_EVERY * penalty
    return total


def _pictures(E: Encoder, G: Generator, real: Tensor) -> Tensor:
    """Rows of what E sees, G(E(x)), the completed face and the real one: (4 N, 3, S, S)."""
    hole = torch.from_numpy(draw_holes(len(real), real.shape[2], np.random.default_rng(0)))[:, None].to(real.device)
    fake = G(*E(real, hole)).float()
    return torch.cat([torch.where(hole, 0.0, real), fake, torch.where(hole, fake, real), real])


def _measure(E: Encoder, G: Generator, seen: Tensor, device: torch.device) -> dict[str, float]:
    """PSNR of G(E(x)) under each of some holes, in dB: the mean over the faces, nothing blended."""
    found = {}
    reals = to_image(seen)
    rng = np.random.default_rng(1)
    for name, mask in MEASURED.items():
        holes = np.stack([named_hole(mask, seen.shape[2], rng) for _ in range(len(seen))])
        pairs = zip(seen.split(50), torch.from_numpy(holes)[:, None].split(50), strict=True)
        fakes = np.concatenate([to_image(G(*E(part.to(device), under.to(device)))) for part, under in pairs])
        found[f"psnr_{name}"] = fmean(map(psnr, reals, fakes, holes))
    return found


def _spread(faces: Any, count: int) -> Any:
    """At most `count` of the faces, from all over: neighbours in a folder are often of one person."""
    return faces[:: -(-len(faces) // count)]


def _check_finite(sums: dict[str, Tensor], E: Encoder) -> None:
    odd = [name for name, value in sums.items() if not torch.isfinite(value)]
    odd += [name for name, value in E.named_parameters() if not torch.isfinite(value).all()]
    if odd:
        raise TrainingError(f"no finite number in {', '.join(odd)}; the last good checkpoint is kept. Lower lr")
