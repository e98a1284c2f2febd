/* Fan-out of the C server: one ring of encoded events, shared by all listeners, and one send() per listener and event
 * straight from it. A listener whose socket is full keeps its place in the ring and goes on when it can be written; one
 * that falls behind by the whole ring is cut. */
#ifndef BENCH_FANOUT_H
#define BENCH_FANOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_EVENTS 4096
#define EVENT_BYTES_MAX 1024

/* What goes wrong on purpose, so that tests can prove that the load generator notices. Only the first listener suffers. */
enum fault { FAULT_NONE, FAULT_DROP, FAULT_DOUBLE, FAULT_SWAP };

struct listener {
    int fd;
    size_t place;  /* in the array of listeners */
    uint64_t next; /* number of the event it gets next */
    size_t offset; /* bytes of that event already sent */
    bool blocked;  /* its socket is full: it waits for EPOLLOUT */
    bool dead;     /* cut or gone; removed after the loop that noticed */
};

struct fanout {
    struct listener **listeners;
    size_t count, capacity;
    uint64_t events; /* number of the next event; the first is 0 */
    uint64_t sends, aborts, bytes;
    size_t lengths[RING_EVENTS];
    char (*ring)[EVENT_BYTES_MAX];
    enum fault fault;
    uint64_t fault_every;
    int epoll;
};

void fanout_open(struct fanout *fanout, int epoll, enum fault fault, uint64_t fault_every);

/* A listener joins: it gets every event published from now on. */
void fanout_join(struct fanout *fanout, struct listener *listener, int fd);

/* Take a listener out of the array; the caller closes and frees. */
void fanout_leave(struct fanout *fanout, struct listener *listener);

/* Encode the event as lastcall's wire does (spec/protocol.md, 4; one HTTP chunk) and send it to every listener. */
void fanout_publish(struct fanout *fanout, const char *data, size_t length);

/* The listener's socket can be written again. */
void fanout_resume(struct fanout *fanout, struct listener *listener);

#endif
