import { FALLBACK_KEPT_MS, START_TRIES_MAX } from "./limits.ts";
import type { Transport } from "./transports/transport.ts";

/**
 * Which transport to try next. The first of the list is preferred. One that fails to start several times in a row gives
 * way to the next, round and round; one that worked is kept, but a fallback only for a while, so that a bad moment does
 * not leave a page on it for ever.
 */
export class TransportChoice {
  readonly #transports: readonly Transport[];
  #index = 0;
  #failures = 0;
  #fallback_since = 0;

  /** transports: at least one, the preferred one first. */
  constructor(transports: readonly Transport[]) {
    this.#transports = transports;
  }

  /** The transport for a connection that begins now; undefined where the platform has none. */
  next(now: number): Transport | undefined {
    if (this.#index > 0 && this.#failures === 0 && now - this.#fallback_since > FALLBACK_KEPT_MS) this.#index = 0;
    return this.#transports[this.#index];
  }

  /** It said `joined`. */
  started(): void {
    this.#failures = 0;
  }

  /** It did not say `joined` although the server could be reached. */
  failedToStart(now: number): void {
    this.#failures += 1;
    if (this.#failures < START_TRIES_MAX) return;
    this.#failures = 0;
    this.#index = (this.#index + 1) % Math.max(this.#transports.length, 1);
    this.#fallback_since = now;
  }
}
