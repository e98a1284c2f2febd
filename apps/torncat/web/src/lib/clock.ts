/** One question to the server's clock: when it was asked, what it said, when the answer came (ours), in milliseconds. */
export interface Sample {
  readonly asked_at: number;
  readonly server_time: number;
  readonly answered_at: number;
}

/** How the server's clock stands to ours. */
export interface Alignment {
  /** Server's time minus ours. */
  readonly offset_ms: number;
  /** The true offset is at most this far away. */
  readonly error_ms: number;
  readonly rtt_ms: number;
  readonly samples: number;
}

/** The server tells whole milliseconds. */
const GRANULARITY_MS = 0.5;

/** Our time since 1970 with fractions of milliseconds. */
export function preciseNow(): number {
  return performance.timeOrigin + performance.now();
}

/**
 * Align two clocks by the quickest answer: the server looked at its clock somewhere between question and answer, so the
 * middle is off by half the round trip at most. Source: F. Cristian, "Probabilistic clock synchronization", 1989.
 */
export function align(samples: readonly Sample[]): Alignment | undefined {
  const quickest = samples.toSorted((a, b) => rtt(a) - rtt(b))[0];
  if (quickest === undefined) return undefined;
  const rtt_ms = rtt(quickest);
  return {
    offset_ms: quickest.server_time - (quickest.asked_at + quickest.answered_at) / 2,
    error_ms: rtt_ms / 2 + GRANULARITY_MS,
    rtt_ms,
    samples: samples.length,
  };
}

function rtt(sample: Sample): number {
  return sample.answered_at - sample.asked_at;
}
