import type { Cancel, Environment } from "./environment.ts";
import { isObject, parseJson, type Json } from "./json.ts";
import { CACHE_ENTRIES_MAX, CACHE_STORED_MAX_CHARS } from "./limits.ts";

/** How to read one value. */
export interface CacheRead<T extends Json> {
  /** Younger than this it is taken as it is. */
  readonly ttl_ms: number;
  /** Older than that but younger than `ttl_ms + stale_ms` it is taken too, and loaded anew behind the scenes. */
  readonly stale_ms?: number;
  /** What the value depends on; `invalidate` of one of these forgets it. */
  readonly tags?: readonly string[];
  /** Keep it in localStorage as well, so that the next page has it at once. */
  readonly stored?: boolean;
  load(): Promise<T>;
}

/** What a cache is made of. */
export interface CacheOptions {
  readonly environment: Pick<Environment, "now" | "storage">;
  /** Keeps the values of different applications and users apart in localStorage. */
  readonly name: string;
  readonly entries_max?: number;
  readonly stored_max_chars?: number;
}

interface Entry {
  readonly value: Json;
  readonly loaded_at: number;
  readonly tags: readonly string[];
}

interface Loading {
  readonly promise: Promise<Json>;
  readonly tags: readonly string[];
  /** Invalidated while under way: what comes may be older than the invalidation, so it is not kept. */
  void: boolean;
}

/**
 * Values that were loaded, for a while: in memory, and where wanted in localStorage.
 *
 * Promises: a value older than its time is never taken; after `invalidate` returns, no value loaded before is; those who
 * ask at the same time share one load; a failed load leaves what was there; the least recently used entries go when the
 * bounds are reached; a localStorage that is full or forbidden makes nothing fail.
 */
export class Cache {
  readonly #environment: Pick<Environment, "now" | "storage">;
  readonly #prefix: string;
  readonly #entries_max: number;
  readonly #stored_max_chars: number;
  /** Least recently used first. */
  readonly #entries = new Map<string, Entry>();
  readonly #loading = new Map<string, Loading>();
  readonly #listeners = new Map<string, Set<() => void>>();
  /** Keys in localStorage and the length of what they hold, least recently written first. */
  readonly #stored = new Map<string, number>();

  constructor(options: CacheOptions) {
    this.#environment = options.environment;
    this.#prefix = `lastcall:cache:${options.name}:`;
    this.#entries_max = options.entries_max ?? CACHE_ENTRIES_MAX;
    this.#stored_max_chars = options.stored_max_chars ?? CACHE_STORED_MAX_CHARS;
    this.#restore();
  }

  /** The value: from here where it is young enough, else loaded. Rejects only when a load that it needs does. */
  async read<T extends Json>(key: string, how: CacheRead<T>): Promise<T> {
    const entry = this.#entries.get(key);
    const age_ms = entry === undefined ? Infinity : this.#environment.now() - entry.loaded_at;
    if (entry === undefined || age_ms >= how.ttl_ms + (how.stale_ms ?? 0)) return (await this.#load(key, how)) as T;
    this.#touch(key, entry);
    if (age_ms >= how.ttl_ms) this.#load(key, how).catch(() => {}); // The stale value serves until a load succeeds.
    return entry.value as T;
  }

  /** The value at hand, however old, without loading. */
  peek(key: string): Json | undefined {
    return this.#entries.get(key)?.value;
  }

  /** Forget everything that has this tag, or this key, here and in localStorage. */
  invalidate(tag: string): void {
    for (const [key, loading] of this.#loading) {
      if (key === tag || loading.tags.includes(tag)) {
        loading.void = true;
        this.#loading.delete(key);
      }
    }
    for (const [key, entry] of this.#entries) {
      if (key !== tag && !entry.tags.includes(tag)) continue;
      this.#forget(key);
      this.#tell(key);
    }
  }

  /** Forget everything (somebody else signed in). */
  clear(): void {
    for (const loading of this.#loading.values()) loading.void = true;
    this.#loading.clear();
    for (const key of this.#entries.keys()) {
      this.#forget(key);
      this.#tell(key);
    }
  }

  /** Be told when the value of a key came, changed or was forgotten. */
  subscribe(key: string, listener: () => void): Cancel {
    const listeners = this.#listeners.get(key) ?? new Set();
    this.#listeners.set(key, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#listeners.delete(key);
    };
  }

  #load<T extends Json>(key: string, how: CacheRead<T>): Promise<Json> {
    const under_way = this.#loading.get(key);
    if (under_way !== undefined) return under_way.promise;
    const loading: Loading = { promise: how.load(), tags: how.tags ?? [], void: false };
    this.#loading.set(key, loading);
    loading.promise.then(
      (value) => {
        if (loading.void) return;
        this.#loading.delete(key);
        this.#keep(key, { value, loaded_at: this.#environment.now(), tags: loading.tags }, how.stored === true);
      },
      () => {
        if (!loading.void) this.#loading.delete(key);
      },
    );
    return loading.promise;
  }

  #keep(key: string, entry: Entry, stored: boolean): void {
    this.#touch(key, entry);
    if (stored) this.#store(key, entry);
    while (this.#entries.size > this.#entries_max) {
      const [oldest] = this.#entries.keys();
      if (oldest === undefined) break;
      this.#forget(oldest);
    }
    this.#tell(key);
  }

  #touch(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#entries.set(key, entry);
  }

  #forget(key: string): void {
    this.#entries.delete(key);
    this.#unstore(key);
  }

  #tell(key: string): void {
    for (const listener of [...(this.#listeners.get(key) ?? [])]) listener();
  }

  #store(key: string, entry: Entry): void {
    this.#unstore(key);
    const text = JSON.stringify(entry);
    let chars = [...this.#stored.values()].reduce((sum, length) => sum + length, text.length);
    if (text.length > this.#stored_max_chars) return;
    for (const [oldest, length] of this.#stored) {
      if (chars <= this.#stored_max_chars) break;
      chars -= length;
      this.#unstore(oldest);
    }
    try {
      this.#environment.storage?.setItem(this.#prefix + key, text);
      this.#stored.set(key, text.length);
      this.#writeIndex();
    } catch {
      this.#stored.delete(key); // Full or forbidden: memory serves.
    }
  }

  #unstore(key: string): void {
    if (!this.#stored.delete(key)) return;
    try {
      this.#environment.storage?.removeItem(this.#prefix + key);
      this.#writeIndex();
    } catch {
      // Forbidden: there is nothing to remove then.
    }
  }

  #writeIndex(): void {
    this.#environment.storage?.setItem(this.#prefix, JSON.stringify([...this.#stored.keys()]));
  }

  #restore(): void {
    const index = this.#readStored("");
    if (!Array.isArray(index)) return;
    for (const key of index) {
      if (typeof key !== "string") continue;
      const entry = this.#readStored(key);
      if (!isObject(entry) || typeof entry["loaded_at"] !== "number" || entry["value"] === undefined) continue;
      const tags = Array.isArray(entry["tags"]) ? entry["tags"].filter((tag) => typeof tag === "string") : [];
      this.#entries.set(key, { value: entry["value"], loaded_at: entry["loaded_at"], tags });
      this.#stored.set(key, JSON.stringify(entry).length);
    }
  }

  #readStored(key: string): Json | undefined {
    try {
      const text = this.#environment.storage?.getItem(this.#prefix + key);
      return typeof text === "string" ? parseJson(text) : undefined;
    } catch {
      return undefined; // Forbidden.
    }
  }
}
