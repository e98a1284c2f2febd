"""Bytes on the wire: exactly those of spec/vectors, which clients/core reads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.errors import CODES, Refusal
from lastcall.event import Event
from lastcall.position import Position
from lastcall.wire import encoding, payload, problem
from lastcall.wire.frames import Operation, read_operation, ref_of
from lastcall.wire.json import ack_text, error_text, event_text, poll_answer
from lastcall.wire.sse import block, chunk
from lastcall.wire.websocket import close_frame, text_frame

VECTORS = Path(__file__).parents[3] / "spec" / "vectors"


def vectors(file: str, kind: str) -> list[Any]:
    """The rows of one kind, as parameters named as they name themselves."""
    rows = json.loads((VECTORS / file).read_text(encoding="utf-8"))[kind]
    return [pytest.param(row, id=str(row.get("name", row))) for row in rows]


@pytest.mark.parametrize("row", vectors("sse.json", "blocks"))
def test_sse_block(row: dict[str, Any]) -> None:
    """A block and its chunk are written exactly as the vector says."""
    frame = row["frame"]
    written = block(
        frame["event"],
        frame["data"].encode(),
        id=frame.get("id"),
        channels=frame.get("channels", ()),
        retry_ms=frame.get("retry"),
    )
    assert written.decode() == row["block"]
    assert chunk(written).decode() == row["chunk"]


@pytest.mark.parametrize("row", vectors("websocket.json", "frames"))
def test_websocket_frame(row: dict[str, Any]) -> None:
    """A WebSocket frame is the vector's header and text."""
    frame = row["frame"]
    text = event_text(frame["event"], frame["data"].encode(), id=frame.get("id"), channels=frame.get("channels", ()))
    assert text.decode() == row["text"]
    assert text_frame(text) == bytes.fromhex(row["header"]) + text


@pytest.mark.parametrize("row", vectors("websocket.json", "headers"))
def test_websocket_header(row: dict[str, Any]) -> None:
    """The header says the length in the shortest of its three forms."""
    assert text_frame(b"x" * row["payload_bytes"])[: len(row["header"]) // 2].hex() == row["header"]


@pytest.mark.parametrize("row", vectors("websocket.json", "replies"))
def test_websocket_reply(row: dict[str, Any]) -> None:
    """Answers to operations are written exactly as the vector says."""
    reply = row["reply"]
    if reply["event"] == "ack":
        assert ack_text(reply["ref"], reply["channels"]).decode() == row["text"]
    else:
        refusal = Refusal(reply["problem"]["code"], facts=row.get("facts"))
        assert error_text(reply.get("ref"), problem.document(refusal)).decode() == row["text"]


@pytest.mark.parametrize("row", vectors("websocket.json", "operations"))
def test_websocket_operation(row: dict[str, Any]) -> None:
    """A client's frame means what the vector says; unknown members are ignored."""
    operation = read_operation(row["text"].encode())
    wanted = {"position": None, "state": False} if row["operation"]["op"] == "subscribe" else {}
    assert json.loads(msgspec.json.encode(operation)) == wanted | row["operation"]


@pytest.mark.parametrize("row", vectors("websocket.json", "malformed"))
def test_malformed_operation(row: dict[str, Any]) -> None:
    """A frame that is not the protocol's is refused with LC406, and the refusal does not repeat it."""
    with pytest.raises(Refusal) as caught:
        read_operation(row["text"].encode())
    assert caught.value.code.number == "LC406"
    assert caught.value.detail == ""


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """No frame raises anything but LC406."""
    try:
        assert isinstance(read_operation(text), Operation)
    except Refusal as refusal:
        assert refusal.code.number == "LC406"
    assert ref_of(text) is None or isinstance(ref_of(text), int)


def test_deep_frame_is_refused() -> None:
    """Nesting that would exhaust the stack is a malformed frame like any other."""
    with pytest.raises(Refusal):
        read_operation(b'{"op":"token","ref":1,"x":' + b"[" * 100_000)


@pytest.mark.parametrize("row", vectors("long_poll.json", "answers"))
def test_long_poll_answer(row: dict[str, Any]) -> None:
    """A long-poll answer is written exactly as the vector says."""
    answer = row["answer"]
    events = [
        event_text(event["event"], event["data"].encode(), id=event.get("id"), channels=event.get("channels", ()))
        for event in answer["events"]
    ]
    written = poll_answer(
        answer["position"],
        events,
        resets=[(reset["channels"], reset["reason"]) for reset in answer.get("reset", ())],
        states=[(state["channel"], state["state"].encode()) for state in answer.get("states", ())],
        more=answer.get("more", False),
    )
    assert written.decode() == row["text"]


@pytest.mark.parametrize("row", vectors("problems.json", "problems"))
def test_problem(row: dict[str, Any]) -> None:
    """A problem document is written exactly as the vector says, in both languages."""
    refusal = Refusal(
        row["code"], row.get("detail", ""), facts=row.get("facts"), retry_after_s=row.get("retry_after_s")
    )
    assert problem.document(refusal, row["language"]).decode() == row["document"]


def test_retry_after_is_whole_seconds_rounded_up() -> None:
    """Retry-After never asks a client to come back too early."""
    found = dict(problem.headers(Refusal("LC404", retry_after_s=1.2)))
    assert found[b"retry-after"] == b"2"
    assert b"retry-after" not in dict(problem.headers(Refusal("LC101")))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (encoding.SSE_PLAIN, b'event: close\ndata: {"code":"LC303","name":"token_expired","retry":"fresh"}\n\n'),
        (encoding.JSON_LINES, b'{"event":"close","data":{"code":"LC303","name":"token_expired","retry":"fresh"}}\n'),
    ],
)
def test_closing(kind: encoding.Encoding, expected: bytes) -> None:
    """The last frame of a stream says why it ends."""
    assert kind.closing(CODES["LC303"]) == expected


def test_closing_with_what_the_transport_needs() -> None:
    """A chunked body ends with the last chunk, a WebSocket with a close frame that carries the number's code."""
    assert encoding.SSE_CHUNKED.closing(CODES["LC209"]).endswith(b"\r\n0\r\n\r\n")
    assert encoding.WEBSOCKET.closing(CODES["LC209"]).endswith(close_frame(1012, "LC209"))
    assert close_frame(1012, "LC209") == b"\x88\x07\x03\xf4LC209"


def test_a_reset_of_the_feed_names_the_listeners_own_channels() -> None:
    """A reset event is told with the channels that the listener hears and the feed's reason, never with others."""
    event = Event(Position("e", 1, 1), ("a:1", "b:2"), "reset", b'{"reason":"truncate"}')
    written = encoding.SSE_PLAIN.event(event, ["b:2"])
    assert written == b'id: e.1.1\nevent: reset\ndata: {"channels":["b:2"],"reason":"truncate"}\n\n'


@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.integers(1, 9))), st.integers(0, 3))
def test_joined_blocks_read_like_single_ones(values: list[tuple[str, int]], seed: int) -> None:
    """Blocks joined in order are the blocks in order: splitting at the empty line gives each back."""
    blocks = [block("note", json.dumps(text).encode(), id=f"e.{seed}.{number}") for text, number in values]
    assert [part + b"\n\n" for part in b"".join(blocks).split(b"\n\n")[:-1]] == blocks


def test_joined_says_whole_seconds_without_a_fraction() -> None:
    """`heartbeat_s` is 15, not 15.0, and half a second stays half a second."""
    assert json.loads(payload.joined(["a:1"], 15.0, True, None)) == {
        "channels": ["a:1"],
        "heartbeat_s": 15,
        "resumed": True,
    }
    assert b'"heartbeat_s":0.5' in payload.joined([], 0.5, False, "x")
