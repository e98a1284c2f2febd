/* The bare loop: what the kernel can do at all. N connected sockets, one send() per socket and event from one buffer;
 * no HTTP, no epoll, no parsing. The other end is the load generator with --raw, which only reads.
 *
 * Prints "listening PORT", then one line of JSON. */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ACCEPT_WAIT_MS 20000
#define LIFE_MARGIN_S 40
#define CLOCK_EVERY 64 /* sends between two looks at the clock */

static int *accept_all(int listening, long clients)
{
    int *sockets = allocate((size_t)clients, sizeof *sockets);
    struct pollfd ready = {.fd = listening, .events = POLLIN};
    for (long have = 0; have < clients;) {
        if (poll(&ready, 1, ACCEPT_WAIT_MS) <= 0)
            refuse("only %ld of %ld sinks came", have, clients);
        int fd;
        while (have < clients && (fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
            set_nodelay(fd);
            sockets[have++] = fd; /* blocking on purpose: a sink that is late is waited for, nothing is dropped */
        }
    }
    return sockets;
}

static uint64_t send_for(uint64_t duration_ns, const int *sockets, long clients, const char *bytes, size_t length)
{
    uint64_t sends = 0;
    for (uint64_t end = now_ns() + duration_ns; now_ns() < end;)
        for (int turn = 0; turn < CLOCK_EVERY; turn++, sends++)
            if (send(sockets[sends % (uint64_t)clients], bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
                die("send");
    return sends;
}

int main(int count, char **arguments)
{
    long port = 0, clients = 3000, seconds = 3, core = -1, length = 300;
    static const struct option options[] = {{"port", 1, 0, 'p'},  {"clients", 1, 0, 'n'}, {"seconds", 1, 0, 's'},
                                            {"bytes", 1, 0, 'b'}, {"core", 1, 0, 'c'},    {0, 0, 0, 0}};
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;)
        switch (option) {
        case 'p': port = number("port", optarg, 0, 65535); break;
        case 'n': clients = number("clients", optarg, 1, 19000); break;
        case 's': seconds = number("seconds", optarg, 1, 60); break;
        case 'b': length = number("bytes", optarg, 1, 65536); break;
        case 'c': core = number("core", optarg, -1, 1023); break;
        default: return 1;
        }
    bound_life(2 * seconds + LIFE_MARGIN_S);
    raise_file_limit();
    pin_to_core(core);
    int listening = listen_on(port);
    printf("listening %ld\n", listening_port(listening));
    fflush(stdout);
    int *sockets = accept_all(listening, clients);
    char *bytes = allocate((size_t)length, 1);
    memset(bytes, 'x', (size_t)length);

    send_for(NS_PER_S / 4, sockets, clients, bytes, (size_t)length); /* warm-up */
    uint64_t start = now_ns();
    uint64_t sends = send_for((uint64_t)seconds * NS_PER_S, sockets, clients, bytes, (size_t)length);
    double took_s = (double)(now_ns() - start) / (double)NS_PER_S;
    printf("{\"sends\": %llu, \"seconds\": %.4f, \"sends_per_s\": %.0f}\n", (unsigned long long)sends, took_s,
           (double)sends / took_s);
    return 0;
}
