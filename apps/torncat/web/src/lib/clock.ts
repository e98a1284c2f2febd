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
  /** The quickest round trip. */
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
 * Align two clocks. The server looked at its clock between question and answer, so each sample bounds the offset from
 * both sides; an event cannot arrive before it was stamped, so `stamped - arrived` of any event bounds it from below.
 * The middle of what all bounds allow is taken; undefined without a sample.
 *
 * Source: K. Marzullo, "Maintaining the time in a distributed system", 1984 (intersection of intervals).
 */
export function align(samples: readonly Sample[], least_offset_ms = -Infinity): Alignment | undefined {
  const quickest = samples.toSorted((a, b) => rtt(a) - rtt(b))[0];
  if (quickest === undefined) return undefined;
  const counted = { rtt_ms: rtt(quickest), samples: samples.length };
  const high = Math.min(...samples.map(highest));
  const low = Math.max(least_offset_ms, ...samples.map(lowest));
  if (low <= high) return { offset_ms: (low + high) / 2, error_ms: (high - low) / 2, ...counted };
  // The clocks have drifted between the samples: the quickest one alone counts.
  const [least, most] = [lowest(quickest), highest(quickest)];
  return { offset_ms: (least + most) / 2, error_ms: (most - least) / 2, ...counted };
}

function lowest(sample: Sample): number {
  return sample.server_time - GRANULARITY_MS - sample.answered_at;
}

function highest(sample: Sample): number {
  return sample.server_time + GRANULARITY_MS - sample.asked_at;
}

function rtt(sample: Sample): number {
  return sample.answered_at - sample.asked_at;
}
