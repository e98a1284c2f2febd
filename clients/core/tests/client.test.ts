import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Cache } from "../src/cache.ts";
import { Client, type ClientOptions } from "../src/client.ts";
import { browserEnvironment } from "../src/environment.ts";
import { invalidateBy } from "../src/freshness.ts";
import { isObject, type Json } from "../src/json.ts";
import type { ChannelListener } from "../src/subscription.ts";
import type { TransportName } from "../src/transports/transport.ts";
import { ProtocolServer, Refused } from "./protocol-server.ts";
import { openSocket } from "./sockets.ts";
import { until } from "./until.ts";

const TRANSPORTS: readonly TransportName[] = ["sse", "websocket", "long-poll"];
/** Reconnects of these tests wait a hundredth of what they would, so that a second of backoff is ten milliseconds. */
const HASTE = 0.01;
const environment = browserEnvironment({
  openSocket,
  after(delay_ms, action) {
    const timer = setTimeout(action, delay_ms >= 5_000 ? delay_ms : delay_ms * HASTE);
    return () => clearTimeout(timer);
  },
});

let server: ProtocolServer;
let clients: Client[];

function client(options: Partial<ClientOptions> = {}): Client {
  const made = new Client({ base: server.base, environment, ...options });
  clients.push(made);
  return made;
}

/** A listener that writes down what it is told. */
function notebook(): { told: Json[]; listener: ChannelListener } {
  const told: Json[] = [];
  const listener: ChannelListener = {
    state: (state) => told.push(["state", state]),
    event: (event) => told.push(event.data),
    gone: (gone) => told.push(["gone", gone.key]),
    reset: (reason) => told.push(["reset", reason]),
    refused: (problem) => told.push(["refused", problem?.code ?? null]),
  };
  return { told, listener };
}

async function live(one: Client): Promise<void> {
  await until(() => one.status.phase === "live", "live");
}

beforeEach(async () => {
  server = await new ProtocolServer().start();
  clients = [];
});

afterEach(async () => {
  for (const one of clients) one.close();
  await server.stop();
});

describe.each(TRANSPORTS)("over %s", (transport) => {
  test("a state, then every event after it, in order", async () => {
    const { told, listener } = notebook();
    server.stateOf = (channel) => `all of ${channel}`;
    const one = client({ transports: [transport] });
    one.subscribe("a:1", listener);
    await live(one);
    for (let number = 0; number < 50; number += 1) server.publish(["a:1"], "n", number);
    await until(() => told.length === 51, "51 things told");
    expect(told).toEqual([["state", "all of a:1"], ...Array.from({ length: 50 }, (_, number) => number)]);
    expect(server.requests("/state/a:1")).toEqual([]);
  });

  test("cut off again and again: every event once, in order", async () => {
    const { told, listener } = notebook();
    const one = client({ transports: [transport] });
    one.subscribe("a:1", listener, "events");
    await live(one);
    for (let number = 0; number < 60; number += 1) {
      server.publish(["a:1", "b:1"], "n", number);
      if (number % 15 === 14) {
        server.cut();
        await until(() => server.listeners.size === 0, "cut");
      }
      if (number % 15 === 7) await until(() => server.listeners.size === 1, "back");
    }
    await until(() => told.length >= 60, "60 events");
    expect(told).toEqual(Array.from({ length: 60 }, (_, number) => number));
  });

  test("a history that is gone is one reset and a new state", async () => {
    const { told, listener } = notebook();
    server.stateOf = () => "new";
    const one = client({ transports: [transport] });
    one.subscribe("a:1", listener);
    await until(() => told.length === 1, "the first state");
    server.cut();
    server.publish(["a:1"], "n", 1);
    server.floors.set("a:1", 2);
    await until(() => told.length === 3, "a reset and a state");
    await until(() => server.listeners.size === 1, "listening");
    server.publish(["a:1"], "n", 2);
    await until(() => told.length === 4, "an event");
    expect(told).toEqual([["state", "new"], ["reset", "history"], ["state", "new"], 2]);
  });

  test("a reset while live is followed by a fetched state, and nothing between is lost", async () => {
    const { told, listener } = notebook();
    server.stateOf = () => "held";
    const one = client({ transports: [transport] });
    one.subscribe("a:1", listener);
    await until(() => told.length === 1 && one.status.phase === "live", "the first state");
    server.publish(["a:1"], "reset", { channels: ["a:1"], reason: "truncate" });
    server.publish(["a:1"], "n", 1);
    await until(() => told.length === 4, "reset, state, event");
    expect(told.slice(1)).toEqual([["reset", "truncate"], ["state", "held"], 1]);
    expect(server.requests("/state/a:1")).toHaveLength(1);
  });

  test("a reset that still owes its state survives a reconnect", async () => {
    const { told, listener } = notebook();
    server.stateOf = () => "s";
    const one = client({ transports: [transport] });
    one.subscribe("a:1", listener);
    await until(() => told.length === 1 && one.status.phase === "live", "the first state");
    let away = true;
    server.gate = (seen) => {
      if (away && seen.path.startsWith("/state/")) throw new Refused(503, "LC202", "database_unavailable", "later");
    };
    server.publish(["a:1"], "reset", { channels: ["a:1"], reason: "truncate" });
    await until(() => server.requests("/state/a:1").length > 0, "a refused state");
    server.cut();
    await until(() => one.status.phase !== "live", "cut");
    await live(one);
    server.publish(["a:1"], "n", 1);
    away = false;
    await until(() => told.length === 4, "the state that was owed, and the event");
    expect(told.slice(1)).toEqual([["reset", "truncate"], ["state", "s"], 1]);
  });

  test("a channel wanted later brings its state, and the first loses nothing", async () => {
    const first = notebook();
    const second = notebook();
    server.stateOf = (channel) => channel;
    const one = client({ transports: [transport] });
    one.subscribe("a:1", first.listener);
    await live(one);
    one.subscribe("b:1", second.listener);
    for (let number = 0; number < 10; number += 1) {
      server.publish(["a:1"], "n", number);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await until(() => second.told.length > 0, "the second state");
    server.publish(["b:1"], "n", "b");
    await until(() => second.told.length > 1 && first.told.length > 10, "everything");
    expect(first.told).toEqual([["state", "a:1"], ...Array.from({ length: 10 }, (_, number) => number)]);
    expect(second.told).toEqual([["state", "b:1"], "b"]);
  });

  test("a second listener on a channel gets a state of its own", async () => {
    const first = notebook();
    const second = notebook();
    server.stateOf = () => "s";
    const one = client({ transports: [transport] });
    one.subscribe("a:1", first.listener);
    await live(one);
    one.subscribe("a:1", second.listener);
    await until(() => second.told.length === 1, "its state");
    expect(first.told).toHaveLength(1);
    expect(server.requests("/state/a:1")).toHaveLength(1);
  });

  test("a revoked channel ends its listeners, the others go on", async () => {
    const first = notebook();
    const second = notebook();
    const one = client({ transports: [transport] });
    one.subscribe("a:1", first.listener, "events");
    one.subscribe("b:1", second.listener, "events");
    await live(one);
    server.revoke(["a:1"]);
    server.publish(["a:1", "b:1"], "n", 1);
    await until(() => second.told.length === 1, "the other's event");
    expect(first.told).toEqual([["refused", null]]);
  });

  test("a channel without a state is told none and hears everything", async () => {
    const { told, listener } = notebook();
    const one = client({ transports: [transport] });
    one.subscribe("a:1", listener);
    await live(one);
    await until(() => server.requests("/state/a:1").length === 1, "the question for a state");
    server.publish(["a:1"], "n", 1);
    await until(() => told.length === 1, "the event");
    expect(told).toEqual([1]);
  });

  test("a new epoch is a reset, a state, and a new position", async () => {
    const { told, listener } = notebook();
    server.stateOf = () => server.epoch;
    const one = client({ transports: [transport] });
    one.subscribe("a:1", listener);
    await until(() => told.length === 1, "the first state");
    server.epoch = "e2";
    server.cut();
    await until(() => told.length === 3, "reset and state");
    await until(() => one.bookmark()?.position.startsWith("e2.") === true, "a position of the new epoch");
    expect(told.slice(1)).toEqual([["reset", "epoch"], ["state", "e2"]]);
  });

  test("a bookmark continues where the last page stopped", async () => {
    const before = notebook();
    server.stateOf = () => "s";
    const one = client({ transports: [transport] });
    one.subscribe("a:1", before.listener);
    await live(one);
    server.publish(["a:1"], "n", 1);
    await until(() => before.told.length === 2, "the event");
    const bookmark = one.bookmark();
    one.close();
    server.publish(["a:1"], "n", 2);
    const after = notebook();
    const two = client({ transports: [transport], bookmark });
    two.subscribe("a:1", after.listener, "held");
    await until(() => after.told.length === 1, "what was missed");
    expect(bookmark?.channels).toEqual(["a:1"]);
    expect(after.told).toEqual([2]);
  });
});

describe("tokens", () => {
  test("a stream is refreshed through POST /events/token with the secret of its connection, and stays", async () => {
    let asked = 0;
    server.routes.set("/events/token", (seen) => seen.body ?? null);
    const one = client({ transports: ["sse"], token: () => ({ token: `t${(asked += 1)}`, expires_in_s: 0.01 }) });
    one.subscribe("a:1", {}, "events");
    await until(() => server.requests("/events/token").length > 0, "a refresh");
    const [refresh] = server.requests("/events/token");
    expect(refresh?.body).toMatchObject({ connection: "c1" });
    const token = isObject(refresh?.body) ? refresh.body["token"] : undefined;
    expect(refresh?.headers.authorization).toBe(`Bearer ${String(token)}`);
    expect(server.requests("/events")).toHaveLength(1);
  });

  test("a WebSocket carries its token in a subprotocol and is refreshed by an operation", async () => {
    let asked = 0;
    const one = client({ transports: ["websocket"], token: () => ({ token: `t${(asked += 1)}`, expires_in_s: 0.01 }) });
    one.subscribe("a:1", {}, "events");
    await until(() => server.requests("ws:token").length > 0, "a refresh");
    expect(server.requests("/events")[0]?.headers["sec-websocket-protocol"]).toBe("lastcall.v1,lastcall.token.t1");
    expect(server.requests("/events")).toHaveLength(1);
  });

  test("no token travels in an address", async () => {
    for (const transport of TRANSPORTS) {
      const one = client({ transports: [transport], token: () => ({ token: "secret" }) });
      one.subscribe("a:1", {});
      await live(one);
    }
    expect(server.seen.filter((seen) => String(seen.query).includes("secret"))).toEqual([]);
  });

  test("a refused token is renewed, for the stream and for calls", async () => {
    const given = ["old", "new"];
    server.gate = (seen) => {
      const old = seen.headers.authorization === "Bearer old";
      if (old) throw new Refused(401, "LC303", "token_expired", "fresh");
    };
    server.routes.set("/rpc/app.f", () => 7);
    const reasons: string[] = [];
    const one = client({
      token: (reason) => {
        reasons.push(reason);
        return { token: given.shift() ?? "new" };
      },
    });
    expect((await one.call("app.f")).value).toBe(7);
    one.subscribe("a:1", {}, "events");
    await live(one);
    expect(reasons).toEqual(["first", "refused"]);
  });
});

describe("choice of the transport", () => {
  test("where streams are held back by something in between, the next one serves", async () => {
    server.gate = (seen) => {
      if (seen.headers.accept?.includes("event-stream") === true) throw new Refused(502, "HTTP502", "proxy", "later");
      if (seen.headers.upgrade !== undefined) throw new Refused(502, "HTTP502", "proxy", "later");
    };
    const { told, listener } = notebook();
    const one = client({ transports: ["websocket", "long-poll"] });
    one.subscribe("a:1", listener, "events");
    await until(() => one.status.transport === "long-poll" && one.status.phase === "live", "live by long-poll");
    server.publish(["a:1"], "n", 1);
    await until(() => told.length === 1, "an event");
  });

  test("a page that is not an event stream is not taken for one", async () => {
    server.routes.set("/events", () => "hello");
    const one = client({ transports: ["sse"] });
    one.subscribe("a:1", {}, "events");
    await until(() => one.status.problem !== undefined, "a problem");
    expect(one.status.problem).toMatchObject({ code: "malformed" });
  });
});

test("events make what was cached old: by tag, by channel, and all of it when something may have been missed", async () => {
  const cache = new Cache({ environment: { now: () => 0, storage: undefined }, name: "test" });
  const load = (): Promise<number> => Promise.resolve(1);
  const fill = async (): Promise<void> => {
    await cache.read("board", { ttl_ms: 100, tags: ["a:1"], load });
    await cache.read("row:7", { ttl_ms: 100, tags: ["a:1", "row:7"], load });
  };
  const kept = (): boolean[] => ["board", "row:7"].map((key) => cache.peek(key) !== undefined);
  const one = client();
  invalidateBy(one, "a:1", cache, (change) => ("data" in change ? [`row:${String(change.data)}`] : []));
  await live(one);
  await fill();
  server.publish(["a:1"], "n", 7);
  await until(() => !kept()[1], "the row is forgotten");
  expect(kept()).toEqual([true, false]);
  await fill();
  server.publish(["a:1"], "reset", { channels: ["a:1"], reason: "truncate" });
  await until(() => !kept()[0], "all is forgotten");
  expect(kept()).toEqual([false, false]);
});

test("a listener that throws is reported and stops nobody", async () => {
  const { told, listener } = notebook();
  const errors: unknown[] = [];
  const one = client({ onListenerError: (error) => errors.push(error) });
  one.subscribe("a:1", { event: () => Promise.reject(new Error("never seen")).catch(() => {}) }, "events");
  one.subscribe(
    "a:1",
    {
      event: () => {
        throw new Error("mine");
      },
    },
    "events",
  );
  one.subscribe("a:1", listener, "events");
  await live(one);
  server.publish(["a:1"], "n", 1);
  await until(() => told.length === 1, "the event");
  expect(errors).toHaveLength(1);
  expect(one.status.phase).toBe("live");
});
