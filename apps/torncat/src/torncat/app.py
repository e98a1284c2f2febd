"""C.A.T. as an application of lastcall: what it watches, who may hear it, where its pages are."""

from __future__ import annotations

from pathlib import Path

from lastcall import App, read_codes
from torncat.channels import CALL_MADE, CALL_RELEASED, FACTION
from torncat.demo import demo

HERE = Path(__file__).parent

app = App(
    name="torncat",
    sql=HERE / "sql",
    watches=(CALL_MADE, CALL_RELEASED),
    channels=(FACTION,),
    static=HERE / "web",
    cors_origins=("https://www.torn.com",),
    codes=read_codes((HERE / "codes.toml").read_text(encoding="utf-8"))[0],
    demo=demo,
)
