import { describe, expect, test } from "vitest";
import { FrameError, frameOfBlock, frameOfText, readPoll, type Frame } from "../src/frames.ts";
import { parseJson } from "../src/json.ts";
import { readProblem } from "../src/problem.ts";
import { SseParser } from "../src/sse.ts";
import { CLOSE_CODES } from "../src/transports/websocket.ts";
import { readSpec, vectors, type VectorFrame } from "./vectors.ts";

/** What a frame of the vectors means, in the words of the client. */
function meant({ id, event, channels = [], data }: VectorFrame): Partial<Frame> & { kind: string } {
  const value = JSON.parse(data) as never;
  const said = value as Record<string, never>;
  switch (event) {
    case "joined": {
      const { channels: heard, heartbeat_s, resumed, connection } = said;
      return { kind: event, id, channels: heard, heartbeat_s, resumed, connection } as never;
    }
    case "heartbeat":
      return { kind: event, id };
    case "close":
      return { kind: event, id: undefined, ...said };
    case "reset":
    case "state":
    case "revoked":
      return { kind: event, id, ...said } as never;
    case "gone":
      return { kind: event, id, channels, ...said } as never;
    default:
      return { kind: "event", id, name: event, channels, data: value };
  }
}

test.each(vectors("sse").blocks)("SSE: $name", ({ block, frame }) => {
  const [parsed] = new SseParser().pushText(block);
  expect(parsed && frameOfBlock(parsed)).toEqual(meant(frame));
});

test.each(vectors("websocket").frames)("WebSocket: $name", ({ text, frame }) => {
  expect(frameOfText(text)).toEqual(meant(frame));
});

test.each(vectors("websocket").replies)("WebSocket, answer: $name", ({ text, reply, facts }) => {
  const frame = frameOfText(text);
  if (reply.event === "ack") {
    expect(frame).toEqual({ kind: "ack", id: undefined, ref: reply.ref, channels: reply.channels });
  } else {
    expect(frame).toMatchObject({ kind: "error", ref: reply.ref, problem: { code: reply.problem?.code, facts: facts ?? {} } });
  }
});

test.each(vectors("long_poll").answers)("long-poll: $name", ({ text, answer }) => {
  const read = readPoll(parseJson(text));
  const { position, events, more = false, reset = [], states = [] } = answer;
  expect(read).toEqual({
    position,
    more,
    frames: [
      ...reset.map((frame) => ({ kind: "reset", id: undefined, ...frame })),
      ...states.map(({ channel, state }) => ({ kind: "state", id: undefined, channel, state: JSON.parse(state) as never })),
      ...events.map(meant),
    ],
  });
});

test.each(vectors("problems").problems)("problem: $name", ({ document }) => {
  const said = JSON.parse(document) as Record<string, unknown>;
  expect(readProblem(said, 400)).toMatchObject(said);
});

describe("what is not in the vectors", () => {
  test("unknown names that the protocol reserves are passed over, and their position counts", () => {
    for (const event of ["open", "message", "ack", "error"]) {
      expect(frameOfBlock({ event, id: "a.1.0", data: "{}", channel: undefined })).toEqual({ kind: "ignored", id: "a.1.0" });
    }
  });

  test("a block without data moves the position and is nothing else", () => {
    expect(frameOfBlock({ event: "note", id: "a.1.0", data: undefined, channel: undefined })).toEqual({
      kind: "ignored",
      id: "a.1.0",
    });
  });

  test("an event called like a member of every object is an event", () => {
    const frame = frameOfBlock({ event: "constructor", id: "a.1.1", data: "1", channel: "bar:1" });
    expect(frame).toEqual({ kind: "event", id: "a.1.1", name: "constructor", channels: ["bar:1"], data: 1 });
  });

  test.each(["", "{", "[1]", "1", '{"id":"a"}', '{"event":"note"}', '{"event":"reset","data":{}}', '{"event":7,"data":1}'])(
    "a frame that cannot be read is an error, never a silent gap: %s",
    (text) => {
      expect(() => frameOfText(text)).toThrow(FrameError);
    },
  );

  test.each(['{"events":[]}', '{"position":"a.1.0"}', '{"position":"a.1.0","events":[1]}', "null"])(
    "an answer of a long-poll that cannot be read is an error: %s",
    (text) => {
      expect(() => readPoll(parseJson(text))).toThrow(FrameError);
    },
  );

  test("the close codes are those of spec/codes.toml", () => {
    const declared: Record<number, { code: string; name: string; retry: string }> = {};
    for (const table of readSpec("codes.toml").matchAll(/^\[(LC\d{3})\]\n((?:[^[\n].*\n)*)/gm)) {
      const members = table[2] ?? "";
      const member = (name: string): string => new RegExp(`^${name} = "?([^"\n]+)"?$`, "m").exec(members)?.[1] ?? "";
      if (member("close") === "") continue;
      declared[Number(member("close"))] = { code: table[1] ?? "", name: member("name"), retry: member("retry") };
    }
    expect(CLOSE_CODES).toEqual(declared);
  });

  test("a page of a proxy becomes a problem by its status", () => {
    expect(readProblem("<html>", 502)).toMatchObject({ code: "HTTP502", retry: "later" });
    expect(readProblem(undefined, 401)).toMatchObject({ retry: "fresh" });
    expect(readProblem(undefined, 404)).toMatchObject({ retry: "no" });
    expect(readProblem(undefined, 503, "7")).toMatchObject({ retry: "later", retry_after_s: 7 });
    expect(readProblem(undefined, 503, "Fri, 20 Nov 2026 18:00:00 GMT").retry_after_s).toBeUndefined();
  });
});
