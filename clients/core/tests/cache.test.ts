import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { Cache } from "../src/cache.ts";
import type { KeyValueStore } from "../src/environment.ts";
import { settle } from "./until.ts";

/** localStorage as the Storage specification words it, with a quota. */
class Shelf implements KeyValueStore {
  readonly items = new Map<string, string>();
  quota = Infinity;

  getItem(key: string): string | null {
    return this.items.get(key) ?? null;
  }

  setItem(key: string, value: string): void {
    if (value.length > this.quota) throw new Error("QuotaExceededError");
    this.items.set(key, value);
  }

  removeItem(key: string): void {
    this.items.delete(key);
  }
}

let now: number;
let shelf: Shelf;
let cache: Cache;
let loads: number;

function fresh(options: { entries_max?: number; stored_max_chars?: number } = {}): Cache {
  return new Cache({ environment: { now: () => now, storage: shelf }, name: "app:1", ...options });
}

function counted(): Promise<number> {
  loads += 1;
  return Promise.resolve(loads);
}

beforeEach(() => {
  now = 0;
  shelf = new Shelf();
  loads = 0;
  cache = fresh();
});

describe("time", () => {
  test("a young value is taken, an old one is loaded anew", async () => {
    const how = { ttl_ms: 100, load: counted };
    expect(await cache.read("k", how)).toBe(1);
    now = 99;
    expect(await cache.read("k", how)).toBe(1);
    now = 100;
    expect(await cache.read("k", how)).toBe(2);
  });

  test("a stale value serves at once while the new one is loaded", async () => {
    const how = { ttl_ms: 100, stale_ms: 1_000, load: counted };
    await cache.read("k", how);
    now = 500;
    expect(await cache.read("k", how)).toBe(1);
    await settle();
    expect(await cache.read("k", how)).toBe(2);
    now = 1_600;
    expect(await cache.read("k", how)).toBe(3);
  });

  test("a failed load leaves the stale value, and is rejected only where there is none", async () => {
    await cache.read("k", { ttl_ms: 100, load: counted });
    now = 200;
    const failing = { ttl_ms: 100, stale_ms: 1_000, load: () => Promise.reject(new Error("away")) };
    expect(await cache.read("k", failing)).toBe(1);
    await settle();
    expect(await cache.read("k", failing)).toBe(1);
    await expect(cache.read("other", failing)).rejects.toThrow("away");
  });

  test("those who ask at the same time share one load", async () => {
    const how = { ttl_ms: 100, load: counted };
    expect(await Promise.all([cache.read("k", how), cache.read("k", how), cache.read("k", how)])).toEqual([1, 1, 1]);
  });
});

describe("invalidation", () => {
  test("by key and by tag, in memory and in storage, and whoever listens is told", async () => {
    const how = { ttl_ms: 100, stored: true, tags: ["war:1"], load: counted };
    await cache.read("a", how);
    await cache.read("b", how);
    let told = 0;
    cache.subscribe("a", () => (told += 1));
    cache.invalidate("war:1");
    expect([cache.peek("a"), cache.peek("b"), told]).toEqual([undefined, undefined, 1]);
    expect(fresh().peek("a")).toBeUndefined();
    await cache.read("a", how);
    cache.invalidate("a");
    expect(cache.peek("a")).toBeUndefined();
  });

  test("a load that began before is not kept after, whoever asked for it", async () => {
    let answer: (value: string) => void = () => {};
    const slow = new Promise<string>((resolve) => (answer = resolve));
    const first = cache.read("k", { ttl_ms: 100, tags: ["t"], load: () => slow });
    cache.invalidate("t");
    const second = cache.read("k", { ttl_ms: 100, tags: ["t"], load: () => Promise.resolve("new") });
    expect(await second).toBe("new");
    answer("old");
    expect(await first).toBe("old");
    await settle();
    expect(cache.peek("k")).toBe("new");
  });
});

describe("storage", () => {
  test("the next page has what was stored, as old as it is", async () => {
    const how = { ttl_ms: 100, stored: true, load: counted };
    await cache.read("k", how);
    now = 50;
    expect(await fresh().read("k", how)).toBe(1);
    now = 100;
    expect(await fresh().read("k", how)).toBe(2);
  });

  test("a store that is full or forbidden makes nothing fail", async () => {
    shelf.quota = 3;
    expect(await cache.read("k", { ttl_ms: 100, stored: true, load: counted })).toBe(1);
    expect(cache.peek("k")).toBe(1);
    const forbidden = new Cache({ environment: { now: () => now, storage: undefined }, name: "x" });
    expect(await forbidden.read("k", { ttl_ms: 100, stored: true, load: counted })).toBe(2);
  });

  test.each(["{", "[1,2]", '["k"]', "null", '{"k":1}'])("what somebody else wrote there is passed over: %s", (text) => {
    shelf.setItem("lastcall:cache:app:1:", text);
    shelf.setItem("lastcall:cache:app:1:k", text);
    expect(fresh().peek("k")).toBeUndefined();
  });

  test("names keep users apart", async () => {
    await cache.read("k", { ttl_ms: 100, stored: true, load: counted });
    expect(new Cache({ environment: { now: () => now, storage: shelf }, name: "app:2" }).peek("k")).toBeUndefined();
  });
});

test("the bounds hold, and the least recently used go first", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(12), { maxLength: 60 }), async (keys) => {
      const bounded = fresh({ entries_max: 4, stored_max_chars: 200 });
      const recent: number[] = [];
      for (const key of keys) {
        await bounded.read(`k${key}`, { ttl_ms: Infinity, stored: true, load: () => Promise.resolve("x".repeat(key)) });
        recent.splice(0, recent.length, ...recent.filter((one) => one !== key), key);
      }
      const kept = [...new Set(keys)].filter((key) => bounded.peek(`k${key}`) !== undefined);
      expect(kept.toSorted()).toEqual(recent.slice(-4).toSorted());
      const stored = [...shelf.items].filter(([key]) => /:k\d+$/.test(key)).map(([, text]) => text.length);
      expect(stored.reduce((sum, length) => sum + length, 0)).toBeLessThanOrEqual(200);
      bounded.clear();
      expect([...shelf.items.keys()].filter((key) => /:k\d+$/.test(key))).toEqual([]);
    }),
  );
});
