"""Networks on ONNX Runtime: open their files, and generate faces."""

import os
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Its official builds send usage data to Microsoft unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from align.errors import DeviceError
from dcgan.weights import WeightsError, bundled_file

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
Provider = str | tuple[str, dict[str, Any]]
_LEAN_RUNS = 4  # opening again pays after a few more


def has_cuda() -> bool:
    """Whether the installed ONNX Runtime is a CUDA build."""
    return CUDA in onnxruntime.get_available_providers()


def supports(device: str) -> bool:
    """Whether the installed ONNX Runtime can use a device."""
    return device in ("auto", "cpu") or has_cuda()


def open_session(
    path: Path, providers: Sequence[Provider] = (CPU,), lean: bool | None = None
) -> onnxruntime.InferenceSession:
    """Open an .onnx file.

    Args:
        path: the file.
        providers: what runs it, in order of preference.
        lean: how to convert weights that are stored in half precision, with the same results: True for one layer after
            the other in every run, False for all at once. None also merges layers, which is faster and rounds in
            another way. Encoder and generator open in 0.03, 0.06 and 0.12 s, take 64, 110 and 130 MiB, and 17, 12 and
            10 ms per face.
    Raises:
        WeightsError: the file is absent or damaged.
    """
    options = onnxruntime.SessionOptions()
    # A face takes milliseconds: further threads cost more than they give, and several photos can run at once.
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    level = onnxruntime.GraphOptimizationLevel
    if lean:
        options.graph_optimization_level = level.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    elif lean is False:
        options.graph_optimization_level = level.ORT_ENABLE_BASIC
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("optimization.disable_specified_optimizers", "ConvBNFusion")
    try:
        return onnxruntime.InferenceSession(path, options, list(providers))
    except Exception as error:  # ONNX Runtime has a dozen types, without a common base
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} cannot be used ({reason}); export it again (python -m dcgan export)") from error


@cache
def bundled_session(name: str) -> onnxruntime.InferenceSession:
    """Open a bundled .onnx file; it stays open.

    Raises:
        WeightsError: the file is absent or damaged.
    """
    return open_session(bundled_file(name))


class OnnxGenerate:
    """A `Generate` for the file that `dcgan.export.export_onnx` writes.

    On a CPU, it is loaded when it is first used, and its weights are converted for each of the first runs: a command
    for one photo takes less time and memory. Later ones keep them, with the same results.

    Args:
        path: the .onnx file.
        sha256: digest of the weights that it was exported from.
        device: auto, cpu, cuda or cuda:N.
    Raises:
        WeightsError: the file is damaged, or was exported from other weights.
        DeviceError: the GPU cannot be used.
    """

    def __init__(self, path: Path, sha256: str, device: str) -> None:
        self._path, self._sha256, self._device, self._runs = path, sha256, device, 0
        self.gpu = device != "cpu" and has_cuda() and CUDA in self._session.get_providers()

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        providers: list[Provider] = [CPU]
        if self._device != "cpu" and has_cuda():
            providers.insert(0, (CUDA, {"device_id": self._device.partition(":")[2] or "0"}))
        session = open_session(self._path, providers, self._runs < _LEAN_RUNS if providers == [CPU] else None)
        if self._device.startswith("cuda") and CUDA not in session.get_providers():
            raise DeviceError(f"ONNX Runtime cannot use the device {self._device}; use cpu")
        if session.get_modelmeta().custom_metadata_map.get("sha256") != self._sha256:
            raise WeightsError(
                f"{self._path} was exported from other weights; export it again (python -m dcgan export)"
            )
        return session

    def __call__(
        self, crops: NDArray[np.uint8], holes: NDArray[np.bool_], noise: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Generate faces, see `Generate`."""
        if self._runs == _LEAN_RUNS and not self.gpu:
            self.__dict__.pop("_session", None)  # opened again
        self._runs += 1
        faces: NDArray[np.uint8] = self._session.run(None, {"crops": crops, "holes": holes, "noise": noise})[0]
        expected = (len(crops) * len(noise), *crops.shape[1:])
        if faces.dtype != np.uint8 or faces.shape != expected:
            raise WeightsError(f"{self._path} gives {faces.dtype} {faces.shape}; expected uint8 {expected}")
        return faces
