"""hub: channel → history and interests. Free of I/O: time and scheduling come in, bytes go out through writers.

history.py    what is kept of each channel, and from where on
interest.py   who hears the same things
joining.py    how a listener comes in without a gap
rounds.py     writes on their way
heartbeat.py  whose heartbeat comes when
waiting.py    long-polls
scheduler.py  when things happen
hub.py        what the feed delivers to
"""

from lastcall.hub.hub import Hub
from lastcall.hub.interest import Interest, Subscriber, Writer
from lastcall.hub.joining import Joiner, Reservation
from lastcall.hub.scheduler import Scheduler
from lastcall.hub.waiting import Waiter

__all__ = ["Hub", "Interest", "Joiner", "Reservation", "Scheduler", "Subscriber", "Waiter", "Writer"]
