"""A small application to test and measure the engine with: notes on topics, and functions that misbehave on request.

Serve it with `lastcall serve --app lastcall.testing.sample:app`. Not for production: anyone with a token may write.
"""

from __future__ import annotations

from pathlib import Path

from lastcall.app import App, Channel
from lastcall.errors import Code
from lastcall.feed.watch import Watch

app = App(
    name="sample",
    sql=Path(__file__).parent / "sql",
    watches=(
        Watch(
            table="sample.note",
            channel="topic:{topic}",
            event="note",
            columns=("id", "topic", "writer", "number", "body"),
        ),
    ),
    channels=(
        Channel(pattern="topic:{id}", authorize="sample_api.may_hear", state="sample_api.topic_state"),
        Channel(pattern="quiet:{id}", authorize="sample_api.may_hear"),
    ),
    codes={
        "SA001": Code(
            number="SA001",
            name="refused_on_request",
            status=409,
            retry="no",
            en="You asked for this refusal.",
            fr="Vous avez demandé ce refus.",
        )
    },
    cors_origins=("https://sample.example",),
    tickets=True,
)
