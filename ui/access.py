"""Who may ask what of the page: names of the server, trusted proxies, origins, and amounts per visitor."""

import ipaddress
import time
from collections import deque
from dataclasses import dataclass

from starlette.datastructures import Headers

from align.errors import InputError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_FORWARDED = (b"forwarded", b"x-real-ip")


class AccessError(InputError):
    """An option of access cannot be used."""


@dataclass(frozen=True)
class Access:
    """Rules of access.

    Attributes:
        hosts: names under which visitors may reach the page. IP addresses and localhost are always allowed; other
            names are not, because a stranger's name can be pointed at the server (DNS rebinding).
        proxies: addresses or networks of the reverse proxies whose forwarded headers are believed.
    Raises:
        AccessError: a proxy is no address.
    """

    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise AccessError(
                    f"the trusted proxy is {proxy!r}; give an IP address, or a network as 10.0.0.0/8"
                ) from error

    def trusts(self, address: str) -> bool:
        """Whether an address is that of a trusted proxy."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in ipaddress.ip_network(proxy) for proxy in self.proxies)

    def refusal(self, method: str, headers: Headers) -> str | None:
        """Why a request is refused for the name of the server or for its origin; None if it is not."""
        asked = headers.get("x-forwarded-host", headers.get("host", ""))
        for name in (headers.get("host", ""), asked):
            if not self._allows(_hostname(name)):
                return "this name of the server is not allowed; an operator can allow it with --allow-host"
        origin = headers.get("origin")
        elsewhere = origin is not None and origin.partition("://")[2] != asked
        if elsewhere or (method == "POST" and headers.get("sec-fetch-site") == "cross-site"):
            return "requests from other sites are refused; use the page itself"
        return None

    def _allows(self, name: str) -> bool:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in ("localhost", *self.hosts)
        return True


LOCAL = Access()


class Recent:
    """Amounts per visitor within a time.

    Args:
        seconds: how long an amount counts.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._amounts: deque[tuple[float, str, int]] = deque()
        self._sums: dict[str, int] = {}

    def add(self, visitor: str, amount: int) -> None:
        """Add an amount of a visitor."""
        self._amounts.append((time.monotonic(), visitor, amount))
        self._sums[visitor] = self._sums.get(visitor, 0) + amount

    def sum(self, visitor: str) -> int:
        """The amounts of a visitor that still count."""
        while self._amounts and time.monotonic() - self._amounts[0][0] > self._seconds:
            _, other, amount = self._amounts.popleft()
            self._sums[other] -= amount
            if not self._sums[other]:
                del self._sums[other]
        return self._sums.get(visitor, 0)


def without_forwarded(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers of a request without those that only a proxy may set."""
    return [(name, value) for name, value in headers if name not in _FORWARDED and not name.startswith(b"x-forwarded-")]


def _hostname(host: str) -> str:
    """A Host header without its port, in lower case: "[::1]:80" gives "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
