"""The original GAN on numbers instead of images, where everything that the theory says can be looked at."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from align.cli import at_least
from dcgan.explore.files import Files, plotted
from dcgan.loss import LOSSES
from dcgan.sampling import Progress

# The mixture: weight, mean and deviation of each normal distribution.
_MIXTURE = ((0.6, -1.5, 0.5), (0.4, 1.5, 0.4))
_BINS = np.linspace(-5, 5, 201)
_GRID = (_BINS[1:] + _BINS[:-1]) / 2
_UNITS, _BATCH, _MANY, _EARLY = 32, 512, 100_000, 300
_LR, _BETAS = 3e-3, (0.5, 0.999)
_SEEN = 1e-3  # least density at which the best D is drawn
GAMES = ("minimax", "non-saturating")


def mixture_density(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The density p of the data."""
    parts = [
        weight * np.exp(-np.square((x - mean) / spread) / 2) / (spread * math.sqrt(2 * math.pi))
        for weight, mean, spread in _MIXTURE
    ]
    return np.sum(parts, axis=0)


def optimal_d(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best D for a fixed G, p / (p + q), where p or q is above 0; 1/2 elsewhere. Goodfellow et al. 2014, prop. 1.

    Args:
        p: density of the data on a grid.
        q: density of what G makes, on the same grid.
    """
    return np.divide(p, p + q, out=np.full_like(p, 0.5), where=p + q > 0)


def least_d_loss(p: NDArray[np.float64], q: NDArray[np.float64], width: float) -> float:
    """The loss of the best D: log 4 less twice the Jensen-Shannon divergence of p and q. Ibid., theorem 1.

    Args:
        p: density of the data on an even grid.
        q: density of what G makes, on the same grid.
        width: of a cell of the grid.
    """
    d = optimal_d(p, q)
    real = np.log(d, out=np.zeros_like(d), where=p > 0)
    fake = np.log(1 - d, out=np.zeros_like(d), where=q > 0)
    return float(-(p * real + q * fake).sum() * width)


@dataclass
class Trace:
    """What was seen while one game was played; lists grow with the steps that are looked at.

    Attributes:
        steps: when.
        loss_d: D's loss.
        least_loss_d: the loss of the best D against the G of that time.
        gap: mean distance of D from the best D where the data or the samples are.
        gradients: norm of the gradient of G's weights, for either loss of G on the same D.
        moments: step to q, D on the grid, and x for evenly spaced z.
    """

    steps: list[int] = field(default_factory=list)
    loss_d: list[float] = field(default_factory=list)
    least_loss_d: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    gradients: dict[str, list[float]] = field(default_factory=lambda: {game: [] for game in GAMES})
    moments: dict[int, tuple[NDArray[np.float64], ...]] = field(default_factory=dict)


def play(
    game: str, steps: int, d_steps: int, seed: int, looks: int = 40, moments: int = 5
) -> Iterator[Progress | Trace]:
    """Train a small G and D, fully connected, on the mixture.

    Args:
        game: "minimax" or "non-saturating".
        steps: of G.
        d_steps: of D for each of G.
        seed: of weights, data and z.
        looks: how often everything is measured.
        moments: how many of these are kept for the picture.
    Yields:
        Progress, then the Trace.
    """
    G, D, generator = _networks(seed)
    adam_g, adam_d = (torch.optim.Adam(network.parameters(), _LR, _BETAS) for network in (G, D))
    trace = Trace()
    at = set(np.linspace(0, steps, looks, dtype=int).tolist())
    kept = set(np.array(sorted(at))[np.linspace(0, len(at) - 1, moments, dtype=int)].tolist())
    for step in range(steps + 1):
        if step in at:
            _look(trace, step, G, D, generator, step in kept)
            yield Progress(f"{game} game", step, steps)
        for group in (*adam_g.param_groups, *adam_d.param_groups):
            group["lr"] = _LR * (1 - step / (steps + 1))  # so that the game comes to rest
        for _ in range(d_steps):
            _step_d(G, D, adam_d, generator)
        fake = D(G(_z(_BATCH, generator)))
        loss = LOSSES[game].g(fake, fake)
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
    yield trace


def confident_d(steps: int, seed: int) -> list[tuple[float, float, float]]:
    """Train D alone against an untrained G, as when a game begins with a D that learns too fast.

    Args:
        steps: of D.
        seed: of weights, data and z.
    Returns:
        At about 30 moments D's mean opinion of samples, and the norms of G's gradient: minimax, non-saturating.
    """
    G, D, generator = _networks(seed)
    adam = torch.optim.Adam(D.parameters(), _LR, _BETAS)
    seen = []
    for step in range(steps):
        if step % max(1, steps // 30) == 0:
            minimax, non_saturating = (_gradient(game, G, D, generator) for game in GAMES)
            with torch.no_grad():
                opinion = float(torch.sigmoid(D(G(_z(_BATCH, generator)))).mean())
            seen.append((opinion, minimax, non_saturating))
        _step_d(G, D, adam, generator)
    return seen


def gan_1d(steps: int, d_steps: int, seed: int) -> Iterator[Progress | Files]:
    """Play both games and draw D beside its optimum, its loss beside log 4, and the two gradients of G.

    Args:
        steps: of G, in each game.
        d_steps: of D for each of G.
        seed: of everything.
    Yields:
        Progress, then gan-1d.png and gan-1d.json.
    Source: Goodfellow et al. 2014, "Generative adversarial nets", sections 3 and 4, figure 1.
    """
    traces: dict[str, Trace] = {}
    for game in GAMES:
        for seen in play(game, steps, d_steps, seed):
            if isinstance(seen, Trace):
                traces[game] = seen
            else:
                yield seen
    yield Progress("confident D", 0, 1)
    early = confident_d(_EARLY, seed)
    yield {"gan-1d.png": _draw(traces, early), "gan-1d.json": _numbers(traces, early)}


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


def _real(count: int, generator: torch.Generator) -> Tensor:
    weights, means, spreads = (torch.tensor(column) for column in zip(*_MIXTURE, strict=True))
    which = torch.multinomial(weights, count, replacement=True, generator=generator)
    return (means[which] + spreads[which] * torch.randn(count, generator=generator))[:, None]


def _step_d(G: nn.Module, D: nn.Module, adam: torch.optim.Optimizer, generator: torch.Generator) -> None:
    with torch.no_grad():
        fake = G(_z(_BATCH, generator))
    adam.zero_grad()
    LOSSES["minimax"].d(D(_real(_BATCH, generator)), D(fake)).backward()
    adam.step()


def _gradient(game: str, G: nn.Module, D: nn.Module, generator: torch.Generator) -> float:
    fake = D(G(_z(_BATCH, generator)))
    gradients = torch.autograd.grad(LOSSES[game].g(fake, fake), list(G.parameters()))
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def _look(trace: Trace, step: int, G: nn.Module, D: nn.Module, generator: torch.Generator, keep: bool) -> None:
    with torch.no_grad():
        fake = G(_z(_MANY, generator))
        real = _real(_MANY, generator)
        loss = float(LOSSES["minimax"].d(D(real), D(fake)))
        d = torch.sigmoid(D(torch.from_numpy(_GRID).float()[:, None]))[:, 0].double().numpy()
        lines = G(torch.linspace(-1, 1, 25)[:, None])[:, 0].double().numpy()
    p = mixture_density(_GRID)
    q = np.histogram(fake.numpy(), _BINS)[0] / (_MANY * (_BINS[1] - _BINS[0]))
    trace.steps.append(step)
    trace.loss_d.append(loss)
    trace.least_loss_d.append(least_d_loss(p, q, float(_BINS[1] - _BINS[0])))
    trace.gap.append(float(np.average(np.abs(d - optimal_d(p, q)), weights=p + q)))
    for game in GAMES:
        trace.gradients[game].append(_gradient(game, G, D, generator))
    if keep:
        trace.moments[step] = q, d, lines


def _numbers(traces: dict[str, Trace], early: list[tuple[float, float, float]]) -> dict[str, Any]:
    return {
        "log_4": math.log(4),
        "games": {
            game: {
                "steps": trace.steps,
                "loss_d": trace.loss_d,
                "least_loss_d": trace.least_loss_d,
                "mean_distance_of_d_from_its_optimum": trace.gap,
                "gradient_of_g": trace.gradients,
            }
            for game, trace in traces.items()
        },
        "confident_d": [
            {"mean_d_of_samples": opinion, "minimax": minimax, "non_saturating": other}
            for opinion, minimax, other in early
        ],
    }


def _draw(traces: dict[str, Trace], early: list[tuple[float, float, float]]) -> NDArray[np.uint8]:
    from matplotlib.figure import Figure

    moments = traces["non-saturating"].moments
    figure = Figure(figsize=(3 * len(moments), 6.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3, 2.4))
    upper, lower = parts
    p = mixture_density(_GRID)
    for axes, (step, (q, d, lines)) in zip(upper.subplots(1, len(moments), sharey=True), moments.items(), strict=True):
        axes.plot(_GRID, p, "k:", label="data p")
        axes.plot(_GRID, q, "g", label="samples q")
        axes.plot(_GRID, d, "b--", label="D")
        best = np.where(p + q > _SEEN, optimal_d(p, q), np.nan)
        axes.plot(_GRID, best, "b", alpha=0.25, linewidth=3, label="p / (p + q)")
        for z, x in zip(np.linspace(-3, 3, len(lines)), lines, strict=True):
            axes.plot([z, x], [-0.5, -0.1], "k", linewidth=0.4)
        axes.axhline(-0.5, color="k", linewidth=0.6)
        axes.axhline(-0.1, color="k", linewidth=0.6)
        axes.set(title=f"step {step}", xlim=(-4, 4), ylim=(-0.55, 1.3), xlabel="z below, x above")
        axes.set_yticks([0, 0.5, 1])
    axes.legend(fontsize=7, loc="upper right")
    losses, gaps, gradients, sure = lower.subplots(1, 4)
    for game, trace in traces.items():
        losses.plot(trace.steps, trace.loss_d, label=game)
        gaps.plot(trace.steps, trace.gap, label=game)
        gradients.plot(trace.steps, traces["non-saturating"].gradients[game], label=game)
    losses.axhline(math.log(4), color="k", linestyle=":", label="log 4")
    losses.set(title="loss of D", xlabel="step")
    gaps.set(title="mean |D - p / (p + q)|", xlabel="step", ylim=(0, None))
    gradients.set(title="gradient of G, non-saturating game", xlabel="step", yscale="log")
    opinion, *norms = zip(*early, strict=True)
    for game, norm in zip(GAMES, norms, strict=True):
        sure.plot(opinion, norm, label=game)
    sure.set(title="gradient of G, D trained alone", xlabel="mean D of samples", xscale="log", yscale="log")
    for axes in (losses, gaps, gradients, sure):
        axes.legend(fontsize=7)
    return plotted(figure)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the experiment's own flags."""
    parser.add_argument("--steps", type=at_least(8), default=1000, help="of G, in each of two games (%(default)s)")
    parser.add_argument("--d-steps", type=at_least(1), default=3, help="of D for each of G (%(default)s)")


def run(arguments: argparse.Namespace, weights: None) -> Iterator[Progress | Files]:
    """Run the experiment as the command line has it."""
    return gan_1d(arguments.steps, arguments.d_steps, arguments.seed)
