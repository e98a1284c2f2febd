/* What the generator prints: one line of JSON per phase. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "listeners.h"
#include "publishers.h"

/* Counts at one moment; a window is the difference of two. */
struct reading {
    uint64_t ns, deliveries, answered, bytes;
    double cpu_s;
};

struct reading report_read(const struct listeners *listeners, const struct publishers *publishers);

/* All are live: how many, and how long it took since `since_ns`. */
void report_live(const struct listeners *listeners, uint64_t since_ns);

/* The result. Returns the exit status: 0, or 2 when something was not exactly once and in order. */
int report_result(const struct listeners *listeners, const struct publishers *publishers, struct ledger *ledger,
                  struct reading from, struct reading to, bool complete);

#endif
