"""lastcall: what a PostgreSQL transaction commits reaches every listener, in order, once, resumable.

This is the one public door: an application imports these names and nothing inside the package.
"""

from lastcall.app import App, Channel, Demo, Job, Node, Service, Timer
from lastcall.config import Config
from lastcall.errors import Code, LastcallError, Refusal, StartRefused, read_codes
from lastcall.event import Event
from lastcall.feed.watch import Watch
from lastcall.position import Position

__all__ = [
    "App",
    "Channel",
    "Code",
    "Config",
    "Demo",
    "Event",
    "Job",
    "LastcallError",
    "Node",
    "Position",
    "Refusal",
    "Service",
    "StartRefused",
    "Timer",
    "Watch",
    "read_codes",
]
__version__ = "0.1.0"
