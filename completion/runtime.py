"""Open the files of networks that run on ONNX Runtime."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Its official builds send usage data to Microsoft unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from dcgan.weights import WeightsError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
Provider = str | tuple[str, dict[str, Any]]


def has_cuda() -> bool:
    """Whether the installed ONNX Runtime is a CUDA build."""
    return CUDA in onnxruntime.get_available_providers()


def open_session(path: Path, providers: Sequence[Provider] = (CPU,)) -> onnxruntime.InferenceSession:
    """Open an .onnx file.

    Raises:
        WeightsError: the file is absent or damaged.
    """
    options = onnxruntime.SessionOptions()
    # A face takes milliseconds: further threads cost more than they give, and several photos can run at once.
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    try:
        return onnxruntime.InferenceSession(path, options, list(providers))
    except Exception as error:  # ONNX Runtime has a dozen types, without a common base
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} cannot be used ({reason}); export it again (python -m dcgan export)") from error
