import { BACKOFF_MAX_MS, BACKOFF_MIN_MS } from "./limits.ts";
import type { Problem } from "./problem.ts";

/**
 * How long to wait before the next reconnect (spec/protocol.md, 3.5): at first what the server's SSE `retry` says, or
 * half to the whole of a second; then half to the whole of 1, 2, 4 … 30 s, doubling until a connection has lived. A
 * problem that says `later` is never tried before its `Retry-After`.
 */
export class Backoff {
  readonly #random: () => number;
  #tries = 0;

  /** random: at least 0, less than 1. */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** The wait before the next try, in milliseconds; each call counts as a failure. */
  next(problem: Problem | undefined, retry_ms: number | undefined): number {
    const delay_ms = this.#tries === 0 && retry_ms !== undefined ? retry_ms : this.#jittered();
    this.#tries += 1;
    const floor_ms = problem?.retry === "later" ? (problem.retry_after_s ?? 0) * 1000 : 0;
    // Those whom the server sent away together shall not come back together.
    return floor_ms > delay_ms ? floor_ms + this.#random() * BACKOFF_MIN_MS : delay_ms;
  }

  /** A connection has lived: begin again with the shortest wait. */
  reset(): void {
    this.#tries = 0;
  }

  #jittered(): number {
    const whole_ms = Math.min(BACKOFF_MIN_MS * 2 ** Math.max(0, this.#tries - 1), BACKOFF_MAX_MS);
    return whole_ms * (0.5 + 0.5 * this.#random());
  }
}
