import type { Environment, Socket } from "../environment.ts";
import { FrameError, frameOfText, type Frame } from "../frames.ts";
import type { Json } from "../json.ts";
import { messageOf } from "../http.ts";
import { closedProblem, ownProblem, ProblemError, type Problem, type Retry } from "../problem.ts";
import { listenQuery, type End, type Link, type OpenRequest, type Sink, type Transport } from "./transport.ts";

const SUBPROTOCOL = "lastcall.v1";
const TOKEN_SUBPROTOCOL = "lastcall.token.";

interface CloseCode {
  readonly code: string;
  readonly name: string;
  readonly retry: Retry;
}

/** Close codes (spec/protocol.md, 5.1) and what they say; a test compares them with `spec/codes.toml`. */
export const CLOSE_CODES: Readonly<Record<number, CloseCode>> = {
  1009: { code: "LC407", name: "frame_too_large", retry: "no" },
  1011: { code: "LC100", name: "internal", retry: "later" },
  1012: { code: "LC209", name: "shutting_down", retry: "now" },
  1013: { code: "LC204", name: "not_ready", retry: "later" },
  4401: { code: "LC301", name: "token_missing", retry: "fresh" },
  4402: { code: "LC302", name: "token_invalid", retry: "fresh" },
  4403: { code: "LC303", name: "token_expired", retry: "fresh" },
  4404: { code: "LC404", name: "too_many_connections", retry: "later" },
  4405: { code: "LC305", name: "channel_forbidden", retry: "no" },
  4406: { code: "LC406", name: "frame_malformed", retry: "no" },
  4408: { code: "LC405", name: "reader_too_slow", retry: "now" },
};

/**
 * The same stream as JSON text frames, with channels that change while it is open (spec/protocol.md, 5). A browser
 * hides why an upgrade was refused; such a link ends as `broken`, and after a few the next transport learns why.
 */
export const webSocket: Transport = {
  name: "websocket",
  available: (environment) => environment.openSocket !== undefined,
  open: (environment, request, sink) => new WebSocketLink(environment, request, sink),
};

interface Waiting {
  acknowledged(): void;
  refused(problem: Problem): void;
}

class WebSocketLink implements Link {
  readonly #sink: Sink;
  readonly #socket: Socket | undefined;
  readonly #waiting = new Map<number, Waiting>();
  #next_ref = 1;
  #closed = false;

  constructor(environment: Environment, request: OpenRequest, sink: Sink) {
    this.#sink = sink;
    const protocols = [SUBPROTOCOL, ...(request.token === undefined ? [] : [TOKEN_SUBPROTOCOL + request.token])];
    const url = `${request.base.replace(/^http/, "ws")}/events?${listenQuery(request).toString()}`;
    try {
      this.#socket = environment.openSocket?.(url, protocols, {
        message: (data) => this.#message(data),
        closed: (code) => this.#end(endOfCode(code)),
      });
    } catch (error) {
      // A page's security policy can forbid the address; the next transport may be allowed.
      queueMicrotask(() => this.#end({ kind: "broken", problem: ownProblem("unreachable", messageOf(error)) }));
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket?.close();
    for (const waiting of this.#waiting.values()) waiting.refused(ownProblem("unreachable", "closed"));
    this.#waiting.clear();
  }

  present(token: string): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#send(
        { op: "token", token },
        { acknowledged: () => resolve(true), refused: (problem) => reject(new ProblemError(problem)) },
      );
    });
  }

  readonly change = (add: readonly string[], drop: readonly string[], state: boolean): void => {
    const acknowledged = (): void => {};
    if (drop.length > 0) this.#send({ op: "unsubscribe", channels: drop }, { acknowledged, refused: acknowledged });
    if (add.length === 0) return;
    const refused = (problem: Problem): void => {
      if (!this.#closed) this.#sink.refused(add, problem);
    };
    this.#send({ op: "subscribe", channels: add, ...(state ? { state: true } : {}) }, { acknowledged, refused });
  };

  #send(operation: { readonly [member: string]: Json }, waiting: Waiting): void {
    const ref = this.#next_ref;
    this.#next_ref += 1;
    this.#waiting.set(ref, waiting);
    this.#socket?.send(JSON.stringify({ ...operation, ref }));
  }

  #message(data: unknown): void {
    if (this.#closed) return;
    let frame: Frame;
    try {
      if (typeof data !== "string") throw new FrameError("a frame is not text");
      frame = frameOfText(data);
    } catch (error) {
      this.#end({ kind: "broken", problem: ownProblem("malformed", String(error)) });
      return;
    }
    if (frame.kind === "ack" || frame.kind === "error") this.#answered(frame);
    this.#sink.frame(frame);
  }

  #answered(frame: Extract<Frame, { kind: "ack" | "error" }>): void {
    const waiting = frame.ref === undefined ? undefined : this.#waiting.get(frame.ref);
    if (waiting === undefined || frame.ref === undefined) return;
    this.#waiting.delete(frame.ref);
    if (frame.kind === "ack") waiting.acknowledged();
    else waiting.refused(frame.problem);
  }

  #end(end: End): void {
    if (this.#closed) return;
    this.close();
    this.#sink.ended(end);
  }
}

function endOfCode(code: number): End {
  const known = CLOSE_CODES[code];
  if (known === undefined) return { kind: "broken", problem: ownProblem("unreachable", `closed with ${code}`) };
  return { kind: "refused", problem: closedProblem(known.code, known.name, known.retry) };
}
