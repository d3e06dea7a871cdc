"""The training loop."""

import json
import math
import platform
import time
from collections.abc import Generator as Steps
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from align.photo import atomic_write
from dcgan import loss
from dcgan.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dcgan.config import TrainConfig
from dcgan.dataset import Batches, digest
from dcgan.networks import Discriminator, Generator, sample_z
from dcgan.tensors import to_image, to_tensor

_GRID = 64  # images in a grid


class TrainingError(Exception):
    """Training went wrong and stopped; the last good checkpoint is kept."""


@dataclass(frozen=True)
class Progress:
    """One step of training.

    Attributes:
        images: real images shown to D so far.
        stats: the means since the last tick, on the steps that end a tick.
    """

    images: int
    stats: dict[str, float] | None = None


def train(config: TrainConfig, faces: NDArray[np.uint8], folder: Path, device: torch.device) -> Steps[Progress]:
    """Train G and D on aligned faces, or carry on where the folder's newest checkpoint stands.

    Everything random is a function of the seed and the step, so that on the CPU a resumed run is bit-equal to one that
    was never stopped. Closing the iterator saves a checkpoint.

    Args:
        config: the run's settings; only `kimg` may differ from those that the folder was begun with.
        faces: uint8 (N, S, S, 3).
        folder: the run folder; gets config.json, stats.jsonl, TensorBoard events, grids and checkpoints.
        device: where to compute.
    Yields:
        Where the run begins, then one Progress a step.
    Raises:
        TrainingError: a loss or a weight is no finite number.
        CheckpointError: the folder holds another run.
        DatasetError: there are fewer images than a batch.
    """
    from torch.utils.tensorboard import SummaryWriter

    # Load the data.
    batches = Batches(faces, config.batch, config.seed, config.flip)
    data_sha256 = digest(faces)

    # Build the networks, the average of G and the optimisers.
    torch.manual_seed(config.seed)
    network = config.network
    G = Generator(network).to(device)
    D = Discriminator(network).to(device)
    for part in (G, D):
        part.to(memory_format=torch.channels_last)
    ema = deepcopy(G).eval().requires_grad_(False)
    adam: dict[str, Any] = {"lr": config.lr, "betas": (config.beta1, config.beta2), "fused": True}
    opt_g = torch.optim.Adam(G.parameters(), **adam)
    opt_d = torch.optim.Adam(D.parameters(), **adam)
    parts: dict[str, Any] = {"G": G, "D": D, "ema": ema, "opt_g": opt_g, "opt_d": opt_d}
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
    fixed_z = sample_z(_GRID, network, _generator(config.seed, 0, 0)).to(device)

    # Resume.
    folder.mkdir(parents=True, exist_ok=True)
    saved = load_checkpoint(folder)
    step, seconds = 0, 0.0
    if saved is not None:
        _check_same_run(saved, config, data_sha256, folder)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        step, seconds = saved["step"], saved["seconds"]
    _write_json(folder / "config.json", asdict(config))
    _cut_stats(folder / "stats.jsonl", step * config.batch)
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step * config.batch)
    if step == 0:
        _write_grid(folder / "reals.png", to_tensor(batches.at(0)[:_GRID]))
    yield Progress(step * config.batch)

    def save() -> None:
        _check_finite(sums, parts)
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": step, "seconds": seconds, "config": asdict(config), "machine": _machine(device)}
        state |= {"data_sha256": data_sha256, "data_images": len(faces)}
        save_checkpoint(folder, step * config.batch, state)

    sums: dict[str, Tensor] = {}
    steps_in_tick, tick_seconds = 0, 0.0
    last_save = time.monotonic()
    try:
        while step * config.batch < config.kimg * 1000:
            began = time.monotonic()
            for optimiser in (opt_g, opt_d):
                optimiser.param_groups[0]["lr"] = _learning_rate(config, step)
            real = to_tensor(batches.at(step).to(device))
            z = sample_z(config.batch, network, _generator(config.seed, 1, step)).to(device)
            with autocast:
                fake = G(z)

            # D step; both penalties only every few steps, and weighted by as much.
            penalised = config.gamma > 0 and step % config.penalty_every == 0
            D.requires_grad_(True)
            opt_d.zero_grad(set_to_none=True)
            seen_real = real.requires_grad_(penalised)
            seen_fake = fake.detach().float().requires_grad_(penalised)
            with autocast:
                logits_real, logits_fake = D(seen_real), D(seen_fake)
            loss_d = _loss_d(config, logits_real.float(), logits_fake.float())
            total_d = loss_d
            if penalised:
                with autocast:
                    r1 = loss.gradient_penalty(seen_real, logits_real)
                    r2 = loss.gradient_penalty(seen_fake, logits_fake)
                total_d = loss_d + config.gamma / 2 * config.penalty_every * (r1 + r2)
                _add(sums, r1=r1 * config.penalty_every, r2=r2 * config.penalty_every)
            total_d.backward()
            opt_d.step()

            # G step, through the same generated images and the D that has just learnt.
            D.requires_grad_(False)
            opt_g.zero_grad(set_to_none=True)
            with autocast:
                logits_fake = D(fake)
            # In G's loss D(x) only weighs the pairs, so the value from before D's step serves.
            loss_g = _loss_g(config, logits_real.detach().float(), logits_fake.float())
            loss_g.backward()
            opt_g.step()

            step += 1
            _update_ema(ema, G, config, step)
            _add(sums, loss_d=loss_d, loss_g=loss_g, real=logits_real.float().mean(), fake=logits_fake.float().mean())
            steps_in_tick += 1
            tick_seconds += time.monotonic() - began
            seconds += time.monotonic() - began

            # Maintenance: log, samples, checkpoint.
            images = step * config.batch
            stats = None
            if _crosses(images, config.batch, config.tick_kimg) or images >= config.kimg * 1000:
                _check_finite(sums, {})
                stats = {"kimg": images / 1000, "lr": _learning_rate(config, step)}
                stats |= {name: float(value) / steps_in_tick for name, value in sums.items()}
                stats |= {"seconds": seconds, "images_per_second": steps_in_tick * config.batch / tick_seconds}
                with open(folder / "stats.jsonl", "a") as file:
                    file.write(json.dumps(stats) + "\n")
                for name, value in stats.items():
                    writer.add_scalar(name, value, images)
                sums.clear()
                steps_in_tick, tick_seconds = 0, 0.0
            if _crosses(images, config.batch, config.sample_kimg) or images >= config.kimg * 1000:
                grid = _write_grid(folder / "samples" / f"{images:010d}.png", ema(fixed_z))
                writer.add_image("samples", grid, images, dataformats="HWC")
            if time.monotonic() - last_save > config.save_minutes * 60:
                save()
                last_save = time.monotonic()
            yield Progress(images, stats)
    except GeneratorExit:  # the caller stops between two steps: keep what was learnt since the last checkpoint
        save()
        raise
    finally:
        writer.close()
    save()


def settle_batch_norm(G: Generator, seed: int = 0, batches: int = 100, batch: int = 64) -> None:
    """Measure the statistics of G's batch norm anew, over many generated batches; leaves G in eval mode.

    An average of weights has other activations than the weights that it averages, so averaged statistics do not fit it.
    """
    norms = [module for module in G.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    device = next(G.parameters()).device
    G.train()
    with torch.no_grad():
        for index in range(batches):
            G(sample_z(batch, G.config, _generator(seed, 2, index)).to(device))
    G.eval()


def _loss_d(config: TrainConfig, real: Tensor, fake: Tensor) -> Tensor:
    return loss.relativistic_d(real, fake) if config.loss == "relativistic" else loss.classic_d(real, fake)


def _loss_g(config: TrainConfig, real: Tensor, fake: Tensor) -> Tensor:
    return loss.relativistic_g(real, fake) if config.loss == "relativistic" else loss.classic_g(fake)


def _learning_rate(config: TrainConfig, step: int) -> float:
    done = min(1.0, step * config.batch / (config.kimg * 1000))
    return config.lr_end + (config.lr - config.lr_end) * (1 + math.cos(math.pi * done)) / 2


def _update_ema(ema: Generator, G: Generator, config: TrainConfig, step: int) -> None:
    """Half-life `ema_kimg`, shorter while the run is young, so that the first images are forgotten."""
    half_life = min(config.ema_kimg * 1000, 0.05 * step * config.batch)
    keep = 0.5 ** (config.batch / half_life) if half_life > 0 else 0.0
    with torch.no_grad():
        for average, value in zip(ema.state_dict().values(), G.state_dict().values(), strict=True):
            average.lerp_(value, 1 - keep) if average.is_floating_point() else average.copy_(value)


def _generator(seed: int, purpose: int, index: int) -> torch.Generator:
    entropy = np.random.SeedSequence([seed, 1, purpose, index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(entropy[0] >> 1))


def _crosses(images: int, batch: int, every_kimg: float) -> bool:
    """Whether the last batch passed a multiple of `every_kimg`."""
    return images // (every_kimg * 1000) != (images - batch) // (every_kimg * 1000)


def _add(sums: dict[str, Tensor], **values: Tensor) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0) + value.detach()


def _check_finite(sums: dict[str, Tensor], parts: dict[str, Any]) -> None:
    odd = [name for name, value in sums.items() if not torch.isfinite(value)]
    odd += [
        name
        for name, part in parts.items()
        if isinstance(part, nn.Module) and not all(torch.isfinite(value).all() for value in part.parameters())
    ]
    if odd:
        raise TrainingError(
            f"no finite number in {', '.join(odd)}; the last good checkpoint is kept. Lower --lr or raise --gamma"
        )


def _check_same_run(saved: dict[str, Any], config: TrainConfig, data_sha256: str, folder: Path) -> None:
    if saved["data_sha256"] != data_sha256:
        raise CheckpointError(f"{folder} was begun on other images; give the same ones or another --out")
    ours, theirs = asdict(config) | {"kimg": 0}, saved["config"] | {"kimg": 0}
    odd = [name for name in ours if ours[name] != theirs.get(name)]
    if odd or ours.keys() != theirs.keys():
        raise CheckpointError(
            f"{folder} was begun with another {', '.join(odd) or 'version of this program'}: give the same settings "
            "(config.json has them) or another --out"
        )


def _cut_stats(path: Path, images: int) -> None:
    """Drop the lines that were logged after the checkpoint: their steps are made again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if json.loads(line)["kimg"] * 1000 <= images]
        with atomic_write(path) as file:
            file.write("".join(line + "\n" for line in lines).encode())


def _machine(device: torch.device) -> str:
    """What computes, for the model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def _write_grid(path: Path, images: Tensor) -> NDArray[np.uint8]:
    grid = to_image(make_grid(images.float(), nrow=round(math.sqrt(len(images))), padding=0)[None])[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        Image.fromarray(grid).save(file, "PNG")
    return grid
