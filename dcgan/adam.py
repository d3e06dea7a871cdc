"""Adam optimiser for one tensor, such as z."""

import torch
from torch import Tensor


class Adam:
    """Adam with decays 0.9 and 0.999, for one tensor that is updated in place.

    torch.optim.Adam imports torch's compiler, which takes a second, half of a whole search.
    Source: Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._mean = torch.zeros_like(value, requires_grad=False)
        self._square = torch.zeros_like(value, requires_grad=False)
        self._steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, lr: float) -> None:
        self._steps += 1
        self._mean.lerp_(gradient, 1 - 0.9)
        self._square.lerp_(gradient.square(), 1 - 0.999)
        mean = self._mean / (1 - 0.9**self._steps)
        square = self._square / (1 - 0.999**self._steps)
        self._value -= lr * mean / (square.sqrt() + 1e-8)
