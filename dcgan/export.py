"""From a training run to what people use: one weights file, a grid of samples, the curves of the losses."""

from pathlib import Path
from typing import Any

from dcgan.checkpoint import CheckpointError, load_checkpoint, load_weights, save_weights
from dcgan.config import network_config
from dcgan.encoder import START, carries_on
from dcgan.loss import LOSSES
from dcgan.networks import Discriminator, Encoder, Generator
from dcgan.runfolder import read_stats
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
    """Write the weights of a run's newest checkpoint; for the run of an encoder, those it was trained for and E.

    Args:
        folder: the run folder, of `train` or `train_encoder`.
        path: the weights file to write, .safetensors.
        template: alignment template of the training faces; an encoder's are those of its weights.
    Returns:
        The facts of the training, as the file carries them.
    Raises:
        CheckpointError: the folder has no readable checkpoint.
    """
    saved = load_checkpoint(folder)
    if saved is None:
        raise CheckpointError(f"{folder} has no checkpoint; expected the --out folder of python -m dcgan train")
    if "E" in saved:
        return _export_encoder(folder, path, saved)
    config = saved["config"]
    network = network_config(config["network"])
    G, D = Generator(network), Discriminator(network)
    G.load_state_dict(saved["ema"])
    D.load_state_dict(saved["D"])
    settle_batch_norm(G)
    images = saved["step"] * config["batch"] * config["d_steps"]
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


def _export_encoder(folder: Path, path: Path, saved: dict[str, Any]) -> dict[str, Any]:
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


def plot_losses(folder: Path, path: Path) -> None:
    """Draw the losses, logits, penalties and signs of trouble of a run over the images seen, as a PNG."""
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
