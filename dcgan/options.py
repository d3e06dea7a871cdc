"""What an evaluation can be told; imports nothing heavy, since `--help` reads its defaults."""

from dataclasses import dataclass
from pathlib import Path

from dcgan.config import ConfigError


@dataclass(frozen=True)
class EvaluateOptions:
    """How much `dcgan.evaluate.evaluate` measures.

    Attributes:
        samples: generated faces, and as many real ones for the floor; fewer where there are fewer real ones.
        seed: of z and of every choice.
        k: neighbours for precision and recall.
        mre_faces: faces to reconstruct, of each kind.
        mre_steps: steps of Adam for each.
        mre_restarts: z that are followed for each; the best counts.
        mre_draws: random z that those are chosen from.
        fid_weights: file of the Inception network for FID, which is left out without it.
    """

    samples: int = 10_000
    seed: int = 0
    k: int = 3
    mre_faces: int = 100
    mre_steps: int = 200
    mre_restarts: int = 1
    mre_draws: int = 256
    fid_weights: Path | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "k", "mre_faces", "mre_steps", "mre_restarts", "mre_draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a number from 1 on")
        if self.seed < 0 or self.mre_restarts > self.mre_draws:
            raise ConfigError(
                f"seed is {self.seed} and mre_restarts {self.mre_restarts} of {self.mre_draws} mre_draws; expected a "
                "seed from 0 on and no more restarts than draws"
            )
