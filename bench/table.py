"""The table: in the terminal, and in docs/reference/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.rows import Row, Samples, Target, median_of, ratio

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "benchmarks.md"
BEGIN = "<!-- written by `make bench` from here"
END = "<!-- to here -->"
HEAD = ("| work | measured | against | ratio | at least / at most | |", "|---|---|---|---|---|---|")


def _bound(target: Target, row: Row) -> str:
    sign = "≥" if target.sense == "at least" else "≤"
    return f"{sign} {row.unit.format(target.bound)}" if target.against is None else f"{sign} {target.bound:g} ×"


def _against(samples: Samples, row: Row, target: Target) -> tuple[str, str]:
    """The peer with its number, and the ratio."""
    if target.against is None:
        return "", ""
    peer = row.unit.format(median_of(samples, target.against, row.number))
    return f"{target.whom} {peer}", f"{ratio(samples, row, target):.2f} ×"


def _measured(samples: Samples, row: Row) -> str:
    parts = [row.unit.format(median_of(samples, row.case, row.number))]
    parts += [text.format(median_of(samples, case, number)) for case, number, text in row.also]
    return ", ".join(parts)


def lines(samples: Samples, rows: Iterable[Row], *, judged: bool = True) -> list[str]:
    """The table in Markdown; a row with several targets takes several lines. judged: whether targets were to be met."""
    found = list(HEAD)
    for row in rows:
        if not row.targets:
            found.append(f"| {row.work} | {_measured(samples, row)} | | | reported | |")
        for place, target in enumerate(row.targets):
            peer, times = _against(samples, row, target)
            work, measured = (row.work, _measured(samples, row)) if place == 0 else ("", "")
            mark = "reached" if target.reached(ratio(samples, row, target)) else "**missed**"
            mark = mark if judged else "not judged"
            found.append(f"| {work} | {measured} | {peer} | {times} | {_bound(target, row)} | {mark} |")
    return found


def details(samples: Samples) -> list[str]:
    """Every case: its median, its extremes, the bytes of one delivery."""
    found = ["| case | median | least | most | |", "|---|---|---|---|---|"]
    for case, rounds in samples.items():
        number = next(iter(rounds[0]))
        values = sorted(numbers[number] for numbers in rounds)
        rest = ", ".join(f"{name} {median_of(samples, case, name):.4g}" for name in rounds[0] if name != number)
        median = median_of(samples, case, number)
        found.append(f"| {case} ({number}) | {median:,.6g} | {values[0]:,.6g} | {values[-1]:,.6g} | {rest} |")
    return found


def write(body: Sequence[str]) -> None:
    """Put the text between the marks of the page. The rest of the page is written by hand."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    mark, _, _ = rest.partition("\n")
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{mark}\n\n" + "\n".join(body) + f"\n\n{END}{after}", encoding="utf-8")
