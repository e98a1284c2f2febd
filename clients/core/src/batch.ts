import type { Environment } from "./environment.ts";
import { requestJson, type JsonAnswer } from "./http.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { BATCH_CALLS_MAX, BATCH_WINDOW_MS, CALL_REPEATS_MAX, CALL_WAIT_MAX_MS, CALLS_WAITING_MAX } from "./limits.ts";
import { ownProblem, ProblemError, readProblem, type Problem } from "./problem.ts";
import type { TokenKeeper } from "./token.ts";

/** What a call brought. */
export interface Answer {
  readonly value: Json;
  /** A position at or after its COMMIT: an event that tells of it stands at or before this. */
  readonly position: string | undefined;
  /** Whether it had been applied before, and this is the stored answer. */
  readonly replayed: boolean;
}

/** How to call. */
export interface CallOptions {
  /**
   * The operation's id, sent as `Idempotency-Key`: however often the call is sent, it applies once. A new one by
   * default; false for functions that only read, whose answers are not worth keeping.
   */
  readonly key?: string | false | undefined;
}

/** What a caller is made of. */
export interface CallerOptions {
  readonly environment: Environment;
  readonly base: string;
  readonly tokens: TokenKeeper;
  /** Value of `Accept-Language`; undefined leaves it to the browser. */
  readonly language: () => string | undefined;
}

type HeaderMap = Readonly<Record<string, string>>;

interface Pending {
  readonly name: string;
  readonly arguments: JsonObject;
  readonly key: string | undefined;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: ProblemError) => void;
  repeats: number;
  refreshed: boolean;
}

/**
 * Calls functions (spec/protocol.md, 8). Calls made within one window leave as one `POST /batch`, a single one as
 * `POST /rpc/…`; the order of the calls is kept.
 *
 * Promises: a call is settled exactly once, with an Answer or a ProblemError; one with a key is repeated where the
 * outcome is unknown, one without never then; a refused token is renewed once per call.
 */
export class Caller {
  readonly #options: CallerOptions;
  readonly #queue: Pending[] = [];
  readonly #closed = new AbortController();
  #scheduled = false;
  #unsettled = 0;

  constructor(options: CallerOptions) {
    this.#options = options;
  }

  /** Call `app.function` with named arguments. Rejects with a ProblemError. */
  call(name: string, args: JsonObject = {}, options: CallOptions = {}): Promise<Answer> {
    const { environment } = this.#options;
    if (this.#unsettled >= CALLS_WAITING_MAX) return Promise.reject(new ProblemError(ownProblem("too_many_waiting")));
    const key = options.key === false ? undefined : (options.key ?? environment.uniqueId());
    this.#unsettled += 1;
    const settled = new Promise<Answer>((resolve, reject) => {
      this.#enqueue({ name, arguments: args, key, resolve, reject, repeats: 0, refreshed: false });
    });
    return settled.finally(() => {
      this.#unsettled -= 1;
    });
  }

  /** Call off what is under way; the outcome of those calls is unknown. */
  close(): void {
    this.#closed.abort();
    for (const call of this.#queue.splice(0)) call.reject(new ProblemError(ownProblem("unreachable", "closed")));
  }

  #enqueue(call: Pending): void {
    if (this.#closed.signal.aborted) {
      call.reject(new ProblemError(ownProblem("unreachable", "closed")));
      return;
    }
    this.#queue.push(call);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#options.environment.after(BATCH_WINDOW_MS, () => {
      this.#scheduled = false;
      while (this.#queue.length > 0) void this.#send(this.#queue.splice(0, BATCH_CALLS_MAX));
    });
  }

  async #send(calls: readonly Pending[]): Promise<void> {
    let token: string | undefined;
    try {
      token = (await this.#options.tokens.get())?.text;
      const [only] = calls;
      if (calls.length === 1 && only !== undefined) only.resolve(answerOf(await this.#rpc(only, token)));
      else await this.#batch(calls, token);
    } catch (error) {
      const problem = error instanceof ProblemError ? error.problem : ownProblem("malformed", String(error));
      for (const call of calls) this.#failed(call, problem, token);
    }
  }

  #rpc(call: Pending, token: string | undefined): Promise<JsonAnswer> {
    const headers = call.key === undefined ? {} : { "Idempotency-Key": call.key };
    return this.#post(`/rpc/${call.name}`, call.arguments, headers, token);
  }

  async #batch(calls: readonly Pending[], token: string | undefined): Promise<void> {
    const body = calls.map(({ name, arguments: args, key }) =>
      key === undefined ? { function: name, arguments: args } : { function: name, arguments: args, key },
    );
    const answer = await this.#post("/batch", body, {}, token);
    if (!Array.isArray(answer.body) || answer.body.length !== calls.length) {
      throw new ProblemError(ownProblem("malformed", "not one answer for each call"));
    }
    for (const [index, call] of calls.entries()) this.#settle(call, answer.body[index], token);
  }

  #settle(call: Pending, item: unknown, token: string | undefined): void {
    if (isObject(item) && item["problem"] === undefined && item["status"] === 200) {
      const position = typeof item["position"] === "string" ? item["position"] : undefined;
      call.resolve({ value: item["value"] ?? null, position, replayed: item["replayed"] === true });
      return;
    }
    const status = isObject(item) && typeof item["status"] === "number" ? item["status"] : 0;
    this.#failed(call, readProblem(isObject(item) ? item["problem"] : undefined, status), token);
  }

  #post(path: string, body: Json, headers: HeaderMap, token: string | undefined): Promise<JsonAnswer> {
    const { environment, base, language } = this.#options;
    const tongue = language();
    return requestJson(environment, {
      method: "POST",
      url: base + path,
      token,
      body,
      headers: tongue === undefined ? headers : { ...headers, "Accept-Language": tongue },
      wait_max_ms: CALL_WAIT_MAX_MS,
      signal: this.#closed.signal,
    });
  }

  /** Repeat the call where that is safe and of use, else reject it. */
  #failed(call: Pending, problem: Problem, token: string | undefined): void {
    const { environment, tokens } = this.#options;
    if (problem.retry === "fresh" && !call.refreshed) {
      tokens.refused(token);
      call.refreshed = true;
      this.#enqueue(call);
      return;
    }
    const unknown = problem.status === 0 || problem.name === "outcome_unknown";
    const useful = problem.retry === "now" || unknown;
    if (!useful || (unknown && call.key === undefined) || call.repeats >= CALL_REPEATS_MAX) {
      call.reject(new ProblemError(problem));
      return;
    }
    call.repeats += 1;
    environment.after((0.5 + environment.random()) * 250 * call.repeats ** 2, () => this.#enqueue(call));
  }
}

function answerOf({ body, headers }: JsonAnswer): Answer {
  return {
    value: body ?? null,
    position: headers.get("lastcall-position") ?? undefined,
    replayed: headers.get("lastcall-replayed") === "true",
  };
}
