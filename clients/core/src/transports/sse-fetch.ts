import type { Environment } from "../environment.ts";
import { FrameError, frameOfBlock } from "../frames.ts";
import { authorized, messageOf, problemOf, requestJson } from "../http.ts";
import { TOKEN_WAIT_MAX_MS } from "../limits.ts";
import { ownProblem } from "../problem.ts";
import { SseOverflow, SseParser } from "../sse.ts";
import { listenQuery, type End, type Link, type OpenRequest, type Sink, type Transport } from "./transport.ts";

/**
 * Server-sent events read from a fetch stream (spec/protocol.md, 4). Unlike an EventSource it sends headers, and sees
 * heartbeats, close frames and problem documents.
 */
export const sseFetch: Transport = {
  name: "sse",
  available: (environment) => environment.fetch !== undefined && typeof ReadableStream === "function",
  open(environment, request, sink) {
    const link = new SseLink(environment, request, sink);
    void link.run();
    return link;
  },
};

class SseLink implements Link {
  readonly change = undefined;
  readonly #environment: Environment;
  readonly #request: OpenRequest;
  readonly #sink: Sink;
  readonly #abort = new AbortController();

  constructor(environment: Environment, request: OpenRequest, sink: Sink) {
    this.#environment = environment;
    this.#request = request;
    this.#sink = sink;
  }

  close(): void {
    this.#abort.abort();
  }

  async present(token: string, connection: string | undefined): Promise<boolean> {
    if (connection === undefined) return false;
    await requestJson(this.#environment, {
      method: "POST",
      url: `${this.#request.base}/events/token`,
      token,
      body: { connection, token },
      wait_max_ms: TOKEN_WAIT_MAX_MS,
      signal: this.#abort.signal,
    });
    return true;
  }

  async run(): Promise<void> {
    const end = await this.#stream();
    if (this.#closed) return;
    this.close();
    this.#sink.ended(end);
  }

  get #closed(): boolean {
    return this.#abort.signal.aborted;
  }

  /** The stream from request to end; how it ended. */
  async #stream(): Promise<End> {
    const { base, token } = this.#request;
    let response: Response | undefined;
    try {
      response = await this.#environment.fetch?.(`${base}/events?${listenQuery(this.#request).toString()}`, {
        headers: authorized(token, { Accept: "text/event-stream" }),
        cache: "no-store",
        signal: this.#abort.signal,
      });
    } catch (error) {
      return { kind: "unreachable", problem: ownProblem("unreachable", messageOf(error)) };
    }
    try {
      if (response?.ok !== true) return await refusal(response);
      const type = response.headers.get("content-type") ?? "";
      if (!type.startsWith("text/event-stream")) return malformed(`not an event stream: ${type}`);
      if (response.body === null) return malformed("no body");
      return await this.#read(response.body.getReader());
    } catch (error) {
      if (error instanceof FrameError) return malformed(error.message);
      if (error instanceof SseOverflow) return { kind: "broken", problem: ownProblem("overflow", error.message) };
      return { kind: "broken", problem: ownProblem("unreachable", messageOf(error)) };
    }
  }

  async #read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<End> {
    const parser = new SseParser();
    let retry_ms: number | undefined;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { kind: "broken", problem: ownProblem("unreachable", "the stream ended") };
      const blocks = parser.push(value);
      if (parser.retry_ms !== undefined && parser.retry_ms !== retry_ms && !this.#closed) {
        retry_ms = parser.retry_ms;
        this.#sink.retry(retry_ms);
      }
      for (const block of blocks) {
        if (this.#closed) return { kind: "broken", problem: ownProblem("unreachable") };
        this.#sink.frame(frameOfBlock(block));
      }
    }
  }
}

async function refusal(response: Response | undefined): Promise<End> {
  if (response === undefined) return { kind: "unreachable", problem: ownProblem("unreachable") };
  return { kind: "refused", problem: await problemOf(response) };
}

function malformed(detail: string): End {
  return { kind: "broken", problem: ownProblem("malformed", detail) };
}
