/* The connections that listen: connect (so many at once), ask, wait until live, receive, and come back if asked to. */
#ifndef BENCH_LISTENERS_H
#define BENCH_LISTENERS_H

#include "ledger.h"
#include "options.h"
#include "stream.h"

#define POSITION_MAX 64

enum listener_state { LISTENER_AWAY, LISTENER_CONNECTING, LISTENER_ASKED, LISTENER_OPEN, LISTENER_ENDED };

struct listeners;

struct listener {
    struct listeners *all;
    int fd;
    uint32_t number;
    enum listener_state state;
    bool live;    /* it is certain that the server sends it what comes from now on */
    bool resumed; /* it came back: live once it has caught up (the first heartbeat) */
    struct stream stream;
    uint64_t retry_ns;
    char position[POSITION_MAX];
};

struct listeners {
    const struct options *options;
    struct ledger *ledger;
    struct listener *list;
    int epoll;
    uint32_t count, live, connecting, started, away, ended;
    uint64_t now, live_ns; /* live_ns: when the last one became live */
    uint64_t bytes, reads, resumes;
    uint64_t joined, heartbeats, resets, closes, others; /* frames that are no events of the run */
    uint64_t foreign, unreadable, turned_away;           /* another run's events, broken framing, bad answers */
};

void listeners_open(struct listeners *listeners, const struct options *options, struct ledger *ledger, int epoll);

/* Start connecting whoever is due. Call it often. */
void listeners_tick(struct listeners *listeners, uint64_t now);

/* Something happened to this listener's socket. */
void listeners_event(struct listeners *listeners, uint32_t number, uint32_t events);

/* Close all, with a reset. */
void listeners_close(struct listeners *listeners);

#endif
