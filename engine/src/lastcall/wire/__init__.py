"""Events as bytes, encoded once for all who share an encoding. Sans I/O: values in, bytes out.

`spec/vectors/` holds what is written here, byte for byte; `clients/core` reads the same files.

    sse.py        a block, plain or as one chunk of HTTP/1.1's chunked coding
    websocket.py  a server's frame: text, unmasked, header and JSON
    json.py       the same members as JSON text; long-poll answers
    payload.py    the `data` of the protocol's own events
    encoding.py   the three encodings behind one interface, for the hub
    frames.py     what a WebSocket client may say
    problem.py    problem documents (RFC 9457)
"""
