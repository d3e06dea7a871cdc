"""Settings of the page and of its load test. Imports nothing heavy, because `--help` reads them."""

from dataclasses import dataclass
from typing import Annotated

from align.errors import ConfigError
from align.settings import Option, Range, check

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not (name and password):
        raise ConfigError("expected USER:PASS with a user name and a password")
    return name, password


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


@dataclass(frozen=True)
class ServeOptions:
    """How to serve the page."""

    host: Annotated[str, "address to listen on; 0.0.0.0 opens the page to the network"] = "127.0.0.1"
    port: Annotated[int, Range(0, 65_535), "port to listen on"] = 7860
    auth: Annotated[
        tuple[str, str] | None,
        "require a login; --config FILE hides it from process lists",
        Option(metavar="USER:PASS", parse=_user),
    ] = None
    allow_host: Annotated[
        tuple[str, ...],
        "names under which visitors reach the page, besides localhost and IP addresses",
        Option(metavar="NAME,...", parse=_names),
    ] = ()
    trusted_proxy: Annotated[
        tuple[str, ...],
        "addresses or networks of reverse proxies whose forwarded headers are believed",
        Option(metavar="ADDRESS,...", parse=_names),
    ] = ()
    open_to_network: Annotated[
        bool, "serve an address that others reach without a reverse proxy, which limits connections and encrypts"
    ] = False
    root_path: Annotated[str, "path under which a reverse proxy serves the page, as /faces", Option(metavar="PATH")] = (
        ""
    )
    no_open: Annotated[bool, "do not open the page in the browser"] = False

    def __post_init__(self) -> None:
        check(self)
        if not (self.host in LOOPBACK or self.trusted_proxy or self.open_to_network):
            raise ConfigError(
                f"the host is {self.host}, which others reach; put a reverse proxy in front and name it with "
                "--trusted-proxy, or give --open-to-network"
            )


@dataclass(frozen=True)
class Limits:
    """How much one visitor may ask of the page."""

    max_pixels: Annotated[int, Range(4096, 1_000_000_000), "most pixels of a photo", Option(metavar="N")] = 16_000_000
    seconds: Annotated[
        float,
        Range(1, 1_000_000),
        "longest work on a photo, in seconds; then the best result so far is used",
        Option(flag="--max-seconds", metavar="S"),
    ] = 60.0
    photos: Annotated[int, Range(1, 1_000_000), "most photos in a batch", Option(flag="--max-photos", metavar="N")] = 50
    waiting: Annotated[
        int, Range(1, 1_000_000), "most requests that wait", Option(flag="--max-waiting", metavar="N")
    ] = 16

    def __post_init__(self) -> None:
        check(self)

    @property
    def file_bytes(self) -> int:
        """Size of the largest upload: an uncompressed photo."""
        return 4 * self.max_pixels + 2**20


@dataclass(frozen=True)
class LoadTestOptions:
    """How hard to test the page."""

    users: Annotated[int, Range(1, 1000), "number of concurrent visitors", Option(metavar="N")] = 16
    seconds: Annotated[
        int | None,
        Range(1, 1_000_000),
        "duration of the test in seconds (default: 60, hostile 600)",
        Option(metavar="N"),
    ] = None
    hostile: Annotated[
        bool, "after a third of the time, three more visitors attack: one floods, one hangs, one sends bombs"
    ] = False
    max_waiting: Annotated[int, Range(1, 1_000_000), "most requests in the queue of the page", Option(metavar="N")] = 16

    def __post_init__(self) -> None:
        check(self)
