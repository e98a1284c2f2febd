import { asStrings, isObject, parseJson, type Json, type JsonObject } from "./json.ts";
import { HEARTBEAT_DEFAULT_S } from "./limits.ts";
import { asRetry, readProblem, type Problem, type Retry } from "./problem.ts";
import type { SseBlock } from "./sse.ts";

/** Why a channel cannot be continued; `gap` is the client's own (it had to let go of a channel's coverage). */
export type ResetReason = "history" | "epoch" | "future" | "truncate" | "overflow" | "schema" | "gap" | (string & {});

/** The stream has begun. `resumed`: a position was given. `connection`: the secret that refreshes the token. */
export interface JoinedFrame {
  readonly kind: "joined";
  readonly id: string | undefined;
  readonly channels: readonly string[];
  readonly heartbeat_s: number;
  readonly resumed: boolean;
  readonly connection: string | undefined;
}

/** Nothing happened up to `id`. */
export interface HeartbeatFrame {
  readonly kind: "heartbeat";
  readonly id: string | undefined;
}

/** What the listener knows of these channels is void; their states follow or are to be fetched. */
export interface ResetFrame {
  readonly kind: "reset";
  readonly id: string | undefined;
  readonly channels: readonly string[];
  readonly reason: ResetReason;
}

/** Everything there is to know of one channel at this place of the stream. */
export interface StateFrame {
  readonly kind: "state";
  readonly id: string | undefined;
  readonly channel: string;
  readonly state: Json;
}

/** A row was deleted or has left the channel; `event` is the name of the events that told of it. */
export interface GoneFrame {
  readonly kind: "gone";
  readonly id: string | undefined;
  readonly channels: readonly string[];
  readonly event: string;
  readonly key: JsonObject;
}

/** The connection no longer hears these channels. */
export interface RevokedFrame {
  readonly kind: "revoked";
  readonly id: string | undefined;
  readonly channels: readonly string[];
}

/** The server ends the stream. */
export interface CloseFrame {
  readonly kind: "close";
  readonly id: undefined;
  readonly code: string;
  readonly name: string;
  readonly retry: Retry;
}

/** WebSocket: an operation was done. */
export interface AckFrame {
  readonly kind: "ack";
  readonly id: undefined;
  readonly ref: number | undefined;
  readonly channels: readonly string[];
}

/** WebSocket: an operation was refused and changed nothing. */
export interface ErrorFrame {
  readonly kind: "error";
  readonly id: undefined;
  readonly ref: number | undefined;
  readonly problem: Problem;
}

/** A change. */
export interface EventFrame {
  readonly kind: "event";
  readonly id: string | undefined;
  readonly name: string;
  readonly channels: readonly string[];
  readonly data: Json;
}

/** A frame that this client does not know and passes over; its position counts all the same. */
export interface IgnoredFrame {
  readonly kind: "ignored";
  readonly id: string | undefined;
}

/** What all transports speak. A frame without `id` does not move the position (spec/protocol.md, 2). */
export type Frame =
  | JoinedFrame
  | HeartbeatFrame
  | ResetFrame
  | StateFrame
  | GoneFrame
  | RevokedFrame
  | CloseFrame
  | AckFrame
  | ErrorFrame
  | EventFrame
  | IgnoredFrame;

/** What came is not a frame of the protocol: passing over it could be a silent gap. */
export class FrameError extends Error {
  override readonly name = "FrameError";
}

interface Raw {
  readonly event: string;
  readonly id: string | undefined;
  readonly channels: readonly string[];
  readonly data: Json;
  readonly members: JsonObject;
}

type Reader = (raw: Raw) => Frame;

/** The reserved names (3.2) and how each is read. Any other name is an event of an application. */
const READERS: Readonly<Record<string, Reader>> = {
  joined: ({ id, members }) => ({
    kind: "joined",
    id,
    channels: asStrings(members["channels"]) ?? [],
    heartbeat_s: positive(members["heartbeat_s"]) ?? HEARTBEAT_DEFAULT_S,
    resumed: members["resumed"] === true,
    connection: asText(members["connection"]),
  }),
  heartbeat: ({ id }) => ({ kind: "heartbeat", id }),
  reset: ({ id, members }) => {
    return { kind: "reset", id, channels: named(members), reason: asText(members["reason"]) ?? "history" };
  },
  state: ({ id, members }) => {
    return { kind: "state", id, channel: required(members, "channel"), state: members["state"] ?? null };
  },
  gone: ({ id, channels, members }) => ({
    kind: "gone",
    id,
    channels,
    event: required(members, "event"),
    key: isObject(members["key"]) ? members["key"] : {},
  }),
  revoked: ({ id, members }) => ({ kind: "revoked", id, channels: named(members) }),
  close: ({ members }) => ({
    kind: "close",
    id: undefined,
    code: asText(members["code"]) ?? "LC100",
    name: asText(members["name"]) ?? "internal",
    retry: asRetry(members["retry"]) ?? "later",
  }),
  open: ({ id }) => ({ kind: "ignored", id }),
  message: ({ id }) => ({ kind: "ignored", id }),
  ack: ({ id }) => ({ kind: "ignored", id }),
  error: ({ id }) => ({ kind: "ignored", id }),
};

/** Read one SSE block. Throws FrameError when its data is not what its name promises. */
export function frameOfBlock(block: SseBlock): Frame {
  const id = asPosition(block.id);
  if (block.data === undefined) return { kind: "ignored", id };
  const channels = block.channel === undefined ? [] : block.channel.split(",").map((name) => name.trim());
  const data = parseJson(block.data);
  if (data === undefined) {
    if (block.event === "message" || block.event === "open") return { kind: "ignored", id };
    throw new FrameError(`the data of ${block.event} is not JSON`);
  }
  return frameOf(block.event, id, channels, data);
}

/** Read one text frame of a WebSocket. Throws FrameError. */
export function frameOfText(text: string): Frame {
  const value = parseJson(text);
  if (!isObject(value)) throw new FrameError("a frame is not an object");
  if (value["event"] === "ack") {
    return { kind: "ack", id: undefined, ref: asInteger(value["ref"]), channels: asStrings(value["channels"]) ?? [] };
  }
  if (value["event"] === "error") {
    return { kind: "error", id: undefined, ref: asInteger(value["ref"]), problem: readProblem(value["problem"], 400) };
  }
  return frameOfMembers(value);
}

/** One answer of a long-poll: the frames in the order of a stream, where it leaves the position, whether more waits. */
export interface PollAnswer {
  readonly frames: readonly Frame[];
  readonly position: string;
  readonly more: boolean;
}

/** Read the body of a long-poll's answer. Throws FrameError. */
export function readPoll(body: Json | undefined): PollAnswer {
  if (!isObject(body)) throw new FrameError("the answer is not an object");
  const position = asPosition(body["position"]);
  const events = body["events"];
  if (position === undefined || !Array.isArray(events)) throw new FrameError("the answer has no position or no events");
  const frames: Frame[] = [
    ...objects(body["reset"]).map((members) => frameOf("reset", undefined, [], members)),
    ...objects(body["states"]).map((members) => frameOf("state", undefined, [], members)),
    ...objects(events).map(frameOfMembers),
  ];
  return { frames, position, more: body["more"] === true };
}

function frameOfMembers(members: JsonObject): Frame {
  const event = required(members, "event");
  const data = members["data"];
  if (data === undefined && Object.hasOwn(READERS, event) === false) throw new FrameError(`${event} has no data`);
  return frameOf(event, asPosition(members["id"]), asStrings(members["channels"]) ?? [], data ?? null);
}

function frameOf(event: string, id: string | undefined, channels: readonly string[], data: Json): Frame {
  const reader = Object.hasOwn(READERS, event) ? READERS[event] : undefined;
  if (reader !== undefined) return reader({ event, id, channels, data, members: isObject(data) ? data : {} });
  return { kind: "event", id, name: event, channels, data };
}

function objects(value: Json | undefined): readonly JsonObject[] {
  if (value === undefined) return [];
  if (!Array.isArray(value) || !value.every(isObject)) throw new FrameError("a list of objects was promised");
  return value;
}

function named(members: JsonObject): readonly string[] {
  const channels = asStrings(members["channels"]);
  if (channels === undefined) throw new FrameError("the frame names no channels");
  return channels;
}

function required(members: JsonObject, name: string): string {
  const value = members[name];
  if (typeof value !== "string") throw new FrameError(`the frame has no ${name}`);
  return value;
}

function asPosition(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function asText(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function asInteger(value: unknown): number | undefined {
  return Number.isInteger(value) ? (value as number) : undefined;
}

function positive(value: unknown): number | undefined {
  return typeof value === "number" && value > 0 && Number.isFinite(value) ? value : undefined;
}
