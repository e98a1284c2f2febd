/* The load generator: one thread, two epolls. The publishers' is asked before every small batch of listeners, so that a
 * publisher does not wait behind thousands of listeners and a closed loop stays closed by the server alone. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "connect.h"
#include "report.h"

#define BATCH 64
#define IDLE_MS 5
#define LIFE_MARGIN_S 600 /* of a run that waits for the runner's word */

enum phase { PHASE_CONNECT, PHASE_WAIT, PHASE_WARMUP, PHASE_WINDOW, PHASE_DRAIN, PHASE_END };

static struct options options;
static struct ledger ledger;
static struct listeners listeners;
static struct publishers publishers;
static enum phase phase;
static uint64_t phase_ns, away_ns;
static struct reading window_from, window_to;
static bool complete, was_live;

static void enter(enum phase next, uint64_t now)
{
    phase = next;
    phase_ns = now;
}

static void go(uint64_t now)
{
    if (phase != PHASE_WAIT)
        return;
    publishers_start(&publishers);
    enter(PHASE_WARMUP, now);
}

static void obey(char *line, uint64_t now)
{
    unsigned publisher, count;
    if (strcmp(line, "go") == 0)
        go(now);
    else if (strcmp(line, "end") == 0)
        enter(PHASE_DRAIN, now);
    else if (sscanf(line, "expect %u %u", &publisher, &count) == 2 && publisher < ledger.publishers)
        ledger_expect(&ledger, publisher, count);
    else
        refuse("standard input: go, expect P N or end, not \"%s\"", line);
}

/* Whole lines of standard input; its end means `end`. */
static void read_control(int epoll, uint64_t now)
{
    static char text[256];
    static size_t have;
    ssize_t got = read(STDIN_FILENO, text + have, sizeof text - 1 - have);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
        if (phase == PHASE_WAIT)
            enter(PHASE_DRAIN, now);
        return;
    }
    have += (size_t)got;
    text[have] = '\0';
    char *start = text;
    for (char *feed; (feed = strchr(start, '\n')) != NULL; start = feed + 1) {
        *feed = '\0';
        obey(start, now);
    }
    have = strlen(start);
    memmove(text, start, have + 1);
}

/* Tell the runner each time that all have become live, and since when they were not. */
static void watch_live(uint64_t now)
{
    bool live = listeners.live == listeners.count;
    if (live && !was_live)
        report_live(&listeners, away_ns);
    if (!live && was_live)
        away_ns = now;
    was_live = live;
}

static void step_connect(uint64_t now)
{
    if (listeners.live == listeners.count)
        enter(PHASE_WAIT, now);
    else if (now - phase_ns > (uint64_t)options.connect_ms * NS_PER_MS)
        refuse("only %u of %u listeners became live in %ld ms", listeners.live, listeners.count, options.connect_ms);
    else if (listeners.ended > 0 && !options.raw)
        refuse("a listener was turned away or its connection ended before all were live");
}

static bool over(uint64_t now, long duration_ms)
{
    return now - phase_ns >= (uint64_t)duration_ms * NS_PER_MS;
}

static bool drained(void)
{
    return publishers_idle(&publishers) && listeners.live == listeners.count && ledger_complete(&ledger);
}

/* What the time says. `ledger_complete` looks at every listener, so the drain asks only now and then. */
static void step(uint64_t now)
{
    bool exhausted = publishers.answered >= (uint64_t)options.requests_max || publishers.failures > 0;
    switch (phase) {
    case PHASE_CONNECT: step_connect(now); break;
    case PHASE_WAIT:
        if (options.raw && listeners.ended == listeners.count)
            enter(PHASE_END, now);
        else if (!options.wait && !options.raw)
            go(now);
        break;
    case PHASE_WARMUP:
        if (!over(now, options.warmup_ms) && !exhausted)
            break;
        ledger.sampling = true;
        ledger.sampling_since = now;
        window_from = report_read(&listeners, &publishers);
        enter(PHASE_WINDOW, now);
        break;
    case PHASE_WINDOW:
        if (!over(now, options.window_ms) && !exhausted)
            break;
        window_to = report_read(&listeners, &publishers);
        publishers_stop(&publishers);
        enter(PHASE_DRAIN, now);
        break;
    case PHASE_DRAIN:
        complete = drained();
        if (complete || over(now, options.drain_ms))
            enter(PHASE_END, now);
        break;
    case PHASE_END: break;
    }
}

static void poll_publishers(void)
{
    struct epoll_event events[BATCH];
    int ready = epoll_wait(publishers.epoll, events, BATCH, 0);
    for (int i = 0; i < ready; i++)
        publishers_event(&publishers, (uint32_t)events[i].data.u64);
    if (options.paced)
        publishers_tick(&publishers);
}

static void run(int epoll)
{
    struct epoll_event events[BATCH];
    while (phase != PHASE_END) {
        poll_publishers();
        int ready = epoll_wait(epoll, events, BATCH, options.spin ? 0 : IDLE_MS);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        uint64_t now = now_ns();
        listeners.now = now;
        for (int i = 0; i < ready; i++) {
            enum kind kind = (enum kind)(events[i].data.u64 >> 32);
            if (kind == KIND_LISTENER)
                listeners_event(&listeners, (uint32_t)events[i].data.u64, events[i].events);
            else if (kind == KIND_CONTROL)
                read_control(epoll, now);
        }
        listeners_tick(&listeners, now);
        watch_live(now);
        step(now);
    }
}

int main(int count, char **arguments)
{
    read_options(&options, count, arguments);
    bound_life((options.connect_ms + options.warmup_ms + options.window_ms + options.drain_ms) / 1000 + 10 +
               (options.wait || options.raw ? LIFE_MARGIN_S : 0));
    raise_file_limit();
    pin_to_core(options.core);
    int all = epoll_create1(EPOLL_CLOEXEC), own = epoll_create1(EPOLL_CLOEXEC);
    if (all < 0 || own < 0)
        die("epoll_create1");
    watch(all, EPOLL_CTL_ADD, own, EPOLLIN, EPOLL_KEY(KIND_PUBLISHERS, 0));
    if (options.wait) {
        fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
        watch(all, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, EPOLL_KEY(KIND_CONTROL, 0));
    }
    ledger_open(&ledger, (uint32_t)options.listeners, options.publishers > 0 ? (uint32_t)options.publishers : 1);
    listeners_open(&listeners, &options, &ledger, all);
    publishers_open(&publishers, &options, &ledger, own);
    away_ns = now_ns();
    enter(PHASE_CONNECT, away_ns);
    run(all);
    complete = complete || options.raw; /* a sink has nothing to be complete of */
    int status = report_result(&listeners, &publishers, &ledger, window_from, window_to, complete);
    listeners_close(&listeners);
    return status;
}
