import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Client } from "../src/client.ts";
import { browserEnvironment, type Environment } from "../src/environment.ts";
import type { Json } from "../src/json.ts";
import type { TransportName } from "../src/transports/transport.ts";
import { LocksOfOneBrowser } from "./locks.ts";
import { ProtocolServer } from "./protocol-server.ts";
import { openSocket } from "./sockets.ts";
import { until } from "./until.ts";

/** One tab of one browser: a client, what it was told of `a:1`, and the ways it can end. */
interface Tab {
  readonly client: Client;
  readonly told: Json[];
  crash(): void;
  freeze(): void;
}

let server: ProtocolServer;
let locks: LocksOfOneBrowser;
let tabs: Tab[];
let browsers = 0;
let name: string;

/** Long waits of the tabs pass a hundred times faster. */
const HASTE = 0.01;

function environment(crashed: AbortSignal, frozen: { now: boolean }): Environment {
  const base = browserEnvironment({ openSocket });
  return {
    ...base,
    locks: {
      // What a crashed page held is released, without the page having a say.
      hold: (lock, how, held) =>
        locks.hold(lock, how, () =>
          Promise.race([held(), new Promise<void>((resolve) => crashed.addEventListener("abort", () => resolve()))]),
        ),
    },
    after(delay_ms, action) {
      const timer = setTimeout(() => frozen.now || crashed.aborted || action(), delay_ms * HASTE);
      return () => clearTimeout(timer);
    },
    openBroadcast(channel_name) {
      const channel = base.openBroadcast?.(channel_name);
      if (channel === undefined) throw new Error("no BroadcastChannel");
      const dead = (): boolean => crashed.aborted || frozen.now;
      return {
        post: (message) => dead() || channel.post(message),
        onMessage: (listener) => channel.onMessage((message) => dead() || listener(message)),
        close: () => channel.close(),
      };
    },
    fetch: (input, init) => {
      const signal = init?.signal ? AbortSignal.any([init.signal, crashed]) : crashed;
      return fetch(input, { ...init, signal });
    },
    now: () => Date.now() / HASTE,
  };
}

function open(channels: readonly string[] = ["a:1"], transport: TransportName = "sse"): Tab {
  const crashed = new AbortController();
  const frozen = { now: false };
  const client = new Client({
    base: server.base,
    share: name,
    transports: [transport],
    environment: environment(crashed.signal, frozen),
  });
  const told: Json[] = [];
  for (const channel of channels) {
    client.subscribe(channel, {
      state: (state) => told.push(["state", state]),
      event: (event) => told.push(event.data),
      reset: (reason) => told.push(["reset", reason]),
    });
  }
  const tab = {
    client,
    told,
    crash: () => crashed.abort(),
    freeze: () => {
      frozen.now = true;
    },
  };
  tabs.push(tab);
  return tab;
}

async function heard(tab: Tab, count: number, what = `${count} things told`): Promise<void> {
  await until(() => tab.told.length >= count, `${what}: ${JSON.stringify(tab.told)}`);
}

beforeEach(async () => {
  server = await new ProtocolServer().start();
  server.stateOf = (channel) => channel;
  locks = new LocksOfOneBrowser();
  tabs = [];
  name = `test:${process.pid}:${(browsers += 1)}`;
});

afterEach(async () => {
  for (const tab of tabs) tab.client.close();
  await server.stop();
});

describe.each(["sse", "websocket", "long-poll"] as const)("over %s", (transport) => {
  test("many tabs, one connection, and each is told its state and every event once", async () => {
    const all = [open(["a:1"], transport)];
    await heard(all[0] as Tab, 1);
    for (let count = 0; count < 4; count += 1) all.push(open(["a:1"], transport));
    for (const tab of all) await heard(tab, 1);
    for (let number = 0; number < 20; number += 1) server.publish(["a:1"], "n", number);
    for (const tab of all) await heard(tab, 21);
    for (const tab of all) expect(tab.told.slice(1)).toEqual(Array.from({ length: 20 }, (_, number) => number));
    expect(all.map((tab) => tab.client.status.role)).toEqual(["leader", ...Array(4).fill("follower")]);
    expect(server.listeners.size).toBeLessThanOrEqual(1);
  });

  test("the connection listens to what all tabs want", async () => {
    const first = open(["a:1"], transport);
    await heard(first, 1);
    const second = open(["b:1"], transport);
    await heard(second, 1);
    server.publish(["a:1"], "n", "for a");
    server.publish(["b:1"], "n", "for b");
    await heard(first, 2);
    await heard(second, 2);
    expect(first.told).toEqual([["state", "a:1"], "for a"]);
    expect(second.told).toEqual([["state", "b:1"], "for b"]);
  });

  test.each(["close", "crash"] as const)("the leader's %s is no gap and no repetition", async (how) => {
    const [leader, second, third] = [open(["a:1"], transport), open(["a:1"], transport), open(["a:1", "b:1"], transport)];
    await heard(leader, 1);
    await heard(second, 1);
    await heard(third, 2);
    for (let number = 0; number < 30; number += 1) {
      server.publish(["a:1"], "n", number);
      if (number === 10) {
        if (how === "crash") leader.crash();
        else leader.client.close();
      }
      if (number % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await heard(second, 31);
    await heard(third, 32);
    const numbers = Array.from({ length: 30 }, (_, number) => number);
    expect(second.told).toEqual([["state", "a:1"], ...numbers]);
    expect(third.told.filter((what) => typeof what === "number")).toEqual(numbers);
    await until(() => second.client.status.role === "leader", "the next in line leads");
    server.publish(["b:1"], "n", "b");
    await until(() => third.told.at(-1) === "b", "the new leader listens for the third tab");
    expect(third.told.filter((what) => Array.isArray(what) && what[0] === "reset")).toEqual([]);
  });
});

test("a tab that leaves takes its channels with it", async () => {
  const first = open(["a:1"]);
  await heard(first, 1);
  const second = open(["b:1"]);
  await heard(second, 1);
  second.crash();
  await until(() => [...server.listeners].every((listener) => !listener.channels.has("b:1")), "only a:1 is heard");
  server.publish(["a:1"], "n", 1);
  await heard(first, 2);
});

test("a leader that freezes with its lock is replaced, and steps down when it thaws", async () => {
  const first = open();
  await heard(first, 1);
  const second = open();
  await heard(second, 1);
  first.freeze();
  await until(() => second.client.status.role === "leader", "the frozen leader is replaced");
  server.publish(["a:1"], "n", 1);
  await until(() => second.told.includes(1), "the new leader hears");
});

test("a reconnect that a follower asks for is done by the leader", async () => {
  const first = open();
  await heard(first, 1);
  const second = open();
  await heard(second, 1);
  const before = server.requests("/events").length;
  second.client.reconnect();
  await until(() => server.requests("/events").length > before, "a new request");
  server.publish(["a:1"], "n", 1);
  await heard(first, 2);
  await heard(second, 2);
});

test("a channel left and wanted again is covered anew", async () => {
  const first = open();
  await heard(first, 1);
  const second = open([]);
  for (let round = 0; round < 5; round += 1) {
    const seen: Json[] = [];
    const leave = second.client.subscribe("b:1", {
      state: (state) => seen.push(state),
      event: (event) => seen.push(event.data),
    });
    await until(() => seen.length === 1, "the state");
    server.publish(["b:1"], "n", round);
    await until(() => seen.length === 2, "the event");
    leave();
  }
});

test("without locks a page keeps to itself", async () => {
  const one = new Client({
    base: server.base,
    share: name,
    environment: browserEnvironment({ locks: undefined, openSocket }),
  });
  one.subscribe("a:1", {});
  await until(() => one.status.phase === "live", "live");
  expect(one.status.role).toBe("alone");
  one.close();
});
