"""What several tests need: the photos beside the project, a small set of networks, the public-domain test face."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dcgan.checkpoint import Weights, load_weights, save_weights
from dcgan.config import NetworkConfig
from dcgan.networks import Discriminator, Encoder, Generator

SHARED = Path(__file__).parents[2] / "shared"
# Two threads that wait for each other on a busy core are 30 times slower than one.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SHARED.is_dir():
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(pytest.mark.skip(reason="the photos in ../shared are not here"))


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED


@pytest.fixture(scope="session")
def ray_of_two() -> Iterator[str]:
    """A local Ray with two workers; its address."""
    ray = pytest.importorskip("ray", reason='Ray is not here: pip install "dcgan-completion[cluster]"')
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CLUSTER_OF_THE_TESTS", "it is")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        started = ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Ray's own names, once in a process
        ray.data.DataContext.get_current()
    yield started.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(params=["processes", "ray"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each way to have several workers."""
    if request.param == "ray":
        request.getfixturevalue("ray_of_two")
    return request.param


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """uint8 (512, 512, 3): a photo of a face in the public domain."""
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(scope="session")
def small_weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file with untrained 32x32 networks."""
    torch.manual_seed(0)
    config = NetworkConfig(size=32, nz=8, ngf=8, ndf=8)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    generator = Generator(config)
    with torch.no_grad():  # untrained weights give a flat grey image; stronger ones make z matter
        for weight in generator.parameters():
            weight.mul_(3)
    save_weights(path, generator, Discriminator(config), "face", {"images": 0})
    return path


@pytest.fixture(scope="session")
def small_weights(small_weights_file: Path) -> Weights:
    return load_weights(small_weights_file)


@pytest.fixture(scope="session")
def encoder_weights_file(tmp_path_factory: pytest.TempPathFactory, small_weights: Weights) -> Path:
    """The same networks and an untrained encoder whose skips are not nothing."""
    torch.manual_seed(1)
    G, D = small_weights.generator, small_weights.discriminator
    E = Encoder(G.config, 8)
    with torch.no_grad():
        for weight in E.skips.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    save_weights(path, G, D, "face", {"images": 0}, E)
    return path


@pytest.fixture(scope="session")
def encoder_weights(encoder_weights_file: Path) -> Weights:
    return load_weights(encoder_weights_file)
