"""A device without hardware: tensors that say they are elsewhere, and fail where those of a GPU would fail or wait."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")  # the one device that torch accepts without having it
_COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
_INDEXED = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_)
_WAITING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class _There(Tensor):
    """A tensor on the pretended device; `here` has its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "_There":
        there = Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=DEVICE
        )
        there.here = here.detach()
        return there

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the pretended device")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.here.__reduce_ex__(protocol)


class Pretended(TorchDispatchMode):
    """Computes on the CPU what happens on `DEVICE`.

    Raises:
        AssertionError: an operation mixes devices or draws random numbers there with a generator of the CPU; within a
            captured function, it also must not copy between devices or wait for a value.
    """

    captured = False
    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        with self:  # in inference mode, compound operations arrive whole
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = any(isinstance(value, _There) for value in tensors)
        device, kind = kwargs.get("device"), func.overloadpacket
        goes_there = there if device is None else torch.device(device).type == DEVICE.type
        # Scalars may come from the CPU.
        here = any(not isinstance(value, _There) and value.dim() > 0 for value in tensors)
        mixable = kind in _COPIES or (kind in _INDEXED and not self.captured)  # torch copies indices there, and waits
        assert mixable or not (there and here), f"{func} mixes devices: {[value.shape for value in tensors]}"
        assert not goes_there or kwargs.get("generator") is None, f"{func} draws with a generator of the CPU"
        if self.captured:
            assert not (kind in _COPIES and (there and here or there != goes_there)), f"{func} copies between devices"
            waits = any(tag in func.tags for tag in _WAITING)
            if kind in _INDEXED:  # only masks have a number of elements that the host must know
                waits = any(value.dtype == torch.bool for value in tensors[1:])
            assert not waits, f"{func} waits for the device"
        if device is not None:
            kwargs["device"] = "cpu"
        if not there and not goes_there:
            return func(*args, **kwargs)
        originals = {id(value.here): value for value in tensors if isinstance(value, _There)}
        bare_args, bare_kwargs = tree_map(
            lambda value: value.here if isinstance(value, _There) else value, (args, kwargs)
        )
        found = func(*bare_args, **bare_kwargs)

        def wrap(value: Any) -> Any:
            return originals.get(id(value)) if id(value) in originals else _There(value) if goes_there else value

        return tree_map(lambda value: wrap(value) if isinstance(value, Tensor) else value, found)

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Hold a function to the rules of CUDA graphs."""

        def watched(*args: Any) -> Any:
            self.captured = True
            self.calls += 1
            try:
                return function(*args)
            finally:
                self.captured = False

        return watched
