import fc from "fast-check";
import { expect, test } from "vitest";
import type { Frame } from "../src/frames.ts";
import { HELD_EVENTS_MAX } from "../src/limits.ts";
import { ownProblem } from "../src/problem.ts";
import { Subscription } from "../src/subscription.ts";

const CHANNEL = "a:1";
type Values = Readonly<Record<string, number>>;

/** A server, a stream that can break, and a listener that makes a copy of the truth from what it is told. */
class World {
  truth: Values = {};
  copy: Values | undefined;
  readonly told: string[] = [];
  readonly subscription: Subscription;
  #count = 0;
  #queue: Frame[] = [];
  /** Turns that wait for a state, and the truth when each was asked. */
  #asked: { readonly turn: number; readonly truth: Values }[] = [];

  constructor() {
    this.subscription = new Subscription(
      CHANNEL,
      {
        state: (state) => {
          this.told.push("state");
          this.copy = state as Values;
        },
        event: ({ data }) => {
          this.told.push("event");
          if (this.copy === undefined) throw new Error("an event came before the state");
          this.copy = { ...this.copy, ...(data as Values) };
        },
        reset: (reason) => this.told.push(`reset ${reason}`),
        refused: () => this.told.push("refused"),
      },
      "state",
      {
        fetchState: (_subscription, turn) => this.#asked.push({ turn, truth: this.truth }),
        report: (error) => {
          throw error;
        },
      },
    );
  }

  commit(key: string): void {
    const change = { [key]: (this.#count += 1) };
    this.truth = { ...this.truth, ...change };
    this.#queue.push({ kind: "event", id: `e.${this.#count}.1`, name: "n", channels: [CHANNEL], data: change });
  }

  deliver(): void {
    const frame = this.#queue.shift();
    if (frame !== undefined) this.subscription.frame(frame);
  }

  /** The answer to the oldest question: the truth of when it was asked, or of now. */
  answer(late: boolean): void {
    const question = this.#asked.shift();
    if (question !== undefined) this.subscription.fetched(question.turn, late ? this.truth : question.truth);
  }

  truncate(): void {
    this.#queue.push({ kind: "reset", id: `e.${(this.#count += 1)}.1`, channels: [CHANNEL], reason: "truncate" });
  }

  /** The connection breaks and continues from its position. */
  resume(): void {
    this.#join();
    while (this.#queue.length > 0) this.deliver();
    this.subscription.covered();
  }

  /** The connection breaks, and what was not delivered is gone. The server sends a state along, or does not. */
  forget(with_state: boolean): void {
    this.#queue = [];
    this.#join();
    this.subscription.frame({ kind: "reset", id: undefined, channels: [CHANNEL], reason: "history" });
    if (with_state) this.subscription.frame({ kind: "state", id: undefined, channel: CHANNEL, state: this.truth });
    this.subscription.covered();
  }

  /** The tab cannot be sure of what it missed. */
  gap(): void {
    this.#queue = [];
    this.subscription.uncovered();
    this.subscription.covered();
  }

  end(): void {
    while (this.#queue.length > 0) this.deliver();
    while (this.#asked.length > 0) this.answer(true);
  }

  #join(): void {
    const frame: Frame = {
      kind: "joined",
      id: undefined,
      channels: [CHANNEL],
      heartbeat_s: 15,
      resumed: true,
      connection: undefined,
    };
    this.subscription.frame(frame);
  }
}

const action = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom("x", "y", "z").map((key) => (world: World) => world.commit(key)) },
  { weight: 6, arbitrary: fc.constant((world: World) => world.deliver()) },
  { weight: 3, arbitrary: fc.boolean().map((late) => (world: World) => world.answer(late)) },
  { weight: 1, arbitrary: fc.constant((world: World) => world.truncate()) },
  { weight: 1, arbitrary: fc.constant((world: World) => world.resume()) },
  { weight: 1, arbitrary: fc.boolean().map((with_state) => (world: World) => world.forget(with_state)) },
  { weight: 1, arbitrary: fc.constant((world: World) => world.gap()) },
);

test("whatever happens in whatever order, the listener ends with the truth, and no event comes before its state", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const world = new World();
      world.subscription.covered();
      for (const act of actions) act(world);
      world.end();
      expect(world.subscription.live).toBe(true);
      expect(world.copy).toEqual(world.truth);
    }),
    { numRuns: 3_000 },
  );
});

test("a listener that holds its state already hears what came after it", () => {
  const told: unknown[] = [];
  const host = { fetchState: () => told.push("asked"), report: () => {} };
  const held = new Subscription(CHANNEL, { event: ({ data }) => told.push(data) }, "held", host);
  held.frame({ kind: "event", id: "e.1.1", name: "n", channels: [CHANNEL], data: 1 });
  held.covered();
  expect(told).toEqual([1]);
});

test("more events than can be held back are let go, and the state is asked for again", () => {
  const world = new World();
  world.subscription.covered();
  for (let number = 0; number <= HELD_EVENTS_MAX; number += 1) world.commit("x");
  for (let number = 0; number <= HELD_EVENTS_MAX; number += 1) world.deliver();
  world.answer(false);
  expect(world.told).toEqual([]);
  world.answer(true);
  expect(world.copy).toEqual(world.truth);
});

test("a refused channel is said once, and nothing after it", () => {
  const world = new World();
  world.subscription.end(ownProblem("unreachable"));
  world.subscription.end(undefined);
  world.commit("x");
  world.end();
  expect(world.told).toEqual(["refused"]);
});

test("a listener that has gone is told nothing", () => {
  const world = new World();
  world.subscription.covered();
  world.subscription.close();
  world.commit("x");
  world.truncate();
  world.end();
  expect(world.told).toEqual([]);
});
