/* What the load generator is asked to do. `generator --help` is the manual. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <stdbool.h>

#include "system.h"

#define HEADERS_MAX_BYTES 4096

struct options {
    long port, core;
    long listeners;           /* connections that listen */
    const char *path;         /* their request target; every `{i}` becomes the listener's number */
    bool websocket, raw, resume, wait, paced, spin;
    char headers[HEADERS_MAX_BYTES];         /* lines of the listeners' requests, each ending in CRLF */
    char publish_headers[HEADERS_MAX_BYTES]; /* of the publishers' */
    long publishers;          /* closed loop: each has one request under way */
    const char *publish_path;
    const char *body;         /* `@` becomes the event's data */
    long warmup_ms, window_ms, requests_max;
    long connect_ms, drain_ms; /* how long everyone may take to be live, and to have received everything */
    long retry_min_ms, retry_max_ms;
    char tag[TAG_CHARACTERS + 1];
};

void read_options(struct options *options, int count, char **arguments);

#endif
