"""The one tree of errors: facts as attributes, a number for what clients see, and whether to try again.

The numbers are declared once, in `codes.toml` (published as `spec/codes.toml`). A number is also a SQLSTATE, so that a
SQL function raises the very error a client meets. Applications add numbers of their own (`App.codes`).

    LastcallError
    ├── Refusal            a request, a frame or a call is answered with a number
    └── StartRefused       the server does not start, and says what to do
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final, Literal

import msgspec

Language = Literal["en", "fr"]
Retry = Literal["no", "now", "later", "fresh"]


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """One number: what it is called, what it means in both languages, and what a client should do."""

    number: str
    name: str
    status: int
    retry: Retry
    en: str
    fr: str
    close: int | None = None

    def title(self, language: Language) -> str:
        """The sentence for people."""
        return self.fr if language == "fr" else self.en


def read_codes(text: str) -> tuple[dict[str, Code], dict[str, str]]:
    """Codes and the SQLSTATE table of one `codes.toml`. Raises msgspec.ValidationError on an ill-formed one."""
    tables = tomllib.loads(text)
    states = tables.pop("sqlstate", {})
    codes = {number: msgspec.convert({"number": number, **row}, Code) for number, row in tables.items()}
    return codes, states


_declared: Final = read_codes(resources.files("lastcall").joinpath("codes.toml").read_text(encoding="utf-8"))
CODES: Final[dict[str, Code]] = _declared[0]
SQLSTATES: Final[dict[str, str]] = _declared[1]


class LastcallError(Exception):
    """Root of everything that lastcall raises on purpose."""


class StartRefused(LastcallError):
    """The server does not start. `str()` says what is wrong and what to do about it."""


class Refusal(LastcallError):
    """A request, frame or call is refused with a number.

    code: the number's entry.
    detail: one sentence of facts for this occasion, English, free of secrets; may be empty.
    facts: further facts for programs; JSON values only.
    retry_after_s: for status 429 and 503, goes into `Retry-After`.
    incident: the number under which the log tells more; only for mistakes of the server.
    """

    def __init__(
        self,
        number: str | Code,
        detail: str = "",
        *,
        facts: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
        incident: str | None = None,
    ) -> None:
        self.incident = incident
        self.code = number if isinstance(number, Code) else CODES[number]
        self.detail = detail
        self.facts = dict(facts or {})
        self.retry_after_s = (
            retry_after_s if retry_after_s is not None else (1.0 if self.code.status in {429, 503} else None)
        )
        super().__init__(f"{self.code.number} {self.code.name}" + (f": {detail}" if detail else ""))

    def problem(self, language: Language = "en") -> dict[str, Any]:
        """The problem document (RFC 9457) of this refusal."""
        document: dict[str, Any] = {
            "type": f"urn:lastcall:error:{self.code.number}",
            "title": self.code.title(language),
            "status": self.code.status,
            "code": self.code.number,
            "name": self.code.name,
            "retry": self.code.retry,
        }
        if self.detail:
            document["detail"] = self.detail
        if self.facts:
            document["facts"] = self.facts
        if self.retry_after_s is not None:
            document["retry_after_s"] = self.retry_after_s
        if self.incident is not None:
            document["incident"] = self.incident
        return document


def code_of_sqlstate(sqlstate: str, codes: Mapping[str, Code] = CODES) -> Code:
    """The number clients see for a SQLSTATE: itself where it is a number, else the longest prefix of the table."""
    if sqlstate in codes:
        return codes[sqlstate]
    for length in range(len(sqlstate), 1, -1):
        number = SQLSTATES.get(sqlstate[:length])
        if number is not None:
            return CODES[number]
    return CODES["LC100"]


def language_of(accept_language: str) -> Language:
    """`fr` when the first supported language of an `Accept-Language` header is French, else `en` (RFC 9110, 12.5.4)."""
    ranked: list[tuple[float, int, str]] = []
    for order, part in enumerate(accept_language[:256].split(",")):
        tag, _, weight = part.strip().partition(";q=")
        try:
            ranked.append((-float(weight or 1), order, tag.strip().lower()))
        except ValueError:
            continue
    for _, _, tag in sorted(ranked):
        if tag[:2] in {"fr", "en"}:
            return "fr" if tag[:2] == "fr" else "en"
    return "en"
