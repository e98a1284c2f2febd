"""The documents say what the code says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lastcall
from lastcall import config, errors, event, meter

ROOT = Path(__file__).resolve().parents[3]
ENGINE = ROOT / "engine" / "src" / "lastcall"
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("spec/*.md"), *ROOT.glob("deploy/*.md")})
DECISIONS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0][
    "layers"
]

_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def text_of(path: Path) -> str:
    """The file's text."""
    return path.read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands between a heading and the next one."""
    return re.split(r"^#+ ", text.partition(title)[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_reference_is_current() -> None:
    """The reference pages that come from the code are what `make docs` writes now."""
    command = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_setting_is_documented() -> None:
    """The settings page names every setting of config.py."""
    page = text_of(REFERENCE / "settings.md")
    assert [name for name in config.names() if f"| `{name}` |" not in page] == []


def test_every_metric_is_documented() -> None:
    """The metrics page names every metric, and what to watch names only metrics that exist."""
    page = text_of(REFERENCE / "metrics.md")
    assert [metric.name for metric in meter.METRICS if f"| `lastcall_{metric.name}" not in page] == []
    watched = re.findall(r"lastcall_[a-z_]+", text_of(ROOT / "docs" / "how-to" / "monitor.md"))
    assert [name for name in watched if f"`{name}`" not in page] == []


def test_every_alarm_is_explained() -> None:
    """The page on monitoring explains exactly the alarms that the engine raises."""
    raised = {name for path in ENGINE.rglob("*.py") for name in re.findall(r"\.alarm\(\"([a-z_]+)\"\)", text_of(path))}
    page = text_of(ROOT / "docs" / "how-to" / "monitor.md").partition("## Alarms")[2]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, flags=re.MULTILINE)) == raised


def test_every_number_is_documented_in_both_languages() -> None:
    """The errors page has every number of every codes.toml with its English and its French sentence."""
    page = text_of(REFERENCE / "errors.md")
    tables = [errors.CODES, *(errors.read_codes(text_of(path))[0] for path in ROOT.glob("apps/*/src/*/codes.toml"))]
    codes = [code for table in tables for code in table.values()]
    assert [code.number for code in codes if f"| {code.en} | {code.fr} |" not in page] == []


def test_reserved_names_are_those_of_the_protocol() -> None:
    """The reserved event names are exactly those that spec/protocol.md reserves."""
    text = section(text_of(ROOT / "spec" / "protocol.md"), "### 3.2 Events of the protocol")
    rows = re.findall(r"^\| `([a-z]+)` \|", text, flags=re.MULTILINE)
    others = re.findall(r"`([a-z]+)`", text.partition("These names are reserved")[2])
    assert {*rows, *others} == event.RESERVED_EVENT_NAMES


def test_publish_refuses_the_reserved_names() -> None:
    """`lastcall.publish` in SQL refuses exactly the reserved names."""
    text = text_of(ENGINE / "sql" / "routines" / "publish.sql")
    refused = re.search(r"publish\.event in \(([^)]*)\)", text)
    assert refused is not None
    assert set(re.findall(r"'([a-z]+)'", refused[1])) == event.RESERVED_EVENT_NAMES


def test_every_reason_of_a_reset_is_explained() -> None:
    """The page on recovery explains exactly the reasons that the protocol has."""
    reasons = section(text_of(ROOT / "spec" / "protocol.md"), "### 3.3 Reasons of a reset")
    explained = text_of(ROOT / "docs" / "how-to" / "recover.md").partition("## ")[0]
    rows = re.compile(r"^\| `([a-z]+)` \|", flags=re.MULTILINE)
    assert rows.findall(explained) == rows.findall(reasons)


def test_every_path_is_documented() -> None:
    """The page on HTTP names every path that a server has without an application."""
    paths = re.findall(r'^ +"(/[^"]+)": \{"', text_of(ENGINE / "gateway" / "fixed_paths.py"), flags=re.MULTILINE)
    page = text_of(REFERENCE / "http.md")
    assert [path for path in paths if not re.search(rf"{re.escape(path)}[`?]", page)] == []
    assert paths


def test_the_door_matches_the_house() -> None:
    """`lastcall.__all__` is exactly what the package's front page imports, sorted; each name has a docstring."""
    tree = ast.parse(text_of(ENGINE / "__init__.py"))
    imported = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert sorted(imported) == lastcall.__all__
    assert [name for name in lastcall.__all__ if not (getattr(lastcall, name).__doc__ or "").strip()] == []


def test_every_module_has_its_place_in_the_contract() -> None:
    """The layers of the import contract name every top-level module of the engine, and nothing else."""
    modules = {path.stem for path in ENGINE.glob("*.py")} | {path.parent.name for path in ENGINE.glob("*/__init__.py")}
    placed = [name.strip() for layer in LAYERS for name in re.split(r"[|:]", layer)]
    assert sorted(modules - {"__init__", "__main__"}) == sorted(placed)


def test_architecture_shows_the_contract() -> None:
    """ARCHITECTURE.md draws the layers as the contract has them."""
    assert "\n".join(f"    {layer}" for layer in LAYERS) in text_of(ROOT / "ARCHITECTURE.md")


def test_architecture_has_every_module() -> None:
    """ARCHITECTURE.md says of every module of the engine what it is for; of `testing`, as a whole."""
    page = text_of(ROOT / "ARCHITECTURE.md")
    modules = (path.relative_to(ENGINE).as_posix() for path in sorted(ENGINE.rglob("*.py")))
    named = (name for name in modules if not name.endswith(("__init__.py", "__main__.py")))
    assert [name for name in named if not name.startswith("testing/") and f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a document names a file that exists."""
    links = [found[0] for found in _LINK.findall(_CODE.sub("", text_of(page)))]
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_no_page_is_an_orphan() -> None:
    """Every document below docs/ is linked from another one."""
    linked = {(page.parent / found[0]).resolve() for page in PAGES for found in _LINK.findall(text_of(page))}
    assert [
        page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/*/*.md") if page.resolve() not in linked
    ] == []


def test_both_readmes_show_the_two_commands() -> None:
    """The English and the French README show `make demo` and `make test`, and run the same commands."""
    pages = [text_of(ROOT / name) for name in ("README.md", "README.fr.md")]
    blocks = [re.findall(r"^    (\S[^#\n]*?)\s*(?:#.*)?$", page, flags=re.MULTILINE) for page in pages]
    assert {"make demo", "make test"} <= set(blocks[0])
    assert blocks[0] == blocks[1]


def test_versions_agree() -> None:
    """The package, its metadata and the top of the changelog name one version."""
    declared = tomllib.loads(text_of(ROOT / "engine" / "pyproject.toml"))["project"]["version"]
    newest = re.search(r"^## (\S+)", text_of(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)
    assert newest is not None
    assert (lastcall.__version__, newest[1]) == (declared, declared)


def test_decisions_are_numbered_and_complete() -> None:
    """Decisions are numbered without a gap, listed, and say context, decision, what was rejected and consequences."""
    index = text_of(ROOT / "docs" / "adr" / "README.md")
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for page in DECISIONS:
        text = text_of(page)
        assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ["Context", "Decision", "Rejected", "Consequences"]
        assert f"{int(page.name[:4])}. [{text.splitlines()[0].partition('. ')[2]}]({page.name})" in index
