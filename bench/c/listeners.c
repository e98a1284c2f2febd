#include "listeners.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "connect.h"

#define CONNECTING_MAX 128
#define REQUEST_MAX 16384
#define READ_MAX (INBOX_BYTES / 2)

static char inbox[INBOX_BYTES];

void listeners_open(struct listeners *listeners, const struct options *options, struct ledger *ledger, int epoll)
{
    *listeners = (struct listeners){.options = options, .ledger = ledger, .epoll = epoll};
    listeners->count = (uint32_t)options->listeners;
    listeners->list = allocate(listeners->count + 1, sizeof *listeners->list);
    for (uint32_t i = 0; i < listeners->count; i++)
        listeners->list[i] = (struct listener){.all = listeners, .fd = -1, .number = i};
}

static void count_live(struct listener *listener, bool live)
{
    struct listeners *all = listener->all;
    if (listener->live == live)
        return;
    listener->live = live;
    if (live) {
        all->live++;
        all->connecting--;
        all->live_ns = all->now;
    } else {
        all->live--;
    }
}

/* The connection ended, or could not be made. */
static void lose(struct listener *listener)
{
    struct listeners *all = listener->all;
    const struct options *options = all->options;
    if (!listener->live)
        all->connecting--;
    count_live(listener, false);
    if (listener->fd >= 0)
        close_hard(listener->fd);
    listener->fd = -1;
    stream_close(&listener->stream);
    if (options->resume) {
        long spread = options->retry_max_ms - options->retry_min_ms + 1;
        listener->retry_ns = all->now + (uint64_t)(options->retry_min_ms + random() % spread) * NS_PER_MS;
        listener->state = LISTENER_AWAY;
        all->away++;
    } else {
        listener->state = LISTENER_ENDED;
        all->ended++;
    }
}

/* The end of an event's data, `~TTTT~PPP~NNNNNNNN"`, at the end of `text`. */
static const char *find_mark(const struct listener *listener, const char *text, size_t length)
{
    if (listener->stream.framing == FRAMING_WEBSOCKET && length > 0 && text[length - 1] == '}')
        length--;
    if (length < MARK_BYTES)
        return NULL;
    const char *mark = text + length - MARK_BYTES;
    return mark[0] == '~' && mark[5] == '~' && mark[9] == '~' && mark[18] == '"' ? mark : NULL;
}

static uint32_t digits(const char *text, int count)
{
    uint32_t value = 0;
    for (int i = 0; i < count; i++)
        value = value * 10 + (uint32_t)(text[i] - '0');
    return value;
}

static void note_frame(struct listener *listener, const char *text, size_t length)
{
    struct listeners *all = listener->all;
    bool websocket = listener->stream.framing == FRAMING_WEBSOCKET;
    const char *key = websocket ? "\"event\":\"" : "event: ";
    const char *name = memmem(text, length, key, strlen(key));
    const struct {
        const char *name;
        uint64_t *count;
    } kinds[] = {{"joined", &all->joined}, {"heartbeat", &all->heartbeats}, {"reset", &all->resets}, {"close", &all->closes}};
    uint64_t *count = &all->others;
    for (size_t i = 0; name != NULL && i < sizeof kinds / sizeof *kinds; i++) {
        size_t size = strlen(kinds[i].name);
        if ((size_t)(text + length - name) >= strlen(key) + size && memcmp(name + strlen(key), kinds[i].name, size) == 0)
            count = kinds[i].count;
    }
    ++*count;
    if (!listener->resumed || count == &all->heartbeats)
        count_live(listener, true);
}

/* A client's position is the last id it received (spec/protocol.md, 2). */
static void keep_position(struct listener *listener, const char *text, size_t length)
{
    const char *id = memmem(text, length, "id: ", 4);
    if (id == NULL || (id != text && id[-1] != '\n'))
        return;
    id += 4;
    size_t size = 0;
    while (id + size < text + length && id[size] != '\n' && size < POSITION_MAX - 1)
        size++;
    memcpy(listener->position, id, size);
    listener->position[size] = '\0';
}

static void take_text(void *context, const char *text, size_t length)
{
    struct listener *listener = context;
    struct listeners *all = listener->all;
    if (all->options->resume)
        keep_position(listener, text, length);
    const char *mark = find_mark(listener, text, length);
    if (mark == NULL) {
        note_frame(listener, text, length);
        return;
    }
    uint32_t publisher = digits(mark + 6, 3);
    if (memcmp(mark + 1, all->options->tag, TAG_CHARACTERS) != 0 || publisher >= all->ledger->publishers) {
        all->foreign++;
        return;
    }
    ledger_received(all->ledger, listener->number, publisher, digits(mark + 10, 8), all->now);
}

/* A pong repeats the ping's payload, masked as clients must; a mask of zeros is a mask. (RFC 6455, 5.5.3) */
static void answer_ping(void *context, const char *payload, size_t length)
{
    struct listener *listener = context;
    char pong[6 + 125] = {(char)0x8a, (char)(0x80u | length)};
    if (length > 125)
        return;
    memcpy(pong + 6, payload, length);
    send(listener->fd, pong, 6 + length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void decode(struct listener *listener, size_t length)
{
    if (!stream_decode(&listener->stream, inbox, length, take_text, answer_ping, listener)) {
        listener->all->unreadable++;
        lose(listener);
    } else if (listener->stream.ended) {
        lose(listener);
    }
}

/* Render the request; `{i}` in the path becomes the listener's number. */
static size_t render(const struct listener *listener, char *request)
{
    const struct options *options = listener->all->options;
    char target[REQUEST_MAX / 2];
    size_t length = 0;
    for (const char *from = options->path; *from != '\0' && length < sizeof target - 16;)
        if (strncmp(from, "{i}", 3) == 0) {
            length += (size_t)sprintf(target + length, "%u", listener->number);
            from += 3;
        } else {
            target[length++] = *from++;
        }
    target[length] = '\0';
    static const char upgrade[] = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: lastcall.v1\r\n";
    bool back = listener->position[0] != '\0';
    int wrote = snprintf(request, REQUEST_MAX, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%ld\r\n%s%s%s%s%s\r\n", target,
                         options->port, options->websocket ? upgrade : "Accept: text/event-stream\r\n",
                         options->headers, back ? "Last-Event-ID: " : "", listener->position, back ? "\r\n" : "");
    if (wrote < 0 || wrote >= REQUEST_MAX)
        refuse("the request is longer than %d bytes", REQUEST_MAX);
    return (size_t)wrote;
}

static void ask(struct listener *listener)
{
    struct listeners *all = listener->all;
    if (connect_result(listener->fd) != 0) {
        lose(listener);
        return;
    }
    watch(all->epoll, EPOLL_CTL_MOD, listener->fd, EPOLLIN | EPOLLRDHUP | EPOLLET,
          EPOLL_KEY(KIND_LISTENER, listener->number));
    if (all->options->raw) {
        listener->state = LISTENER_OPEN;
        count_live(listener, true);
        return;
    }
    char request[REQUEST_MAX];
    size_t length = render(listener, request);
    listener->resumed = listener->position[0] != '\0';
    listener->state = LISTENER_ASKED;
    if (send(listener->fd, request, length, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)length)
        lose(listener);
}

static void turned_away(struct listener *listener, int status, size_t length)
{
    struct listeners *all = listener->all;
    if (all->turned_away++ == 0 && !all->options->resume)
        fprintf(stderr, "listener %u was answered %d: %.*s\n", listener->number, status, (int)(length < 600 ? length : 600),
                inbox);
    lose(listener);
}

/* Read the answer's head; what follows it belongs to the stream already. */
static void open_stream(struct listener *listener, size_t length)
{
    size_t before = listener->stream.rest_length;
    if (before > 0)
        memcpy(inbox, listener->stream.rest, before);
    length += before;
    size_t head = http_head(inbox, length);
    if (head == 0) {
        struct stream *stream = &listener->stream;
        stream->rest = grow(stream->rest, length, 1);
        memcpy(stream->rest, inbox, length);
        stream->rest_length = stream->rest_capacity = length;
        return;
    }
    int status = http_status(inbox, head), wanted = listener->all->options->websocket ? 101 : 200;
    if (status != wanted) {
        turned_away(listener, status, length);
        return;
    }
    const char *coding = http_field(inbox, head, "\r\ntransfer-encoding:");
    bool chunked = coding != NULL && strncasecmp(coding, "chunked", 7) == 0;
    stream_close(&listener->stream);
    listener->stream.framing = wanted == 101 ? FRAMING_WEBSOCKET : chunked ? FRAMING_CHUNKED : FRAMING_PLAIN;
    listener->state = LISTENER_OPEN;
    memmove(inbox, inbox + head, length - head);
    if (length > head)
        decode(listener, length - head);
}

/* One recv(). True when there may be more: it filled the buffer. */
static bool read_from(struct listener *listener)
{
    struct listeners *all = listener->all;
    ssize_t got = recv(listener->fd, inbox + listener->stream.rest_length, READ_MAX, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            lose(listener);
        return false;
    }
    all->now = now_ns();
    all->reads++;
    all->bytes += (uint64_t)got;
    if (all->options->raw)
        return got == READ_MAX;
    if (listener->state == LISTENER_ASKED)
        open_stream(listener, (size_t)got);
    else
        decode(listener, (size_t)got);
    return got == READ_MAX;
}

void listeners_event(struct listeners *listeners, uint32_t number, uint32_t events)
{
    struct listener *listener = &listeners->list[number];
    if (listener->state == LISTENER_CONNECTING)
        ask(listener);
    else if (listener->fd >= 0) {
        /* Edge-triggered, which saves the kernel a second look at each socket: a short read has taken all there was,
         * and what comes later is a new edge. Only an end that has come already must be read to the end. */
        bool ending = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
        while ((read_from(listener) || ending) && listener->fd >= 0)
            ;
    }
}

static void start(struct listener *listener)
{
    struct listeners *all = listener->all;
    all->connecting++;
    if (listener->state == LISTENER_AWAY && listener->retry_ns > 0) {
        all->away--;
        all->resumes++;
    }
    listener->state = LISTENER_CONNECTING;
    listener->fd = connect_to(all->options->port);
    if (listener->fd < 0)
        lose(listener);
    else
        watch(all->epoll, EPOLL_CTL_ADD, listener->fd, EPOLLOUT, EPOLL_KEY(KIND_LISTENER, listener->number));
}

void listeners_tick(struct listeners *listeners, uint64_t now)
{
    listeners->now = now;
    while (listeners->started < listeners->count && listeners->connecting < CONNECTING_MAX)
        start(&listeners->list[listeners->started++]);
    if (listeners->away == 0)
        return;
    for (uint32_t i = 0; i < listeners->started && listeners->connecting < CONNECTING_MAX; i++) {
        struct listener *listener = &listeners->list[i];
        if (listener->state == LISTENER_AWAY && listener->retry_ns > 0 && listener->retry_ns <= now)
            start(listener);
    }
}

void listeners_close(struct listeners *listeners)
{
    for (uint32_t i = 0; i < listeners->count; i++)
        if (listeners->list[i].fd >= 0)
            close_hard(listeners->list[i].fd);
}
