import { browserEnvironment, type Cancel, type Environment } from "../src/environment.ts";
import { settle } from "./until.ts";

interface Timer {
  readonly due: number;
  readonly order: number;
  readonly action: () => void;
}

/** A clock that moves only when told to, and everything else of an environment that a test may want to decide. */
export class FakeTime {
  readonly environment: Environment;
  /** What `random` answers. */
  random = 0.5;
  #now = 1_700_000_000_000;
  #order = 0;
  readonly #timers = new Set<Timer>();
  readonly #wake = new Set<() => void>();

  constructor(overrides: Partial<Environment> = {}) {
    this.environment = browserEnvironment({
      now: () => this.#now,
      random: () => this.random,
      after: (delay_ms, action) => this.#after(delay_ms, action),
      onWake: (listener) => {
        this.#wake.add(listener);
        return () => this.#wake.delete(listener);
      },
      locks: undefined,
      openBroadcast: undefined,
      ...overrides,
    });
  }

  /** How long the waits are that are running now, shortest first. */
  get waits(): number[] {
    return [...this.#timers].map((timer) => timer.due - this.#now).toSorted((a, b) => a - b);
  }

  /** Let time pass; what becomes due happens in order, and what follows from it too. */
  async pass(duration_ms: number): Promise<void> {
    await settle();
    const end = this.#now + duration_ms;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.due <= end);
      const next = due.toSorted((a, b) => a.due - b.due || a.order - b.order)[0];
      if (next === undefined) break;
      this.#now = Math.max(this.#now, next.due);
      this.#timers.delete(next);
      next.action();
      await settle();
    }
    this.#now = end;
    await settle();
  }

  /** The machine slept: time is later, but no timer ran. */
  sleep(duration_ms: number): void {
    this.#now += duration_ms;
  }

  /** The page came back into view. */
  wake(): void {
    for (const listener of this.#wake) listener();
  }

  #after(delay_ms: number, action: () => void): Cancel {
    const timer = { due: this.#now + delay_ms, order: (this.#order += 1), action };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
}
