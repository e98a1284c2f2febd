/** Figures of some latencies, in milliseconds. */
export interface Figures {
  readonly count: number;
  readonly last: number;
  readonly p50: number;
  readonly p95: number;
  readonly max: number;
}

/** The figures of these latencies, oldest first; undefined where there are none. */
export function figures(latencies: readonly number[]): Figures | undefined {
  const last = latencies.at(-1);
  if (last === undefined) return undefined;
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] ?? last;
  return { count: sorted.length, last, p50: at(0.5), p95: at(0.95), max: at(1) };
}

/** Height of a bar, 0 to 1, on a logarithmic scale from `floor` to `ceiling` milliseconds. */
export function height(latency_ms: number, floor = 0.4, ceiling = 200): number {
  const share = Math.log(Math.max(latency_ms, floor) / floor) / Math.log(ceiling / floor);
  return Math.min(1, Math.max(0.06, share));
}
