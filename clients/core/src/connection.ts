import { Backoff } from "./backoff.ts";
import { TransportChoice } from "./choice.ts";
import type { Cancel, Environment } from "./environment.ts";
import type { Frame } from "./frames.ts";
import { asStrings } from "./json.ts";
import { DROP_AFTER_MS, WANT_WINDOW_MS } from "./limits.ts";
import { ownProblem, ProblemError, type Problem } from "./problem.ts";
import { Session, type SessionEvents } from "./session.ts";
import type { Phase, Source, SourceEvents, Status } from "./source.ts";
import type { TokenKeeper } from "./token.ts";
import type { End, Transport, TransportName } from "./transports/transport.ts";

type Happening = "wanted" | "unwanted" | "joined" | "caught_up" | "lost" | "refused" | "due" | "reopen";

/** The state machine: phase → what happened → next phase. What is not in the table changes nothing. */
const NEXT: Readonly<Record<Phase, Partial<Readonly<Record<Happening, Phase>>>>> = {
  idle: { wanted: "opening" },
  opening: { joined: "catching_up", lost: "waiting", refused: "stopped", unwanted: "idle", reopen: "opening" },
  catching_up: { caught_up: "live", lost: "waiting", refused: "stopped", unwanted: "idle", reopen: "opening" },
  live: { lost: "waiting", refused: "stopped", unwanted: "idle", reopen: "opening" },
  waiting: { due: "opening", unwanted: "idle", reopen: "opening" },
  stopped: { unwanted: "idle", reopen: "opening" },
};

/** What a connection is made of. */
export interface ConnectionOptions {
  readonly environment: Environment;
  /** Origin (and path prefix) of the server, without a slash at the end. */
  readonly base: string;
  readonly tokens: TokenKeeper;
  /** In order of preference; those that the platform lacks are left out. */
  readonly transports: readonly Transport[];
  /** Where to continue. */
  readonly position?: string | undefined;
  readonly events: SourceEvents;
}

/**
 * One connection to one server, kept up for as long as a channel is wanted.
 *
 * Promises: frames are passed on in the order of the stream; the position moves only after a frame has been passed on,
 * so a reconnect continues without a gap and without a repetition; a channel whose catch-up broke off is reported
 * `uncovered`; no two links are open at once.
 */
export class Connection implements Source {
  readonly #options: ConnectionOptions;
  readonly #environment: Environment;
  readonly #events: SourceEvents;
  readonly #backoff: Backoff;
  readonly #choice: TransportChoice;
  readonly #cancel_wake: Cancel;
  #status: Status;
  #position: string | undefined;
  #wanted: ReadonlySet<string> = new Set();
  #state = false;
  readonly #denied = new Set<string>();
  /** Channels of the session, asked for or heard. */
  #heard = new Set<string>();
  #session: Session | undefined;
  #attempt = 0;
  #retry_ms: number | undefined;
  #last_frame_at: number | undefined;
  #refreshes = 0;
  #cancel_timer: Cancel = () => {};
  #cancel_apply: Cancel | undefined;
  #cancel_drop: Cancel | undefined;
  #cancel_renewal: Cancel = () => {};

  constructor(options: ConnectionOptions) {
    const { environment } = options;
    this.#options = options;
    this.#environment = environment;
    this.#events = options.events;
    this.#position = options.position;
    this.#backoff = new Backoff(() => environment.random());
    this.#choice = new TransportChoice(options.transports.filter((transport) => transport.available(environment)));
    this.#status = { phase: "idle", since: environment.now(), ...NOTHING, role: "alone" };
    this.#cancel_wake = environment.onWake(() => this.#woke());
  }

  get status(): Status {
    return this.#status;
  }

  get last_frame_at(): number | undefined {
    return this.#last_frame_at;
  }

  get position(): string | undefined {
    return this.#position;
  }

  /** The channels of which nothing is missed right now. */
  get covered(): ReadonlySet<string> {
    return this.#session?.covered ?? new Set();
  }

  want(channels: ReadonlySet<string>, state: boolean): void {
    this.#wanted = new Set(channels);
    this.#state = state;
    for (const channel of this.#denied) if (!channels.has(channel)) this.#denied.delete(channel);
    this.#cancel_apply ??= this.#environment.after(WANT_WINDOW_MS, () => {
      this.#cancel_apply = undefined;
      this.#apply();
    });
  }

  reconnect(): void {
    this.#denied.clear();
    this.#backoff.reset();
    this.#refreshes = 0;
    if (this.#status.phase === "idle") this.#apply();
    else this.#go("reopen");
  }

  close(): void {
    this.#cancel_apply?.();
    this.#cancel_wake();
    this.#wanted = new Set();
    this.#go("unwanted");
  }

  /** Begin, end or change the session as the channels demand. */
  #apply(): void {
    const channels = this.#listened();
    if (channels.length === 0) return this.#go("unwanted");
    if (this.#status.phase === "idle") return this.#go("wanted");
    if (this.#session === undefined) return;
    const { covered } = this.#session;
    // Whoever came back to a channel that was never left has to be told, too.
    const ready = channels.filter((channel) => covered.has(channel));
    if (ready.length > 0) this.#events.covered(ready);
    this.#follow();
  }

  /** Make the session hear what is wanted. */
  #follow(): void {
    if (this.#session === undefined) return;
    const channels = this.#listened();
    const add = channels.filter((channel) => !this.#heard.has(channel));
    const drop = [...this.#heard].filter((channel) => !this.#wanted.has(channel));
    if (add.length === 0 && drop.length === 0) return;
    if (this.#session.changeable) {
      if (!this.#session.caught_up) return; // It comes back here when it is.
      this.#heard = new Set(channels);
      this.#session.change(add, drop, this.#state);
    } else if (add.length > 0) {
      this.#go("reopen");
    } else {
      // Leaving a channel is worth a new stream only when nobody has come back to it for a while.
      this.#cancel_drop ??= this.#environment.after(DROP_AFTER_MS, () => {
        this.#cancel_drop = undefined;
        if ([...this.#heard].some((channel) => !this.#wanted.has(channel))) this.#go("reopen");
      });
    }
  }

  #listened(): string[] {
    return [...this.#wanted].filter((channel) => !this.#denied.has(channel));
  }

  /** Take the transition that the table names for what happened. */
  #go(happening: Happening, problem?: Problem): void {
    const phase = NEXT[this.#status.phase][happening];
    if (phase === undefined) return;
    if (phase === "opening" || phase === "waiting" || phase === "idle" || phase === "stopped") this.#leaveSession();
    const opening = phase === "opening";
    this.#show({ phase, problem: opening ? this.#status.problem : problem, retry_at: undefined });
    if (opening) void this.#open();
    if (phase === "waiting") this.#wait(problem);
  }

  #show(change: Partial<Status>): void {
    const since = change.phase === this.#status.phase ? this.#status.since : this.#environment.now();
    this.#status = { ...this.#status, since, ...change };
    this.#events.changed();
  }

  #leaveSession(): void {
    this.#attempt += 1;
    this.#cancel_timer();
    this.#cancel_drop?.();
    this.#cancel_drop = undefined;
    this.#cancel_renewal();
    const session = this.#session;
    this.#session = undefined;
    session?.close();
    const unsettled = session?.unsettled ?? [];
    if (unsettled.length > 0) this.#events.uncovered(unsettled);
  }

  #wait(problem: Problem | undefined): void {
    const delay_ms = this.#backoff.next(problem, this.#retry_ms);
    this.#retry_ms = undefined;
    this.#show({ retry_at: this.#environment.now() + delay_ms });
    this.#cancel_timer = this.#environment.after(delay_ms, () => this.#go("due"));
  }

  async #open(): Promise<void> {
    const attempt = this.#attempt;
    let token: string | undefined;
    try {
      const held = await this.#options.tokens.get();
      token = held?.text;
      if (held?.renew_at !== undefined && attempt === this.#attempt) this.#renewAt(held.renew_at);
    } catch (error) {
      if (attempt !== this.#attempt) return;
      const problem = error instanceof ProblemError ? error.problem : ownProblem("unreachable", String(error));
      this.#go(problem.retry === "no" ? "refused" : "lost", problem);
      return;
    }
    if (attempt !== this.#attempt) return;
    const transport = this.#choice.next(this.#environment.now());
    if (transport === undefined) this.#go("refused", ownProblem("unreachable", "this platform has no transport"));
    else this.#begin(transport, token);
  }

  #begin(transport: Transport, token: string | undefined): void {
    const { base } = this.#options;
    const channels = this.#listened();
    if (channels.length === 0) return this.#go("unwanted");
    this.#heard = new Set(channels);
    this.#show({ transport: transport.name });
    const request = { base, channels, position: this.#position, state: this.#state, token };
    const attempt = this.#attempt;
    const session = new Session(this.#environment, transport, request, this.#sessionEvents(attempt, token));
    if (attempt === this.#attempt) this.#session = session;
    else session.close();
  }

  #sessionEvents(attempt: number, token: string | undefined): SessionEvents {
    const current = (): boolean => attempt === this.#attempt;
    return {
      joined: (frame) => {
        this.#choice.started();
        this.#pass(frame);
        this.#show({ problem: undefined });
        this.#go("joined");
      },
      frame: (frame) => this.#pass(frame),
      covered: (channels) => {
        this.#go("caught_up");
        this.#events.covered(channels);
        if (current()) this.#follow();
      },
      refused: (channels, problem) => this.#deny(channels, problem),
      retry: (delay_ms) => {
        this.#retry_ms = delay_ms;
      },
      stable: () => {
        this.#backoff.reset();
        this.#refreshes = 0;
      },
      ended: (end, joined) => {
        if (current()) this.#ended(end, joined, token);
      },
    };
  }

  #pass(frame: Frame): void {
    this.#last_frame_at = this.#environment.now();
    if (frame.kind === "revoked") for (const channel of frame.channels) this.#heard.delete(channel);
    this.#events.frame(frame);
    if (frame.id !== undefined) this.#position = frame.id;
  }

  #deny(channels: readonly string[], problem: Problem): void {
    for (const channel of channels) {
      this.#denied.add(channel);
      this.#heard.delete(channel);
    }
    this.#events.refused(channels, problem);
  }

  #ended(end: End, joined: boolean, token: string | undefined): void {
    const { problem } = end;
    if (!joined && end.kind === "broken") this.#choice.failedToStart(this.#environment.now());
    if (problem.retry === "fresh") {
      this.#options.tokens.refused(token);
      this.#refreshes += 1;
      // Once at once; a second refusal in a row means that a new token is no better.
      if (this.#refreshes === 1) return this.#go("reopen");
    }
    if (problem.retry !== "no") return this.#go("lost", problem);
    const denied = (asStrings(problem.facts["channels"]) ?? []).filter((channel) => this.#heard.has(channel));
    if (denied.length === 0) return this.#go("refused", problem);
    this.#deny(denied, problem);
    this.#go(this.#listened().length > 0 ? "reopen" : "refused", problem);
  }

  #renewAt(renew_at: number): void {
    this.#cancel_renewal();
    const delay_ms = Math.max(renew_at - this.#environment.now(), RENEWAL_MIN_MS);
    this.#cancel_renewal = this.#environment.after(Math.min(delay_ms, TIMER_MAX_MS), () => void this.#renew());
  }

  /** Present the next token before this one ends. Where that fails, the server's `close` will bring a reconnect. */
  async #renew(): Promise<void> {
    const attempt = this.#attempt;
    try {
      const held = await this.#options.tokens.get();
      if (held === undefined || attempt !== this.#attempt) return;
      if (held.renew_at !== undefined) this.#renewAt(held.renew_at);
      const presented = await this.#session?.present(held.text);
      if (presented === false && attempt === this.#attempt) this.#go("reopen");
    } catch {
      if (attempt === this.#attempt && this.#status.phase === "live") this.#go("reopen");
    }
  }

  /** The page is in view or online again: a good moment, but no reason to hammer a server that said `later`. */
  #woke(): void {
    this.#session?.check();
    if (this.#status.phase === "waiting" && this.#status.problem?.status === 0) this.#go("reopen");
  }
}

const NOTHING = { transport: undefined as TransportName | undefined, retry_at: undefined, problem: undefined };

/** Tokens are not renewed more often than this, however short they live. */
const RENEWAL_MIN_MS = 1_000;

/** Longest time a timer of a browser can run. */
const TIMER_MAX_MS = 2 ** 31 - 1;
