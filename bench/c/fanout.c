#include "fanout.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "system.h"

#define FIRST_CAPACITY 4096
#define FIRST_LSN 0x16b3748ull /* positions as long as PostgreSQL's on a young cluster */

void fanout_open(struct fanout *fanout, int epoll, enum fault fault, uint64_t fault_every)
{
    fanout->epoll = epoll;
    fanout->fault = fault;
    fanout->fault_every = fault_every;
    fanout->capacity = FIRST_CAPACITY;
    fanout->listeners = allocate(FIRST_CAPACITY, sizeof *fanout->listeners);
    fanout->ring = allocate(RING_EVENTS, EVENT_BYTES_MAX);
}

void fanout_join(struct fanout *fanout, struct listener *listener, int fd)
{
    if (fanout->count == fanout->capacity) {
        fanout->capacity *= 2;
        fanout->listeners = grow(fanout->listeners, fanout->capacity, sizeof *fanout->listeners);
    }
    *listener = (struct listener){.fd = fd, .place = fanout->count, .next = fanout->events};
    fanout->listeners[fanout->count++] = listener;
}

void fanout_leave(struct fanout *fanout, struct listener *listener)
{
    struct listener *last = fanout->listeners[--fanout->count];
    fanout->listeners[listener->place] = last;
    last->place = listener->place;
}

static void want_writable(struct fanout *fanout, struct listener *listener, bool wanted)
{
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0u), .data.fd = listener->fd};
    if (epoll_ctl(fanout->epoll, EPOLL_CTL_MOD, listener->fd, &event) < 0)
        die("epoll_ctl");
    listener->blocked = wanted;
}

/* One send() of what is left of one event. True when the event is through. */
static bool send_event(struct fanout *fanout, struct listener *listener, uint64_t number)
{
    const char *bytes = fanout->ring[number % RING_EVENTS] + listener->offset;
    size_t length = fanout->lengths[number % RING_EVENTS] - listener->offset;
    ssize_t sent = send(listener->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    fanout->sends++;
    if (sent == (ssize_t)length) {
        fanout->bytes += length;
        listener->offset = 0;
        return true;
    }
    if (sent >= 0) {
        fanout->bytes += (size_t)sent;
        listener->offset += (size_t)sent;
    } else if (errno != EAGAIN) {
        listener->dead = true;
        return false;
    }
    if (!listener->blocked)
        want_writable(fanout, listener, true);
    return false;
}

/* The first listener gets event `number` wrongly. The sockets of a test never fill, so partial sends do not matter. */
static void send_wrongly(struct fanout *fanout, struct listener *listener, uint64_t number)
{
    uint64_t turn = number % fanout->fault_every;
    if (turn == fanout->fault_every - 1) {
        if (fanout->fault == FAULT_DOUBLE) {
            send_event(fanout, listener, number);
            send_event(fanout, listener, number);
        }
    } else {
        send_event(fanout, listener, number);
        if (fanout->fault == FAULT_SWAP && turn == 0 && number > 0)
            send_event(fanout, listener, number - 1);
    }
    listener->next = number + 1;
}

static void deliver(struct fanout *fanout, struct listener *listener)
{
    while (listener->next < fanout->events && send_event(fanout, listener, listener->next))
        listener->next++;
}

static void encode(struct fanout *fanout, const char *data, size_t length)
{
    char *slot = fanout->ring[fanout->events % RING_EVENTS];
    char block[EVENT_BYTES_MAX];
    int size = snprintf(block, sizeof block, "id: 9f31c2.%llx.1\nevent: bench\nchannel: topic:bench\ndata: %.*s\n\n",
                        FIRST_LSN + 0x1d8ull * fanout->events, (int)length, data);
    int chunk = snprintf(slot, EVENT_BYTES_MAX, "%x\r\n%s\r\n", (unsigned)size, block);
    if (size >= (int)sizeof block || chunk >= EVENT_BYTES_MAX)
        refuse("an event of %zu bytes is beyond what this server sends", length);
    fanout->lengths[fanout->events % RING_EVENTS] = (size_t)chunk;
}

void fanout_publish(struct fanout *fanout, const char *data, size_t length)
{
    uint64_t number = fanout->events;
    encode(fanout, data, length);
    fanout->events++;
    for (size_t i = 0; i < fanout->count; i++) {
        struct listener *listener = fanout->listeners[i];
        if (listener->dead)
            continue;
        if (fanout->fault != FAULT_NONE && i == 0) {
            send_wrongly(fanout, listener, number);
        } else if (!listener->blocked) {
            deliver(fanout, listener);
        } else if (fanout->events - listener->next >= RING_EVENTS) {
            listener->dead = true; /* its next event is about to be overwritten */
            fanout->aborts++;
            shutdown(listener->fd, SHUT_RDWR); /* epoll reports it, and the server lets go of it */
        }
    }
}

void fanout_resume(struct fanout *fanout, struct listener *listener)
{
    deliver(fanout, listener);
    if (listener->next == fanout->events && !listener->dead)
        want_writable(fanout, listener, false);
}
