"""What PostgreSQL says, as what a client sees.

Promises:

* Each SQLSTATE becomes the number that `codes.toml` (or an application's codes) gives it; anything else is LC100.
* A function that raises a number, or a rule of its own (P0001, P0002), speaks to the client: its message is the
  `detail`, and a DETAIL that is a JSON object the `facts`. What PostgreSQL itself says stays in the log.
* A mistake of the server leaves with an incident number only; the log has the rest under that number.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import psycopg
import structlog

from lastcall.errors import CODES, Code, Refusal, code_of_sqlstate
from lastcall.postgres.signature import Call, bad_arguments

RETRYABLE: Final = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the same transaction can succeed a moment later."""

FACTS_MAX_BYTES: Final = 8 << 10
DETAIL_MAX_CHARACTERS: Final = 300

_SPOKEN: Final = frozenset({"P0001", "P0002"})
_RETRY_AFTER_S: Final = {"LC202": 2.0, "LC206": 5.0, "LC207": 10.0}
_PARAMETER: Final = re.compile(r"portal (?:\"[^\"]*\" )?parameter \$(\d+)")

log = structlog.get_logger("lastcall.postgres")


def new_incident() -> str:
    """A number under which a client's report finds the line in the log."""
    return secrets.token_hex(6)


def refusal_of(error: psycopg.Error, codes: Mapping[str, Code] = CODES, call: Call | None = None) -> Refusal:
    """The refusal that a client gets for `error`.

    call: what was called, so that the argument that did not fit can be named.
    """
    diag = error.diag
    sqlstate = diag.sqlstate or ""
    unfit = None if call is None else _unfit(error, call)
    if unfit is not None:
        return bad_arguments(unfit)
    code = code_of_sqlstate(sqlstate, codes)
    if _own_mistake(code, error):
        return incident(sqlstate=sqlstate, message=diag.message_primary or "", context=diag.context or "")
    detail = ""
    if sqlstate in codes or sqlstate in _SPOKEN:
        detail = (diag.message_primary or "")[:DETAIL_MAX_CHARACTERS]
    return Refusal(code, detail, facts=_facts(diag.message_detail), retry_after_s=_RETRY_AFTER_S.get(code.number))


def incident(**facts: str) -> Refusal:
    """LC100 with a new incident number, under which `facts` go to the log."""
    number = new_incident()
    log.error("incident", incident=number, **facts)
    return Refusal("LC100", incident=number)


def _own_mistake(code: Code, error: psycopg.Error) -> bool:
    """Whether the server made it: no number fits, or a function of ours called what does not exist."""
    return code.number == "LC100" or (code.number == "LC107" and bool(error.diag.context))


def _unfit(error: psycopg.Error, call: Call) -> dict[str, str] | None:
    """The arguments that PostgreSQL could not read as their types, if that is what the error is about."""
    context, sqlstate = error.diag.context or "", error.diag.sqlstate or ""
    found = _PARAMETER.search(context)
    if found is not None and 0 < int(found[1]) <= len(call.names):
        return {call.names[int(found[1]) - 1]: (error.diag.message_primary or "")[:DETAIL_MAX_CHARACTERS]}
    if context:
        return None
    if sqlstate == "23514" and error.diag.datatype_name and not error.diag.table_name:
        return dict.fromkeys(call.names, "one of these breaks the rule of its type")
    if sqlstate.startswith("22") and call.nested:
        return dict.fromkeys(call.nested, "something in it does not fit its type")
    return None


def _facts(detail: str | None) -> dict[str, Any] | None:
    if not detail or not detail.startswith("{") or len(detail) > FACTS_MAX_BYTES:
        return None
    try:
        return msgspec.json.decode(detail, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
