import { describe, expect, test } from "vitest";
import { readProblem } from "../src/problem.ts";
import {
  BROKEN,
  UNREACHABLE,
  begin,
  connect,
  connection,
  event,
  joined,
  last,
  links,
  live,
  time,
  told,
  waited,
} from "./played.ts";

describe("position", () => {
  test("the first link has none; every later one has that of the last frame that had an id", async () => {
    connect();
    await live();
    expect(last().request).toMatchObject({ channels: ["a:1"], position: undefined });
    last().sink.frame(event("e.2.1"));
    last().sink.frame({ kind: "reset", id: undefined, channels: ["a:1"], reason: "history" });
    last().sink.ended(BROKEN);
    await time.pass(1_000);
    expect(last().request.position).toBe("e.2.1");
    expect(links).toHaveLength(2);
  });

  test("it moves after the frame has been passed on, not before", async () => {
    connect();
    await live();
    last().sink.frame(event("e.2.1"));
    expect(told.at(-1)).toBe("event e.2.1 before e.1.0");
    expect(connection.position).toBe("e.2.1");
  });

  test("a link that breaks before its first id begins as if new", async () => {
    connect();
    connection.want(new Set(["a:1"]), true);
    await time.pass(20);
    last().sink.frame(joined(undefined));
    last().sink.frame({ kind: "state", id: undefined, channel: "a:1", state: 1 });
    last().sink.ended(BROKEN);
    await time.pass(1_000);
    expect(last().request).toMatchObject({ position: undefined, state: true });
  });

  test("one that was given is used at once", async () => {
    connect({ position: "e.7.0" });
    connection.want(new Set(["a:1"]), true);
    await time.pass(20);
    expect(last().request.position).toBe("e.7.0");
  });

  test("what a link that was left still says is not heard", async () => {
    connect();
    await live();
    const [old] = links;
    connection.reconnect();
    await time.pass(1);
    old?.sink.frame(event("e.9.1"));
    old?.sink.ended(BROKEN);
    expect(old?.closed).toBe(true);
    expect(connection.position).toBe("e.1.0");
    expect(connection.status.phase).toBe("opening");
  });
});

describe("phases", () => {
  test("from nothing wanted to live and back", async () => {
    connect();
    expect(connection.status.phase).toBe("idle");
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    expect(connection.status).toMatchObject({ phase: "opening", transport: "sse" });
    last().sink.frame(joined("e.1.0"));
    expect(connection.status.phase).toBe("live");
    connection.want(new Set(), false);
    await time.pass(20);
    expect(connection.status.phase).toBe("idle");
    expect(last().closed).toBe(true);
  });

  test("a resumed link is live, and its channels covered, with the heartbeat that ends the history", async () => {
    connect({ position: "e.1.0" });
    connection.want(new Set(["a:1"]), true);
    await time.pass(20);
    last().sink.frame(joined("e.1.0", true));
    last().sink.frame(event("e.2.1"));
    expect(connection.status.phase).toBe("catching_up");
    last().sink.frame({ kind: "heartbeat", id: "e.3.0" });
    expect(connection.status.phase).toBe("live");
    expect(told.at(-1)).toBe("covered a:1");
  });

  test("a new link that brings states is covered with the last of them", async () => {
    connect();
    connection.want(new Set(["a:1", "b:1"]), true);
    await time.pass(20);
    last().sink.frame(joined(undefined));
    last().sink.frame({ kind: "state", id: undefined, channel: "a:1", state: 1 });
    expect(connection.status.phase).toBe("catching_up");
    last().sink.frame({ kind: "state", id: "e.1.0", channel: "b:1", state: 1 });
    expect(told.slice(-2)).toEqual(["state e.1.0 before -", "covered a:1,b:1"]);
  });

  test("a refusal that will not change stops it, until somebody asks for a reconnect", async () => {
    connect();
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    last().sink.ended({ kind: "refused", problem: readProblem({ code: "LC401", retry: "no" }, 400) });
    await time.pass(600_000);
    expect(connection.status).toMatchObject({ phase: "stopped", problem: { code: "LC401" } });
    expect(links).toHaveLength(1);
    connection.reconnect();
    await time.pass(1);
    expect(links).toHaveLength(2);
  });

  test("channels that a refusal names are given up, the others are listened to", async () => {
    connect();
    connection.want(new Set(["a:1", "b:1"]), false);
    await time.pass(20);
    const facts = { channels: ["b:1"] };
    last().sink.ended({ kind: "refused", problem: readProblem({ code: "LC305", retry: "no", facts }, 403) });
    await time.pass(1);
    expect(told).toEqual(["refused b:1 LC305"]);
    expect(last().request.channels).toEqual(["a:1"]);
  });
});

describe("waiting", () => {
  test("between half and the whole of 1, 1, 2, 4 … 30 s", async () => {
    for (const [random, share] of [
      [0, 0.5],
      [0.999999, 1],
    ] as const) {
      begin();
      time.random = random;
      connect();
      connection.want(new Set(["a:1"]), false);
      await time.pass(20);
      for (const whole_ms of [1_000, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
        last().sink.ended(UNREACHABLE);
        expect(await waited()).toBeCloseTo(whole_ms * share, -1);
      }
    }
  });

  test("as long as the server's retry says, at first", async () => {
    connect();
    await live();
    last().sink.retry(2_734);
    last().sink.ended(BROKEN);
    expect(await waited()).toBe(2_734);
    last().sink.ended(UNREACHABLE);
    expect(await waited()).toBeLessThanOrEqual(1_000);
  });

  test("five seconds of life begin it anew, less do not", async () => {
    connect();
    await live();
    for (let time_of_life = 0; time_of_life < 3; time_of_life += 1) {
      last().sink.ended(BROKEN);
      await waited();
      last().sink.frame(joined("e.1.0"));
      await time.pass(4_900);
    }
    last().sink.ended(BROKEN);
    expect(await waited()).toBe(3_000);
    last().sink.frame(joined("e.1.0"));
    await time.pass(5_000);
    last().sink.ended(BROKEN);
    expect(await waited()).toBe(750);
  });

  test("not before Retry-After where the server says later, and not all at the same moment", async () => {
    connect();
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    last().sink.ended({ kind: "refused", problem: readProblem({ retry: "later", retry_after_s: 20 }, 503) });
    expect(await waited()).toBe(20_500);
  });

  test("coming back into view tries at once, but not when the server asked for patience", async () => {
    connect();
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    last().sink.ended(UNREACHABLE);
    time.wake();
    await time.pass(1);
    expect(links).toHaveLength(2);
    last().sink.ended({ kind: "refused", problem: readProblem({ retry: "later", retry_after_s: 20 }, 503) });
    time.wake();
    await time.pass(1);
    expect(links).toHaveLength(2);
  });
});

describe("watchdogs", () => {
  test("35 s of silence end the link; anything heard begins them anew", async () => {
    connect();
    await live();
    await time.pass(34_000);
    last().sink.frame({ kind: "heartbeat", id: "e.1.0" });
    await time.pass(34_900);
    expect(connection.status.phase).toBe("live");
    await time.pass(200);
    expect(connection.status).toMatchObject({ phase: "waiting", problem: { code: "timeout" } });
    expect(last().closed).toBe(true);
  });

  test("a longer heartbeat allows twice its length and five seconds", async () => {
    connect();
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    last().sink.frame(joined("e.1.0", false, 60));
    await time.pass(124_900);
    expect(connection.status.phase).toBe("live");
    await time.pass(200);
    expect(connection.status.phase).toBe("waiting");
  });

  test("a machine that slept finds the dead link when it wakes", async () => {
    connect();
    await live();
    time.sleep(3_600_000);
    time.wake();
    await time.pass(1);
    expect(links[0]?.closed).toBe(true);
    expect(links).toHaveLength(2);
  });

  test("the watchdog of a link that was left does not strike the next one", async () => {
    connect();
    await live();
    await time.pass(30_000);
    connection.reconnect();
    await time.pass(1);
    last().sink.frame(joined("e.1.0"));
    await time.pass(10_000);
    expect(connection.status.phase).toBe("live");
  });

  test("a transport that does not start in 12 s gets three tries, then the next has its turn, round and round", async () => {
    connect();
    connection.want(new Set(["a:1"]), false);
    await time.pass(10 * 60_000);
    expect(links.slice(0, 10).map((link) => link.name)).toEqual([
      ...["sse", "sse", "sse", "websocket", "websocket", "websocket"],
      ...["long-poll", "long-poll", "long-poll", "sse"],
    ]);
  });

  test("a server that cannot be reached says nothing about the transport", async () => {
    connect();
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    for (let round = 0; round < 9; round += 1) {
      last().sink.ended(UNREACHABLE);
      await waited();
    }
    expect(new Set(links.map((link) => link.name))).toEqual(new Set(["sse"]));
  });

  test("a fallback is kept while it lives, and the preferred transport is tried again when it breaks late", async () => {
    connect();
    connection.want(new Set(["a:1"]), false);
    await time.pass(20);
    for (let round = 0; round < 3; round += 1) {
      last().sink.ended(BROKEN);
      await waited();
    }
    expect(last().name).toBe("websocket");
    last().sink.frame(joined("e.1.0"));
    last().sink.ended(BROKEN);
    await waited();
    expect(last().name).toBe("websocket");
    last().sink.frame(joined("e.1.0"));
    for (let minute = 0; minute < 44; minute += 1) {
      await time.pass(15_000);
      last().sink.frame({ kind: "heartbeat", id: "e.1.0" });
    }
    last().sink.ended(BROKEN);
    await waited();
    expect(last().name).toBe("sse");
  });
});
