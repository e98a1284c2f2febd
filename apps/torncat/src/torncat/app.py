"""C.A.T. as an application of lastcall."""

from __future__ import annotations

from pathlib import Path

from lastcall import App

HERE = Path(__file__).parent

app = App(name="torncat", sql=HERE / "sql")
