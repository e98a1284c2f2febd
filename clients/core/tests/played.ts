import { beforeEach } from "vitest";
import { Connection, type ConnectionOptions } from "../src/connection.ts";
import type { Frame } from "../src/frames.ts";
import { ownProblem } from "../src/problem.ts";
import type { SourceEvents } from "../src/source.ts";
import { TokenKeeper, type TokenProvider } from "../src/token.ts";
import type { Link, OpenRequest, Sink, Transport, TransportName } from "../src/transports/transport.ts";
import { FakeTime } from "./fake-time.ts";

/** One link that a test plays the server of. */
export interface Played {
  readonly name: TransportName;
  readonly request: OpenRequest;
  readonly sink: Sink;
  readonly presented: string[];
  readonly changes: (readonly [readonly string[], readonly string[]])[];
  closed: boolean;
}

/** A port whose other side is the test. */
export function played(name: TransportName, links: Played[], changeable = false): Transport {
  return {
    name,
    available: () => true,
    open(_environment, request, sink): Link {
      const link: Played = { name, request, sink, presented: [], changes: [], closed: false };
      links.push(link);
      return {
        close: () => {
          link.closed = true;
        },
        present: (token) => {
          link.presented.push(token);
          return Promise.resolve(true);
        },
        change: changeable ? (add, drop) => link.changes.push([add, drop]) : undefined,
      };
    },
  };
}

/** No answer at all. */
export const UNREACHABLE = { kind: "unreachable", problem: ownProblem("unreachable") } as const;
/** It began and broke. */
export const BROKEN = { kind: "broken", problem: ownProblem("unreachable") } as const;

/** The stage of the running test: made anew before each. */
export let time: FakeTime;
export let links: Played[];
export let told: string[];
export let connection: Connection;

const events: SourceEvents = {
  frame: (frame) => told.push(`${frame.kind} ${frame.id ?? "-"} before ${connection.position ?? "-"}`),
  covered: (channels) => told.push(`covered ${channels.join()}`),
  uncovered: (channels) => told.push(`uncovered ${channels.join()}`),
  refused: (channels, problem) => told.push(`refused ${channels.join()} ${problem.code}`),
  changed: () => {},
};

/** Make the connection of this test. */
export function connect(options: Partial<ConnectionOptions> & { provider?: TokenProvider } = {}): void {
  const { environment } = time;
  const tokens = new TokenKeeper(environment, options.provider);
  const transports = [played("sse", links), played("websocket", links, true), played("long-poll", links)];
  connection = new Connection({ environment, base: "http://x", tokens, transports, events, ...options });
}

/** The link that was opened last. */
export function last(): Played {
  const link = links.at(-1);
  if (link === undefined) throw new Error("no link was opened");
  return link;
}

/** The first frame of a stream. */
export function joined(id: string | undefined, resumed = false, heartbeat_s = 15): Frame {
  return { kind: "joined", id, channels: [], heartbeat_s, resumed, connection: "secret" };
}

/** An event of the channel `a:1`. */
export function event(id: string): Frame {
  return { kind: "event", id, name: "n", channels: ["a:1"], data: null };
}

/** Listen to `a:1`, and let the server say `joined`. */
export async function live(id = "e.1.0"): Promise<void> {
  connection.want(new Set(["a:1"]), false);
  await time.pass(20);
  last().sink.frame(joined(id));
}

/** Let the wait before the next try pass; how long it was. */
export async function waited(): Promise<number> {
  const { retry_at } = connection.status;
  if (retry_at === undefined) throw new Error("it does not wait");
  const delay_ms = retry_at - time.environment.now();
  await time.pass(delay_ms);
  return delay_ms;
}

/** Forget what was told so far. */
export function forget(): void {
  told = [];
}

/** Begin with a clock of its own and nothing on the stage. */
export function begin(): void {
  time = new FakeTime();
  links = [];
  told = [];
}

beforeEach(begin);
