#include "stream.h"

#include <stdlib.h>
#include <string.h>

#include "system.h"

enum { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_CR, CHUNK_LF, CHUNK_LAST };

static int hex(char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    character = (char)(character | 0x20);
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

/* One byte outside of chunk data. False when it cannot stand there. */
static bool chunk_frame(struct stream *stream, char character)
{
    switch (stream->chunk_state) {
    case CHUNK_SIZE:
        if (hex(character) >= 0) {
            stream->chunk_left = stream->chunk_left * 16 + (uint64_t)hex(character);
            return stream->chunk_left < UINT32_MAX;
        }
        stream->chunk_state = CHUNK_EXTENSION;
        /* fall through */
    case CHUNK_EXTENSION:
        if (character == '\n')
            stream->chunk_state = stream->chunk_left > 0 ? CHUNK_DATA : CHUNK_LAST;
        return true;
    case CHUNK_CR:
        stream->chunk_state = CHUNK_LF;
        return character == '\r';
    case CHUNK_LF:
        stream->chunk_state = CHUNK_SIZE;
        return character == '\n';
    default:
        return true; /* trailers and the end */
    }
}

/* Close the gaps that chunk framing leaves, in place. Returns the payload's length, or -1. (RFC 9112, 7.1) */
static long dechunk(struct stream *stream, char *bytes, size_t length)
{
    size_t in = 0, out = 0;
    while (in < length) {
        if (stream->chunk_state == CHUNK_DATA) {
            size_t part = length - in < stream->chunk_left ? length - in : stream->chunk_left;
            memmove(bytes + out, bytes + in, part);
            in += part;
            out += part;
            stream->chunk_left -= part;
            if (stream->chunk_left == 0)
                stream->chunk_state = CHUNK_CR;
        } else if (!chunk_frame(stream, bytes[in++])) {
            return -1;
        }
    }
    stream->ended = stream->chunk_state == CHUNK_LAST;
    return (long)out;
}

static size_t take_blocks(const char *bytes, size_t length, size_t searched, on_text *text, void *context)
{
    size_t start = 0, from = searched > 0 ? searched - 1 : 0;
    for (;;) {
        const char *feed = memchr(bytes + from, '\n', length - from);
        if (feed == NULL || (size_t)(feed - bytes) + 1 >= length)
            return start;
        from = (size_t)(feed - bytes) + 1;
        if (bytes[from] == '\n') {
            text(context, bytes + start, from - 1 - start);
            start = ++from;
            if (from == length)
                return start;
        }
    }
}

/* Length of the frame header and the payload, or 0 when it is not all there. Servers do not mask. (RFC 6455, 5.2) */
static size_t frame_header(const unsigned char *bytes, size_t length, uint64_t *payload)
{
    if (length < 2)
        return 0;
    unsigned short_length = bytes[1] & 0x7fu;
    size_t extra = short_length == 126 ? 2 : short_length == 127 ? 8 : 0;
    if (length < 2 + extra)
        return 0;
    *payload = extra == 0 ? short_length : 0;
    for (size_t i = 0; i < extra; i++)
        *payload = *payload << 8 | bytes[2 + i];
    return 2 + extra;
}

static long take_frames(struct stream *stream, const char *bytes, size_t length, on_text *text, on_ping *ping,
                        void *context)
{
    size_t start = 0;
    for (;;) {
        uint64_t payload = 0;
        size_t header = frame_header((const unsigned char *)bytes + start, length - start, &payload);
        if (header == 0 || length - start - header < payload)
            return payload > REST_MAX ? -1 : (long)start;
        unsigned first = (unsigned char)bytes[start];
        const char *content = bytes + start + header;
        if (first == 0x81)
            text(context, content, payload);
        else if (first == 0x89)
            ping(context, content, payload);
        else if (first == 0x88)
            stream->ended = true;
        else if (first != 0x8a)
            return -1; /* binary, fragmented or compressed: not what was agreed */
        start += header + payload;
    }
}

static void keep_rest(struct stream *stream, const char *bytes, size_t length)
{
    if (length > stream->rest_capacity) {
        stream->rest_capacity = length < 512 ? 512 : 2 * length;
        stream->rest = grow(stream->rest, stream->rest_capacity, 1);
    }
    if (length > 0)
        memcpy(stream->rest, bytes, length);
    stream->rest_length = length;
}

bool stream_decode(struct stream *stream, char *inbox, size_t length, on_text *text, on_ping *ping, void *context)
{
    size_t before = stream->rest_length;
    long fresh = (long)length;
    if (stream->framing == FRAMING_CHUNKED)
        fresh = dechunk(stream, inbox + before, length);
    if (fresh < 0)
        return false;
    if (before > 0)
        memcpy(inbox, stream->rest, before);
    size_t have = before + (size_t)fresh;
    long used = stream->framing == FRAMING_WEBSOCKET ? take_frames(stream, inbox, have, text, ping, context)
                                                     : (long)take_blocks(inbox, have, before, text, context);
    if (used < 0 || have - (size_t)used > REST_MAX)
        return false;
    keep_rest(stream, inbox + used, have - (size_t)used);
    return true;
}

void stream_close(struct stream *stream)
{
    free(stream->rest);
    *stream = (struct stream){0};
}
