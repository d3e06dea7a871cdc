"""Export a training run: a weights file, the networks for completion as ONNX, and a plot of its training curves."""

import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align.files import atomic_write
from align.manifest import write_owned
from dcgan.checkpoint import load_run, restoring, training_record
from dcgan.config import NetworkConfig
from dcgan.loss import LOSSES
from dcgan.networks import Discriminator, Generator
from dcgan.run import read_stats
from dcgan.tensors import to_bytes, to_tensor
from dcgan.train import recalibrate_batch_norm
from dcgan.weights import FORMAT, Weights, WeightsError, sealed

_PANELS: dict[str, tuple[str, ...]] = {
    "losses": ("loss_d", "loss_g", "image", "feature", "adversarial", "entropy", "dice"),
    "mean logits": ("real", "fake"),
    "gradient penalties": ("r1", "r2", "gp"),
    "MS-SSIM of pairs, D's overfitting": ("ms_ssim_samples", "ms_ssim_reals", "overfit"),
    "error and size of z": ("z", "z_square"),
    "error of the locator": ("error", "max_eye_error", "pck_0.1"),
    "finder": ("iou", "precision", "recall", "clean"),
    "PSNR of holes in dB": ("psnr_center", "psnr_left", "psnr_pattern", "psnr_random80", "psnr_hole"),
    "detail, relative to real faces": ("detail",),
}


def export_run(folder: Path, path: Path, template: str) -> dict[str, Any]:
    """Write D and the moving average of G of a run's newest checkpoint.

    Returns:
        The metadata of the training, as stored in the file.
    Raises:
        CheckpointError: the folder has no readable checkpoint.
    """
    saved = load_run(folder, "train")
    with restoring(folder):
        config = saved["config"]
        network = NetworkConfig(**config["network"])
        G, D = Generator(network), Discriminator(network)
        G.load_state_dict(saved["ema"])
        D.load_state_dict(saved["D"])
        step_images = config["batch"] * config["d_steps"]
        metadata = training_record(saved, step_images, saved["started"]) | {"start": saved["started"]}
    recalibrate_batch_norm(G)
    ticks = [
        tick for tick in read_stats(folder) if tick["kimg"] * 1000 <= saved["step"] * step_images and "real" in tick
    ]
    # If the loss only compares logits, their zero is arbitrary, so their mean on real faces takes its place.
    metadata["logit_offset"] = ticks[-1]["real"] if ticks and LOSSES[config["loss"]].relative else 0.0
    Weights.of(G.eval(), D, template, metadata).save(path)
    return metadata


class EncoderGenerator(nn.Module):
    """E, then G with E's skips: crops uint8 (N, S, S, 3), holes bool (N, S, S), noise (K, nz) to faces uint8."""

    def __init__(self, encoder: nn.Module, generator: Generator) -> None:
        super().__init__()
        self.E, self.G = encoder, generator

    def forward(self, crops: Tensor, holes: Tensor, noise: Tensor) -> Tensor:
        z, skips = self.E(to_tensor(crops), holes[:, None])
        z = (z[:, None] + noise).flatten(0, 1)
        if self.G.config.z_prior == "uniform":
            z = z.clamp(-1, 1)
        return to_bytes(self.G(z, skips))


def export_onnx(weights: Weights, path: Path) -> None:
    """Write encoder and generator as one ONNX graph, with which completion needs no torch.

    Inputs: crops uint8 (N, S, S, 3), of which pixels inside the holes have no effect; holes bool (N, S, S), True = fill
    this; optionally noise float32 (K, nz), which is added to the encoder's z of every crop, by default 0 with K = 1.
    Output: faces uint8 (N * K, S, S, 3), those of the first crop first. The large tensors are stored in half precision.

    Raises:
        WeightsError: the weights, which must be on the CPU, have no encoder.
    """
    if weights.encoder is None:
        raise WeightsError("the weights have no encoder; train one (python -m dcgan encode) before exporting to ONNX")
    config = weights.generator.config
    # Two crops and three z, as sizes of 1 would become constants of the graph.
    crops, noise = torch.zeros(2, config.size, config.size, 3, dtype=torch.uint8), torch.zeros(3, config.nz)
    write_graph(
        EncoderGenerator(weights.encoder, weights.completer).eval(),
        {"crops": crops, "holes": crops[..., 0] > 0, "noise": noise},
        "faces",
        {"crops": ("N",), "holes": ("N",), "noise": ("K",), "faces": ("N * K",)},
        {"size": str(config.size), "template": weights.template, "sha256": weights.sha256, "nz": str(config.nz)},
        path,
        [("noise", np.zeros((1, config.nz), np.float32))],
    )


def write_graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    output: str,
    axes: Mapping[str, tuple[str, ...]],
    metadata: dict[str, str],
    path: Path,
    defaults: Iterable[tuple[str, NDArray[np.float32]]] = (),
) -> None:
    """Write a network, in eval mode on the CPU, as an ONNX graph, its large tensors in half precision.

    The inputs are examples by name; `axes` names the first, variable dimensions of inputs and output, `defaults` has
    the values of optional inputs.
    """
    from onnx import ModelProto, TensorProto, helper, load_from_string, numpy_helper

    exported = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated, but the new one needs 21 s instead of 1
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            exported,  # type: ignore[arg-type]  # a file, as of the documentation
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={name: dict(enumerate(names)) for name, names in axes.items()},
            opset_version=17,
            dynamo=False,
        )
    model: ModelProto = load_from_string(exported.getvalue())
    graph = model.graph
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            name, half = tensor.name, f"{tensor.name} (half)"
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
            graph.node.insert(0, helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in defaults)
    helper.set_model_props(model, {"format": FORMAT} | metadata)
    with atomic_write(path) as file:
        file.write(sealed(model.SerializeToString(deterministic=True)))


def plot_losses(folder: Path, overwrite: bool = False) -> Path:
    """Plot the logged losses and measurements of a run folder to its losses.png; return the path.

    Raises:
        PhotoError: the file is somebody else's, and `overwrite` is not set.
    """
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
    content = io.BytesIO()
    figure.savefig(content, dpi=100, format="png")
    write_owned(folder / "losses.png", content.getbuffer(), overwrite)
    return folder / "losses.png"
