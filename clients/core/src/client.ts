import { Caller, type Answer, type CallOptions } from "./batch.ts";
import { Connection } from "./connection.ts";
import { browserEnvironment, type Cancel, type Environment } from "./environment.ts";
import type { Frame } from "./frames.ts";
import type { JsonObject } from "./json.ts";
import type { Problem } from "./problem.ts";
import type { Source, SourceEvents, Status } from "./source.ts";
import { StateFetcher } from "./states.ts";
import { Subscription, type Beginning, type ChannelListener, type SubscriptionHost } from "./subscription.ts";
import { SharedSource } from "./tabs.ts";
import { TokenKeeper, type TokenProvider } from "./token.ts";
import { longPoll } from "./transports/long-poll.ts";
import { sseFetch } from "./transports/sse-fetch.ts";
import type { Transport, TransportName } from "./transports/transport.ts";
import { webSocket } from "./transports/websocket.ts";

const TRANSPORTS: Readonly<Record<TransportName, Transport>> = {
  sse: sseFetch,
  websocket: webSocket,
  "long-poll": longPoll,
};

/**
 * Where to continue after the page was closed: a position, and the channels whose state an application has kept as of
 * that position. An application that keeps states saves both together.
 */
export interface Bookmark {
  readonly position: string;
  readonly channels: readonly string[];
}

/** What a client is made of. */
export interface ClientOptions {
  /** Origin (and path prefix) of the server: `https://app.example`. */
  readonly base: string;
  readonly token?: TokenProvider | undefined;
  /** In order of preference. */
  readonly transports?: readonly TransportName[] | undefined;
  /**
   * Tabs that give the same name share one connection, where the browser can. Name the application and the user: tabs
   * of different users must not hear each other. Undefined: this page keeps to itself.
   */
  readonly share?: string | undefined;
  readonly bookmark?: Bookmark | undefined;
  /** The language that problems speak (`Accept-Language`); the browser's own where undefined. */
  readonly language?: (() => string | undefined) | undefined;
  /** What a listener threw; by default it becomes an uncaught error of the page. */
  readonly onListenerError?: ((error: unknown) => void) | undefined;
  readonly environment?: Environment | undefined;
}

/** The front door: subscribe to channels, call functions, see how the connection is. */
export class Client {
  readonly environment: Environment;
  readonly #source: Source;
  readonly #caller: Caller;
  readonly #host: SubscriptionHost;
  readonly #states: StateFetcher;
  readonly #subscriptions = new Map<string, Set<Subscription>>();
  readonly #status_listeners = new Set<() => void>();
  readonly #bookmark: Bookmark | undefined;
  readonly #covered = new Set<string>();

  constructor(options: ClientOptions) {
    const environment = options.environment ?? browserEnvironment();
    const tokens = new TokenKeeper(environment, options.token);
    const language = options.language ?? (() => undefined);
    const report = options.onListenerError ?? reportUncaught;
    const base = options.base.replace(/\/+$/, "");
    this.environment = environment;
    this.#bookmark = options.bookmark;
    this.#caller = new Caller({ environment, base, tokens, language });
    const states = new StateFetcher({ environment, base, tokens, language });
    this.#states = states;
    this.#host = { report, fetchState: (subscription, turn, spread) => states.fetch(subscription, turn, spread) };
    this.#source = openSource(options, environment, base, tokens, this.#sourceEvents());
  }

  /** How the connection is; a new object whenever something changed. */
  get status(): Status {
    return this.#source.status;
  }

  /** When the last word of the server came, by our clock. */
  get last_frame_at(): number | undefined {
    return this.#source.last_frame_at;
  }

  /** Be told when `status` changed. */
  onStatus(listener: () => void): Cancel {
    this.#status_listeners.add(listener);
    return () => this.#status_listeners.delete(listener);
  }

  /**
   * Listen on a channel. The listener is told the state and then every event after it; or, beginning with `events`,
   * only what happens from now on; or, with `held`, what came after the bookmark where it names the channel.
   */
  subscribe(channel: string, listener: ChannelListener, beginning: Beginning = "state"): Cancel {
    const held = beginning === "held" && this.#bookmark?.channels.includes(channel) === true;
    const begin = beginning === "held" && !held ? "state" : beginning;
    const subscription = new Subscription(channel, listener, begin, this.#host);
    const siblings = this.#subscriptions.get(channel) ?? new Set();
    this.#subscriptions.set(channel, siblings.add(subscription));
    this.#want();
    if (this.#covered.has(channel)) subscription.covered();
    return () => {
      subscription.close();
      if (!siblings.delete(subscription)) return;
      if (siblings.size === 0 && this.#subscriptions.get(channel) === siblings) this.#leave(channel);
    };
  }

  /** Call `app.function` with named arguments; calls of one moment travel together. Rejects with a ProblemError. */
  call(name: string, args?: JsonObject, options?: CallOptions): Promise<Answer> {
    return this.#caller.call(name, args, options);
  }

  /** The place up to which every live channel has been told; undefined before there is one. */
  bookmark(): Bookmark | undefined {
    const { position } = this.#source;
    if (position === undefined) return undefined;
    const live = [...this.#subscriptions].filter(([, all]) => [...all].every((subscription) => subscription.live));
    return { position, channels: live.map(([channel]) => channel) };
  }

  /** Connect anew at once. */
  reconnect(): void {
    this.#source.reconnect();
  }

  /** End everything. Calls under way are rejected; nothing more is told. */
  close(): void {
    for (const all of this.#subscriptions.values()) for (const subscription of all) subscription.close();
    this.#subscriptions.clear();
    this.#caller.close();
    this.#states.close();
    this.#source.close();
    this.#status_listeners.clear();
  }

  #sourceEvents(): SourceEvents {
    return {
      frame: (frame) => this.#frame(frame),
      covered: (channels) => {
        for (const channel of channels) if (this.#subscriptions.has(channel)) this.#covered.add(channel);
        for (const subscription of this.#of(channels)) subscription.covered();
      },
      uncovered: (channels) => {
        for (const channel of channels) this.#covered.delete(channel);
        for (const subscription of this.#of(channels)) subscription.uncovered();
      },
      refused: (channels, problem) => this.#end(channels, problem),
      changed: () => {
        for (const listener of [...this.#status_listeners]) listener();
      },
    };
  }

  #frame(frame: Frame): void {
    if (frame.kind === "joined") this.#covered.clear();
    for (const subscription of this.#of(concerned(frame) ?? [...this.#subscriptions.keys()])) subscription.frame(frame);
    if (frame.kind === "revoked") this.#end(frame.channels, undefined);
  }

  /** The channels are not to be had: tell their listeners, and forget them. */
  #end(channels: readonly string[], problem: Problem | undefined): void {
    const ended = this.#of(channels);
    for (const channel of channels) this.#subscriptions.delete(channel);
    for (const channel of channels) this.#covered.delete(channel);
    for (const subscription of ended) subscription.end(problem);
    this.#want();
  }

  #leave(channel: string): void {
    this.#subscriptions.delete(channel);
    this.#covered.delete(channel);
    this.#want();
  }

  #want(): void {
    const all = [...this.#subscriptions.values()];
    const state = all.some((siblings) => [...siblings].some((subscription) => subscription.wants_state));
    this.#source.want(new Set(this.#subscriptions.keys()), state);
  }

  #of(channels: readonly string[]): Subscription[] {
    return channels.flatMap((channel) => [...(this.#subscriptions.get(channel) ?? [])]);
  }
}

/** The channels that a frame concerns; undefined: all. */
function concerned(frame: Frame): readonly string[] | undefined {
  switch (frame.kind) {
    case "event":
    case "gone":
    case "reset":
    case "revoked":
      return frame.channels;
    case "state":
      return [frame.channel];
    case "joined":
      return undefined;
    default:
      return [];
  }
}

function openSource(
  options: ClientOptions,
  environment: Environment,
  base: string,
  tokens: TokenKeeper,
  events: SourceEvents,
): Source {
  const names = options.transports ?? (Object.keys(TRANSPORTS) as TransportName[]);
  const connection = { base, tokens, transports: names.map((name) => TRANSPORTS[name]) };
  const position = options.bookmark?.position;
  const { locks, openBroadcast } = environment;
  if (options.share === undefined || locks === undefined || openBroadcast === undefined) {
    return new Connection({ ...connection, environment, position, events });
  }
  return new SharedSource({ environment, locks, openBroadcast, name: options.share, connection, position, events });
}

/** As if nobody had caught it: the page's own error handling sees it. */
function reportUncaught(error: unknown): void {
  setTimeout(() => {
    throw error;
  });
}
