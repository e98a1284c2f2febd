#include "publishers.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "connect.h"

#define REQUEST_MAX 8192
#define CONNECT_WAIT_MS 5000

/* The data of an event, its mark with number 0. Returns where the mark is. */
static size_t render_data(char *data, const char *tag, uint32_t publisher)
{
    size_t fill = DATA_BYTES - MARK_BYTES;
    memset(data, 'x', fill);
    data[0] = '"';
    snprintf(data + fill, MARK_BYTES + 1, "~%.4s~%03u~00000000\"", tag, publisher % PUBLISHERS_MAX);
    return fill;
}

static void render(struct publishers *publishers, uint32_t number)
{
    const struct options *options = publishers->options;
    struct publisher *publisher = &publishers->list[number];
    char data[DATA_BYTES + 1];
    size_t mark = render_data(data, options->tag, number);
    const char *at = strchr(options->body, '@');
    int before = at == NULL ? (int)strlen(options->body) : (int)(at - options->body);
    const char *after = at == NULL ? "" : at + 1;
    size_t body = (size_t)before + strlen(after) + (at == NULL ? 0 : DATA_BYTES);
    publisher->request = allocate(1, REQUEST_MAX);
    int head = snprintf(publisher->request, REQUEST_MAX,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%ld\r\nContent-Type: application/json\r\n%s"
                        "Content-Length: %zu\r\n\r\n%.*s",
                        options->publish_path, options->port, options->publish_headers, body, before, options->body);
    int rest = snprintf(publisher->request + head, REQUEST_MAX - (size_t)head, "%s%s", at == NULL ? "" : data, after);
    publisher->length = (size_t)(head + rest);
    if (publisher->length >= REQUEST_MAX)
        refuse("a publish request is longer than %d bytes", REQUEST_MAX);
    publisher->mark = at == NULL ? NULL : publisher->request + head + mark;
}

void publishers_open(struct publishers *publishers, const struct options *options, struct ledger *ledger, int epoll)
{
    *publishers = (struct publishers){.options = options, .ledger = ledger, .epoll = epoll};
    publishers->count = (uint32_t)options->publishers;
    publishers->list = allocate(publishers->count + 1, sizeof *publishers->list);
    for (uint32_t i = 0; i < publishers->count; i++)
        render(publishers, i);
}

static void connect_publisher(struct publishers *publishers, uint32_t number)
{
    int fd = connect_to(publishers->options->port);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    if (fd < 0 || poll(&ready, 1, CONNECT_WAIT_MS) != 1 || connect_result(fd) != 0)
        refuse("publisher %u cannot connect to port %ld", number, publishers->options->port);
    publishers->list[number].fd = fd;
    watch(publishers->epoll, EPOLL_CTL_ADD, fd, EPOLLIN, EPOLL_KEY(KIND_PUBLISHER, number));
}

static void send_next(struct publishers *publishers, uint32_t number)
{
    struct publisher *publisher = &publishers->list[number];
    publisher->sent_ns = now_ns();
    uint32_t event = ledger_sent(publishers->ledger, number, publisher->sent_ns);
    if (publisher->mark != NULL) {
        char text[16];
        snprintf(text, sizeof text, "%08u", event);
        memcpy(publisher->mark + 10, text, 8);
    }
    publisher->waiting = true;
    publishers->sent++;
    if (send(publisher->fd, publisher->request, publisher->length, MSG_NOSIGNAL) != (ssize_t)publisher->length)
        die("publisher: send");
}

static bool may_send(const struct publishers *publishers, const struct publisher *publisher)
{
    if (!publishers->running || publisher->waiting || publishers->sent >= (uint64_t)publishers->options->requests_max)
        return false;
    return !publishers->options->paced || publishers->ledger->complete >= publishers->sent;
}

void publishers_start(struct publishers *publishers)
{
    for (uint32_t i = 0; i < publishers->count; i++)
        connect_publisher(publishers, i);
    publishers->running = true;
    publishers_tick(publishers);
}

/* The length of the whole answer at the start of the buffer; 0 when it is not all there. (RFC 9112, 6) */
static size_t whole_answer(const struct publisher *publisher)
{
    size_t head = http_head(publisher->answer, publisher->have);
    if (head == 0)
        return 0;
    const char *length = http_field(publisher->answer, head, "\r\ncontent-length:");
    if (length != NULL) {
        size_t whole = head + strtoul(length, NULL, 10);
        return whole <= publisher->have ? whole : 0;
    }
    if (http_field(publisher->answer, head, "\r\ntransfer-encoding:") == NULL)
        return head;
    const char *end = memmem(publisher->answer + head - 2, publisher->have - head + 2, "\r\n0\r\n\r\n", 7);
    return end == NULL ? 0 : (size_t)(end - publisher->answer) + 7;
}

static void take_answer(struct publishers *publishers, struct publisher *publisher, size_t length, uint64_t now)
{
    int status = http_status(publisher->answer, length);
    if (status < 200 || status > 299) {
        if (publishers->failures++ == 0)
            fprintf(stderr, "a publisher was answered %.*s\n", (int)length, publisher->answer);
        publishers->running = false; /* the outcome is unknown: the run has failed */
    }
    publishers->answered++;
    ledger_answered(publishers->ledger, publisher->sent_ns, now);
    publisher->waiting = false;
    publisher->have -= length;
    memmove(publisher->answer, publisher->answer + length, publisher->have);
}

void publishers_event(struct publishers *publishers, uint32_t number)
{
    struct publisher *publisher = &publishers->list[number];
    ssize_t got = recv(publisher->fd, publisher->answer + publisher->have, ANSWER_MAX - publisher->have, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        refuse("the server closed the connection of publisher %u", number);
    publisher->have += (size_t)got;
    size_t length = whole_answer(publisher);
    if (length == 0) {
        if (publisher->have == ANSWER_MAX)
            refuse("an answer to a publisher is longer than %d bytes", ANSWER_MAX);
        return;
    }
    take_answer(publishers, publisher, length, now_ns());
    if (may_send(publishers, publisher))
        send_next(publishers, number);
}

void publishers_tick(struct publishers *publishers)
{
    for (uint32_t i = 0; i < publishers->count; i++)
        if (may_send(publishers, &publishers->list[i]))
            send_next(publishers, i);
}

void publishers_stop(struct publishers *publishers)
{
    publishers->running = false;
}

bool publishers_idle(const struct publishers *publishers)
{
    return publishers->answered == publishers->sent;
}
