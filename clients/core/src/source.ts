import type { Frame } from "./frames.ts";
import type { Problem } from "./problem.ts";
import type { TransportName } from "./transports/transport.ts";

/**
 * `idle`: nobody wants a channel · `opening`: a link was requested · `catching_up`: joined, history is coming ·
 * `live` · `waiting`: it broke, the next try is at `retry_at` · `stopped`: refused for good, until `reconnect`.
 */
export type Phase = "idle" | "opening" | "catching_up" | "live" | "waiting" | "stopped";

/** How the connection is. A new object whenever something changed. */
export interface Status {
  readonly phase: Phase;
  /** When the phase began, by our clock. */
  readonly since: number;
  readonly transport: TransportName | undefined;
  readonly retry_at: number | undefined;
  /** Why it waits or stopped. */
  readonly problem: Problem | undefined;
  /** Whether this tab holds the connection: `alone` where tabs do not share, else `leader` or `follower`. */
  readonly role: "alone" | "leader" | "follower";
}

/** What a source tells, synchronously and in the order of the stream. */
export interface SourceEvents {
  /** Every frame but those of the connection itself (`close`, `ack`, `error`). */
  frame(frame: Frame): void;
  /** From here on nothing of these channels is missed. */
  covered(channels: readonly string[]): void;
  /** Something of these channels may have been missed; their states are needed again. */
  uncovered(channels: readonly string[]): void;
  /** These channels are not to be had. */
  refused(channels: readonly string[], problem: Problem): void;
  /** `status` is new. */
  changed(): void;
}

/** Where a client's frames come from: its own connection, or the one that all tabs share. */
export interface Source {
  readonly status: Status;
  /** When the last frame came, by our clock. */
  readonly last_frame_at: number | undefined;
  /** The place in the stream up to which everything has been passed on. */
  readonly position: string | undefined;
  /** Listen to exactly these; `state`: have states sent along where the server can. */
  want(channels: ReadonlySet<string>, state: boolean): void;
  /** Connect anew at once, whatever the phase. */
  reconnect(): void;
  close(): void;
}
