import fc from "fast-check";
import { expect, test } from "vitest";
import type { Frame } from "../src/frames.ts";
import { SEEN_IDS_MAX } from "../src/limits.ts";
import { Place } from "../src/place.ts";

function change(number: number): Frame {
  return { kind: "event", id: `e.${number}.1`, name: "n", channels: ["a:1"], data: number };
}

/** A stream from the start of one leader: each change with the position before it. */
function stream(from: number, to: number): (readonly [string, Frame])[] {
  return Array.from({ length: to - from }, (_, index) => [`e.${from + index}.1`, change(from + index + 1)] as const);
}

test("a stream heard from its beginning passes, whole and in order", () => {
  const place = new Place(undefined);
  expect(stream(0, 9).map(([previous, frame]) => place.take(previous, frame))).toEqual(Array(9).fill("pass"));
  expect(place.at).toBe("e.9.1");
});

test("a leader that begins further back repeats what was seen: each change passes once", () => {
  fc.assert(
    fc.property(fc.nat(30), fc.nat(30), fc.nat(30), (mine, back, ahead) => {
      const place = new Place(undefined);
      for (const [previous, frame] of stream(0, mine + 1)) place.take(previous, frame);
      const from = Math.max(0, mine + 1 - back);
      const verdicts = stream(from, mine + 1 + ahead).map(([previous, frame]) => place.take(previous, frame));
      const expected = verdicts.map((_, index) => (from + index < mine + 1 ? "seen" : "pass"));
      expect(verdicts).toEqual(expected);
    }),
  );
});

test("a leader that begins further on is a gap, once", () => {
  const place = new Place(undefined);
  for (const [previous, frame] of stream(0, 5)) place.take(previous, frame);
  const verdicts = stream(7, 10).map(([previous, frame]) => place.take(previous, frame));
  expect(verdicts).toEqual(["gap", "pass", "pass"]);
});

test("a leader that has no position is a gap", () => {
  const place = new Place("e.3.1");
  expect(place.take(undefined, { kind: "heartbeat", id: "e.9.0" })).toBe("gap");
  expect(place.at).toBe("e.9.0");
});

test("a head may come again and again, and a state at it is never taken for seen", () => {
  const place = new Place(undefined);
  place.take(undefined, { kind: "heartbeat", id: "e.1.0" });
  expect(place.take("e.1.0", { kind: "heartbeat", id: "e.1.0" })).toBe("pass");
  expect(place.take("e.1.0", { kind: "state", id: "e.1.0", channel: "a:1", state: 1 })).toBe("pass");
});

test("frames without an id stand where they are said", () => {
  const place = new Place("e.1.0");
  expect(place.take("e.1.0", { kind: "reset", id: undefined, channels: ["a:1"], reason: "history" })).toBe("pass");
  expect(place.at).toBe("e.1.0");
});

test("what is remembered is bounded; what was forgotten is a gap, not a repetition", () => {
  const place = new Place(undefined);
  for (const [previous, frame] of stream(0, SEEN_IDS_MAX + 10)) place.take(previous, frame);
  expect(place.follows("e.5.1")).toBe(false);
  expect(place.follows(`e.${SEEN_IDS_MAX}.1`)).toBe(true);
});
