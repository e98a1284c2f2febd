/* What every program of the suite needs: time, sockets, refusal. Errors end the process with a sentence; a benchmark
 * that goes on after an unexpected error measures something else. */
#ifndef BENCH_SYSTEM_H
#define BENCH_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull

/* Data of an event, quotes included. Its end is `~TTTT~PPP~NNNNNNNN"`: run, publisher, number of the publisher's event.
 * A JSON string stays the same bytes in every server (jsonb would sort and space the members of an object). */
#define DATA_BYTES 200
#define MARK_BYTES 19
#define TAG_CHARACTERS 4
#define PUBLISHERS_MAX 256

/* Monotonic clock. */
uint64_t now_ns(void);

/* End the process: with errno's sentence, or with one of our own. */
_Noreturn void die(const char *what);
_Noreturn void refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A whole number of `text` within bounds; anything else ends the process naming the option. */
long number(const char *option, const char *text, long least, long most);

/* Memory or the end of the process. */
void *allocate(size_t count, size_t size);
void *grow(void *old, size_t count, size_t size);

/* A listening socket on 127.0.0.1, non-blocking; port 0 takes a free one. `listening_port` tells which. */
int listen_on(long port);
long listening_port(int fd);

/* Send at once what is written: no Nagle. */
void set_nodelay(int fd);

/* Close with a reset, so that thousands of closed connections do not linger in TIME_WAIT. */
void close_hard(int fd);

/* As many files as the hard limit allows. */
void raise_file_limit(void);

/* Run on this core only; -1 leaves it to the kernel. */
void pin_to_core(long core);

/* The process ends itself after this many seconds, whatever happens. */
void bound_life(long seconds);

#endif
