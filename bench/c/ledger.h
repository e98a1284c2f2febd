/* The ledger: who got which event when. Everything the generator claims is decided here.
 *
 * An event is (publisher, number), numbers from 1. For each listener and publisher the ledger keeps the number expected
 * next, so each event is found to be right, lost, doubled or late (out of order) the moment it comes or is missed. A
 * rolling hash per listener tells whether all listeners saw all publishers' events in one and the same order. */
#ifndef BENCH_LEDGER_H
#define BENCH_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "system.h"

#define GAPS_MAX 65536

struct samples {
    uint64_t *values;
    size_t count, capacity;
};

struct slot { /* one event */
    uint64_t sent_ns;
    uint32_t seen; /* listeners that have it */
};

struct gap { /* an event that a listener has not got though a later one came */
    uint32_t listener, publisher, number;
};

struct ledger {
    uint32_t listeners, publishers;
    uint32_t *next;   /* [listener][publisher] */
    uint64_t *orders; /* [listener] */
    struct slot *slots[PUBLISHERS_MAX];
    size_t slot_capacity[PUBLISHERS_MAX];
    uint32_t published[PUBLISHERS_MAX];
    struct gap gaps[GAPS_MAX];
    size_t gap_count;
    uint64_t deliveries, lost, doubled, disordered;
    uint64_t complete; /* events that every listener has */
    bool sampling;     /* latencies of events sent from now on count */
    uint64_t sampling_since;
    struct samples first, last, request;
};

void ledger_open(struct ledger *ledger, uint32_t listeners, uint32_t publishers);

/* A publisher is about to send its next event. Returns its number. */
uint32_t ledger_sent(struct ledger *ledger, uint32_t publisher, uint64_t now);

/* Somebody else has published `count` events as `publisher`. */
void ledger_expect(struct ledger *ledger, uint32_t publisher, uint32_t count);

/* A listener received an event. */
void ledger_received(struct ledger *ledger, uint32_t listener, uint32_t publisher, uint32_t number, uint64_t now);

/* A request was answered. */
void ledger_answered(struct ledger *ledger, uint64_t sent_ns, uint64_t now);

/* Every listener is past the last event of every publisher (what was lost on the way stays lost). */
bool ledger_complete(const struct ledger *ledger);

/* Events never received: the gaps, and what is missing at the end. */
uint64_t ledger_lost(const struct ledger *ledger);

/* How many different orders the listeners saw; 1 is right. */
uint32_t ledger_orders(const struct ledger *ledger);

/* The p-th fraction of the samples (sorts them), in milliseconds; -1 without samples. */
double samples_quantile_ms(struct samples *samples, double fraction);

#endif
