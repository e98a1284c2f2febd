/** Call it to call off what it was returned for; a second time is harmless. */
export type Cancel = () => void;

/** The part of localStorage that is used. Every method may throw (quota, privacy settings). */
export interface KeyValueStore {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** The part of BroadcastChannel that is used. */
export interface Broadcast {
  post(message: unknown): void;
  onMessage(listener: (message: unknown) => void): void;
  close(): void;
}

/** How to ask for a lock; never both members at once. */
export interface HoldOptions {
  readonly signal?: AbortSignal;
  readonly steal?: boolean;
}

/** The part of Web Locks that is used. */
export interface Locks {
  /**
   * Run `held` when the lock is ours and keep it until its promise settles. `signal` calls off the waiting; `steal`
   * takes the lock from its holder, whose own `hold` then rejects.
   */
  hold(name: string, how: HoldOptions, held: () => Promise<void>): Promise<void>;
}

/** An open or opening WebSocket. */
export interface Socket {
  /** Does nothing when the socket is not open. */
  send(text: string): void;
  /** After it no handler is called. */
  close(): void;
}

/** What a WebSocket tells. `closed` comes once, last, also when it never opened (code 1006). */
export interface SocketHandlers {
  message(data: unknown): void;
  closed(code: number): void;
}

/**
 * Everything outside that the client touches. Tests and unusual platforms give their own instead of mocks; a part that
 * the platform lacks is undefined and what needs it is not offered.
 */
export interface Environment {
  readonly fetch: ((input: string, init?: RequestInit) => Promise<Response>) | undefined;
  readonly openSocket: ((url: string, protocols: readonly string[], handlers: SocketHandlers) => Socket) | undefined;
  readonly storage: KeyValueStore | undefined;
  readonly locks: Locks | undefined;
  readonly openBroadcast: ((name: string) => Broadcast) | undefined;
  /** Milliseconds since 1970; must go on while the machine sleeps. */
  now(): number;
  /** At least 0, less than 1. */
  random(): number;
  /** 32 hexadecimal digits, unique. */
  uniqueId(): string;
  /** Do it once, later. */
  after(delay_ms: number, action: () => void): Cancel;
  /** The network came back, or the page came into view: a good moment to look again. */
  onWake(listener: () => void): Cancel;
  /** The page is being left (it may be kept and come back). */
  onLeave(listener: () => void): Cancel;
  /** A page that was left came back from the browser's memory. */
  onReturn(listener: () => void): Cancel;
}

/** The environment of a browser page, or of Node as far as it has the same things. */
export function browserEnvironment(overrides: Partial<Environment> = {}): Environment {
  return {
    fetch: typeof fetch === "function" ? (input, init) => fetch(input, init) : undefined,
    openSocket: typeof WebSocket === "function" ? openSocket : undefined,
    storage: localStore(),
    locks: webLocks(),
    openBroadcast: typeof BroadcastChannel === "function" ? openBroadcast : undefined,
    now: () => Date.now(),
    random: () => Math.random(),
    uniqueId,
    after(delay_ms, action) {
      const timer = setTimeout(action, delay_ms);
      return () => clearTimeout(timer);
    },
    onWake: (listener) => both(on("online", listener), onVisible(listener)),
    onLeave: (listener) => on("pagehide", listener),
    onReturn: (listener) =>
      on("pageshow", (event) => {
        if ("persisted" in event && event.persisted === true) listener();
      }),
    ...overrides,
  };
}

/** Chosen with care: `crypto.randomUUID` exists on secure origins only, `getRandomValues` everywhere. */
function uniqueId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function localStore(): KeyValueStore | undefined {
  try {
    return typeof window === "undefined" ? undefined : window.localStorage;
  } catch {
    return undefined; // Reading the property itself throws where a browser forbids storage.
  }
}

function webLocks(): Locks | undefined {
  if (typeof navigator === "undefined" || !("locks" in navigator) || navigator.locks === undefined) return undefined;
  const locks = navigator.locks;
  return {
    async hold(name, how, held) {
      await locks.request(name, how, held);
    },
  };
}

function openSocket(url: string, protocols: readonly string[], handlers: SocketHandlers): Socket {
  const socket = new WebSocket(url, [...protocols]);
  socket.onmessage = (event: MessageEvent<unknown>) => handlers.message(event.data);
  socket.onclose = (event) => handlers.closed(event.code);
  return {
    send(text) {
      if (socket.readyState === WebSocket.OPEN) socket.send(text);
    },
    close() {
      socket.onmessage = null;
      socket.onclose = null;
      socket.close();
    },
  };
}

function openBroadcast(name: string): Broadcast {
  const channel = new BroadcastChannel(name);
  return {
    post: (message) => channel.postMessage(message),
    onMessage(listener) {
      channel.onmessage = (event: MessageEvent<unknown>) => listener(event.data);
    },
    close: () => channel.close(),
  };
}

function on(name: string, listener: (event: Event) => void): Cancel {
  if (typeof window === "undefined") return () => {};
  window.addEventListener(name, listener);
  return () => window.removeEventListener(name, listener);
}

function onVisible(listener: () => void): Cancel {
  if (typeof document === "undefined") return () => {};
  const check = (): void => {
    if (document.visibilityState === "visible") listener();
  };
  document.addEventListener("visibilitychange", check);
  return () => document.removeEventListener("visibilitychange", check);
}

function both(first: Cancel, second: Cancel): Cancel {
  return () => {
    first();
    second();
  };
}
