"""The servers that lastcall is measured against: the C server, the bare loop, Nchan."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from bench.generator import Endpoint, Generator, Load
from bench.programs import BUILD, BenchFailed, Program, cores
from lastcall.testing.waiting import free_port

LIFE_MAX_S = 600
START_WITHIN_S = 10.0
BARE_EVENT_BYTES = 270
"""What the C server sends for an event."""
NCHAN_MODULES = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/share/nginx/modules/ngx_nchan_module.so"),
)

NGINX = """
load_module {module};
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 19500; use epoll; multi_accept on; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 512m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /publish {{
            nchan_publisher;
            nchan_channel_id bench;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 120s;
        }}
        location = /events {{
            nchan_subscriber eventsource;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
            nchan_subscriber_timeout 0;
        }}
    }}
}}
"""


@contextlib.contextmanager
def c_server(folder: Path, *options: str) -> Iterator[Endpoint]:
    """The C server on the server's core; options as in c/server.c."""
    command = [str(BUILD / "server"), "--core", str(cores()[0]), "--seconds", str(LIFE_MAX_S), *options]
    with Program(command, folder / "server.log") as program:
        port = int(program.line(START_WITHIN_S).removeprefix("listening "))
        yield Endpoint(port=port, pid=program.pid)


def bare_loop(folder: Path, sinks: int, seconds: int) -> float:
    """Sends a second of the bare loop, to so many sinks."""
    command = [str(BUILD / "bare"), "--core", str(cores()[0]), "--clients", str(sinks), "--seconds", str(seconds)]
    with Program([*command, "--bytes", str(BARE_EVENT_BYTES)], folder / "bare.log") as program:
        port = int(program.line(START_WITHIN_S).removeprefix("listening "))
        with Generator(Endpoint(port=port, pid=program.pid), Load(listeners=sinks, flags=("--raw",)), folder) as sink:
            sink.live()
            return float(json.loads(program.line(seconds + START_WITHIN_S))["sends_per_s"])


def nchan_module() -> Path:
    """Nchan as Debian ships it. Raises BenchFailed naming the command that installs it."""
    found = next((path for path in NCHAN_MODULES if path.is_file()), None)
    if found is None or shutil.which("nginx", path="/usr/sbin:/usr/bin:/bin") is None:
        raise BenchFailed("nginx with Nchan is missing: sudo apt-get install -y nginx libnginx-mod-nchan")
    return found


@contextlib.contextmanager
def nchan(folder: Path) -> Iterator[Endpoint]:
    """nginx with Nchan, one worker, memory store, on the server's core."""
    place = folder / "nginx"
    place.mkdir(exist_ok=True)
    port = free_port()
    configuration = place / "nginx.conf"
    configuration.write_text(NGINX.format(module=nchan_module(), folder=place, port=port))
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/bin")
    with Program([str(program), "-c", str(configuration)], folder / "nchan.log", cores()[0]) as master:
        worker = _worker_of(master, port)
        yield Endpoint(port=port, pid=worker)


def _worker_of(master: Program, port: int) -> int:
    """The process id of nginx's one worker, once it answers."""
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline and master.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/", timeout=1.0)
            return int(Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()[0])
        time.sleep(0.02)
    raise BenchFailed(f"nginx does not answer: {master.errors()}")
