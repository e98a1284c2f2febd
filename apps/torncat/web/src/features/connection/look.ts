import type { Status } from "@lastcall/core";

/** A connection that was interrupted is not called offline before this. */
const GRACE_MS = 15_000;

/** How a connection looks to people. */
export type Look = "live" | "connecting" | "reconnecting" | "offline" | "stopped";

/** The look of a connection; a short interruption is no alarm. */
export function lookOf(status: Status, last_frame_at: number | undefined, now: number): Look {
  if (status.phase === "live") return "live";
  if (status.phase === "stopped") return "stopped";
  if (last_frame_at === undefined) return now - status.since > GRACE_MS ? "offline" : "connecting";
  return now - last_frame_at > GRACE_MS ? "offline" : "reconnecting";
}
