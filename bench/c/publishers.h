/* Closed-loop publishers: each sends a request and, as soon as it is answered, the next; one is under way at a time.
 * When a server answers is its own affair (lastcall: after COMMIT; the C server: after its fan-out loop). */
#ifndef BENCH_PUBLISHERS_H
#define BENCH_PUBLISHERS_H

#include "ledger.h"
#include "options.h"

#define ANSWER_MAX 8192

struct publisher {
    int fd;
    char *request;
    size_t length;
    char *mark; /* in the request: where `~TTTT~PPP~NNNNNNNN"` stands; NULL when the body carries no data */
    uint64_t sent_ns;
    bool waiting; /* a request is under way */
    char answer[ANSWER_MAX];
    size_t have;
};

struct publishers {
    const struct options *options;
    struct ledger *ledger;
    struct publisher *list;
    int epoll;
    uint32_t count;
    bool running;
    uint64_t sent, answered, failures;
};

/* Render the requests; nothing is sent yet. */
void publishers_open(struct publishers *publishers, const struct options *options, struct ledger *ledger, int epoll);

/* Connect, and let each send its first request. */
void publishers_start(struct publishers *publishers);

/* Something can be read. */
void publishers_event(struct publishers *publishers, uint32_t number);

/* Let everyone who may, send. (In paced mode that depends on the listeners.) */
void publishers_tick(struct publishers *publishers);

/* No more requests; answers are still read. */
void publishers_stop(struct publishers *publishers);

/* Nothing is under way. */
bool publishers_idle(const struct publishers *publishers);

#endif
