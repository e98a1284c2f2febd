#include "ledger.h"

#include <stdlib.h>

void ledger_open(struct ledger *ledger, uint32_t listeners, uint32_t publishers)
{
    *ledger = (struct ledger){.listeners = listeners, .publishers = publishers};
    size_t cells = (size_t)listeners * publishers;
    ledger->next = allocate(cells + 1, sizeof *ledger->next);
    for (size_t cell = 0; cell < cells; cell++)
        ledger->next[cell] = 1;
    ledger->orders = allocate(listeners + 1, sizeof *ledger->orders);
}

static struct slot *slot_of(struct ledger *ledger, uint32_t publisher, uint32_t number)
{
    size_t have = ledger->slot_capacity[publisher];
    if (number >= have) {
        size_t want = have == 0 ? 1024 : have;
        while (want <= number)
            want *= 2;
        ledger->slots[publisher] = grow(ledger->slots[publisher], want, sizeof(struct slot));
        for (size_t i = have; i < want; i++)
            ledger->slots[publisher][i] = (struct slot){0};
        ledger->slot_capacity[publisher] = want;
    }
    return &ledger->slots[publisher][number];
}

static void sample(struct samples *samples, uint64_t value)
{
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity == 0 ? 4096 : 2 * samples->capacity;
        samples->values = grow(samples->values, samples->capacity, sizeof *samples->values);
    }
    samples->values[samples->count++] = value;
}

uint32_t ledger_sent(struct ledger *ledger, uint32_t publisher, uint64_t now)
{
    uint32_t number = ++ledger->published[publisher];
    slot_of(ledger, publisher, number)->sent_ns = now;
    return number;
}

void ledger_expect(struct ledger *ledger, uint32_t publisher, uint32_t count)
{
    ledger->published[publisher] = count;
}

static void note_gaps(struct ledger *ledger, uint32_t listener, uint32_t publisher, uint32_t from, uint32_t to)
{
    ledger->lost += to - from;
    for (uint32_t number = from; number < to && ledger->gap_count < GAPS_MAX; number++)
        ledger->gaps[ledger->gap_count++] = (struct gap){listener, publisher, number};
}

/* An event came again, or late: late when its gap was noted. */
static void note_old(struct ledger *ledger, uint32_t listener, uint32_t publisher, uint32_t number)
{
    for (size_t i = 0; i < ledger->gap_count; i++) {
        struct gap *gap = &ledger->gaps[i];
        if (gap->listener == listener && gap->publisher == publisher && gap->number == number) {
            *gap = ledger->gaps[--ledger->gap_count];
            ledger->lost--;
            ledger->disordered++;
            return;
        }
    }
    ledger->doubled++;
}

static void note_latency(struct ledger *ledger, struct slot *slot, uint64_t now)
{
    slot->seen++;
    if (slot->seen == ledger->listeners)
        ledger->complete++;
    if (!ledger->sampling || slot->sent_ns < ledger->sampling_since)
        return;
    if (slot->seen == 1)
        sample(&ledger->first, now - slot->sent_ns);
    if (slot->seen == ledger->listeners)
        sample(&ledger->last, now - slot->sent_ns);
}

void ledger_received(struct ledger *ledger, uint32_t listener, uint32_t publisher, uint32_t number, uint64_t now)
{
    uint32_t *next = &ledger->next[(size_t)listener * ledger->publishers + publisher];
    ledger->deliveries++;
    if (number < *next) {
        note_old(ledger, listener, publisher, number);
        return;
    }
    if (number > *next)
        note_gaps(ledger, listener, publisher, *next, number);
    *next = number + 1;
    ledger->orders[listener] = (ledger->orders[listener] + number) * 0x9E3779B97F4A7C15ull + publisher;
    note_latency(ledger, slot_of(ledger, publisher, number), now);
}

void ledger_answered(struct ledger *ledger, uint64_t sent_ns, uint64_t now)
{
    if (ledger->sampling && sent_ns >= ledger->sampling_since)
        sample(&ledger->request, now - sent_ns);
}

bool ledger_complete(const struct ledger *ledger)
{
    for (uint32_t listener = 0; listener < ledger->listeners; listener++)
        for (uint32_t publisher = 0; publisher < ledger->publishers; publisher++)
            if (ledger->next[(size_t)listener * ledger->publishers + publisher] <= ledger->published[publisher])
                return false;
    return true;
}

uint64_t ledger_lost(const struct ledger *ledger)
{
    uint64_t lost = ledger->lost;
    for (uint32_t listener = 0; listener < ledger->listeners; listener++)
        for (uint32_t publisher = 0; publisher < ledger->publishers; publisher++) {
            uint32_t next = ledger->next[(size_t)listener * ledger->publishers + publisher];
            if (next <= ledger->published[publisher])
                lost += ledger->published[publisher] - next + 1;
        }
    return lost;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

uint32_t ledger_orders(const struct ledger *ledger)
{
    if (ledger->listeners == 0)
        return 0;
    uint64_t *sorted = allocate(ledger->listeners, sizeof *sorted);
    for (uint32_t i = 0; i < ledger->listeners; i++)
        sorted[i] = ledger->orders[i];
    qsort(sorted, ledger->listeners, sizeof *sorted, compare);
    uint32_t different = 1;
    for (uint32_t i = 1; i < ledger->listeners; i++)
        different += sorted[i] != sorted[i - 1];
    free(sorted);
    return different;
}

double samples_quantile_ms(struct samples *samples, double fraction)
{
    if (samples->count == 0)
        return -1;
    qsort(samples->values, samples->count, sizeof *samples->values, compare);
    size_t place = (size_t)(fraction * (double)(samples->count - 1) + 0.5);
    return (double)samples->values[place] / (double)NS_PER_MS;
}
