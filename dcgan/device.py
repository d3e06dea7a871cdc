"""Choose and name the device to compute on; imports torch only when it is needed."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, Annotated

from align.errors import DeviceError
from align.settings import Option

if TYPE_CHECKING:
    import torch


def check_device(name: str) -> str:
    """Return the name of a device, auto, cpu, cuda or cuda:N; raises DeviceError if it is another."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(name)):
        raise DeviceError(f"the device is {name!r}; expected auto, cpu, cuda or cuda:N")
    return name


Device = Annotated[str, "auto (a GPU if there is one), cpu, cuda or cuda:N", Option(short="-d", parse=check_device)]


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first GPU, or the CPU if there is none that torch supports.

    A GPU becomes the current one, on which graphs are captured.

    Raises:
        DeviceError: the name is not auto, cpu, cuda or cuda:N, or the device is absent or not supported by torch.
    """
    import torch

    if check_device(name) == "auto":
        name = "cuda" if torch.cuda.is_available() and _supported(torch.device("cuda")) else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"the device {name} is absent: found {torch.cuda.device_count()} CUDA devices; use cpu")
    if device.type == "cuda":
        if not _supported(device):
            raise DeviceError(
                f"the device {name} is a {torch.cuda.get_device_name(device)}, which this build of torch does not "
                f"support (it has {', '.join(torch.cuda.get_arch_list())}); install another build or use cpu"
            )
        torch.cuda.set_device(device.index or 0)
    return device


def machine(device: torch.device) -> str:
    """Name of the GPU, or the CPU's architecture and threads, for model cards and reports."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _supported(device: torch.device) -> bool:
    """Whether torch was built for a GPU: for its major version, or as code that the driver compiles."""
    import torch

    capability = torch.cuda.get_device_capability(device)
    for name in torch.cuda.get_arch_list():  # such as sm_90, sm_90a and compute_120
        kind, _, digits = name.partition("_")
        built = divmod(int(re.sub(r"\D", "", digits)), 10)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False
