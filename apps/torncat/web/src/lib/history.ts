import type { ChannelEvent } from "@lastcall/core";
import { isObject } from "@lastcall/core";
import { readCall, readRelease, readTime } from "./war.ts";

/** One event as the list shows it. */
export interface Entry {
  readonly key: number;
  /** `called`, or the reason of a release. */
  readonly what: string;
  readonly caller_id: number;
  readonly target_id: number;
  /** When the database stamped it, by its clock. */
  readonly stamped_at: number;
  /** When it came here, by ours. */
  readonly arrived_at: number;
  /** It was delivered after an absence, so its age is no latency. */
  readonly late: boolean;
}

/** Entries that are kept. */
export const KEPT = 120;

/** The entries with one more, newest first; undefined events of other kinds leave them as they are. */
export function withEvent(
  entries: readonly Entry[],
  event: ChannelEvent,
  arrived_at: number,
  late: boolean,
): readonly Entry[] {
  if (!isObject(event.data)) return entries;
  const key = (entries[0]?.key ?? 0) + 1;
  if (event.name === "target_call") {
    const { caller_id, target_id, created_at } = readCall(event.data);
    const entry = { key, what: "called", caller_id, target_id, stamped_at: readTime(created_at), arrived_at, late };
    return [entry, ...entries].slice(0, KEPT);
  }
  if (event.name === "call_released") {
    const { caller_id, target_id, released_at, reason } = readRelease(event.data);
    const entry = { key, what: reason, caller_id, target_id, stamped_at: readTime(released_at), arrived_at, late };
    return [entry, ...entries].slice(0, KEPT);
  }
  return entries;
}

/** Its latency in milliseconds, the clocks being `offset_ms` apart; undefined where it has none. */
export function latencyOf(entry: Entry, offset_ms: number): number | undefined {
  const latency = entry.arrived_at + offset_ms - entry.stamped_at;
  return entry.late || Number.isNaN(latency) ? undefined : latency;
}

/** The server's clock is ahead of ours by at least this: no event arrived before it was stamped. */
export function leastOffset(entries: readonly Entry[]): number {
  return entries.reduce((least, entry) => Math.max(least, entry.stamped_at - entry.arrived_at || -Infinity), -Infinity);
}
