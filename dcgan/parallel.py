"""Data-parallel training in processes started by torchrun.

    torchrun --nproc-per-node=2 -m -- dcgan train aligned/ --output runs/faces

The `--` keeps torchrun from reading options such as --start as its own. Every process draws the same batch, z and
noise and takes its share of them, so N processes compute what one would. Gradients are averaged by hand after each
backward pass, since DistributedDataParallel supports neither two forward passes per backward pass nor the second
derivatives of gradient penalties.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Group:
    """The processes of one run: the number of this one, from 0, and how many there are. Only 0 writes the folder."""

    rank: int = 0
    size: int = 1

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's share of a batch."""
        return batch.tensor_split(self.size)[self.rank]

    def average_gradients(self, network: nn.Module) -> None:
        """Average the gradients of a network over all processes, in one message."""
        if self.size > 1:
            gradients = [value.grad for value in network.parameters() if value.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            parts = (flat / self.size).split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def mean(self, value: float) -> float:
        """Average a number over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        if distributed.get_backend() == "nccl":
            total = total.cuda()
        distributed.all_reduce(total)
        return float(total) / self.size

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            distributed.destroy_process_group()


def join(device: str) -> tuple[Group, str]:
    """Join the processes of a run, if torchrun started this one.

    Returns:
        The group, and the device of this process: for "auto" or "cuda" the GPU of its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Group(), device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if device.startswith("cuda"):
        distributed.init_process_group("nccl", device_id=torch.device(device))
    else:
        distributed.init_process_group("gloo")
    return Group(distributed.get_rank(), distributed.get_world_size()), device


class _Sum(torch.autograd.Function):
    """Sum over all processes. Each summand affects the losses of all processes, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes; unlike torch's own, it runs on the CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W), with statistics in float32."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        sums = torch.cat([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3))])
        count = input.numel() // input.shape[1] * distributed.get_world_size()
        mean, square = (_Sum.apply(sums) / count).chunk(2)
        variance = (square - mean.square()).clamp(min=0)  # rounding can make it negative
        assert self.momentum and self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        normed = values * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        return normed.to(input.dtype)


def synchronise(network: nn.Module) -> None:
    """Replace every batch norm of a network by one over all processes, in place; tensor names stay the same."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                synced = SyncBatchNorm2d(child.num_features, child.eps, child.momentum)
                synced.load_state_dict(child.state_dict())
                setattr(module, name, synced.to(child.weight.device))
