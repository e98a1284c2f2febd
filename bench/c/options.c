#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char manual[] =
    "generator: listeners and closed-loop publishers against one server on 127.0.0.1, in one thread.\n"
    "It checks that every listener gets every event exactly once and in the same order. One line of JSON per phase.\n"
    "\n"
    "  --port N              where the server listens (required)\n"
    "  --core N              run on this core only\n"
    "  --listeners N         connections that listen (0)\n"
    "  --path TARGET         what they ask for; {i} becomes the listener's number (/events)\n"
    "  --header 'K: V'       a line of their requests; may be repeated\n"
    "  --websocket           WebSocket instead of SSE\n"
    "  --raw                 no HTTP at all: read and count bytes until the server closes\n"
    "  --resume              come back with Last-Event-ID when the connection ends\n"
    "  --publishers N        each sends its next request when the last was answered (0)\n"
    "  --publish-path TARGET --publish-header 'K: V' --body TEXT (@ becomes the data of 200 bytes)\n"
    "  --paced               the next request waits until every listener has the last event (for latencies)\n"
    "  --warmup-ms N         (500)   --window-ms N (2000)   --requests-max N: stop publishing after so many\n"
    "  --connect-ms N        (20000) --drain-ms N  (10000)  --retry-ms MIN MAX given as MIN-MAX (250-750)\n"
    "  --wait                when all are live, wait for a line on standard input: `go` starts the publishers,\n"
    "                        `expect P N` says that publisher P (somebody else) has sent N events, `end` finishes\n"
    "  --spin                never sleep: senders need not wake us, as they need not wake clients elsewhere\n"
    "  --tag TEXT            4 characters that mark this run's events (from the process id)\n"
    "\n"
    "Exit status: 0 all well, 2 an event was lost, doubled, out of order or foreign, 1 anything else.\n";

enum { PORT = 1000, CORE, LISTENERS, TARGET, HEADER, WEBSOCKET, RAW, RESUME, WAIT, PACED, PUBLISHERS, PUBLISH_PATH,
       PUBLISH_HEADER, BODY, WARMUP, WINDOW, REQUESTS, CONNECT, DRAIN, RETRY, TAG, SPIN, HELP };

static const struct option names[] = {
    {"port", 1, 0, PORT},           {"core", 1, 0, CORE},
    {"listeners", 1, 0, LISTENERS}, {"path", 1, 0, TARGET},
    {"header", 1, 0, HEADER},       {"websocket", 0, 0, WEBSOCKET},
    {"raw", 0, 0, RAW},             {"resume", 0, 0, RESUME},
    {"wait", 0, 0, WAIT},           {"paced", 0, 0, PACED},
    {"publishers", 1, 0, PUBLISHERS}, {"publish-path", 1, 0, PUBLISH_PATH},
    {"publish-header", 1, 0, PUBLISH_HEADER}, {"body", 1, 0, BODY},
    {"warmup-ms", 1, 0, WARMUP},    {"window-ms", 1, 0, WINDOW},
    {"requests-max", 1, 0, REQUESTS}, {"connect-ms", 1, 0, CONNECT},
    {"drain-ms", 1, 0, DRAIN},      {"retry-ms", 1, 0, RETRY},
    {"tag", 1, 0, TAG},             {"help", 0, 0, HELP},
    {"spin", 0, 0, SPIN},
    {0, 0, 0, 0},
};

static void add_header(char *headers, const char *line)
{
    size_t have = strlen(headers);
    int wrote = snprintf(headers + have, HEADERS_MAX_BYTES - have, "%s\r\n", line);
    if (wrote < 0 || (size_t)wrote >= HEADERS_MAX_BYTES - have)
        refuse("the headers are longer than %d bytes", HEADERS_MAX_BYTES);
}

static void read_retry(struct options *options, char *text)
{
    char *dash = strchr(text, '-');
    if (dash == NULL)
        refuse("--retry-ms: MIN-MAX, not \"%s\"", text);
    *dash = '\0';
    options->retry_min_ms = number("retry-ms", text, 1, 60000);
    options->retry_max_ms = number("retry-ms", dash + 1, options->retry_min_ms, 60000);
}

static void read_option(struct options *options, int option, char *value)
{
    switch (option) {
    case PORT: options->port = number("port", value, 1, 65535); break;
    case CORE: options->core = number("core", value, -1, 1023); break;
    case LISTENERS: options->listeners = number("listeners", value, 0, 19000); break;
    case TARGET: options->path = value; break;
    case HEADER: add_header(options->headers, value); break;
    case WEBSOCKET: options->websocket = true; break;
    case RAW: options->raw = true; break;
    case RESUME: options->resume = true; break;
    case WAIT: options->wait = true; break;
    case SPIN: options->spin = true; break;
    case PACED: options->paced = true; break;
    case PUBLISHERS: options->publishers = number("publishers", value, 0, PUBLISHERS_MAX); break;
    case PUBLISH_PATH: options->publish_path = value; break;
    case PUBLISH_HEADER: add_header(options->publish_headers, value); break;
    case BODY: options->body = value; break;
    case WARMUP: options->warmup_ms = number("warmup-ms", value, 0, 600000); break;
    case WINDOW: options->window_ms = number("window-ms", value, 1, 600000); break;
    case REQUESTS: options->requests_max = number("requests-max", value, 1, 10000000); break;
    case CONNECT: options->connect_ms = number("connect-ms", value, 1, 600000); break;
    case DRAIN: options->drain_ms = number("drain-ms", value, 1, 600000); break;
    case RETRY: read_retry(options, value); break;
    case TAG:
        if (strlen(value) != TAG_CHARACTERS)
            refuse("--tag: %d characters", TAG_CHARACTERS);
        memcpy(options->tag, value, TAG_CHARACTERS);
        break;
    case HELP: fputs(manual, stdout); exit(0);
    default: exit(1);
    }
}

void read_options(struct options *options, int count, char **arguments)
{
    *options = (struct options){.core = -1, .path = "/events", .publish_path = "/publish", .body = "@",
                                .warmup_ms = 500, .window_ms = 2000, .requests_max = 10000000,
                                .connect_ms = 20000, .drain_ms = 10000, .retry_min_ms = 250, .retry_max_ms = 750};
    snprintf(options->tag, sizeof options->tag, "%04x", (unsigned)getpid() & 0xffff);
    for (int option; (option = getopt_long(count, arguments, "", names, NULL)) != -1;)
        read_option(options, option, optarg);
    if (options->port == 0)
        refuse("--port is required (--help is the manual)");
}
