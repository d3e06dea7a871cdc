"""Export a training run: a weights file, and a plot of its training curves."""

from pathlib import Path
from typing import Any

from dcgan.checkpoint import CheckpointError, load_checkpoint, restoring, save_weights
from dcgan.config import network_config
from dcgan.loss import LOSSES
from dcgan.networks import Discriminator, Generator
from dcgan.run import read_stats
from dcgan.train import settle_batch_norm

_PANELS: dict[str, tuple[str, ...]] = {
    "losses": ("loss_d", "loss_g", "image", "feature", "adversarial"),
    "mean logits": ("real", "fake"),
    "gradient penalties": ("r1", "r2", "gp"),
    "MS-SSIM of pairs, D's overfitting": ("alike", "alike_real", "overfit"),
    "error and size of z": ("z", "z_square"),
    "PSNR of holes in dB": ("psnr_center", "psnr_left", "psnr_pattern", "psnr_random80"),
}


def export_run(folder: Path, path: Path, template: str) -> dict[str, Any]:
    """Write D and the moving average of G of a run's newest checkpoint.

    Args:
        folder: run folder of `dcgan.train.train`.
        path: weights file to write, .safetensors.
        template: alignment template of the training faces.
    Returns:
        The metadata of the training, as stored in the file.
    Raises:
        CheckpointError: the folder has no readable checkpoint.
    """
    saved = load_checkpoint(folder)
    if saved is None:
        raise CheckpointError(f"{folder} has no checkpoint; expected a run folder of python -m dcgan train")
    with restoring(folder):
        config = saved["config"]
        network = network_config(config["network"])
        G, D = Generator(network), Discriminator(network)
        G.load_state_dict(saved["ema"])
        D.load_state_dict(saved["D"])
        images = saved["step"] * config["batch"] * config["d_steps"]
    settle_batch_norm(G)
    started = saved["started"]
    ticks = [tick for tick in read_stats(folder) if tick["kimg"] * 1000 <= images and "real" in tick]
    facts = {
        "images": images + started.get("images", 0),
        "seconds": round(saved["seconds"]) + started.get("seconds", 0),
        "machine": saved["machine"],
        "start": started,
        "data_images": saved["data_images"],
        "data_sha256": saved["data_sha256"],
        "training": {name: value for name, value in config.items() if name != "network"},
        # If the loss only compares logits, their zero is arbitrary, so their mean on real faces takes its place.
        "logit_offset": ticks[-1]["real"] if ticks and LOSSES[config["loss"]].relative else 0.0,
    }
    save_weights(path, G.eval(), D, template, facts)
    return facts


def plot_losses(folder: Path, path: Path) -> None:
    """Plot the logged losses and measurements of a run folder as a PNG."""
    from matplotlib.figure import Figure

    ticks = read_stats(folder)
    logged = {name for tick in ticks for name in tick}
    panels = {title: names for title, names in _PANELS.items() if logged & set(names)} or {"losses": ()}
    figure = Figure(figsize=(3 * len(panels), 3), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, names) in zip(all_axes, panels.items(), strict=True):
        for name in names:
            shown = [(tick["kimg"], tick[name]) for tick in ticks if name in tick]
            axes.plot(*zip(*shown, strict=True), label=name) if shown else None
        axes.set(title=title, xlabel="thousand images")
        axes.legend() if axes.lines else None
    figure.savefig(path, dpi=100)
