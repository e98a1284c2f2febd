import type { Cancel } from "@lastcall/core";

/** Counts the requests of this page, so that it can say what it costs. */
export class Traffic {
  #made = 0;
  readonly #listeners = new Set<() => void>();
  /** When the page began, by our clock. */
  readonly since = Date.now();

  /** How many requests were made. */
  get made(): number {
    return this.#made;
  }

  /** How many a page would have made by now that polls every second. */
  polled(now: number): number {
    return Math.max(1, Math.floor((now - this.since) / 1000) + 1);
  }

  /** `fetch`, counted. */
  readonly fetch = (input: string, init?: RequestInit): Promise<Response> => {
    this.#count();
    return fetch(input, init);
  };

  /** Be told when a request was made. */
  readonly subscribe = (listener: () => void): Cancel => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  #count(): void {
    this.#made += 1;
    for (const listener of this.#listeners) listener();
  }
}
