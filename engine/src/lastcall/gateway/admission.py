"""Who may come in, and how often: the first thing that every request meets.

Promises:

* A request without a token is the anonymous role's; a bad token is never taken for none (LC302, LC303).
* `requests_per_minute_max` holds per subject, per address where there is none; what is beyond it is LC111 with the time
  to wait. A request with a bad token counts for its address, so that guessing is bounded, too.
* Memory is bounded: `WINDOWS_MAX` subjects and addresses are remembered; beyond them the oldest are forgotten.
"""

from __future__ import annotations

import time
from typing import Final

from limits import RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import Scope

from lastcall.auth import Principal, Tokens
from lastcall.config import Config
from lastcall.errors import Refusal
from lastcall.gateway.usage import Usage

WINDOWS_MAX: Final = 50_000


class Admission:
    """Tells who asks, and refuses who asks too often. `usage` (optional) counts what was let in."""

    def __init__(self, tokens: Tokens, config: Config, usage: Usage | None = None) -> None:
        self._tokens = tokens
        self._limit = _PerMinute(config.requests_per_minute_max)
        self._limiter = FixedWindowRateLimiter(Windows(WINDOWS_MAX))
        self._usage = usage

    def admit(self, scope: Scope, kind: str, cost: int = 1) -> Principal:
        """Whose request this is. `kind` is what the usage table counts it as, `cost` how many requests it counts for.

        Raises Refusal LC111, LC302, LC303.
        """
        address = scope["client"][0] if scope.get("client") else ""
        try:
            principal = self._tokens.principal(scope["headers"])
        except Refusal:
            self._hit(f"address {address}", cost)
            raise
        self.charge(principal, scope, kind, cost)
        return principal

    def charge(self, principal: Principal, scope: Scope, kind: str, cost: int) -> None:
        """Count further requests of an admitted principal. Raises Refusal LC111."""
        if cost <= 0:
            return
        if principal.subject is None:
            self._hit(f"address {scope['client'][0] if scope.get('client') else ''}", cost)
        else:
            self._hit(f"subject {principal.issuer} {principal.subject}", cost)
        if self._usage is not None:
            self._usage.add(principal.subject, kind, cost)

    def _hit(self, who: str, cost: int) -> None:
        if not self._limiter.hit(self._limit, who, cost=cost):
            ends = self._limiter.get_window_stats(self._limit, who).reset_time
            raise Refusal(
                "LC111",
                facts={"requests_per_minute_max": self._limit.amount},
                retry_after_s=max(1.0, ends - time.time()),
            )


class _PerMinute(RateLimitItemPerMinute):
    """The only limit of its storage, so that a key needs no more than who it counts for."""

    def key_for(self, *identifiers: bytes | str | int | float) -> str:
        """The one identifier."""
        return str(identifiers[0])


class Windows(Storage):
    """Fixed windows in memory, bounded, without a thread (the library's own starts one each ten milliseconds)."""

    STORAGE_SCHEME = None

    def __init__(self, windows_max: int) -> None:
        super().__init__()
        self._windows_max = windows_max
        self._windows: dict[str, tuple[int, float]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        """None of its own."""
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count `amount` in the window of `key`, which starts now where there is none; what the window holds."""
        now = time.time()
        count, ends = self._windows.pop(key, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + expiry
        while len(self._windows) >= self._windows_max:
            del self._windows[next(iter(self._windows))]
        self._windows[key] = (count + amount, ends)
        return count + amount

    def get(self, key: str) -> int:
        """What the window of `key` holds."""
        count, ends = self._windows.get(key, (0, 0.0))
        return count if ends > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """When the window of `key` ends, in seconds since 1970."""
        return self._windows.get(key, (0, time.time()))[1]

    def check(self) -> bool:
        """Always well."""
        return True

    def reset(self) -> int | None:
        """Forget everything."""
        forgotten = len(self._windows)
        self._windows.clear()
        return forgotten

    def clear(self, key: str) -> None:
        """Forget one window."""
        self._windows.pop(key, None)
