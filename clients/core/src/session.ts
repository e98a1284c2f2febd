import type { Cancel, Environment } from "./environment.ts";
import type { Frame, JoinedFrame } from "./frames.ts";
import { SILENCE_MAX_MS, STABLE_AFTER_MS, START_MAX_MS } from "./limits.ts";
import { closedProblem, ownProblem, type Problem } from "./problem.ts";
import type { End, Link, OpenRequest, Sink, Transport } from "./transports/transport.ts";

/** What a session tells the connection, synchronously and in the order of the stream. */
export interface SessionEvents {
  joined(frame: JoinedFrame): void;
  frame(frame: Frame): void;
  /** From here on nothing of these channels is missed: their catch-up is over. */
  covered(channels: readonly string[]): void;
  /** A change of channels was refused for these; the session goes on without them. */
  refused(channels: readonly string[], problem: Problem): void;
  retry(delay_ms: number): void;
  /** It has lived long enough to count as a good one. */
  stable(): void;
  /** Once, last. `joined` tells whether the transport got as far as that. */
  ended(end: End, joined: boolean): void;
}

/**
 * One attempt to be connected, from the request to the end of the link. The watchdogs live and die with it, so none can
 * strike the next one: no `joined` in time and silence for too long both end it. It knows when the catch-up is over
 * (spec/protocol.md, 3.1 and 3.4, and for later subscribes 5).
 */
export class Session {
  readonly #environment: Environment;
  readonly #events: SessionEvents;
  readonly #link: Link;
  readonly #requested: readonly string[];
  readonly #covered = new Set<string>();
  /** Channels of later subscribes: asked for (false) and acknowledged (true), not yet covered. */
  readonly #later = new Map<string, boolean>();
  #connection: string | undefined;
  #catch_up: "unknown" | "until_heartbeat" | "until_id" | "over" = "unknown";
  #silence_max_ms = SILENCE_MAX_MS;
  #last_frame_at: number;
  #cancel_watch: Cancel = () => {};
  #cancel_stable: Cancel = () => {};
  #joined = false;
  #over = false;

  constructor(environment: Environment, transport: Transport, request: OpenRequest, events: SessionEvents) {
    this.#environment = environment;
    this.#events = events;
    this.#requested = request.channels;
    this.#last_frame_at = environment.now();
    this.#cancel_watch = environment.after(START_MAX_MS, () => this.#lost("timeout", "it did not start in time"));
    const sink: Sink = {
      frame: (frame) => this.#frame(frame),
      retry: (delay_ms) => this.#over || events.retry(delay_ms),
      refused: (channels, problem) => this.#refused(channels, problem),
      ended: (end) => this.#end(end),
    };
    this.#link = transport.open(environment, request, sink);
  }

  /** When the last frame came. */
  get last_frame_at(): number {
    return this.#last_frame_at;
  }

  /** The channels of which nothing is missed. */
  get covered(): ReadonlySet<string> {
    return this.#covered;
  }

  /** Channels of later subscribes whose catch-up is not over: they have no place of their own to resume from. */
  get unsettled(): readonly string[] {
    return [...this.#later.keys()];
  }

  /** Whether channels can change without a new session. */
  get changeable(): boolean {
    return this.#link.change !== undefined;
  }

  /** Whether what was asked for at the start is covered. */
  get caught_up(): boolean {
    return this.#catch_up === "over";
  }

  /** Add and drop channels; only where `changeable` and `caught_up`. */
  change(add: readonly string[], drop: readonly string[], state: boolean): void {
    for (const channel of drop) {
      this.#covered.delete(channel);
      this.#later.delete(channel);
    }
    const fresh = add.filter((channel) => !this.#covered.has(channel) && !this.#later.has(channel));
    for (const channel of fresh) this.#later.set(channel, false);
    this.#link.change?.(fresh, drop, state);
  }

  /** Present a new token; false where only a new session can. Rejects with a ProblemError. */
  present(token: string): Promise<boolean> {
    return this.#link.present(token, this.#connection);
  }

  /** Look whether it died while nobody looked (a machine that slept). */
  check(): void {
    if (this.#over || !this.#joined) return;
    const silent_ms = this.#environment.now() - this.#last_frame_at;
    if (silent_ms >= this.#silence_max_ms) this.#lost("timeout", `silent for ${Math.round(silent_ms / 1000)} s`);
  }

  /** End it without a word to anybody. */
  close(): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancel_watch();
    this.#cancel_stable();
    this.#link.close();
  }

  #frame(frame: Frame): void {
    if (this.#over) return;
    this.#last_frame_at = this.#environment.now();
    switch (frame.kind) {
      case "joined":
        this.#start(frame);
        break;
      case "close": {
        this.#end({ kind: "refused", problem: closedProblem(frame.code, frame.name, frame.retry) });
        return;
      }
      case "ack":
        for (const channel of frame.channels) if (this.#later.has(channel)) this.#later.set(channel, true);
        break;
      case "revoked":
        for (const channel of frame.channels) this.#forget(channel);
        this.#events.frame(frame);
        break;
      case "error":
        break;
      default:
        this.#events.frame(frame);
    }
    if (!this.#over) this.#advance(frame);
  }

  #start(frame: JoinedFrame): void {
    if (this.#joined) return;
    this.#joined = true;
    this.#connection = frame.connection;
    this.#silence_max_ms = Math.max(SILENCE_MAX_MS, 2000 * frame.heartbeat_s + 5000);
    this.#catch_up = frame.resumed ? "until_heartbeat" : "until_id";
    this.#cancel_watch();
    this.#watch(this.#silence_max_ms);
    this.#cancel_stable = this.#environment.after(STABLE_AFTER_MS, () => this.#events.stable());
    this.#events.joined(frame);
  }

  /** Move the catch-up on, after the frame has been passed on. */
  #advance(frame: Frame): void {
    if (frame.id === undefined) return;
    const heartbeat = frame.kind === "heartbeat";
    if (this.#catch_up === "until_id" || (this.#catch_up === "until_heartbeat" && heartbeat)) {
      this.#catch_up = "over";
      this.#cover(this.#requested);
    }
    if (!heartbeat || this.#later.size === 0) return;
    const ready = [...this.#later].filter(([, acknowledged]) => acknowledged).map(([channel]) => channel);
    for (const channel of ready) this.#later.delete(channel);
    if (ready.length > 0) this.#cover(ready);
  }

  #cover(channels: readonly string[]): void {
    for (const channel of channels) this.#covered.add(channel);
    this.#events.covered(channels);
  }

  #forget(channel: string): void {
    this.#covered.delete(channel);
    this.#later.delete(channel);
  }

  #refused(channels: readonly string[], problem: Problem): void {
    if (this.#over) return;
    for (const channel of channels) this.#forget(channel);
    this.#events.refused(channels, problem);
  }

  #watch(delay_ms: number): void {
    this.#cancel_watch = this.#environment.after(delay_ms, () => {
      this.check();
      if (this.#over) return;
      const silent_ms = this.#environment.now() - this.#last_frame_at;
      this.#watch(Math.max(this.#silence_max_ms - silent_ms, 1));
    });
  }

  #lost(code: "timeout", detail: string): void {
    this.#end({ kind: "broken", problem: ownProblem(code, detail) });
  }

  #end(end: End): void {
    if (this.#over) return;
    this.close();
    this.#events.ended(end, this.#joined);
  }
}
