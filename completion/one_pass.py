"""Complete faces by one pass of encoder and generator, on ONNX Runtime."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from align.errors import DeviceError
from completion.config import Solver, blur_radius
from completion.engine import Step
from completion.runtime import CPU, CUDA, Provider, has_cuda, open_session
from dcgan.weights import Weights, WeightsError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_BATCH = 8  # images at a time; more take more memory and are hardly faster
_WINDOW_PX = 7  # as in `completion.loss.context_weight`


def supports(device: str) -> bool:
    """Whether the installed ONNX Runtime can use a device."""
    return device in ("auto", "cpu") or has_cuda()


class OnePass:
    """An `Engine` for the file that `dcgan.export.export_onnx` writes; on a CPU, it is loaded when it is first used.

    Args:
        path: the .onnx file.
        weights: whose networks it holds.
    Raises:
        WeightsError: the file is damaged, or was exported from other weights.
        DeviceError: the GPU cannot be used.
    """

    def __init__(self, path: Path, weights: Weights) -> None:
        self._path, self._weights, self._device = path, weights, weights.device
        self.gpu = weights.device != "cpu" and supports("cuda") and CUDA in self._session.get_providers()

    @cached_property
    def _session(self) -> "InferenceSession":
        providers: list[Provider] = [CPU]
        if self._device != "cpu" and supports("cuda"):
            providers.insert(0, (CUDA, {"device_id": self._device.partition(":")[2] or "0"}))
        session = open_session(self._path, providers)
        if self._device.startswith("cuda") and CUDA not in session.get_providers():
            raise DeviceError(f"ONNX Runtime cannot use the device {self._device}; use cpu")
        if session.get_modelmeta().custom_metadata_map.get("sha256") != self._weights.sha256:
            raise WeightsError(
                f"{self._path} was exported from other weights; export it again (python -m dcgan export)"
            )
        return session

    def solve(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], solver: Solver, seed: int = 0, block: int = 1
    ) -> Iterator[Step]:
        """Yield the only step. Candidates differ by noise on z, whose mean square counts as that of z in the total."""
        if block > 1:
            raise WeightsError("an encoder cannot use the means of blocks; choose another solver, such as fast")
        rng = np.random.default_rng(seed)
        config = self._weights.network
        size = solver.draws, config.nz
        noise = rng.uniform(-1, 1, size) if config.z_prior == "uniform" else rng.standard_normal(size)
        # Growing from none for the first candidate to the full prior for the last.
        noise = np.linspace(0, 1, solver.draws)[:, None] * noise
        images = self._run(crops, holes, noise)
        if solver.mirrored is not None:
            mirrored = self._run(crops[:, :, ::-1], holes[:, :, ::-1], noise)[:, :, :, ::-1]
            change = _blurred((mirrored.astype(np.float32) - images) * np.float32(0.5), solver.mirrored)
            images = (images + change).round().clip(0, 255).astype(np.uint8)
        weight = np.stack([_weight(~hole) if solver.weighted else ~hole for hole in holes]).astype(np.float32)
        difference = np.abs(images.astype(np.float32) - crops[:, None]) / 127.5
        context = np.einsum("nkyxc,nyx->nk", difference, weight)
        total = context + np.float32(solver.z_weight) * np.square(noise).mean(axis=1, dtype=np.float32)
        if solver.draws > solver.restarts:
            nearest = context.argsort(axis=1, kind="stable")[:, : solver.restarts]
            context, total = (np.take_along_axis(values, nearest, axis=1) for values in (context, total))
            images = np.take_along_axis(images, nearest[..., None, None, None], axis=1)
        yield Step(0, context, np.zeros_like(context), total, images)

    def _run(self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], noise: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Generate K faces for each of N crops: uint8 (N, K, S, S, 3)."""
        few = max(1, _BATCH // len(noise))  # crops at a time
        made = []
        for begin in range(0, len(crops), few):
            part = slice(begin, begin + few)
            feed = {"crops": np.ascontiguousarray(crops[part]), "holes": np.ascontiguousarray(holes[part])}
            faces = [
                self._session.run(None, feed | {"noise": some.astype(np.float32)})[0].reshape(
                    len(feed["crops"]), len(some), *crops.shape[1:]
                )
                for some in np.array_split(noise, -(-len(noise) // _BATCH))
            ]
            made.append(np.concatenate(faces, axis=1))
        return np.concatenate(made)


def _blurred(images: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """As `completion.solve.blur`, for (N, K, S, S, 3)."""
    if sigma == 0:
        return images
    side = 2 * blur_radius(sigma) + 1
    return np.stack([[cv2.GaussianBlur(image, (side, side), sigma) for image in several] for several in images])


def _weight(known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """As `completion.loss.context_weight`: float32 (S, S)."""
    window = (_WINDOW_PX, _WINDOW_PX)
    missing, count = (
        cv2.boxFilter(values.astype(np.float32), -1, window, normalize=False, borderType=cv2.BORDER_CONSTANT)
        for values in (~known, np.ones_like(known))
    )
    return (known * missing / count).astype(np.float32)
