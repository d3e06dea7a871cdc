"""Train G and D on aligned faces."""

from collections.abc import Generator as Steps
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align.errors import ConfigError
from dcgan.checkpoint import CheckpointError
from dcgan.config import TrainConfig
from dcgan.dataset import Batches, digest
from dcgan.device import machine
from dcgan.grow import grow
from dcgan.networks import Generator
from dcgan.parallel import Group
from dcgan.run import Run, RunInputs, TrainingError, TrainingStep
from dcgan.sampling import device_of, sample_z
from dcgan.similarity import ms_ssim
from dcgan.step import GanTrainer, learning_rate, seeded
from dcgan.tensors import to_tensor
from dcgan.weights import Weights

_GRID = 64  # images per grid
_DIAGNOSED = 512  # images of each kind for the overfitting measure
_MAINTENANCE = 0.05  # share of the time that logs, grids and checkpoints may take
# Collapse check, as shares of the variety of real faces by MS-SSIM: once samples have reached the first, falling below
# the second means that G has collapsed. Until the grace period ends, G may not have learnt to use z yet.
_DIVERSE, _COLLAPSED = 0.5, 0.15
_GRACE_KIMG = 100


def train(
    config: TrainConfig,
    faces: NDArray[np.uint8],
    folder: Path,
    device: torch.device,
    val: NDArray[np.uint8] | None = None,
    group: Group | None = None,
) -> Steps[TrainingStep]:
    """Train G and D on aligned faces, or resume from the newest checkpoint of the run folder.

    All random numbers are functions of the seed and the step, so on the CPU a resumed run is bit-equal to an
    uninterrupted one. Closing the iterator saves a checkpoint.

    Args:
        config: the settings; only `kimg` may change when a run is resumed.
        faces: uint8 (N, S, S, 3); copied to the device.
        folder: run folder for config.json, stats.jsonl, grids and checkpoints.
        device: where to compute.
        val: validation faces, uint8 (N, S, S, 3), to measure how far D overfits the training faces.
        group: processes that share every batch; only the first one writes.
    Yields:
        The position where the run starts or resumes, then every step.
    Raises:
        TrainingError: a loss or weight is NaN or infinite, or G has collapsed to one image.
        CheckpointError: the folder holds another run, or the start weights have other networks.
        ConfigError: the batch cannot be divided among the processes.
        DatasetError: there are fewer images than a batch.
    """
    # Load the data.
    group = group or Group()
    if config.batch % group.size:
        raise ConfigError(f"a batch of {config.batch} cannot be divided among {group.size} processes; use a multiple")
    batches = Batches(faces, config.batch, config.seed, config.flip, device)

    # Build the networks and optimisers, then resume.
    trainer = GanTrainer(config, device, group)
    # "varied": whether samples have been diverse, after which they must stay so.
    extra_state: dict[str, Any] = {"started": _load_start(config, trainer), "varied": False}
    inputs = RunInputs(digest(faces), len(faces), machine(device))
    run = Run(folder, "train", config, trainer.modules, inputs, extra_state, group)
    fixed_z = sample_z(_GRID, config.network, seeded(config.seed, 0, 0)).to(device)
    diagnosed = [torch.from_numpy(images[:_DIAGNOSED]).to(device) for images in (faces, val) if images is not None]
    reals = to_tensor(batches.at(0)[:_GRID])
    ms_ssim_reals = _ms_ssim_of_pairs(reals)
    run.grid(reals, "reals.png")

    def step(number: int) -> dict[str, Tensor]:
        numbers = range(number * config.d_steps, (number + 1) * config.d_steps)
        return trainer.step(number, [to_tensor(batches.at(each)) for each in numbers])

    def diagnose() -> dict[str, float]:
        samples = trainer.ema(fixed_z)
        found = {"ms_ssim_reals": ms_ssim_reals, "ms_ssim_samples": _ms_ssim_of_pairs(samples)}
        if val is not None:
            found["overfit"] = _overfitting(trainer, samples, diagnosed)
        _check_collapse(run, found)
        # If steps are fast, skip some grids rather than slow training down.
        if run.finished or run.maintenance_s < 1 + _MAINTENANCE * run.seconds:
            run.grid(samples)
        return found

    yield from run.loop(step, partial(learning_rate, config), diagnose)


def _overfitting(trainer: GanTrainer, samples: Tensor, diagnosed: list[Tensor]) -> float:
    """Where D's mean logit on validation faces lies between that on training faces, 0, and that on samples, 1.

    Source: Karras et al. 2020, "Training generative adversarial networks with limited data", eq. 1.
    """
    trainer.D.eval()
    with torch.no_grad(), trainer.autocast():
        means = [trainer.D(images).float().mean() for images in (*map(to_tensor, diagnosed), samples)]
    trainer.D.train()
    logits = torch.stack(means).cpu().tolist()
    apart = logits[0] - logits[2]
    return (logits[0] - logits[1]) / apart if apart else 0.0


def _ms_ssim_of_pairs(images: Tensor) -> float:
    """Mean MS-SSIM of the first half of the images with the second: 1 if all are the same (Odena et al. 2017)."""
    half = len(images) // 2
    return float(ms_ssim(images[:half], images[half : 2 * half]).mean())


def _check_collapse(run: Run, found: dict[str, float]) -> None:
    """Raise TrainingError if the samples have lost the variety that they had, or never gained any."""
    variety, variety_reals = 1 - found["ms_ssim_samples"], 1 - found["ms_ssim_reals"]
    state = run.extra_state
    state["varied"] = state["varied"] or variety > _DIVERSE * variety_reals or run.images > _GRACE_KIMG * 1000
    if state["varied"] and variety < _COLLAPSED * variety_reals - 1e-6:  # the real faces may be all the same
        raise TrainingError(
            f"G has collapsed: its samples are all alike (MS-SSIM of pairs {1 - variety:.2f}, of real faces "
            f"{1 - variety_reals:.2f}); earlier checkpoints are kept. Raise r1 and r2, lower lr, or use another loss"
        )


def _load_start(config: TrainConfig, trainer: GanTrainer) -> dict[str, Any]:
    """Copy the start weights, grown if need be, into the networks; returns their training metadata."""
    if not config.start:
        return {}
    start = Weights.open(config.start, "cpu")
    if start.generator.config.size < config.network.size:
        start = grow(start, config.network.size, config.seed)
    if start.generator.config != config.network:
        raise CheckpointError(
            f"the weights {config.start} are for other networks; use their settings: {start.generator.config}"
        )
    for network in (trainer.G, trainer.ema):
        network.load_state_dict(start.generator.state_dict())
    trainer.D.load_state_dict(start.discriminator.state_dict())
    return {"sha256": start.sha256, **{name: start.metadata.get(name, 0) for name in ("images", "seconds")}}


def recalibrate_batch_norm(G: Generator, seed: int = 0, batches: int = 100, batch: int = 64) -> None:
    """Recompute G's batch norm statistics from generated batches, and leave G in eval mode.

    The moving average of G has other activations than the networks it averages, so their statistics do not fit it.
    """
    norms = [module for module in G.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain mean over all batches
    device = device_of(G)
    G.train()
    with torch.no_grad():
        for index in range(batches):
            G(sample_z(batch, G.config, seeded(seed, 2, index)).to(device))
    G.eval()
