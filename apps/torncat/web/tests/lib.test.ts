import { i18n } from "@lingui/core";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { lookOf } from "../src/features/connection/look.ts";
import { align, type Sample } from "../src/lib/clock.ts";
import { elapsed } from "../src/lib/elapsed.ts";
import { en, type MessageId } from "../src/lib/i18n/en.ts";
import { fr } from "../src/lib/i18n/fr.ts";
import { initialLanguage } from "../src/lib/i18n/index.ts";
import { figures, height } from "../src/lib/latency.ts";
import { wantedMember, wantedTransports } from "../src/lib/session.ts";

const ids = Object.keys(en) as MessageId[];

describe("both languages", () => {
  const placeholders = (text: string): string[] => [
    ...new Set([...text.matchAll(/\{(\w+)/g)].map(([, name]) => name ?? "").filter((name) => /^[a-z]+$/.test(name))),
  ];

  test.each(ids)("%s: the same values, no empty sentence", (id) => {
    expect(fr[id]).not.toBe("");
    const names = (text: string): string[] => placeholders(text).filter((name) => text.includes(`{${name}}`) || text.includes(`{${name},`));
    expect(names(fr[id]).toSorted()).toEqual(names(en[id]).toSorted());
  });

  test("plurals are said as each language says them", () => {
    const say = (language: string, values: Record<string, number>): string => {
      i18n.activate(language);
      return i18n._("board.count", values);
    };
    expect(say("en", { all: 20, called: 1, mine: 0 })).toBe("1 of 20 targets called, none by you.");
    expect(say("fr", { all: 20, called: 1, mine: 1 })).toBe("1 cible appelée sur 20, 1 par vous.");
    expect(say("fr", { all: 20, called: 0, mine: 0 })).toBe("Aucune des 20 cibles n’est appelée, aucune par vous.");
  });

  test.each([
    [null, ["fr-CA", "en"], "fr"],
    [null, ["de", "fr"], "fr"],
    [null, ["de"], "en"],
    ["en", ["fr"], "en"],
    ["xx", ["fr"], "fr"],
  ] as const)("kept %s, wished %s: %s", (kept, wished, language) => {
    expect(initialLanguage(kept, wished)).toBe(language);
  });
});

describe("aligned clocks", () => {
  test("the true offset is always within the error, whatever the network and the rounding do", () => {
    const trip = fc.tuple(fc.nat(80), fc.nat(80), fc.nat(1_000_000));
    fc.assert(
      fc.property(fc.array(trip, { minLength: 1, maxLength: 6 }), fc.integer({ min: -9_999, max: 9_999 }), fc.nat(50), (trips, tenths, latency) => {
        const offset = tenths / 10;
        const samples = trips.map(([there, back, at]): Sample => {
          const [asked_at, seen_at] = [at / 7, at / 7 + there / 3];
          return { asked_at, server_time: Math.round(seen_at + offset), answered_at: seen_at + back / 3 };
        });
        // An event that took `latency`: stamped minus arrived.
        const found = align(samples, offset - latency);
        expect(found).toBeDefined();
        expect(Math.abs((found?.offset_ms ?? 0) - offset)).toBeLessThanOrEqual((found?.error_ms ?? 0) + 1e-6);
      }),
      { numRuns: 1_000 },
    );
  });

  test("without a sample nothing is known; where samples contradict each other the quickest counts", () => {
    expect(align([])).toBeUndefined();
    const quick = { asked_at: 0, server_time: 100, answered_at: 2 };
    const drifted = { asked_at: 50_000, server_time: 90_000, answered_at: 50_010 };
    expect(align([drifted, quick])).toMatchObject({ offset_ms: 99, error_ms: 1.5, samples: 2 });
  });
});

test("figures are of the latencies themselves", () => {
  expect(figures([])).toBeUndefined();
  expect(figures([3])).toEqual({ count: 1, last: 3, p50: 3, p95: 3, max: 3 });
  const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
  expect(figures(hundred)).toEqual({ count: 100, last: 100, p50: 50, p95: 95, max: 100 });
});

test("bars stand between nothing and the top", () => {
  fc.assert(
    fc.property(fc.double({ min: -10, max: 1e6, noNaN: true }), (latency) => {
      expect(height(latency)).toBeGreaterThan(0);
      expect(height(latency)).toBeLessThanOrEqual(1);
    }),
  );
});

test("elapsed time reads like a stopwatch", () => {
  const after = (seconds: number): string => elapsed(0, seconds * 1_000);
  expect([-5, 7, 750, 3_723].map(after)).toEqual(["0:00", "0:07", "12:30", "1:02:03"]);
});

test("the address chooses a member and a transport, and nonsense is passed over", () => {
  expect(["?member=1003", "?member=x", "?member=-1", ""].map(wantedMember)).toEqual([1003, undefined, undefined, undefined]);
  expect(wantedTransports("?transport=long-poll")).toEqual(["long-poll"]);
  expect(wantedTransports("?transport=pigeon")).toBeUndefined();
});

test("a short interruption is no alarm; fifteen seconds are", () => {
  const status = { phase: "waiting", since: 0, transport: "sse", retry_at: 0, problem: undefined, role: "alone" } as const;
  expect(lookOf(status, 1_000, 15_000)).toBe("reconnecting");
  expect(lookOf(status, 1_000, 17_000)).toBe("offline");
  expect(lookOf({ ...status, phase: "opening" }, undefined, 5_000)).toBe("connecting");
  expect(lookOf({ ...status, phase: "live" }, 0, 99_000)).toBe("live");
  expect(lookOf({ ...status, phase: "stopped" }, 0, 0)).toBe("stopped");
});
