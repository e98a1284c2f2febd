import type { Environment } from "../environment.ts";
import type { Frame } from "../frames.ts";
import type { Problem } from "../problem.ts";

/** The three ways to hear `GET /events`; they are equals (spec/protocol.md, 3). */
export type TransportName = "sse" | "websocket" | "long-poll";

/** What to listen to and from where. */
export interface OpenRequest {
  /** Origin (and path prefix, if any) of the server, without a slash at the end. */
  readonly base: string;
  readonly channels: readonly string[];
  readonly position: string | undefined;
  readonly state: boolean;
  readonly token: string | undefined;
}

/**
 * How a link ended. `unreachable`: no answer at all, which says nothing about the transport; `broken`: it began and
 * broke, or did not speak the protocol; `refused`: the server said why in a problem document or a close code.
 */
export interface End {
  readonly kind: "unreachable" | "broken" | "refused";
  readonly problem: Problem;
}

/** Where a link delivers, synchronously and in order. After `ended` and after `Link.close()` nothing more comes. */
export interface Sink {
  frame(frame: Frame): void;
  /** The server asked to wait this long before a reconnect. */
  retry(delay_ms: number): void;
  /** A change of channels was refused; the link goes on without it. */
  refused(channels: readonly string[], problem: Problem): void;
  ended(end: End): void;
}

/** One open (or opening) connection. */
export interface Link {
  close(): void;
  /**
   * Present a new token without a gap; `connection` is the secret that `joined` brought. Rejects with a ProblemError, or
   * resolves to false where only a new link can carry the token.
   */
  present(token: string, connection: string | undefined): Promise<boolean>;
  /** Change the channels while open; undefined where a new link is needed for that. */
  readonly change: ((add: readonly string[], drop: readonly string[], state: boolean) => void) | undefined;
}

/** A way to listen. */
export interface Transport {
  readonly name: TransportName;
  /** Whether this platform can do it at all. */
  available(environment: Environment): boolean;
  /** Begin; every outcome arrives at the sink, never as an exception. */
  open(environment: Environment, request: OpenRequest, sink: Sink): Link;
}

/** The query of `GET /events`. */
export function listenQuery(request: OpenRequest): URLSearchParams {
  const query = new URLSearchParams();
  for (const channel of request.channels) query.append("channel", channel);
  if (request.position !== undefined) query.set("position", request.position);
  if (request.state) query.set("state", "true");
  return query;
}
