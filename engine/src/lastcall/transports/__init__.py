"""transports: one URL, three ways to listen (spec/protocol.md, 3 to 6).

events.py      the routes: which way a request takes
request.py     what a request asks for
opening.py     authorise, read states, find gaps: what a listener is told first
listener.py    one listener, whatever carries it
adopted.py     sockets that uvicorn has handed over: SSE and WebSocket
foreign.py     the same on any other ASGI server
operations.py  what a WebSocket client may ask while it listens
long_poll.py   one question, one answer
sessions.py    who must be found again: by secret, by the end of a token
handover.py    uvicorn's protocols, taught to hand a socket over
server.py      uvicorn's server, with the drain
ports.py       what a node must bring
"""

from lastcall.transports.events import routes
from lastcall.transports.ports import Reader
from lastcall.transports.server import Server, uvicorn_config

__all__ = ["Reader", "Server", "routes", "uvicorn_config"]
