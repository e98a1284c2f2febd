"""What the log never says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from lastcall.config import Config
from lastcall.logs import set_up_logs

SECRET = "".join(("hun", "ter2"))


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_stack_trace_shows_no_variables(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected error leaves its kind and its place in the log, never what the frames held (tokens, passwords)."""
    set_up_logs(Config(log_format=log_format))

    def fail(headers: dict[str, str]) -> None:
        raise ValueError(str(len(headers)))

    try:
        fail({"authorization": f"Bearer {SECRET}"})
    except ValueError:
        structlog.get_logger("test").exception("failed", incident="i1")
    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "i1" in written
    assert SECRET not in written
