"""Write the pages of docs/reference that come from the code; with --check, only say whether they are current.

One function a page; each reads the one place where the thing is declared and returns the page's text.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, get_args, get_origin

import msgspec
import typer.main

import lastcall
from lastcall.cli import command
from lastcall.config import ENVIRONMENT_PREFIX, Config
from lastcall.meter import METRICS

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
ENGINE = ROOT / "engine" / "src" / "lastcall"
HEADER = "<!-- Written by `make docs` from {source}; do not edit. -->\n\n"

_SECTION = re.compile(r"^    # (.+)$|^    ([a-z][a-z0-9_]*): Annotated\[", re.MULTILINE)
_COMMENT = re.compile(r"comment on (?:function|view|table) ([^;']+?) is\s+((?:'(?:[^']|'')*'\s*)+);", re.IGNORECASE)
_GRANT = re.compile(r"grant (?:execute|select)[^;]*? to ([a-z_, ]+);", re.IGNORECASE)


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _facets(annotation: Any) -> Iterator[msgspec.Meta]:
    while get_origin(annotation) is not None and hasattr(annotation, "__metadata__"):
        yield from (item for item in annotation.__metadata__ if isinstance(item, msgspec.Meta))
        annotation = get_args(annotation)[0]


def _plain(annotation: Any) -> Any:
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    return annotation


def _kind(annotation: Any) -> str:
    plain = _plain(annotation)
    words = (
        "list of text, comma-separated"
        if get_origin(plain) is tuple
        else {str: "text", int: "whole number", float: "number"}[plain]
    )
    for meta in _facets(annotation):
        words += f", from {meta.ge}" if meta.ge is not None else ""
        words += f", above {meta.gt}" if meta.gt is not None else ""
        words += f" to {meta.le}" if meta.le is not None else ""
    return words


def _default(value: object) -> str:
    if value in ("", ()):
        return "(empty)"
    return f"`{value}`"


def settings() -> str:
    """Every setting of config.py: name, type and bounds, default, meaning, in the order of the module."""
    fields = {field.name: field for field in msgspec.structs.fields(Config)}
    page = (
        HEADER.format(source="`engine/src/lastcall/config.py`")
        + f"""# Settings

Highest first: command line; environment (`{ENVIRONMENT_PREFIX}` and the name in capitals: `{ENVIRONMENT_PREFIX}PORT`);
`lastcall.toml` in the working directory (or the file that `{ENVIRONMENT_PREFIX}CONFIG` names); the default. An
unknown or ill-typed setting refuses to start, and the message names it. Units end a name: `_s` seconds, `_ms`
milliseconds, `_bytes`, `_max` a count.
"""
    )
    rows: list[tuple[str, ...]] = []
    for match in _SECTION.finditer((ENGINE / "config.py").read_text(encoding="utf-8")):
        title, name = match[1], match[2]
        if name in fields:
            field = fields[name]
            meaning = " ".join(meta.description for meta in _facets(field.type) if meta.description)
            rows.append((f"`{name}`", _kind(field.type), _default(field.default), meaning))
        elif title:
            page += (table(("setting", "type", "default", "meaning"), rows) if rows else "") + f"\n## {title}\n\n"
            rows = []
    return page + table(("setting", "type", "default", "meaning"), rows)


def errors() -> str:
    """Every number of every codes.toml, in both languages, and what SQLSTATEs become."""
    page = (
        HEADER.format(source="the `codes.toml` files")
        + """# Errors

What a client meets has a number, and the number says whether to try again. Over HTTP it comes as a problem document
(RFC 9457), over a stream as the event `close` or a WebSocket close code. A number is also a SQLSTATE: `raise exception
using errcode = 'LC113'` in a function is the error that the caller sees. A number is never reused for another meaning.

| retry | what a client does |
| --- | --- |
| `no` | the same request will fail again |
| `now` | try again at once, with jitter |
| `later` | try again after `Retry-After`, or a few seconds |
| `fresh` | get a new token first |
"""
    )
    for path in [ENGINE / "codes.toml", *sorted(ROOT.glob("apps/*/src/*/codes.toml"))]:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        states = tables.pop("sqlstate", {})
        page += f"\n## {'The engine' if path.parent == ENGINE else path.parent.name}\n\n"
        rows = [
            (
                number,
                f"`{row['name']}`",
                str(row["status"]),
                str(row.get("close", "")),
                row["retry"],
                row["en"],
                row["fr"],
            )
            for number, row in tables.items()
        ]
        page += table(("number", "name", "HTTP", "close", "retry", "English", "français"), rows)
        if states:
            page += (
                "\n### What PostgreSQL says, as clients see it\n\nThe longest prefix wins; anything else is LC100.\n\n"
            )
            page += table(("SQLSTATE", "number"), [(f"`{state}`", number) for state, number in states.items()])
    return page


def _parameter_row(parameter: Any) -> tuple[str, ...]:
    is_option = parameter.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in parameter.opts) if is_option else f"`{parameter.name.upper()}`"
    default = parameter.default
    shown = "" if parameter.required or default in (None, False) else f" Default `{default}`."
    return names, (getattr(parameter, "help", None) or "") + (" Required." if parameter.required else shown)


def cli() -> str:
    """Every command of `lastcall`, as its own help has it."""
    group: Any = typer.main.get_command(command)
    page = HEADER.format(source="`engine/src/lastcall/cli`") + "# Command line\n\n"
    page += "`lastcall --help` and `lastcall COMMAND --help` say the same.\n"
    for name, found in group.commands.items():
        usage = " ".join(found.collect_usage_pieces(found.context_class(found, info_name=name)))
        page += f"\n## lastcall {name}\n\n    lastcall {name} {usage}\n\n{' '.join((found.help or '').split())}\n\n"
        page += table(("option or argument", "meaning"), [_parameter_row(parameter) for parameter in found.params])
    return page


def sql() -> str:
    """The functions and views of the engine's SQL that carry a comment, and who may use them."""
    rows = []
    for path in sorted((ENGINE / "sql" / "routines").glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        for match in _COMMENT.finditer(text):
            comment = " ".join("".join(re.findall(r"'((?:[^']|'')*)'", match[2])).replace("''", "'").split())
            granted = ", ".join(sorted({role.strip() for found in _GRANT.findall(text) for role in found.split(",")}))
            rows.append((f"`{match[1].strip()}`", granted or "the owner", comment))
    page = (
        HEADER.format(source="the comments in `engine/src/lastcall/sql/routines`")
        + """# SQL functions of the engine

What an application's SQL may call, and what the server itself calls. Everything lives in the schema `lastcall`.

"""
    )
    return page + table(("function", "who may", "what it does"), rows)


def metrics() -> str:
    """Every metric of meter.py: its name as /metrics has it, kind, labels, meaning."""
    page = (
        HEADER.format(source="`engine/src/lastcall/meter.py`")
        + """# Metrics

What `GET /metrics` shows, in Prometheus' text format. Counters are of this node since its start. What to look at, and
the names of the alarms: [monitoring](../how-to/monitor.md).

"""
    )
    endings = {"counter": "_total", "histogram": "_seconds", "gauge": ""}
    rows = [
        (f"`lastcall_{metric.name}{endings[metric.kind]}`", metric.kind, ", ".join(metric.labels), metric.help)
        for metric in METRICS
    ]
    return page + table(("metric", "kind", "labels", "meaning"), rows)


def python() -> str:
    """The names of `lastcall.__all__`: arguments, docstring, methods."""
    page = (
        HEADER.format(source="the docstrings of `lastcall.__all__`")
        + """# Python

What an application imports from `lastcall`; nothing inside the package is for it.
"""
    )
    for name in lastcall.__all__:
        value = getattr(lastcall, name)
        page += f"\n## {name}\n\n    {name}{_arguments(value)}\n\n" + _indented(inspect.getdoc(value) or "")
        for member, found in vars(value).items() if isinstance(value, type) else ():
            if not member.startswith("_") and inspect.getdoc(found) and isinstance(found, FunctionType | property):
                page += f"\n### {name}.{member}{_arguments(found)}\n\n" + _indented(inspect.getdoc(found) or "")
    return page


def _arguments(value: object) -> str:
    """The names of the arguments; those that may be left out have `=…`."""
    if value is lastcall.Config:
        return "(…)"
    if isinstance(value, property) or getattr(value, "_is_protocol", False) or not callable(value):
        return ""
    if isinstance(value, type) and issubclass(value, Exception) and "__init__" not in vars(value):
        return ""
    parameters = [item for item in inspect.signature(value).parameters.values() if item.name != "self"]
    return "(" + ", ".join(item.name + ("" if item.default is item.empty else "=…") for item in parameters) + ")"


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "errors.md": errors,
    "metrics.md": metrics,
    "cli.md": cli,
    "sql.md": sql,
    "python.md": python,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check name those that are not current; 1 when there are any."""
    stale = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"docs/reference/{name}: {'is not current; run `make docs`' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
