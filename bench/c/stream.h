/* Decoding of what a listener receives, in place: HTTP chunks away, then SSE blocks or WebSocket frames one by one.
 * Handles any split of the bytes over reads; keeps only the unfinished rest of a block. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INBOX_BYTES (1u << 20)
#define REST_MAX (INBOX_BYTES / 2)

enum framing { FRAMING_PLAIN, FRAMING_CHUNKED, FRAMING_WEBSOCKET };

struct stream {
    enum framing framing;
    int chunk_state;
    uint64_t chunk_left;
    char *rest;
    size_t rest_length, rest_capacity;
    bool ended; /* the last chunk, or a WebSocket close frame */
};

/* Called with the text of each block (without its last line feed) or frame. */
typedef void on_text(void *context, const char *text, size_t length);
/* Called with each WebSocket ping; a server may close a connection that does not answer. */
typedef void on_ping(void *context, const char *payload, size_t length);

/* Decode `length` new bytes at `inbox + stream->rest_length`; the space before them is for the rest. Returns false on
 * bytes that are no valid framing. */
bool stream_decode(struct stream *stream, char *inbox, size_t length, on_text *text, on_ping *ping, void *context);

void stream_close(struct stream *stream);

#endif
