"""The original GAN on one-dimensional data, where the theory can be checked by numbers."""

import math
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align.cli import Progress
from dcgan.explore.files import Outputs, plotted
from dcgan.loss import LOSSES

# Mixture of normal distributions: weight, mean and standard deviation of each.
_MIXTURE = ((0.6, -1.5, 0.5), (0.4, 1.5, 0.4))
BINS = np.linspace(-5, 5, 201)
GRID = (BINS[1:] + BINS[:-1]) / 2
_UNITS, _BATCH, _MANY, _EARLY = 32, 512, 100_000, 300
_LR, _BETAS = 3e-3, (0.5, 0.999)
_SEEN = 1e-3  # least density at which the optimal D is plotted
OBJECTIVES = ("minimax", "non-saturating")


def mixture_density(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Density p of the data."""
    parts = [
        weight * np.exp(-np.square((x - mean) / spread) / 2) / (spread * math.sqrt(2 * math.pi))
        for weight, mean, spread in _MIXTURE
    ]
    return np.sum(parts, axis=0)


def optimal_d(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """The optimal D, p / (p + q), for the densities of data and samples on a grid; 1/2 where both are 0.

    Source: Goodfellow et al. 2014, proposition 1.
    """
    return np.divide(p, p + q, out=np.full_like(p, 0.5), where=p + q > 0)


def least_d_loss(p: NDArray[np.float64], q: NDArray[np.float64], width: float) -> float:
    """Loss of the optimal D on a grid of this width: log 4 minus twice the Jensen-Shannon divergence of p and q.

    Source: Goodfellow et al. 2014, theorem 1.
    """
    d = optimal_d(p, q)
    real = np.log(d, out=np.zeros_like(d), where=p > 0)
    fake = np.log(1 - d, out=np.zeros_like(d), where=q > 0)
    return float(-(p * real + q * fake).sum() * width)


def train_1d(
    objective: str, steps: int, d_steps: int, seed: int, evaluations: int = 40, snapshots: int = 5
) -> Generator[Progress, None, tuple[dict[str, Any], dict[int, Any]]]:
    """Train a small fully connected G and D on the mixture, yielding Progress.

    Returns:
        Measurements by name, one list entry per measured step; and for some steps the density q of the samples, D on
        the grid, and x for evenly spaced z.
    """
    G, D, generator = _networks(seed)
    adam_g, adam_d = (torch.optim.Adam(network.parameters(), _LR, _BETAS) for network in (G, D))
    at = sorted(set(np.linspace(0, steps, evaluations, dtype=int).tolist()))
    kept = {at[index] for index in np.linspace(0, len(at) - 1, snapshots, dtype=int)}
    measured: list[dict[str, float]] = []
    seen: dict[int, Any] = {}
    for step in range(steps + 1):
        if step in at:
            figures, snapshot = _evaluate(G, D, generator)
            measured.append({"steps": step} | figures)
            if step in kept:
                seen[step] = snapshot
            yield Progress(f"{objective} GAN", step, steps)
        for group in (*adam_g.param_groups, *adam_d.param_groups):
            group["lr"] = _LR * (1 - step / (steps + 1))  # so that training converges
        for _ in range(d_steps):
            _step_d(G, D, adam_d, generator)
        fake = D(G(_z(_BATCH, generator)))
        loss = LOSSES[objective].g(fake, fake)
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
    columns: dict[str, Any] = {name: [figures[name] for figures in measured] for name in measured[0]}
    columns["gradient_of_g"] = {name: columns.pop(name) for name in OBJECTIVES}
    return columns, seen


def confident_d(steps: int, seed: int) -> list[tuple[float, float, float]]:
    """Train D alone against an untrained G, as at the start of a run whose D learns too fast.

    Returns:
        About 30 times D's mean output for samples and the norms of G's gradient: minimax, non-saturating.
    """
    G, D, generator = _networks(seed)
    adam = torch.optim.Adam(D.parameters(), _LR, _BETAS)
    seen = []
    for step in range(steps):
        if step % max(1, steps // 30) == 0:
            minimax, non_saturating = (_gradient(objective, G, D, generator) for objective in OBJECTIVES)
            with torch.no_grad():
                output = float(torch.sigmoid(D(G(_z(_BATCH, generator)))).mean())
            seen.append((output, minimax, non_saturating))
        _step_d(G, D, adam, generator)
    return seen


def run(steps: int, d_steps: int, seed: int) -> Iterator[Progress | Outputs]:
    """Train with both objectives, and plot D with its optimum, its loss with log 4, and both gradients of G.

    Source: Goodfellow et al. 2014, "Generative adversarial nets", sections 3 and 4, figure 1.
    """
    objectives: dict[str, dict[str, Any]] = {}
    for objective in OBJECTIVES:
        # The picture shows the snapshots of the last, non-saturating GAN.
        objectives[objective], snapshots = yield from train_1d(objective, steps, d_steps, seed)
    yield Progress("confident D", 0, 1)
    early = confident_d(_EARLY, seed)
    names = "mean_d_of_samples", "minimax", "non_saturating"
    numbers = {
        "log_4": math.log(4),
        "objectives": objectives,
        "confident_d": [dict(zip(names, row, strict=True)) for row in early],
    }
    yield {"gan-1d.png": _draw(objectives, snapshots, early), "gan-1d.json": numbers}


def _networks(seed: int) -> tuple[nn.Module, nn.Module, torch.Generator]:
    def network() -> nn.Module:
        return nn.Sequential(
            nn.Linear(1, _UNITS), nn.Tanh(), nn.Linear(_UNITS, _UNITS), nn.Tanh(), nn.Linear(_UNITS, 1)
        )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(), network(), torch.Generator().manual_seed(seed)


def _z(count: int, generator: torch.Generator) -> Tensor:
    return torch.empty(count, 1).uniform_(-1, 1, generator=generator)


def sample_data(count: int, generator: torch.Generator) -> Tensor:
    weights, means, spreads = (torch.tensor(column) for column in zip(*_MIXTURE, strict=True))
    which = torch.multinomial(weights, count, replacement=True, generator=generator)
    return (means[which] + spreads[which] * torch.randn(count, generator=generator))[:, None]


def _step_d(G: nn.Module, D: nn.Module, adam: torch.optim.Optimizer, generator: torch.Generator) -> None:
    with torch.no_grad():
        fake = G(_z(_BATCH, generator))
    adam.zero_grad()
    LOSSES["minimax"].d(D(sample_data(_BATCH, generator)), D(fake)).backward()
    adam.step()


def _gradient(objective: str, G: nn.Module, D: nn.Module, generator: torch.Generator) -> float:
    fake = D(G(_z(_BATCH, generator)))
    gradients = torch.autograd.grad(LOSSES[objective].g(fake, fake), list(G.parameters()))
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def _evaluate(G: nn.Module, D: nn.Module, generator: torch.Generator) -> tuple[dict[str, float], Any]:
    with torch.no_grad():
        fake = G(_z(_MANY, generator))
        real = sample_data(_MANY, generator)
        loss = float(LOSSES["minimax"].d(D(real), D(fake)))
        d = torch.sigmoid(D(torch.from_numpy(GRID).float()[:, None]))[:, 0].double().numpy()
        lines = G(torch.linspace(-1, 1, 25)[:, None])[:, 0].double().numpy()
    p = mixture_density(GRID)
    q = np.histogram(fake.numpy(), BINS)[0] / (_MANY * (BINS[1] - BINS[0]))
    figures = {
        "loss_d": loss,
        "least_loss_d": least_d_loss(p, q, float(BINS[1] - BINS[0])),
        "mean_distance_of_d_from_its_optimum": float(np.average(np.abs(d - optimal_d(p, q)), weights=p + q)),
    }
    return figures | {name: _gradient(name, G, D, generator) for name in OBJECTIVES}, (q, d, lines)


def _draw(
    objectives: dict[str, Any], snapshots: dict[int, Any], early: list[tuple[float, float, float]]
) -> NDArray[np.uint8]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(snapshots), 6.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3, 2.4))
    upper, lower = parts
    p = mixture_density(GRID)
    for axes, (step, (q, d, lines)) in zip(
        upper.subplots(1, len(snapshots), sharey=True), snapshots.items(), strict=True
    ):
        axes.plot(GRID, p, "k:", label="data p")
        axes.plot(GRID, q, "g", label="samples q")
        axes.plot(GRID, d, "b--", label="D")
        best = np.where(p + q > _SEEN, optimal_d(p, q), np.nan)
        axes.plot(GRID, best, "b", alpha=0.25, linewidth=3, label="p / (p + q)")
        for z, x in zip(np.linspace(-3, 3, len(lines)), lines, strict=True):
            axes.plot([z, x], [-0.5, -0.1], "k", linewidth=0.4)
        axes.axhline(-0.5, color="k", linewidth=0.6)
        axes.axhline(-0.1, color="k", linewidth=0.6)
        axes.set(title=f"step {step}", xlim=(-4, 4), ylim=(-0.55, 1.3), xlabel="z below, x above")
        axes.set_yticks([0, 0.5, 1])
    axes.legend(fontsize=7, loc="upper right")
    losses, gaps, gradients, sure = lower.subplots(1, 4)
    for name, measured in objectives.items():
        losses.plot(measured["steps"], measured["loss_d"], label=name)
        gaps.plot(measured["steps"], measured["mean_distance_of_d_from_its_optimum"], label=name)
        gradients.plot(measured["steps"], objectives["non-saturating"]["gradient_of_g"][name], label=name)
    losses.axhline(math.log(4), color="k", linestyle=":", label="log 4")
    losses.set(title="loss of D", xlabel="step")
    gaps.set(title="mean |D - p / (p + q)|", xlabel="step", ylim=(0, None))
    gradients.set(title="gradient of G, non-saturating GAN", xlabel="step", yscale="log")
    outputs, *norms = zip(*early, strict=True)
    for name, norm in zip(OBJECTIVES, norms, strict=True):
        sure.plot(outputs, norm, label=name)
    sure.set(title="gradient of G, D trained alone", xlabel="mean D of samples", xscale="log", yscale="log")
    for axes in (losses, gaps, gradients, sure):
        axes.legend(fontsize=7)
    return plotted(figure)
