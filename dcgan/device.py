"""Choose where to compute."""

import torch


class DeviceError(Exception):
    """A device that was asked for and is not there."""


def pick_device(name: str) -> torch.device:
    """The device of a name: "auto" takes the first GPU, or the CPU where there is none.

    Raises:
        DeviceError: the name is none of auto, cpu, cuda, cuda:N, or that device is absent: never a silent CPU run.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"the device is {name!r}, expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"the device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{name} was asked for, but {torch.cuda.device_count()} CUDA devices are here; use --device cpu"
        )
    return device
