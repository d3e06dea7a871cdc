"""The training loop."""

import time
from collections.abc import Generator as Steps
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dcgan.checkpoint import CheckpointError, load, load_checkpoint, save_checkpoint
from dcgan.config import ConfigError, TrainConfig
from dcgan.dataset import Batches, digest
from dcgan.grow import grow
from dcgan.metrics import ms_ssim
from dcgan.networks import Generator
from dcgan.parallel import Group
from dcgan.run import RunFolder, TrainingError, TrainingStep, check_same_run, crosses, machine
from dcgan.sampling import device_of, sample_z
from dcgan.step import Engine, learning_rate, seeded
from dcgan.tensors import to_tensor

_GRID = 64  # images in a grid
_WATCHED = 512  # faces of each kind that D is asked about
_UPKEEP = 0.05  # share of the time that logs, grids and checkpoints may take
# Shares of the variety of real faces, by MS-SSIM: above the first a run has taken off, below the second collapsed.
_VARIED, _COLLAPSED = 0.5, 0.15
_GRACE_KIMG = 100  # until then G may well not have begun to tell one z from another


def train(
    config: TrainConfig,
    faces: NDArray[np.uint8],
    folder: Path,
    device: torch.device,
    val: NDArray[np.uint8] | None = None,
    group: Group | None = None,
) -> Steps[TrainingStep]:
    """Train G and D on aligned faces, or resume from the folder's newest checkpoint.

    Everything random is a function of the seed and the step, so that on the CPU a resumed run is bit-equal to one that
    was never stopped. Closing the iterator saves a checkpoint.

    Args:
        config: the run's settings; only `kimg` may differ from those that the folder was begun with.
        faces: uint8 (N, S, S, 3).
        folder: the run folder; gets config.json, stats.jsonl, TensorBoard events, grids and checkpoints.
        device: where to compute; the faces go there, too.
        val: faces that are not trained on, uint8 (N, S, S, 3): shows whether D learns the training faces by heart.
        group: the processes that share every batch; only the first of them writes.
    Yields:
        Where the run begins, then every step.
    Raises:
        TrainingError: a loss or a weight is no finite number, or G makes one image whatever z is.
        CheckpointError: the folder holds another run.
        ConfigError: the batch cannot be shared among the processes.
        DatasetError: there are fewer images than a batch.
    """
    # Load the data.
    group = group or Group()
    if config.batch % group.size:
        raise ConfigError(f"a batch of {config.batch} cannot be shared among {group.size} processes; change the batch")
    batches = Batches(faces, config.batch, config.seed, config.flip, device)
    data_sha256 = digest(faces)
    a_step = config.batch * config.d_steps

    # Build the networks, the average of G and the optimisers.
    engine = Engine(config, device, group)
    started = _start(config, engine)
    fixed_z = sample_z(_GRID, config.network, seeded(config.seed, 0, 0)).to(device)

    # Resume.
    saved = load_checkpoint(folder)
    step, seconds, upkeep, varied = 0, 0.0, 0.0, False
    if saved is not None:
        check_same_run(saved, asdict(config), data_sha256, folder)
        engine.load(saved)
        step, seconds, upkeep = saved["step"], saved["seconds"], saved["upkeep"]
        started, varied = saved["started"], saved["varied"]
    reals = to_tensor(batches.at(0)[:_GRID])
    alike_real = _alike(reals)
    run = RunFolder(folder, step * a_step) if group.rank == 0 else None
    if run:
        run.settings(asdict(config))
        run.grid(reals)
    yield TrainingStep(step * a_step)

    def save() -> None:
        _check_finite(sums, engine)
        state = engine.state() | {"step": step, "seconds": seconds, "upkeep": upkeep, "config": asdict(config)}
        state |= {"data_sha256": data_sha256, "data_images": len(faces), "started": started, "varied": varied}
        if run:
            save_checkpoint(folder, step * a_step, state | {"machine": machine(device)})

    sums: dict[str, list[Tensor]] = {}
    ticked = step * a_step, seconds
    last_save = time.monotonic()
    try:
        while step * a_step < config.kimg * 1000:
            began = time.monotonic()
            losses = engine.step(
                step, [to_tensor(batches.at(step * config.d_steps + index)) for index in range(config.d_steps)]
            )
            for name, value in losses.items():
                sums.setdefault(name, []).append(value)
            step += 1
            images = step * a_step
            last = images >= config.kimg * 1000
            tick = last or crosses(images, a_step, config.tick_kimg)
            if tick:
                _check_finite(sums, engine)  # waits for the device
            seconds += time.monotonic() - began

            # Maintenance: log, samples, checkpoint.
            began = time.monotonic()
            stats: dict[str, float] | None = None
            if tick:
                stats = {"kimg": images / 1000, "lr": learning_rate(config, step)}
                stats |= {name: group.mean(float(torch.stack(values).mean())) for name, values in sums.items()}
                stats |= {"seconds": seconds, "images_per_second": (images - ticked[0]) / (seconds - ticked[1])}
                stats["upkeep"] = upkeep / (upkeep + seconds)
                sums.clear()
                ticked = images, seconds
            if last or crosses(images, a_step, config.sample_kimg):
                samples = engine.ema(fixed_z)
                watched = {"alike_real": alike_real} | _watch(engine, samples, faces, val)
                apart, real_apart = 1 - watched["alike"], 1 - alike_real
                varied = varied or apart > _VARIED * real_apart or images > _GRACE_KIMG * 1000
                if varied and apart < _COLLAPSED * real_apart - 1e-6:  # real faces may be all one, too
                    raise TrainingError(
                        f"the samples have become one and the same (MS-SSIM of pairs {watched['alike']:.2f}, of real "
                        f"faces {alike_real:.2f}); the checkpoints from before are kept. Raise r1 and "
                        "r2, lower lr, or try another loss"
                    )
                stats = (stats or {"kimg": images / 1000}) | watched
                # Where steps are fast, a picture is left out rather than that training waits for it.
                if run and (last or upkeep < 1 + _UPKEEP * seconds):
                    run.grid(samples, images)
            if run and stats:
                run.tick(stats)
            if time.monotonic() - last_save > config.save_minutes * 60:
                save()
                last_save = time.monotonic()
            upkeep += time.monotonic() - began
            yield TrainingStep(images, stats)
    except GeneratorExit:  # the caller stops between two steps: keep what was learnt since the last checkpoint
        save()
        raise
    finally:
        if run:
            run.close()
    save()


def _watch(
    engine: Engine, samples: Tensor, faces: NDArray[np.uint8], val: NDArray[np.uint8] | None
) -> dict[str, float]:
    """Signs of trouble: samples that are alike, and a D that knows the training faces by heart.

    Returns:
        alike: mean MS-SSIM of pairs of samples (Odena et al. 2017); 1 if all are one.
        overfit: where `val` is given, how far D's logits of faces that it never saw lie from those of training faces
            towards those of samples: 0 for not at all, 1 for all the way (Karras et al. 2020, eq. 1).
    """
    found = {"alike": _alike(samples)}
    if val is not None:
        engine.D.eval()
        with torch.no_grad():
            logits = [
                float(engine.D(images.to(engine.device)).mean())
                for images in (to_tensor(faces[:_WATCHED]), to_tensor(val[:_WATCHED]), samples)
            ]
        engine.D.train()
        apart = logits[0] - logits[2]
        found["overfit"] = (logits[0] - logits[1]) / apart if apart else 0.0
    return found


def _alike(images: Tensor) -> float:
    """Mean MS-SSIM of the first half of the images with the second."""
    half = len(images) // 2
    return float(ms_ssim(images[:half], images[half : 2 * half]).mean())


def _check_finite(sums: dict[str, list[Tensor]], engine: Engine) -> None:
    odd = [name for name, values in sums.items() if not torch.isfinite(torch.stack(values)).all()]
    odd += engine.not_finite()
    if odd:
        raise TrainingError(
            f"no finite number in {', '.join(odd)}; the last good checkpoint is kept. Lower lr or raise r1 and r2"
        )


def _start(config: TrainConfig, engine: Engine) -> dict[str, Any]:
    """Copy the weights that the run begins from into its networks; returns what is known of them."""
    if not config.start:
        return {}
    found = load(config.start, "cpu")
    if found.generator.config.size < config.network.size:
        found = grow(found, config.network.size, config.seed)
    if found.generator.config != config.network:
        raise CheckpointError(
            f"the weights {config.start} are of other networks: {found.generator.config}; give the run their settings"
        )
    for network in (engine.G, engine.ema):
        network.load_state_dict(found.generator.state_dict())
    engine.D.load_state_dict(found.discriminator.state_dict())
    return {"sha256": found.sha256, "images": found.facts["images"], "seconds": found.facts.get("seconds", 0)}


def settle_batch_norm(G: Generator, seed: int = 0, batches: int = 100, batch: int = 64) -> None:
    """Measure the statistics of G's batch norm anew, over many generated batches; leaves G in eval mode.

    An average of weights has other activations than the weights that it averages, so averaged statistics do not fit it.
    """
    norms = [module for module in G.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    device = device_of(G)
    G.train()
    with torch.no_grad():
        for index in range(batches):
            G(sample_z(batch, G.config, seeded(seed, 2, index)).to(device))
    G.eval()
