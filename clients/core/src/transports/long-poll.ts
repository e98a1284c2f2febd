import type { Cancel, Environment } from "../environment.ts";
import { FrameError, readPoll, type Frame, type PollAnswer } from "../frames.ts";
import { requestJson } from "../http.ts";
import { HEARTBEAT_DEFAULT_S, POLL_GRACE_MS, POLL_PAUSE_MS, POLL_WAIT_S } from "../limits.ts";
import { ownProblem, ProblemError } from "../problem.ts";
import { listenQuery, type End, type Link, type OpenRequest, type Sink, type Transport } from "./transport.ts";

/**
 * Request after request, each from the position that the last one left (spec/protocol.md, 6). The first does not
 * wait, so that the link is known to work at once; every answer ends in a heartbeat with the position, so that those
 * above see the same order as in a stream.
 */
export const longPoll: Transport = {
  name: "long-poll",
  available: (environment) => environment.fetch !== undefined,
  open(environment, request, sink) {
    const link = new LongPollLink(environment, request, sink);
    void link.run();
    return link;
  },
};

class LongPollLink implements Link {
  readonly change = undefined;
  readonly #environment: Environment;
  readonly #sink: Sink;
  readonly #abort = new AbortController();
  #request: OpenRequest;

  constructor(environment: Environment, request: OpenRequest, sink: Sink) {
    this.#environment = environment;
    this.#request = request;
    this.#sink = sink;
  }

  close(): void {
    this.#abort.abort();
  }

  present(token: string): Promise<boolean> {
    this.#request = { ...this.#request, token };
    return Promise.resolve(true);
  }

  async run(): Promise<void> {
    let wait_s = 0;
    for (let first = true; !this.#closed; first = false) {
      const began = this.#environment.now();
      let answer: PollAnswer;
      try {
        answer = await this.#ask(wait_s);
      } catch (error) {
        this.#end(endOf(error));
        return;
      }
      if (first) this.#frame(joined(this.#request));
      for (const frame of answer.frames) this.#frame(frame);
      this.#frame({ kind: "heartbeat", id: answer.position });
      this.#request = { ...this.#request, position: answer.position };
      const idle = answer.frames.length === 0 && !answer.more;
      if (idle && wait_s > 0 && this.#environment.now() - began < POLL_PAUSE_MS) await this.#pause();
      wait_s = answer.more ? 0 : POLL_WAIT_S;
    }
  }

  get #closed(): boolean {
    return this.#abort.signal.aborted;
  }

  async #ask(wait_s: number): Promise<PollAnswer> {
    const query = listenQuery(this.#request);
    query.set("wait", String(wait_s));
    const { body } = await requestJson(this.#environment, {
      method: "GET",
      url: `${this.#request.base}/events?${query.toString()}`,
      token: this.#request.token,
      wait_max_ms: wait_s * 1000 + POLL_GRACE_MS,
      signal: this.#abort.signal,
    });
    return readPoll(body);
  }

  #frame(frame: Frame): void {
    if (!this.#closed) this.#sink.frame(frame);
  }

  #end(end: End): void {
    if (this.#closed) return;
    this.close();
    this.#sink.ended(end);
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      let cancel: Cancel = () => {};
      const done = (): void => {
        cancel();
        this.#abort.signal.removeEventListener("abort", done);
        resolve();
      };
      cancel = this.#environment.after(POLL_PAUSE_MS, done);
      this.#abort.signal.addEventListener("abort", done);
    });
  }
}

/** A long-poll has no `joined` of its own; without a position it stays without one until the answer's heartbeat. */
function joined(request: OpenRequest): Frame {
  const { channels, position } = request;
  const resumed = position !== undefined;
  return { kind: "joined", id: undefined, channels, heartbeat_s: HEARTBEAT_DEFAULT_S, resumed, connection: undefined };
}

function endOf(error: unknown): End {
  if (error instanceof FrameError) return { kind: "broken", problem: ownProblem("malformed", error.message) };
  const problem = error instanceof ProblemError ? error.problem : ownProblem("malformed", String(error));
  if (problem.status === 0) return { kind: problem.code === "unreachable" ? "unreachable" : "broken", problem };
  return { kind: "refused", problem };
}
