import { isObject, type ChannelEvent, type Json, type JsonObject } from "@lastcall/core";

/** A member of the own faction. */
export interface Member {
  readonly id: number;
  readonly name: string;
}

/** A member of the enemy. */
export interface Target extends Member {
  readonly level: number;
}

/** An open call: `caller_id` holds `target_id`. */
export interface Call {
  readonly id: number;
  readonly caller_id: number;
  readonly target_id: number;
  readonly created_at: string;
}

/** The end of a call. */
export interface Release {
  readonly id: number;
  readonly caller_id: number;
  readonly target_id: number;
  readonly released_at: string;
  readonly reason: string;
}

/** Everything the board shows. Targets stand as the server ordered them: rows that jump are hard to hit. */
export interface War {
  readonly faction: string;
  readonly enemy: string;
  /** Undefined: peace. */
  readonly running: { readonly id: number; readonly started_at: string; readonly target_score: number } | undefined;
  readonly members: ReadonlyMap<number, Member>;
  readonly targets: ReadonlyMap<number, Target>;
  /** Open calls by target: there is one at most. */
  readonly calls: ReadonlyMap<number, Call>;
}

/** Read the state of `faction:{id}`. What is missing in it is empty, never an error. */
export function readWar(state: Json): War {
  const all = isObject(state) ? state : {};
  const { war } = all;
  const running = isObject(war) ? { id: int(war, "id"), started_at: text(war, "started_at"), target_score: int(war, "target_score") } : undefined;
  return {
    faction: nameOf(all["faction"]),
    enemy: nameOf(all["enemy"]),
    running,
    members: byId(all["members"], (row) => ({ id: int(row, "id"), name: text(row, "name") })),
    targets: byId(all["targets"], (row) => ({ id: int(row, "id"), name: text(row, "name"), level: int(row, "level") })),
    calls: new Map(rows(all["calls"]).map((row) => [int(row, "target_id"), readCall(row)])),
  };
}

/** The war after an event. An event of another kind changes nothing; one that is applied again changes nothing more. */
export function afterEvent(war: War, event: ChannelEvent): War {
  if (!isObject(event.data)) return war;
  if (event.name === "target_call") {
    const call = readCall(event.data);
    return { ...war, calls: new Map(war.calls).set(call.target_id, call) };
  }
  if (event.name === "call_released") {
    const release = readRelease(event.data);
    if (war.calls.get(release.target_id)?.id !== release.id) return war;
    const calls = new Map(war.calls);
    calls.delete(release.target_id);
    return { ...war, calls };
  }
  return war;
}

/** Read a row of calls. */
export function readCall(row: JsonObject): Call {
  const [id, caller_id, target_id] = [int(row, "id"), int(row, "caller_id"), int(row, "target_id")];
  return { id, caller_id, target_id, created_at: text(row, "created_at") };
}

/** Read a released call. */
export function readRelease(row: JsonObject): Release {
  const [id, caller_id, target_id] = [int(row, "id"), int(row, "caller_id"), int(row, "target_id")];
  return { id, caller_id, target_id, released_at: text(row, "released_at"), reason: text(row, "reason") };
}

/** PostgreSQL's text of a time as milliseconds since 1970, with its microseconds; NaN where it is not one. */
export function readTime(stamp: string): number {
  const fraction = /\.(\d+)/.exec(stamp)?.[1] ?? "";
  return Date.parse(stamp.replace(/\.\d+/, "")) + Number(`0.${fraction || "0"}`) * 1000;
}

function rows(value: Json | undefined): readonly JsonObject[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function byId<Row extends Member>(value: Json | undefined, read: (row: JsonObject) => Row): ReadonlyMap<number, Row> {
  return new Map(rows(value).map((row) => [int(row, "id"), read(row)]));
}

function nameOf(value: Json | undefined): string {
  return isObject(value) ? text(value, "name") : "";
}

function int(row: JsonObject, name: string): number {
  const value = row[name];
  return typeof value === "number" ? value : 0;
}

function text(row: JsonObject, name: string): string {
  const value = row[name];
  return typeof value === "string" ? value : "";
}
