"""Who may ask what of the page: names of the server, trusted proxies, origins, and budgets of visitors."""

import ipaddress
import math
import re
import threading
import time
from dataclasses import dataclass

from starlette.datastructures import Headers

from align.errors import ConfigError

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::\d+)?", re.IGNORECASE)
_MOST_VISITORS = 10_000  # that a budget remembers, unless more of them are below their full budget


@dataclass(frozen=True)
class Access:
    """Rules of access.

    Attributes:
        hosts: names under which visitors may reach the page. IP addresses and localhost are always allowed; other
            names are not, because a stranger's name can be pointed at the server (DNS rebinding).
        proxies: addresses or networks of the reverse proxies whose forwarded headers are believed.
    Raises:
        ConfigError: a proxy is no address.
    """

    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ConfigError(
                    f"the trusted proxy is {proxy!r}; give an IP address, or a network as 10.0.0.0/8"
                ) from error

    def refusal(self, method: str, path: str, headers: Headers) -> str | None:
        """Why a request is refused for the name of the server or for its origin; None if it is not."""
        asked = headers.get("x-forwarded-host", headers.get("host", ""))
        if not (self._allows(headers.get("host", "")) and self._allows(asked)):
            return "this name of the server is not allowed; an operator can allow it with --allow-host"
        elsewhere = headers.get("origin", f"http://{asked}") not in (f"http://{asked}", f"https://{asked}")
        changes = method == "POST" or path == "/logout"
        if elsewhere or changes and headers.get("sec-fetch-site") == "cross-site":
            return "requests from other sites are refused; use the page itself"
        return None

    def _allows(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if not found:
            return False
        try:
            ipaddress.ip_address(found[1] or found[2])
        except ValueError:
            return (found[2] or "").lower() in ("localhost", *self.hosts)
        return True


LOCAL = Access()


class Budget:
    """What each visitor may use of something: reserved before, and given back or forgotten after; threads may share it.

    Args:
        most: the whole budget of a visitor.
        seconds: time in which a used budget fills up again, evenly; infinity if it is only given back.
    """

    def __init__(self, most: float, seconds: float = math.inf) -> None:
        self._most, self._seconds = most, seconds
        self._left: dict[str, tuple[float, float]] = {}  # what is left, and since when
        self._lock = threading.Lock()

    def left(self, visitor: str) -> float:
        """What a visitor has left."""
        left, since = self._left.get(visitor, (self._most, 0.0))
        return min(self._most, left + (time.monotonic() - since) * self._most / self._seconds)

    def take(self, visitor: str, amount: float = 1) -> bool:
        """Reserve an amount; False if a visitor has less left."""
        with self._lock:
            left = self.left(visitor)
            if amount <= left:
                self._left[visitor] = left - amount, time.monotonic()
            if len(self._left) > _MOST_VISITORS:
                self._left = {who: left for who, left in self._left.items() if self.left(who) < self._most}
            return amount <= left

    def give_back(self, visitor: str, amount: float = 1) -> None:
        """Return what was reserved."""
        self._left[visitor] = min(self._most, self.left(visitor) + amount), time.monotonic()


def without_forwarded(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers of a request without those that only a proxy may set."""
    return [
        (name, value)
        for name, value in headers
        if name not in (b"forwarded", b"x-real-ip") and not name.startswith(b"x-forwarded-")
    ]


def visitor_of(address: str) -> str:
    """Whom an address stands for: an IPv4 address is one visitor, and so is a network of 2^64 IPv6 addresses."""
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
