import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { counts, shows, type Line } from "../src/features/board/filter.ts";
import { standing, stillNeeded, type Overlay } from "../src/features/board/overlay.ts";
import { latencyOf, leastOffset, withEvent, KEPT, type Entry } from "../src/lib/history.ts";
import { afterEvent, readTime, readWar } from "../src/lib/war.ts";

const STATE = {
  faction: { id: 101, name: "Night Ferry" },
  enemy: { id: 202, name: "Copper Vultures" },
  war: { id: 1, started_at: "2026-11-20T18:00:00.123456+00:00", target_score: 5200 },
  members: [{ id: 1001, name: "Brasslock" }],
  targets: [
    { id: 2002, name: "Bitterroot", level: 88 },
    { id: 2001, name: "Ashcroft-9", level: 12 },
  ],
  calls: [{ id: 5, caller_id: 1001, target_id: 2001, created_at: "2026-11-20T18:04:05+00:00" }],
};

function called(id: number, target_id: number, caller_id = 1002): Parameters<typeof afterEvent>[1] {
  const data = { id, caller_id, target_id, created_at: "2026-11-20T18:04:05.5+00:00" };
  return { channel: "faction:101", name: "target_call", id: `e.${id}.1`, data };
}

function released(id: number, target_id: number): Parameters<typeof afterEvent>[1] {
  const data = { id, caller_id: 1002, target_id, released_at: "2026-11-20T18:05:05+00:00", reason: "hit" };
  return { channel: "faction:101", name: "call_released", id: `e.${id}.2`, data };
}

describe("the war", () => {
  test("is read as the server sends it, targets in the server's order", () => {
    const war = readWar(STATE);
    expect([...war.targets.keys()]).toEqual([2002, 2001]);
    expect(war.calls.get(2001)?.caller_id).toBe(1001);
  });

  test.each([null, 1, [], {}, { war: null, targets: "none" }])("a state without a war is peace: %s", (state) => {
    const war = readWar(state as never);
    expect([war.running, war.targets.size, war.calls.size]).toEqual([undefined, 0, 0]);
  });

  test("a release ends the call it names, never a newer one", () => {
    const war = afterEvent(readWar(STATE), called(9, 2002));
    expect(afterEvent(war, released(8, 2002)).calls.get(2002)?.id).toBe(9);
    expect(afterEvent(war, released(9, 2002)).calls.has(2002)).toBe(false);
  });

  test("events that are applied again change nothing more", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(3)), { maxLength: 20 }), (steps) => {
        const history = steps.map(([call, target], index) => (call ? called(index, target) : released(index, target)));
        const once = history.reduce(afterEvent, readWar(STATE));
        const again = [...history.slice(-5), ...history.slice(-5)].reduce(afterEvent, once);
        const held = (war: typeof once): unknown => [...war.calls].filter(([target]) => target < 4);
        if (history.length <= 5) expect(held(again)).toEqual(held(once));
      }),
    );
  });

  test("unknown events are passed over", () => {
    const war = readWar(STATE);
    expect(afterEvent(war, { channel: "faction:101", name: "score", id: "e.1.1", data: { score: 3 } })).toBe(war);
    expect(afterEvent(war, { channel: "faction:101", name: "target_call", id: "e.1.1", data: null })).toBe(war);
  });

  test("a time keeps its microseconds", () => {
    expect(readTime("2026-11-20T18:04:05.123456+00:00")).toBeCloseTo(Date.UTC(2026, 10, 20, 18, 4, 5) + 123.456, 3);
    expect(readTime("2026-11-20T18:04:05+00:00")).toBe(Date.UTC(2026, 10, 20, 18, 4, 5));
    expect(readTime("nonsense")).toBeNaN();
  });
});

describe("a click before its event", () => {
  const call: Overlay = { kind: "call", target_id: 2002 };
  const release: Overlay = { kind: "release", target_id: 2001, call_id: 5 };

  test("shows at once", () => {
    const war = readWar(STATE);
    expect(standing(war, 2002, 1001, [call]).kind).toBe("calling");
    expect(standing(war, 2001, 1001, [release]).kind).toBe("releasing");
    expect(standing(war, 2001, 1001, []).kind).toBe("mine");
    expect(standing(war, 2001, 1002, []).kind).toBe("held");
  });

  test("gives way as soon as the stream tells of its target, whoever has it then", () => {
    const war = afterEvent(readWar(STATE), called(9, 2002));
    expect(stillNeeded([call, release], war)).toEqual([release]);
    expect(standing(war, 2002, 1001, [call]).kind).toBe("held");
    expect(stillNeeded([release], afterEvent(war, released(5, 2001)))).toEqual([]);
  });
});

test("the filters show what they say, and a click under way stays where it is", () => {
  const war = readWar(STATE);
  const lines = [...war.targets.values()].map(
    (target): Line => ({ target, standing: standing(war, target.id, 1001, []) }),
  );
  const names = (filter: Parameters<typeof shows>[0]): string[] =>
    lines.filter((line) => shows(filter, line)).map((line) => line.target.name);
  expect(names("free")).toEqual(["Bitterroot"]);
  expect(names("called")).toEqual(["Ashcroft-9"]);
  expect(names("mine")).toEqual(["Ashcroft-9"]);
  expect(counts(lines)).toEqual({ all: 2, called: 1, mine: 1 });
  const target = lines[0]?.target ?? { id: 0, name: "", level: 0 };
  expect(shows("mine", { target, standing: { kind: "calling" } })).toBe(true);
});

describe("the list of events", () => {
  test("newest first, bounded, each with a key of its own", () => {
    let entries: readonly Entry[] = [];
    for (let id = 0; id < KEPT + 20; id += 1) entries = withEvent(entries, called(id, id), id, false);
    expect(entries).toHaveLength(KEPT);
    expect(entries[0]?.target_id).toBe(KEPT + 19);
    expect(new Set(entries.map((entry) => entry.key)).size).toBe(KEPT);
  });

  test("an event that was delivered late has no latency", () => {
    const [entry] = withEvent([], called(1, 2002), readTime("2026-11-20T18:04:05.504+00:00"), false);
    const [late] = withEvent([], called(1, 2002), 0, true);
    expect(entry && latencyOf(entry, 2)).toBeCloseTo(6, 3);
    expect(late && latencyOf(late, 2)).toBeUndefined();
    expect(entry && leastOffset([entry])).toBeCloseTo(-4, 3);
    expect(leastOffset([])).toBe(-Infinity);
  });
});
