import { afterEach, beforeEach, expect, test } from "vitest";
import { Client } from "../src/client.ts";
import { browserEnvironment } from "../src/environment.ts";
import type { JsonObject } from "../src/json.ts";
import { CALLS_WAITING_MAX } from "../src/limits.ts";
import { ProblemError } from "../src/problem.ts";
import { ProtocolServer, Refused, type Seen } from "./protocol-server.ts";

let server: ProtocolServer;
let client: Client;
/** Answers of functions, by name; each call is one. */
let functions: Record<string, (args: JsonObject) => JsonObject | number>;

interface Item {
  readonly function: string;
  readonly arguments: JsonObject;
  readonly key?: string;
}

function batch(seen: Seen): JsonObject[] {
  return (seen.body as unknown as readonly Item[]).map((item) => {
    try {
      return { status: 200, value: functions[item.function]?.(item.arguments) ?? null, position: server.head };
    } catch (error) {
      return { status: 409, problem: error instanceof Refused ? error.problem : {} };
    }
  });
}

beforeEach(async () => {
  server = await new ProtocolServer().start();
  functions = { "app.double": ({ n }) => Number(n) * 2 };
  server.routes.set("/batch", batch);
  server.routes.set("/rpc/app.double", (seen) => functions["app.double"]?.(seen.body as JsonObject) ?? null);
  client = new Client({ base: server.base, environment: browserEnvironment(), language: () => "fr" });
});

afterEach(async () => {
  client.close();
  await server.stop();
});

async function problemOf(call: Promise<unknown>): Promise<string> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error instanceof ProblemError ? error.problem.code : `not refused: ${String(error)}`;
}

test("a single call goes to /rpc with a key of its own, in the page's language", async () => {
  expect(await client.call("app.double", { n: 4 })).toMatchObject({ value: 8, replayed: false });
  const [seen] = server.requests("/rpc/app.double");
  expect(seen?.headers["idempotency-key"]).toMatch(/^[0-9a-f]{32}$/);
  expect(seen?.headers["accept-language"]).toBe("fr");
  expect(server.seen).toHaveLength(1);
});

test("calls of one moment leave as one batch, in order, each with its key; each gets its own answer", async () => {
  functions["app.refuse"] = () => {
    throw new Refused(409, "TC001", "target_held", "no", { facts: { caller_id: 7 } });
  };
  const calls = [
    client.call("app.double", { n: 1 }),
    client.call("app.refuse"),
    client.call("app.double", { n: 3 }, { key: false }),
  ];
  const settled = await Promise.allSettled(calls);
  expect(settled.map((one) => (one.status === "fulfilled" ? one.value.value : "refused"))).toEqual([2, "refused", 6]);
  expect(await problemOf(calls[1] as Promise<unknown>)).toBe("TC001");
  expect(server.seen.map((seen) => seen.path)).toEqual(["/batch"]);
  const items = server.seen[0]?.body as unknown as readonly Item[];
  expect(items.map((item) => [item.function, typeof item.key])).toEqual([
    ["app.double", "string"],
    ["app.refuse", "string"],
    ["app.double", "undefined"],
  ]);
});

test("more calls than one batch may hold leave as several", async () => {
  const answers = await Promise.all(Array.from({ length: 45 }, (_, n) => client.call("app.double", { n })));
  expect(answers.map((answer) => answer.value)).toEqual(Array.from({ length: 45 }, (_, n) => n * 2));
  expect(server.seen.map((seen) => (seen.body as unknown as readonly Item[]).length).toSorted()).toEqual([20, 20, 5]);
});

test("what the server says to repeat now is repeated with the same key", async () => {
  let tries = 0;
  server.gate = () => {
    if ((tries += 1) < 3) throw new Refused(503, "LC210", "contention", "now");
  };
  expect((await client.call("app.double", { n: 1 })).value).toBe(2);
  expect(new Set(server.seen.map((seen) => seen.headers["idempotency-key"])).size).toBe(1);
  expect(tries).toBe(3);
});

test("an unknown outcome is repeated with a key, and never without one", async () => {
  server.gate = () => {
    server.gate = () => {};
    server.cut();
    return new Promise(() => {});
  };
  expect((await client.call("app.double", { n: 1 })).value).toBe(2);
  server.gate = () => {
    server.cut();
    return new Promise(() => {});
  };
  const before = server.seen.length;
  expect(await problemOf(client.call("app.double", { n: 1 }, { key: false }))).toBe("unreachable");
  expect(server.seen.length).toBe(before + 1);
});

test("a lost batch is repeated too, each call with its key", async () => {
  server.gate = () => {
    server.gate = () => {};
    server.cut();
    return new Promise(() => {});
  };
  const answers = await Promise.all([client.call("app.double", { n: 1 }), client.call("app.double", { n: 2 })]);
  expect(answers.map((answer) => answer.value)).toEqual([2, 4]);
});

test("it gives up after its repeats, and says why", async () => {
  server.gate = () => {
    throw new Refused(503, "LC210", "contention", "now");
  };
  expect(await problemOf(client.call("app.double", { n: 1 }))).toBe("LC210");
  expect(server.seen).toHaveLength(3);
});

test("an answer that is not the protocol's is a problem, not a crash", async () => {
  server.routes.set("/batch", () => [1]);
  const calls = [client.call("app.double", {}, { key: false }), client.call("app.double", {}, { key: false })];
  expect(await Promise.all(calls.map(problemOf))).toEqual(["malformed", "malformed"]);
});

test("too many calls that wait are refused at once; closing settles the rest", async () => {
  server.gate = () => new Promise(() => {});
  const calls = Array.from({ length: CALLS_WAITING_MAX }, () => problemOf(client.call("app.double", {}, { key: false })));
  expect(await problemOf(client.call("app.double"))).toBe("too_many_waiting");
  client.close();
  expect(new Set(await Promise.all(calls))).toEqual(new Set(["unreachable"]));
});
