import { Connection, type ConnectionOptions } from "./connection.ts";
import type { Broadcast, Cancel, Environment, Locks } from "./environment.ts";
import type { Frame } from "./frames.ts";
import { LEADER_ANSWER_MAX_MS, LEADER_SILENCE_MAX_MS, LEADER_WORD_MS } from "./limits.ts";
import { Place } from "./place.ts";
import type { Problem } from "./problem.ts";
import type { Source, SourceEvents, Status } from "./source.ts";

/** Of the messages below: tabs that run another version of the page keep to themselves. */
const VERSION = 1;

/** What one tab wants to hear. `turn` counts its changes, so that an answer to an older want is known as such. */
interface Want {
  readonly turn: number;
  readonly channels: readonly string[];
  readonly state: boolean;
}

/** What tabs say to each other. Everyone hears everything; `from` is the tab that speaks. */
type Message = { readonly from: string } & (
  | { readonly kind: "want"; readonly want: Want }
  | { readonly kind: "left"; readonly tab: string }
  | { readonly kind: "reconnect" }
  | { readonly kind: "leader"; readonly channels: readonly string[] }
  | { readonly kind: "status"; readonly status: Status }
  | { readonly kind: "frame"; readonly previous: string | undefined; readonly frame: Frame }
  | {
      readonly kind: "covered";
      readonly channels: readonly string[];
      readonly at: string | undefined;
      readonly wants: ReadonlyMap<string, Want>;
    }
  | { readonly kind: "uncovered"; readonly channels: readonly string[] }
  | { readonly kind: "refused"; readonly channels: readonly string[]; readonly problem: Problem }
);

type Unsigned<M> = M extends unknown ? Omit<M, "from"> : never;

/** What a shared source is made of. */
export interface SharedOptions {
  readonly environment: Environment;
  readonly locks: Locks;
  readonly openBroadcast: (name: string) => Broadcast;
  /** Tabs with the same name share one connection. It must differ where the tokens' subjects differ. */
  readonly name: string;
  readonly connection: Omit<ConnectionOptions, "events" | "position" | "environment">;
  /** Where to continue, if this tab comes to lead before it has heard another. */
  readonly position?: string | undefined;
  readonly events: SourceEvents;
}

/**
 * One connection for all tabs of a browser: the tab that holds a Web Lock leads; it listens to what all tabs want and
 * passes every frame on over a BroadcastChannel.
 *
 * Promises: a tab is told each change once and in order, also when the leader closes, crashes or freezes; the next
 * leader continues from its own place in the stream. Where a tab cannot be sure of that, it is told `uncovered`.
 */
export class SharedSource implements Source {
  readonly #options: SharedOptions;
  readonly #environment: Environment;
  readonly #events: SourceEvents;
  readonly #tab: string;
  readonly #place: Place;
  /** What other tabs want. Every tab knows, because every tab may lead next. */
  readonly #wants = new Map<string, Want>();
  readonly #watched = new Set<string>();
  readonly #covered = new Set<string>();
  readonly #cancels: Cancel[];
  #mine: Want = { turn: 0, channels: [], state: false };
  #broadcast: Broadcast | undefined;
  #connection: Connection | undefined;
  #living = false;
  #leave = new AbortController();
  #stepDown: () => void = () => {};
  #status: Status;
  #last_frame_at: number | undefined;
  #leader_heard_at: number;
  #cancel_word: Cancel = () => {};

  constructor(options: SharedOptions) {
    const { environment } = options;
    this.#options = options;
    this.#environment = environment;
    this.#events = options.events;
    this.#tab = environment.uniqueId();
    this.#place = new Place(options.position);
    this.#leader_heard_at = environment.now();
    this.#status = {
      phase: "idle",
      since: environment.now(),
      transport: undefined,
      retry_at: undefined,
      problem: undefined,
      role: "follower",
    };
    this.#cancels = [environment.onLeave(() => this.#part()), environment.onReturn(() => this.#enter())];
    this.#enter();
  }

  get status(): Status {
    return this.#status;
  }

  get last_frame_at(): number | undefined {
    return this.#connection?.last_frame_at ?? this.#last_frame_at;
  }

  get position(): string | undefined {
    return this.#place.at;
  }

  want(channels: ReadonlySet<string>, state: boolean): void {
    this.#mine = { turn: this.#mine.turn + 1, channels: [...channels], state };
    for (const channel of this.#covered) if (!channels.has(channel)) this.#covered.delete(channel);
    this.#sayWant();
    this.#followWants();
  }

  reconnect(): void {
    if (this.#connection === undefined) this.#say({ kind: "reconnect" });
    else this.#connection.reconnect();
  }

  close(): void {
    for (const cancel of this.#cancels) cancel();
    this.#part();
  }

  /** Become one of the tabs: show that this one lives, and stand in line for the lead. */
  #enter(): void {
    if (this.#broadcast !== undefined) return;
    this.#leave = new AbortController();
    this.#broadcast = this.#options.openBroadcast(`lastcall:${VERSION}:${this.#options.name}`);
    this.#broadcast.onMessage((message) => this.#hear(message as Message));
    const { signal } = this.#leave;
    const living = this.#options.locks.hold(this.#lockOf(this.#tab), { signal }, () => {
      this.#living = true;
      this.#sayWant();
      return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
    });
    living.catch(() => {}); // Called off while it waited.
    this.#line({ signal });
    this.#watchLeader();
  }

  /** Stop being one of the tabs, at once: the page is being left. */
  #part(): void {
    if (this.#broadcast === undefined) return;
    this.#say({ kind: "left", tab: this.#tab });
    this.#leave.abort();
    this.#stepDown();
    this.#cancel_word();
    this.#broadcast.close();
    this.#broadcast = undefined;
    this.#living = false;
    this.#wants.clear();
    this.#watched.clear();
  }

  /** Stand in line for the lead, or steal it. Whoever loses it stands in line again. */
  #line(how: { readonly signal?: AbortSignal; readonly steal?: boolean }): void {
    const { signal } = this.#leave;
    this.#options.locks
      .hold(`lastcall:${VERSION}:${this.#options.name}:leader`, how, () => {
        if (signal.aborted) return Promise.resolve();
        return new Promise((resolve) => {
          this.#lead();
          this.#stepDown = () => {
            this.#follow();
            resolve();
          };
        });
      })
      .catch(() => {
        if (signal.aborted || this.#connection === undefined) return;
        this.#follow();
        this.#line({ signal });
      });
  }

  #lead(): void {
    if (this.#connection !== undefined) return;
    const position = this.#place.at;
    const { environment, connection } = this.#options;
    this.#connection = new Connection({ ...connection, environment, position, events: this.#leaderEvents() });
    for (const tab of this.#wants.keys()) this.#watchTab(tab);
    this.#say({ kind: "leader", channels: [...this.#union()] });
    this.#followWants();
    this.#showStatus();
    this.#cancel_word();
    this.#word();
  }

  #follow(): void {
    this.#stepDown = () => {};
    const connection = this.#connection;
    this.#connection = undefined;
    connection?.close();
    this.#leader_heard_at = this.#environment.now();
    this.#cancel_word();
    if (!this.#leave.signal.aborted) this.#watchLeader();
    this.#status = { ...this.#status, role: "follower" };
    this.#events.changed();
  }

  #leaderEvents(): SourceEvents {
    return {
      frame: (frame) => {
        const previous = this.#connection?.position;
        this.#say({ kind: "frame", previous, frame });
        this.#receive(previous, frame);
      },
      covered: (channels) => {
        this.#sayCovered();
        this.#tellCovered(channels);
      },
      uncovered: (channels) => {
        this.#say({ kind: "uncovered", channels });
        this.#tellUncovered(channels);
      },
      refused: (channels, problem) => {
        this.#say({ kind: "refused", channels, problem });
        this.#events.refused(channels, problem);
      },
      changed: () => this.#showStatus(),
    };
  }

  #showStatus(): void {
    if (this.#connection === undefined) return;
    this.#status = { ...this.#connection.status, role: "leader" };
    this.#say({ kind: "status", status: this.#status });
    this.#events.changed();
  }

  /** Say what this tab wants, and have the leader say what is covered. Not before this tab holds the lock that proves
   * it alive: it would be taken for dead. */
  #sayWant(): void {
    if (this.#living) this.#say({ kind: "want", want: this.#mine });
  }

  #say(message: Unsigned<Message>): void {
    this.#broadcast?.post({ from: this.#tab, ...message });
  }

  #sayCovered(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const wants = new Map(this.#wants);
    this.#say({ kind: "covered", channels: [...connection.covered], at: connection.position, wants });
  }

  #hear(message: Message): void {
    switch (message.kind) {
      case "want":
        this.#wants.set(message.from, message.want);
        if (this.#connection === undefined) break;
        this.#watchTab(message.from);
        this.#followWants();
        this.#sayCovered();
        this.#say({ kind: "status", status: this.#status });
        break;
      case "left":
        this.#gone(message.tab);
        break;
      case "reconnect":
        this.#connection?.reconnect();
        break;
      default:
        // Only a leader speaks so. One that leads still, although another was given the lead, will be told by its lock.
        if (this.#connection === undefined) this.#hearLeader(message);
    }
  }

  #hearLeader(message: Exclude<Message, { kind: "want" | "left" | "reconnect" }>): void {
    this.#leader_heard_at = this.#environment.now();
    switch (message.kind) {
      case "leader": {
        const heard = new Set(message.channels);
        this.#tellUncovered(this.#mine.channels.filter((channel) => !heard.has(channel)));
        this.#say({ kind: "want", want: this.#mine });
        break;
      }
      case "status":
        this.#status = { ...message.status, role: "follower" };
        this.#events.changed();
        break;
      case "frame":
        this.#last_frame_at = this.#environment.now();
        this.#receive(message.previous, message.frame);
        break;
      case "covered":
        this.#hearCovered(message);
        break;
      case "uncovered":
        this.#tellUncovered(message.channels);
        break;
      case "refused":
        this.#events.refused(message.channels, message.problem);
        break;
    }
  }

  #hearCovered(message: Extract<Message, { kind: "covered" }>): void {
    for (const [tab, want] of message.wants) if (tab !== this.#tab) this.#wants.set(tab, want);
    const follows = this.#place.follows(message.at);
    if (!follows) this.#tellUncovered(this.#mine.channels);
    if (!follows || this.#place.at === undefined) this.#place.stand(message.at);
    // An answer to an older want may name channels that were dropped and wanted again since.
    if (message.wants.get(this.#tab)?.turn === this.#mine.turn) this.#tellCovered(message.channels);
  }

  #receive(previous: string | undefined, frame: Frame): void {
    const verdict = this.#place.take(previous, frame);
    if (verdict === "seen") return;
    if (verdict === "gap") {
      this.#tellUncovered(this.#mine.channels);
      this.#sayWant(); // The answer says what is covered from here on.
    }
    this.#events.frame(frame);
  }

  #tellCovered(channels: readonly string[]): void {
    const mine = channels.filter((channel) => this.#mine.channels.includes(channel));
    for (const channel of mine) this.#covered.add(channel);
    if (mine.length > 0) this.#events.covered(mine);
  }

  #tellUncovered(channels: readonly string[]): void {
    for (const channel of channels) this.#covered.delete(channel);
    if (channels.length > 0) this.#events.uncovered(channels);
  }

  #union(): Set<string> {
    return new Set([this.#mine, ...this.#wants.values()].flatMap((want) => want.channels));
  }

  #followWants(): void {
    const state = [this.#mine, ...this.#wants.values()].some((want) => want.state);
    this.#connection?.want(this.#union(), state);
  }

  #gone(tab: string): void {
    this.#watched.delete(tab);
    if (this.#wants.delete(tab)) this.#followWants();
  }

  /** A tab holds a lock for as long as it lives; who gets it learns that the tab is gone, however it went. */
  #watchTab(tab: string): void {
    if (this.#watched.has(tab)) return;
    this.#watched.add(tab);
    const { signal } = this.#leave;
    this.#options.locks
      .hold(this.#lockOf(tab), { signal }, () => {
        if (!signal.aborted) {
          this.#gone(tab);
          this.#say({ kind: "left", tab });
        }
        return Promise.resolve();
      })
      .catch(() => {});
  }

  #lockOf(tab: string): string {
    return `lastcall:${VERSION}:${this.#options.name}:tab:${tab}`;
  }

  /** As the leader: say every so often that it is there. */
  #word(): void {
    this.#cancel_word = this.#environment.after(LEADER_WORD_MS, () => {
      this.#say({ kind: "status", status: this.#status });
      this.#word();
    });
  }

  /** As a follower: a leader that keeps its lock but says nothing is asked once, then replaced. */
  #watchLeader(): void {
    this.#cancel_word();
    this.#cancel_word = this.#environment.after(LEADER_SILENCE_MAX_MS, () => {
      const asked_at = this.#environment.now();
      if (asked_at - this.#leader_heard_at < LEADER_SILENCE_MAX_MS) return this.#watchLeader();
      this.#sayWant();
      this.#cancel_word = this.#environment.after(LEADER_ANSWER_MAX_MS, () => {
        if (this.#leader_heard_at < asked_at) this.#line({ steal: true });
        this.#watchLeader();
      });
    });
  }
}
