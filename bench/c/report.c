#include "report.h"

#include <stdio.h>
#include <sys/resource.h>

typedef unsigned long long ull;

struct reading report_read(const struct listeners *listeners, const struct publishers *publishers)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (struct reading){
        .ns = now_ns(),
        .deliveries = listeners->ledger->deliveries,
        .answered = publishers->answered,
        .bytes = listeners->bytes,
        .cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
    };
}

void report_live(const struct listeners *listeners, uint64_t since_ns)
{
    printf("{\"phase\": \"live\", \"listeners\": %u, \"took_s\": %.4f, \"resumes\": %llu}\n", listeners->live,
           (double)(listeners->live_ns > since_ns ? listeners->live_ns - since_ns : 0) / (double)NS_PER_S,
           (ull)listeners->resumes);
    fflush(stdout);
}

static void print_samples(const char *name, struct samples *samples)
{
    printf("\"%s\": {\"count\": %zu, \"p50\": %.4f, \"p99\": %.4f, \"max\": %.4f}, ", name, samples->count,
           samples_quantile_ms(samples, 0.5), samples_quantile_ms(samples, 0.99), samples_quantile_ms(samples, 1.0));
}

static void print_rates(struct reading from, struct reading to)
{
    double window_s = (double)(to.ns - from.ns) / (double)NS_PER_S;
    if (to.ns <= from.ns)
        window_s = 1;
    printf("\"window_s\": %.4f, \"deliveries_per_s\": %.1f, \"answered_per_s\": %.1f, \"bytes_per_s\": %.0f, "
           "\"generator_cpu\": %.3f, ",
           window_s, (double)(to.deliveries - from.deliveries) / window_s, (double)(to.answered - from.answered) / window_s,
           (double)(to.bytes - from.bytes) / window_s, (to.cpu_s - from.cpu_s) / window_s);
}

int report_result(const struct listeners *listeners, const struct publishers *publishers, struct ledger *ledger,
                  struct reading from, struct reading to, bool complete)
{
    uint64_t lost = ledger_lost(ledger), expected = 0;
    uint32_t orders = ledger_orders(ledger), ended = listeners->options->raw ? 0 : listeners->ended;
    for (uint32_t i = 0; i < ledger->publishers; i++)
        expected += ledger->published[i];
    bool disorder = listeners->count > 0 && orders != 1;
    bool wrong = lost + ledger->doubled + ledger->disordered + listeners->foreign + listeners->unreadable +
                     listeners->resets + publishers->failures + ended > 0 || disorder || !complete;
    printf("{\"phase\": \"result\", \"right\": %s, \"listeners\": %u, \"published\": %llu, \"answered\": %llu, "
           "\"deliveries\": %llu, ",
           wrong ? "false" : "true", listeners->count, (ull)expected, (ull)publishers->answered, (ull)ledger->deliveries);
    print_rates(from, to);
    print_samples("first_ms", &ledger->first);
    print_samples("last_ms", &ledger->last);
    print_samples("request_ms", &ledger->request);
    printf("\"lost\": %llu, \"doubled\": %llu, \"disordered\": %llu, \"orders\": %u, \"foreign\": %llu, "
           "\"unreadable\": %llu, \"failures\": %llu, \"ended\": %u, \"turned_away\": %llu, \"resumes\": %llu, ",
           (ull)lost, (ull)ledger->doubled, (ull)ledger->disordered, orders, (ull)listeners->foreign,
           (ull)listeners->unreadable, (ull)publishers->failures, ended, (ull)listeners->turned_away,
           (ull)listeners->resumes);
    printf("\"frames\": {\"joined\": %llu, \"heartbeat\": %llu, \"reset\": %llu, \"close\": %llu, \"other\": %llu}, "
           "\"bytes\": %llu, \"reads\": %llu}\n",
           (ull)listeners->joined, (ull)listeners->heartbeats, (ull)listeners->resets, (ull)listeners->closes,
           (ull)listeners->others, (ull)listeners->bytes, (ull)listeners->reads);
    fflush(stdout);
    return wrong ? 2 : 0;
}
