import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { WebSocketServer, type WebSocket } from "ws";
import { isObject, parseJson, type Json, type JsonObject } from "../src/json.ts";

/** One change of the log. */
interface Change {
  readonly order: number;
  readonly id: string;
  readonly event: string;
  readonly channels: readonly string[];
  readonly data: Json;
}

/** What a frame says before a transport writes it. */
interface Said {
  readonly event: string;
  readonly data: Json;
  readonly id?: string | undefined;
  readonly channels?: readonly string[];
}

/** One open listener. */
interface Listener {
  readonly channels: Set<string>;
  readonly transport: "sse" | "websocket" | "long-poll";
  say(frame: Said): void;
  end(code: string, name: string, retry: string, close: number): void;
}

/** A request as it arrived. */
export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage["headers"];
  readonly body: Json | undefined;
}

/** Answers a call or a request of its own; a problem document is thrown as `Refused`. */
export type Handler = (seen: Seen) => Json | Promise<Json>;

/** Thrown by handlers. */
export class Refused extends Error {
  readonly problem: JsonObject;

  constructor(status: number, code: string, name: string, retry: string, more: JsonObject = {}) {
    super(code);
    this.problem = { type: `urn:lastcall:error:${code}`, title: name, status, code, name, retry, ...more };
  }
}

/**
 * A small server of spec/protocol.md over real sockets, with faults on demand. It keeps one log; a state is whatever the
 * test says it is at the head.
 */
export class ProtocolServer {
  base = "";
  epoch = "e1";
  heartbeat_s = 15;
  retry_ms = 1;
  /** The state of a channel at the head; undefined: it has none. */
  stateOf: (channel: string) => Json | undefined = () => undefined;
  /** Called before anything is answered; it may throw Refused, or never resolve. */
  gate: (seen: Seen) => void | Promise<void> = () => {};
  /** Handlers by path. */
  readonly routes = new Map<string, Handler>();
  readonly seen: Seen[] = [];
  readonly listeners = new Set<Listener>();
  /** Channels whose history before this order is forgotten. */
  readonly floors = new Map<string, number>();
  readonly #log: Change[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  readonly #websockets = new WebSocketServer({
    noServer: true,
    handleProtocols: (offered) => (offered.has("lastcall.v1") ? "lastcall.v1" : false),
  });
  #order = 1;
  #connections = 0;

  constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response));
    this.#server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    this.#server.on("upgrade", (request, socket: Socket, head) => void this.#upgrade(request, socket, head));
  }

  get head(): string {
    return `${this.epoch}.${(this.#order * 16).toString(16)}.0`;
  }

  async start(port = 0): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    this.base = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cut();
    await closed;
  }

  /** Commit one event. */
  publish(channels: readonly string[], event: string, data: Json): string {
    const order = (this.#order += 1);
    const id = `${this.epoch}.${(order * 16 - 8).toString(16)}.1`;
    const change = { order, id, event, channels, data };
    this.#log.push(change);
    for (const listener of [...this.listeners]) this.#deliver(listener, change);
    return id;
  }

  /** Take channels away from everybody, in stream order. */
  revoke(channels: readonly string[]): void {
    this.publish(channels, "revoked", { channels });
    for (const listener of this.listeners) for (const channel of channels) listener.channels.delete(channel);
  }

  heartbeat(): void {
    for (const listener of [...this.listeners]) listener.say({ event: "heartbeat", data: {}, id: this.head });
  }

  /** End every stream as the server does. */
  closeAll(code: string, name: string, retry: string, close: number): void {
    for (const listener of [...this.listeners]) listener.end(code, name, retry, close);
  }

  /** Cut every socket without a word. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.listeners.clear();
  }

  requests(path: string): Seen[] {
    return this.seen.filter((seen) => seen.path === path);
  }

  #deliver(listener: Listener, change: Change, with_id = true): void {
    const channels = change.channels.filter((channel) => listener.channels.has(channel));
    if (channels.length === 0) return;
    const id = with_id ? change.id : undefined;
    const named = change.event === "reset" || change.event === "revoked";
    listener.say(named ? { event: change.event, data: change.data, id } : { ...change, id, channels });
  }

  #orderOf(position: string): number | undefined {
    const [epoch, lsn = ""] = position.split(".");
    return epoch === this.epoch ? Math.floor(Number.parseInt(lsn, 16) / 16 + 0.5) : undefined;
  }

  /** Everything a listener is told when it joins (3.1, 3.4); afterwards it is live. */
  #catchUp(listener: Listener, channels: readonly string[], position: string | undefined, state: boolean): void {
    const from = position === undefined ? undefined : this.#orderOf(position);
    const forgotten = (channel: string): boolean => from === undefined || from < (this.floors.get(channel) ?? 0);
    const lost = position === undefined ? [] : channels.filter(forgotten);
    if (lost.length > 0) {
      const reason = from === undefined ? "epoch" : "history";
      listener.say({ event: "reset", data: { channels: lost, reason } });
    }
    const wanting = position === undefined ? channels : lost;
    const states = state ? wanting.map((channel) => ({ channel, state: this.stateOf(channel) })) : [];
    const existing = states.filter((entry) => entry.state !== undefined);
    for (const [index, entry] of existing.entries()) {
      const last = position === undefined && index === existing.length - 1;
      listener.say({ event: "state", data: { ...entry }, id: last ? this.head : undefined });
    }
    if (from !== undefined) {
      for (const change of this.#log) {
        const kept = change.channels.filter((channel) => channels.includes(channel) && !lost.includes(channel));
        if (change.order > from && kept.length > 0) this.#deliver(listener, change);
      }
    }
    if (position !== undefined) listener.say({ event: "heartbeat", data: {}, id: this.head });
  }

  #join(listener: Listener, seen: Seen): void {
    const channels = seen.query.getAll("channel");
    const position = seen.query.get("position") ?? undefined;
    const state = seen.query.get("state") === "true";
    const foreign = position !== undefined && this.#orderOf(position) === undefined;
    const has_state = state && channels.some((channel) => this.stateOf(channel) !== undefined);
    const id = position === undefined ? (has_state ? undefined : this.head) : foreign ? undefined : position;
    const connection = `c${(this.#connections += 1)}`;
    const { heartbeat_s } = this;
    listener.say({ event: "joined", id, data: { channels, heartbeat_s, resumed: position !== undefined, connection } });
    this.#catchUp(listener, channels, position, state);
    this.listeners.add(listener);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const seen = await this.#see(request);
      const handler = this.routes.get(seen.path);
      if (handler !== undefined) return json(response, 200, await handler(seen));
      if (seen.path === "/events") return this.#listen(seen, response);
      if (seen.path.startsWith("/state/")) return this.#answerState(seen.path.slice(7), response);
      throw new Refused(404, "LC105", "not_found", "no");
    } catch (error) {
      const problem = error instanceof Refused ? error.problem : { status: 500, code: "LC100", title: String(error) };
      json(response, Number(problem["status"]), problem);
    }
  }

  async #see(request: IncomingMessage): Promise<Seen> {
    const url = new URL(request.url ?? "/", this.base);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = chunks.length === 0 ? undefined : parseJson(Buffer.concat(chunks).toString());
    const { method = "GET", headers } = request;
    const seen = { method, path: url.pathname, query: url.searchParams, headers, body };
    this.seen.push(seen);
    await this.gate(seen);
    return seen;
  }

  #answerState(channel: string, response: ServerResponse): void {
    const state = this.stateOf(channel);
    if (state === undefined) throw new Refused(404, "LC105", "not_found", "no");
    json(response, 200, { position: this.head, state });
  }

  #listen(seen: Seen, response: ServerResponse): void {
    if (seen.headers.accept?.includes("text/event-stream") !== true) return this.#poll(seen, response);
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache" });
    response.write(`retry: ${this.retry_ms}\n`);
    const listener: Listener = {
      channels: new Set(seen.query.getAll("channel")),
      transport: "sse",
      say: (frame) => response.write(block(frame)),
      end: (code, name, retry) => {
        response.end(block({ event: "close", data: { code, name, retry } }));
        this.listeners.delete(listener);
      },
    };
    response.on("close", () => this.listeners.delete(listener));
    this.#join(listener, seen);
  }

  #poll(seen: Seen, response: ServerResponse): void {
    const events: Json[] = [];
    const resets: Json[] = [];
    const states: Json[] = [];
    const catching: Listener = {
      channels: new Set(seen.query.getAll("channel")),
      transport: "long-poll",
      say: (frame) => {
        if (frame.event === "reset" && frame.id === undefined) resets.push(frame.data);
        else if (frame.event === "state") states.push(frame.data);
        else if (frame.event !== "heartbeat") events.push(member(frame));
        if (this.listeners.has(catching)) finish();
      },
      end: () => finish(),
    };
    const finish = (): void => {
      clearTimeout(timer);
      this.listeners.delete(catching);
      if (response.writableEnded) return;
      const extra = { ...(resets.length > 0 ? { reset: resets } : {}), ...(states.length > 0 ? { states } : {}) };
      json(response, 200, { position: this.head, events, ...extra });
    };
    const position = seen.query.get("position") ?? undefined;
    this.#catchUp(catching, seen.query.getAll("channel"), position, seen.query.get("state") === "true");
    const wait_ms = Number(seen.query.get("wait") ?? 25) * 1000;
    const timer = setTimeout(finish, wait_ms);
    if (position === undefined || wait_ms === 0 || events.length + resets.length > 0) finish();
    else this.listeners.add(catching);
    response.on("close", () => this.listeners.delete(catching));
  }

  async #upgrade(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const url = new URL(request.url ?? "/", this.base);
    const { headers, method = "GET" } = request;
    const seen = { method, path: url.pathname, query: url.searchParams, headers, body: undefined };
    this.seen.push(seen);
    try {
      await this.gate(seen);
    } catch {
      socket.end("HTTP/1.1 403 Forbidden\r\n\r\n");
      return;
    }
    this.#websockets.handleUpgrade(request, socket, head, (websocket) => this.#serveSocket(websocket, seen));
  }

  #serveSocket(websocket: WebSocket, seen: Seen): void {
    const send = (value: JsonObject): void => websocket.send(JSON.stringify(value));
    const listener: Listener = {
      channels: new Set(seen.query.getAll("channel")),
      transport: "websocket",
      say: (frame) => send(member(frame)),
      end: (code, name, retry, close) => {
        send({ event: "close", data: { code, name, retry } });
        websocket.close(close);
        this.listeners.delete(listener);
      },
    };
    websocket.on("close", () => this.listeners.delete(listener));
    websocket.on("message", (data: Buffer) => {
      const frame = parseJson(data.toString());
      if (isObject(frame)) void this.#operate(listener, frame, send, seen);
    });
    this.#join(listener, seen);
  }

  async #operate(listener: Listener, frame: JsonObject, send: (value: JsonObject) => void, seen: Seen): Promise<void> {
    const channels = (frame["channels"] ?? []) as readonly string[];
    const operation = { ...seen, path: `ws:${String(frame["op"])}`, body: frame };
    this.seen.push(operation);
    try {
      await this.gate(operation);
    } catch (error) {
      if (error instanceof Refused) send({ event: "error", ref: frame["ref"], problem: error.problem });
      return;
    }
    if (frame["op"] === "unsubscribe") for (const channel of channels) listener.channels.delete(channel);
    send({ event: "ack", ref: frame["ref"], channels: frame["op"] === "token" ? [...listener.channels] : channels });
    if (frame["op"] !== "subscribe") return;
    const wordless: Listener = { ...listener, say: (said) => listener.say({ ...said, id: undefined }) };
    this.#catchUp(wordless, channels, undefined, frame["state"] === true);
    listener.say({ event: "heartbeat", data: {}, id: this.head });
    for (const channel of channels) listener.channels.add(channel);
  }
}

function member({ event, data, id, channels }: Said): JsonObject {
  return { ...(id === undefined ? {} : { id }), event, ...(channels === undefined ? {} : { channels }), data };
}

function block({ event, data, id, channels }: Said): string {
  const fields = [id === undefined ? "" : `id: ${id}\n`, `event: ${event}\n`];
  if (channels !== undefined) fields.push(`channel: ${channels.join(",")}\n`);
  return `${fields.join("")}data: ${JSON.stringify(data)}\n\n`;
}

function json(response: ServerResponse, status: number, value: Json): void {
  const retry = isObject(value) && typeof value["retry_after_s"] === "number" ? value["retry_after_s"] : undefined;
  response.writeHead(status, {
    "Content-Type": status < 400 ? "application/json" : "application/problem+json",
    ...(retry === undefined ? {} : { "Retry-After": String(retry) }),
  });
  response.end(JSON.stringify(value));
}
