"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.programs import cores

PACKAGES = ("psycopg", "uvicorn", "uvloop", "httptools", "websockets", "msgspec")


def _said(*command: str) -> str:
    """The first line a program says of itself, on either stream; "?" when there is none."""
    if shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/bin") is None:
        return "?"
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/bin"}
    done = subprocess.run(list(command), capture_output=True, text=True, check=False, env=environment)
    return (done.stdout + done.stderr).strip().partition("\n")[0] or "?"


def _field(path: str, pattern: str) -> str:
    text = Path(path).read_text() if Path(path).is_file() else ""
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else "?"


def _nchan() -> str:
    return _said("dpkg-query", "-W", "-f=${Version}", "libnginx-mod-nchan")


def describe(postgres: str) -> list[tuple[str, str]]:
    """Names and values: processor, cores, memory, kernel, and every version that matters."""
    memory_kb = _field("/proc/meminfo", r"^MemTotal:\s+(\d+) kB")
    server, generator = cores()
    memory = f"{int(memory_kb) / (1 << 20):.0f} GB" if memory_kb.isdigit() else "?"
    model = _field("/proc/cpuinfo", r"^model name\s*:\s*(.+)$")
    return [
        ("processor", f"{model}, {os.cpu_count()} cores"),
        ("cores", f"server {server}, generator {generator}, PostgreSQL any" if server >= 0 else "any"),
        ("memory", memory),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("Python", platform.python_version()),
        ("packages", ", ".join(f"{name} {version(name)}" for name in PACKAGES)),
        ("PostgreSQL", f"{postgres}, fsync on"),
        ("Nchan", f"{_nchan()} on {_said('nginx', '-v').removeprefix('nginx version: ')}, one worker, memory store"),
        ("C compiler", _said("gcc", "--version")),
    ]
