import type { HoldOptions, Locks } from "../src/environment.ts";

interface Waiting {
  readonly held: () => Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/**
 * Web Locks as the specification words them (W3C Web Locks API, 2 and 4): exclusive, first come first served, `signal`
 * only while waiting, `steal` breaks the holder's promise. Node 20 has none of its own; the browser test uses the real.
 */
export class LocksOfOneBrowser implements Locks {
  readonly #holders = new Map<string, Waiting>();
  readonly #lines = new Map<string, Waiting[]>();

  /** How many hold or wait for the lock. */
  in_line(name: string): number {
    return (this.#lines.get(name)?.length ?? 0) + (this.#holders.has(name) ? 1 : 0);
  }

  hold(name: string, how: HoldOptions, held: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting = { held, resolve, reject };
      const line = this.#lines.get(name) ?? [];
      this.#lines.set(name, line);
      if (how.signal?.aborted === true) return reject(new Error("AbortError"));
      how.signal?.addEventListener("abort", () => {
        const place = line.indexOf(waiting);
        if (place === -1) return;
        line.splice(place, 1);
        reject(new Error("AbortError"));
      });
      if (how.steal === true) {
        this.#holders.get(name)?.reject(new Error("AbortError"));
        this.#holders.delete(name);
        line.unshift(waiting);
      } else {
        line.push(waiting);
      }
      this.#grant(name);
      return undefined;
    });
  }

  #grant(name: string): void {
    queueMicrotask(() => {
      if (this.#holders.has(name)) return;
      const next = this.#lines.get(name)?.shift();
      if (next === undefined) return;
      this.#holders.set(name, next);
      const release = (): void => {
        next.resolve();
        if (this.#holders.get(name) !== next) return;
        this.#holders.delete(name);
        this.#grant(name);
      };
      next.held().then(release, release);
    });
  }
}
