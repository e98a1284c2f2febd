import { describe, expect, test } from "vitest";
import { closedProblem } from "../src/problem.ts";
import {
  BROKEN,
  connect,
  connection,
  forget,
  joined,
  last,
  links,
  live,
  played,
  time,
  told,
} from "./played.ts";

describe("ends that say what to do", () => {
  test.each([
    ["now", 1],
    ["later", 1],
    ["fresh", 2],
  ] as const)("close with retry %s", async (retry, tokens) => {
    let asked = 0;
    connect({ provider: () => ({ token: `t${(asked += 1)}`, expires_in_s: 3600 }) });
    await live();
    last().sink.frame({ kind: "close", id: undefined, code: "LC303", name: "token_expired", retry });
    expect(links[0]?.closed).toBe(true);
    await time.pass(1_500);
    expect(links).toHaveLength(2);
    expect(last().request.token).toBe(`t${tokens}`);
    expect(last().request.position).toBe("e.1.0");
  });

  test("a fresh token is tried at once, but one that is refused in its turn waits", async () => {
    connect({ provider: () => ({ token: "t" }) });
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    const refused = { kind: "refused", problem: closedProblem("LC302", "token_invalid", "fresh") } as const;
    last().sink.ended(refused);
    await time.pass(0);
    expect(links).toHaveLength(2);
    last().sink.ended(refused);
    expect(connection.status.phase).toBe("waiting");
  });

  test("a close that forbids a retry stops", async () => {
    connect();
    await live();
    last().sink.frame({ kind: "close", id: undefined, code: "LC305", name: "channel_forbidden", retry: "no" });
    expect(connection.status).toMatchObject({ phase: "stopped", problem: { code: "LC305" } });
  });
});

describe("tokens", () => {
  test("a new one is presented before the old one ends, without a new link", async () => {
    let asked = 0;
    connect({ provider: () => ({ token: `t${(asked += 1)}`, expires_in_s: 3600 }) });
    await live();
    expect(last().request.token).toBe("t1");
    for (let at = 0; at < 3_540; at += 15) {
      await time.pass(15_000);
      last().sink.frame({ kind: "heartbeat", id: "e.1.0" });
    }
    expect(last().presented).toEqual(["t2"]);
    expect(links).toHaveLength(1);
  });

  test("a provider that fails is asked again later, one that refuses for good stops the connection", async () => {
    let asked = 0;
    connect({
      provider: () => {
        asked += 1;
        if (asked < 3) throw new Error("the sign-in service is away");
        return { token: "t" };
      },
    });
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    expect(connection.status).toMatchObject({ phase: "waiting", problem: { code: "unreachable" } });
    await time.pass(5_000);
    expect(last().request.token).toBe("t");
  });

  test("a provider that never answers is given up", async () => {
    connect({ provider: () => new Promise(() => {}) });
    connection.want(new Set(["a:1"]), false);
    await time.pass(15_100);
    expect(connection.status).toMatchObject({ phase: "waiting", problem: { code: "timeout" } });
  });
});

describe("changing channels", () => {
  test("a stream that cannot change is opened anew from its position, once for all changes of a moment", async () => {
    connect();
    await live();
    connection.want(new Set(["a:1", "b:1"]), false);
    connection.want(new Set(["a:1", "b:1", "c:1"]), false);
    await time.pass(20);
    expect(links).toHaveLength(2);
    expect(last().request).toMatchObject({ channels: ["a:1", "b:1", "c:1"], position: "e.1.0" });
  });

  test("leaving a channel is worth a new stream only after a while; coming back is covered at once", async () => {
    connect();
    connection.want(new Set(["a:1", "b:1"]), false);
    await time.pass(20);
    last().sink.frame(joined("e.1.0"));
    connection.want(new Set(["a:1"]), false);
    await time.pass(5_000);
    connection.want(new Set(["a:1", "b:1"]), false);
    forget();
    await time.pass(6_000);
    expect(told).toEqual(["covered a:1,b:1"]);
    connection.want(new Set(["a:1"]), false);
    await time.pass(9_000);
    expect(links).toHaveLength(1);
    await time.pass(2_000);
    expect(links).toHaveLength(2);
    expect(last().request.channels).toEqual(["a:1"]);
  });

  test("a WebSocket changes while open; what it adds is covered with the heartbeat after the acknowledgement", async () => {
    connect({ transports: [played("websocket", links, true)] });
    await live();
    connection.want(new Set(["b:1"]), true);
    await time.pass(20);
    expect(last().changes).toEqual([[["b:1"], ["a:1"]]]);
    forget();
    last().sink.frame({ kind: "heartbeat", id: "e.2.0" });
    last().sink.frame({ kind: "ack", id: undefined, ref: 2, channels: ["b:1"] });
    last().sink.frame({ kind: "state", id: undefined, channel: "b:1", state: 1 });
    expect(told).not.toContain("covered b:1");
    last().sink.frame({ kind: "heartbeat", id: "e.2.0" });
    expect(told.at(-1)).toBe("covered b:1");
  });

  test("what was added has no place of its own: broken off before it is covered, it is reported", async () => {
    connect({ transports: [played("websocket", links, true)] });
    await live();
    connection.want(new Set(["a:1", "b:1"]), true);
    await time.pass(20);
    last().sink.frame({ kind: "ack", id: undefined, ref: 1, channels: ["b:1"] });
    last().sink.ended(BROKEN);
    expect(told.at(-1)).toBe("uncovered b:1");
  });

  test("a change before the first catch-up is over waits for it", async () => {
    connect({ transports: [played("websocket", links, true)] });
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    connection.want(new Set(["a:1", "b:1"]), false);
    await time.pass(20);
    expect(last().changes).toEqual([]);
    last().sink.frame(joined("e.1.0"));
    expect(last().changes).toEqual([[["b:1"], []]]);
    expect(links).toHaveLength(1);
  });

  test("a refused change ends those channels and nothing else", async () => {
    connect({ transports: [played("websocket", links, true)] });
    await live();
    connection.want(new Set(["a:1", "b:1"]), false);
    await time.pass(20);
    last().sink.refused(["b:1"], closedProblem("LC305", "channel_forbidden", "no"));
    expect(told.at(-1)).toBe("refused b:1 LC305");
    expect(connection.status.phase).toBe("live");
    await time.pass(1_000);
    expect(last().changes).toHaveLength(1);
  });
});
