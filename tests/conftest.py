"""What several tests need: the photos beside the project, a small set of networks, the public-domain test face."""

import asyncio
import gc
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dcgan.config import NetworkConfig
from dcgan.export import export_onnx
from dcgan.networks import Discriminator, Encoder, Generator
from dcgan.weights import Weights

SHARED = Path(__file__).parents[2] / "shared"
# Two threads that wait for each other on a busy core are 30 times slower than one.
torch.set_num_threads(1)

# With pytest-xdist, the tests of a group run in one process, so that what they share is started once.
GROUPS = {"ray_of_two": "ray", "serve": "server"}
# Files whose tests train, or start many processes: `make check` leaves them out, and what uses Ray or the page.
SLOW = {
    f"test_{name}"
    for name in (
        "align_folder align_landmarks align_main align_parallel completion_batch completion_benchmark "
        "completion_completer completion_main completion_networks cuda dcgan_encoder "
        "dcgan_evaluate dcgan_explore_gan_1d dcgan_export dcgan_grow dcgan_locator dcgan_main dcgan_train "
        "dcgan_train_all docs fuzz killed pretended_device "
        "ui_benchmark ui_browser ui_main ui_reader ui_server ui_service"
    ).split()
}

# What Gradio leaves open in the process of the tests: event loops, and sockets with which it looked for a free port.
_OF_GRADIO = (
    "ignore:unclosed event loop:ResourceWarning",
    r"ignore:unclosed <socket.socket fd=\d+, family=1,:ResourceWarning",
    r"ignore:unclosed <socket.socket .*laddr=\('[\d.]+', 0\):ResourceWarning",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow files out before they are imported, which takes seconds."""
    return True if config.option.markexpr == "not slow" and collection_path.stem in SLOW else None


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for fixture, group in GROUPS.items():
            if fixture in fixtures:
                item.add_marker(pytest.mark.xdist_group(group))
        if "serve" in fixtures:
            for words in _OF_GRADIO:
                item.add_marker(pytest.mark.filterwarnings(words))
        if item.get_closest_marker("xdist_group") or item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA GPU here"))
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
    ray = pytest.importorskip("ray", reason='Ray is not here: pip install -e ".[cluster]"')
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CLUSTER_OF_THE_TESTS", "it is")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        started = ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
    yield started.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def backend(request: pytest.FixtureRequest) -> str:
    """Each way to have several workers."""
    if request.param == "ray":
        request.getfixturevalue("ray_of_two")
    return request.param


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a folder that is in use."""
    monkeypatch.setattr("align.files.LOCK_S", 0.2)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must exit with 2, print nothing to stdout, and say why in one line, which is returned."""

    def run(main: Callable[..., int], *words: Any, **named: Any) -> str:
        capsys.readouterr()
        code: Any = 0
        try:
            code = main(*words, **named)
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        [line] = err.splitlines()
        assert (code, out) == (2, "")
        return line

    return run


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Folder of photos for align, not yet created."""
    return tmp_path / "raw"


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    """Folder of crops, not yet created."""
    return tmp_path / "aligned"


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """Folder of completed photos, not yet created."""
    return tmp_path / "done"


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """uint8 (512, 512, 3): a photo of a face in the public domain."""
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(autouse=True)
def same_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test draw the same random numbers, whichever tests ran before it."""
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))


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
    Weights.of(generator, Discriminator(config), "face", {"images": 0}).save(path)
    return path


@pytest.fixture(scope="session")
def small_weights(small_weights_file: Path) -> Weights:
    return Weights.open(small_weights_file, "cpu")


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
    Weights.of(G, D, "face", {"images": 0}, E).save(path)
    return path


@pytest.fixture(scope="session")
def encoder_weights(encoder_weights_file: Path) -> Weights:
    return Weights.open(encoder_weights_file, "cpu")


@pytest.fixture(scope="session")
def onnx_weights_file(
    tmp_path_factory: pytest.TempPathFactory, encoder_weights_file: Path, encoder_weights: Weights
) -> Path:
    """The same file with its ONNX file beside it: other processes need not load torch."""
    path = Path(shutil.copy(encoder_weights_file, tmp_path_factory.mktemp("onnx") / "e.safetensors"))
    export_onnx(encoder_weights, path.with_suffix(".onnx"))
    return path


@dataclass(frozen=True)
class Page:
    """A page that is being served.

    Attributes:
        url: its address.
        visits: what the server's middleware counts, a ui.server.Visits.
        app: Gradio's, a gr.Server.
        turns: the queue of completions, a ui.turns.Turns.
    """

    url: str
    visits: Any
    app: Any
    turns: Any


@pytest.fixture(scope="session")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Gradio keeps files; it reads its environment when it is imported, so that this comes before."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", str(folder))
        environment.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        environment.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="session")
def serve(uploads: Path) -> Callable[..., AbstractContextManager[Page]]:
    """Serves the page of a service on a free port for a while."""

    @contextmanager
    def served(service: Any, **settings: Any) -> Iterator[Page]:
        from ui.access import LOCAL
        from ui.app import launch
        from ui.server import Visits
        from ui.turns import Turns

        turns = Turns(service.limits.waiting)
        visits = Visits(settings.pop("access", LOCAL), 4 * service.limits.file_bytes)
        app: Any = launch(service, turns, visits, **settings)
        try:
            yield Page(app.get_blocks().local_url.rstrip("/"), visits, app, turns)
        finally:
            app.get_blocks().close(verbose=False)
            asyncio.set_event_loop(None)  # of those loops the last one
            gc.collect()

    return served
