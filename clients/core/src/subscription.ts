import type { EventFrame, Frame, GoneFrame, ResetFrame, ResetReason } from "./frames.ts";
import type { Json, JsonObject } from "./json.ts";
import { HELD_EVENTS_MAX } from "./limits.ts";
import type { Problem } from "./problem.ts";

/** One event, as a listener of one channel sees it. */
export interface ChannelEvent {
  readonly channel: string;
  readonly name: string;
  readonly data: Json;
  /** Its place in the stream; undefined in a history that a later subscribe brought. */
  readonly id: string | undefined;
}

/** A row was deleted or has left the channel. */
export interface ChannelGone {
  readonly channel: string;
  readonly event: string;
  readonly key: JsonObject;
  readonly id: string | undefined;
}

/** What a listener wants to be told; each part is optional. What it throws is reported and stops nobody else. */
export interface ChannelListener {
  /** The whole state; it replaces everything told before. Events that follow come after it. */
  state?(state: Json): void;
  event?(event: ChannelEvent): void;
  gone?(gone: ChannelGone): void;
  /** What was told before is void; a new `state` follows where one is wanted. */
  reset?(reason: ResetReason): void;
  /** The channel is not to be had (any more); nothing more comes. Undefined: membership was revoked. */
  refused?(problem: Problem | undefined): void;
}

/** How a listener begins: with the state, with a state it holds already (a bookmark), or with events only. */
export type Beginning = "state" | "held" | "events";

/**
 * `waiting`: for a state of the stream, or for coverage, holding events back · `fetching`: covered, the state was asked
 * for · `live` · `ended`.
 */
type Stage = "waiting" | "fetching" | "live" | "ended";

type Happening = "covered" | "state" | "void" | "end";

/** The state machine: stage → what happened → next stage. */
const NEXT: Readonly<Record<Stage, Partial<Readonly<Record<Happening, Stage>>>>> = {
  waiting: { covered: "fetching", state: "live", end: "ended" },
  fetching: { state: "live", void: "waiting", end: "ended" },
  live: { void: "waiting", end: "ended" },
  ended: {},
};

/** What a subscription asks of its client. */
export interface SubscriptionHost {
  /** Fetch the channel's state and give it to `fetched`, soon or (`spread`) at a random moment of the next second. */
  fetchState(subscription: Subscription, turn: number, spread: boolean): void;
  /** A listener threw. */
  report(error: unknown): void;
}

type Held = EventFrame | GoneFrame;

/**
 * One listener on one channel. It makes of frames, coverage and fetched states one exact story: a state, and then every
 * event after it. Events that come before the state are held back and follow it; those it already contains are harmless
 * (spec/protocol.md, 2). Free of I/O.
 */
export class Subscription {
  readonly channel: string;
  readonly wants_state: boolean;
  readonly #listener: ChannelListener;
  readonly #host: SubscriptionHost;
  #stage: Stage;
  #held: Held[] = [];
  #covered = false;
  /** Counts the states that were asked for, so that an answer that comes too late is known as such. */
  #turn = 0;
  #spread = false;

  constructor(channel: string, listener: ChannelListener, beginning: Beginning, host: SubscriptionHost) {
    this.channel = channel;
    this.wants_state = beginning !== "events";
    this.#listener = listener;
    this.#host = host;
    this.#stage = beginning === "state" ? "waiting" : "live";
  }

  /** Whether it has its state and hears everything after it. */
  get live(): boolean {
    return this.#stage === "live";
  }

  /** Whether the answer to this turn's question is still of use. */
  awaits(turn: number): boolean {
    return turn === this.#turn && this.#stage === "fetching";
  }

  /** Nothing of the channel is missed from here on. */
  covered(): void {
    this.#covered = true;
    if (this.#go("covered")) this.#fetch();
  }

  /** Something may have been missed. */
  uncovered(reason: ResetReason = "gap"): void {
    this.#covered = false;
    this.#void(reason);
  }

  /** Take the part of a frame that concerns the channel. */
  frame(frame: Frame): void {
    switch (frame.kind) {
      case "joined":
        this.#covered = false; // A new catch-up: a state may come in the stream before it is over.
        break;
      case "event":
      case "gone":
        if (frame.channels.includes(this.channel)) this.#change(frame);
        break;
      case "state":
        if (frame.channel === this.channel) this.#tellState(frame.state);
        break;
      case "reset":
        if (frame.channels.includes(this.channel)) this.#reset(frame);
        break;
      case "revoked":
        if (frame.channels.includes(this.channel)) this.end(undefined);
        break;
      default:
    }
  }

  /** The state that was asked for in this turn has come; undefined: the channel has none. */
  fetched(turn: number, state: Json | undefined): void {
    if (!this.awaits(turn)) return;
    const held = this.#held;
    this.#held = [];
    this.#go("state");
    if (state !== undefined) this.#tell(() => this.#listener.state?.(state));
    for (const frame of held) this.#change(frame);
  }

  /** The channel is refused, or was revoked (undefined). */
  end(problem: Problem | undefined): void {
    if (this.#go("end")) this.#tell(() => this.#listener.refused?.(problem));
    this.#held = [];
  }

  /** The listener has gone; nothing more is told. */
  close(): void {
    this.#stage = "ended";
    this.#held = [];
  }

  #reset(frame: ResetFrame): void {
    this.#spread = frame.id !== undefined;
    this.#void(frame.reason);
    this.#spread = false;
  }

  #void(reason: ResetReason): void {
    if (this.#stage === "ended") return;
    this.#held = [];
    this.#turn += 1;
    // Whoever still waits for a state has been told nothing that could be void.
    if (this.#stage === "live") this.#tell(() => this.#listener.reset?.(reason));
    if (!this.wants_state) return;
    this.#go("void");
    // Covered means that the catch-up is over: no state will come in the stream, so it is asked for.
    if (this.#covered && this.#go("covered")) this.#fetch();
  }

  #fetch(): void {
    this.#turn += 1;
    this.#host.fetchState(this, this.#turn, this.#spread);
  }

  #change(frame: Held): void {
    if (this.#stage === "ended") return;
    if (this.#stage !== "live") {
      this.#held.push(frame);
      if (this.#held.length > HELD_EVENTS_MAX) this.#void("overflow");
      return;
    }
    const { channel } = this;
    const { id } = frame;
    this.#tell(() => {
      if (frame.kind === "event") this.#listener.event?.({ channel, name: frame.name, data: frame.data, id });
      else this.#listener.gone?.({ channel, event: frame.event, key: frame.key, id });
    });
  }

  /** A state in the stream stands at its place: what was held back before it is part of it. */
  #tellState(state: Json): void {
    if (this.#stage === "ended") return;
    this.#held = [];
    this.#turn += 1;
    this.#go("state");
    this.#tell(() => this.#listener.state?.(state));
  }

  #go(happening: Happening): boolean {
    const stage = NEXT[this.#stage][happening];
    if (stage === undefined) return false;
    this.#stage = stage;
    return true;
  }

  #tell(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#host.report(error);
    }
  }
}
