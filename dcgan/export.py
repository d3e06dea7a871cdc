"""From a training run to what people use: one weights file, a grid of samples, the curves of the losses."""

from pathlib import Path
from typing import Any

from dcgan.checkpoint import CheckpointError, load_checkpoint, save_weights
from dcgan.config import network_config
from dcgan.loss import LOSSES
from dcgan.networks import Discriminator, Generator
from dcgan.runfolder import read_stats
from dcgan.train import settle_batch_norm


def export_run(folder: Path, path: Path, template: str) -> dict[str, Any]:
    """Write the weights of a run's newest checkpoint.

    Args:
        folder: the run folder.
        path: the weights file to write, .safetensors.
        template: alignment template of the training faces.
    Returns:
        The facts of the training, as the file carries them.
    Raises:
        CheckpointError: the folder has no readable checkpoint.
    """
    saved = load_checkpoint(folder)
    if saved is None:
        raise CheckpointError(f"{folder} has no checkpoint; expected the --out folder of python -m dcgan train")
    config = saved["config"]
    network = network_config(config["network"])
    G, D = Generator(network), Discriminator(network)
    G.load_state_dict(saved["ema"])
    D.load_state_dict(saved["D"])
    settle_batch_norm(G)
    images = saved["step"] * config["batch"]
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
        # Where D only compares, the zero of its logits means nothing; their mean on real faces does.
        "logit_offset": ticks[-1]["real"] if ticks and LOSSES[config["loss"]].relative else 0.0,
    }
    save_weights(path, G.eval(), D, template, facts)
    return facts


def plot_losses(folder: Path, path: Path) -> None:
    """Draw the losses, the logits and the penalties of a run over the images seen, as a PNG."""
    from matplotlib.figure import Figure

    ticks = read_stats(folder)
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, title, names in zip(
        figure.subplots(1, 3),
        ("losses", "mean logits", "gradient penalties"),
        (("loss_d", "loss_g"), ("real", "fake"), ("r1", "r2")),
        strict=True,
    ):
        for name in names:
            shown = [(tick["kimg"], tick[name]) for tick in ticks if name in tick]
            axes.plot(*zip(*shown, strict=True), label=name) if shown else None
        axes.set(title=title, xlabel="thousand images")
        axes.legend() if axes.lines else None
    figure.savefig(path, dpi=100)
