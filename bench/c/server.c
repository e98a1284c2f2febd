/* The C server that lastcall is measured against: one thread, epoll, TCP_NODELAY, one send() per client and event from
 * one shared buffer. It serves just enough HTTP/1.1 for the load generator and knows one channel.
 *
 *   GET /events    SSE, chunked; first a block `joined`, then every event published from then on
 *   POST /publish  body: the event's data (one JSON value). 202, after the fan-out loop (--answer after) or before it
 *   GET /stats     counts, as JSON
 *
 * Prints "listening PORT". Ends after --seconds, or on SIGTERM. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "system.h"
#include "fanout.h"

#define FILES_MAX 20000
#define BATCH 64
#define REQUEST_MAX 4096

struct connection {
    struct listener listener;
    bool open, listening;
    size_t have;
    char *request; /* REQUEST_MAX bytes; freed when the connection becomes a listener */
};

static struct connection connections[FILES_MAX];
static struct fanout fanout;
static bool answer_before;

static void drop(struct connection *connection, int fd)
{
    if (connection->listening)
        fanout_leave(&fanout, &connection->listener);
    free(connection->request);
    *connection = (struct connection){0};
    close(fd); /* epoll forgets a closed socket by itself */
}

/* Answers are small and their sockets empty: a partial send means that the peer is broken. */
static bool say(int fd, const char *text, size_t length)
{
    return send(fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)length;
}

static bool start_listening(struct connection *connection, int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
                               "X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char joined[] = "retry: 2000\nid: 9f31c2.0.0\nevent: joined\ndata: {\"channels\":[\"topic:bench\"],"
                                 "\"heartbeat_s\":15,\"resumed\":false}\n\n";
    char text[sizeof head + sizeof joined + 16];
    int length = snprintf(text, sizeof text, "%s%zx\r\n%s\r\n", head, sizeof joined - 1, joined);
    if (!say(fd, text, (size_t)length))
        return false;
    connection->listening = true;
    fanout_join(&fanout, &connection->listener, fd);
    free(connection->request);
    connection->request = NULL;
    return true;
}

static bool publish(int fd, const char *body, size_t length)
{
    static const char accepted[] = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
    if (answer_before && !say(fd, accepted, sizeof accepted - 1))
        return false;
    fanout_publish(&fanout, body, length);
    return answer_before || say(fd, accepted, sizeof accepted - 1);
}

static bool tell_stats(int fd)
{
    char body[256], text[512];
    int size = snprintf(body, sizeof body,
                        "{\"listeners\": %zu, \"events\": %llu, \"sends\": %llu, \"bytes\": %llu, \"aborts\": %llu}",
                        fanout.count, (unsigned long long)fanout.events, (unsigned long long)fanout.sends,
                        (unsigned long long)fanout.bytes, (unsigned long long)fanout.aborts);
    int length = snprintf(text, sizeof text,
                          "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, body);
    return say(fd, text, (size_t)length);
}

/* One whole request at the start of the buffer. Returns its length, 0 when it is not all there yet, -1 when it must end. */
static long serve_one(struct connection *connection, int fd)
{
    char *text = connection->request;
    char *end = memmem(text, connection->have, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    *end = '\0';
    size_t head = (size_t)(end - text) + 4, length = 0;
    char *field = strcasestr(text, "\r\ncontent-length:");
    if (field != NULL)
        length = strtoul(field + strlen("\r\ncontent-length:"), NULL, 10);
    if (head + length > REQUEST_MAX)
        return -1;
    if (head + length > connection->have) {
        *end = '\r';
        return 0;
    }
    bool good = false;
    if (strncmp(text, "GET /events", 11) == 0)
        good = start_listening(connection, fd);
    else if (strncmp(text, "POST /publish ", 14) == 0)
        good = publish(fd, text + head, length);
    else if (strncmp(text, "GET /stats ", 11) == 0)
        good = tell_stats(fd);
    return good ? (long)(head + length) : -1;
}

static void read_from(struct connection *connection, int fd)
{
    if (connection->listening) { /* a listener has nothing more to say: whatever comes is its end */
        char rest[64];
        ssize_t got = recv(fd, rest, sizeof rest, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            drop(connection, fd);
        return;
    }
    ssize_t got = recv(fd, connection->request + connection->have, REQUEST_MAX - connection->have, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            drop(connection, fd);
        return;
    }
    connection->have += (size_t)got;
    long used = 0;
    while (!connection->listening && connection->have > 0 && (used = serve_one(connection, fd)) > 0) {
        if (connection->listening)
            return;
        connection->have -= (size_t)used;
        memmove(connection->request, connection->request + used, connection->have);
    }
    if (used < 0 || connection->have == REQUEST_MAX)
        drop(connection, fd);
}

static void accept_all(int listening, int epoll)
{
    int fd;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= FILES_MAX) {
            close(fd);
            continue;
        }
        set_nodelay(fd);
        connections[fd] = (struct connection){.open = true, .request = allocate(1, REQUEST_MAX)};
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept");
}

static void run(int listening, int epoll)
{
    struct epoll_event events[BATCH];
    for (;;) {
        int ready = epoll_wait(epoll, events, BATCH, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listening) {
                accept_all(listening, epoll);
                continue;
            }
            struct connection *connection = &connections[fd];
            if (events[i].events & EPOLLOUT && connection->listening)
                fanout_resume(&fanout, &connection->listener);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && connection->open)
                read_from(connection, fd);
        }
    }
}

static enum fault read_fault(const char *name)
{
    static const char *const names[] = {"none", "drop", "double", "swap"};
    for (int fault = FAULT_NONE; fault <= FAULT_SWAP; fault++)
        if (strcmp(name, names[fault]) == 0)
            return (enum fault)fault;
    refuse("--fault: none, drop, double or swap, not \"%s\"", name);
}

int main(int count, char **arguments)
{
    long port = 0, seconds = 60, core = -1, fault_every = 10;
    enum fault fault = FAULT_NONE;
    static const struct option options[] = {{"port", 1, 0, 'p'},  {"seconds", 1, 0, 's'}, {"core", 1, 0, 'c'},
                                            {"fault", 1, 0, 'f'}, {"fault-every", 1, 0, 'e'},
                                            {"answer", 1, 0, 'a'}, {0, 0, 0, 0}};
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;)
        switch (option) {
        case 'p': port = number("port", optarg, 0, 65535); break;
        case 's': seconds = number("seconds", optarg, 1, 86400); break;
        case 'c': core = number("core", optarg, -1, 1023); break;
        case 'f': fault = read_fault(optarg); break;
        case 'e': fault_every = number("fault-every", optarg, 2, 1000000); break;
        case 'a':
            if (strcmp(optarg, "before") != 0 && strcmp(optarg, "after") != 0)
                refuse("--answer: before or after, not \"%s\"", optarg);
            answer_before = strcmp(optarg, "before") == 0;
            break;
        default: return 1;
        }
    bound_life(seconds);
    raise_file_limit();
    pin_to_core(core);
    int listening = listen_on(port), epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listening};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event) < 0)
        die("epoll_ctl");
    fanout_open(&fanout, epoll, fault, (uint64_t)fault_every);
    printf("listening %ld\n", listening_port(listening));
    fflush(stdout);
    run(listening, epoll);
}
