"""CUDA graphs: replay all kernels of a training step with one launch."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Tensor]
_EAGER_RUNS = 3  # of each kind before its capture: libraries choose their kernels, and Adam creates its state


class Graphed:
    """A function on batches of tensors, which CUDA replays as a graph. Other devices always run it eagerly.

    A graph repeats the kernels that one call launched, at the same addresses. So the function must read only its
    batches and tensors that stay where they are, such as weights; it must not wait for the device, and only its `kind`
    may decide what it computes. Its first calls run eagerly. Capturing computes nothing, so no call is lost.

    The function takes a kind and batches, and returns named tensors, which the next call may overwrite. Without
    `capture`, there are no graphs on CUDA either.
    """

    def __init__(
        self, function: Callable[[Any, list[Batch]], dict[str, Tensor]], device: torch.device, capture: bool = True
    ) -> None:
        self._function, self._device = function, device
        self._capture = capture and device.type == "cuda"
        self._runs: Counter[Any] = Counter()
        self._inputs: list[Batch] = []
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        if self._capture:
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def __call__(self, kind: Any, batches: list[Batch]) -> dict[str, Tensor]:
        """Call the function; each kind becomes a graph of its own, and all graphs share their memory.

        The batches are on the CPU or the device, and of the same shapes in all calls.
        """
        if not self._capture:
            sent = [{name: send(value, self._device) for name, value in batch.items()} for batch in batches]
            return self._function(kind, sent)
        self._fill(batches)
        if kind not in self._graphs and self._runs[kind] < _EAGER_RUNS:
            self._runs[kind] += 1
            return self._warm_up(kind)
        if kind not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, self._pool, self._stream):
                outputs = self._function(kind, self._inputs)
            self._graphs[kind] = graph, outputs
        graph, outputs = self._graphs[kind]
        graph.replay()
        return outputs

    def _fill(self, batches: list[Batch]) -> None:
        """Copy the batches to where the graphs read them."""
        if not self._inputs:
            self._inputs = [{} for _ in batches]
        for static, batch in zip(self._inputs, batches, strict=True):
            for name, value in batch.items():
                if name not in static:
                    static[name] = torch.empty_like(value, device=self._device)
                static[name].copy_(_pinned(value), non_blocking=True)

    def _warm_up(self, kind: Any) -> dict[str, Tensor]:
        """Run eagerly on the stream that captures."""
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            outputs = self._function(kind, self._inputs)
        main.wait_stream(self._stream)
        for value in outputs.values():
            value.record_stream(main)
        return outputs


def tune(device: torch.device) -> None:
    """Let CUDA compute float32 without TF32, and choose the fastest convolution for each shape."""
    if device.type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.benchmark = True


def send(value: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting for the copy."""
    return (_pinned(value) if device.type == "cuda" else value).to(device, non_blocking=True)


def _pinned(value: Tensor) -> Tensor:
    """Pinned host memory, which torch reuses only after the copies from it; tensors on the device as they are."""
    return value if value.is_cuda else value.pin_memory()


def capturable_adam(params: Iterable[Any], lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Fused Adam that a graph can contain: its learning rate is a tensor, see `set_rate`."""
    optimiser = torch.optim.Adam(params, lr, betas, fused=True)
    _prepare(optimiser)
    optimiser.register_load_state_dict_post_hook(_prepare)
    return optimiser


def set_rate(optimiser: torch.optim.Adam, rate: float) -> None:
    """Set the learning rate; each parameter group may have its "share" of it."""
    for group in optimiser.param_groups:
        group["lr"].fill_(rate * group.get("share", 1))


def _prepare(optimiser: torch.optim.Optimizer) -> None:
    """Move the learning rates to the device; a loaded state may come from another one."""
    for group in optimiser.param_groups:
        device = group["params"][0].device
        # The fused kernels read float64 on the CPU and float32 on CUDA.
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        group["lr"] = torch.full((), float(group["lr"]), dtype=dtype, device=device)
        group["capturable"] = device.type == "cuda"
