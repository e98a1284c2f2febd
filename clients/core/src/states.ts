import { Backoff } from "./backoff.ts";
import type { Environment } from "./environment.ts";
import { requestJson } from "./http.ts";
import { isObject, type Json } from "./json.ts";
import { RESET_SPREAD_MS, STATE_WAIT_MAX_MS } from "./limits.ts";
import { ownProblem, ProblemError } from "./problem.ts";
import type { Subscription } from "./subscription.ts";
import type { TokenKeeper } from "./token.ts";

/** What a fetcher of states is made of. */
export interface StateFetcherOptions {
  readonly environment: Environment;
  readonly base: string;
  readonly tokens: TokenKeeper;
  /** Value of `Accept-Language`; undefined leaves it to the browser. */
  readonly language: () => string | undefined;
}

/**
 * Fetches `GET /state/{channel}` for subscriptions (spec/protocol.md, 7), again and again with a backoff for as long as
 * the subscription waits for that very answer. A channel without a state is told so; a refusal ends the subscription.
 */
export class StateFetcher {
  readonly #options: StateFetcherOptions;
  readonly #closed = new AbortController();

  constructor(options: StateFetcherOptions) {
    this.#options = options;
  }

  /** Begin; the outcome goes to the subscription. `spread`: at a random moment of the next second. */
  fetch(subscription: Subscription, turn: number, spread: boolean): void {
    const { environment } = this.#options;
    const backoff = new Backoff(() => environment.random());
    const attempt = (): void => {
      if (!subscription.awaits(turn) || this.#closed.signal.aborted) return;
      this.#request(subscription.channel).then(
        (state) => subscription.fetched(turn, state),
        (error: unknown) => {
          const problem = error instanceof ProblemError ? error.problem : ownProblem("malformed", String(error));
          if (problem.status === 404) subscription.fetched(turn, undefined);
          else if (problem.retry === "no") subscription.end(problem);
          else environment.after(backoff.next(problem, undefined), attempt);
        },
      );
    };
    if (spread) environment.after(environment.random() * RESET_SPREAD_MS, attempt);
    else attempt();
  }

  /** Call off what is under way. */
  close(): void {
    this.#closed.abort();
  }

  async #request(channel: string): Promise<Json | undefined> {
    const { environment, base, tokens, language } = this.#options;
    const held = await tokens.get();
    const tongue = language();
    try {
      const { body } = await requestJson(environment, {
        method: "GET",
        url: `${base}/state/${channel}`,
        token: held?.text,
        headers: tongue === undefined ? {} : { "Accept-Language": tongue },
        wait_max_ms: STATE_WAIT_MAX_MS,
        signal: this.#closed.signal,
      });
      if (!isObject(body) || body["state"] === undefined) throw new ProblemError(ownProblem("malformed", "no state"));
      return body["state"];
    } catch (error) {
      if (error instanceof ProblemError && error.problem.retry === "fresh") tokens.refused(held?.text);
      throw error;
    }
  }
}
