import type { Environment } from "./environment.ts";
import { isObject, parseJson } from "./json.ts";
import { TOKEN_MARGIN_MS, TOKEN_WAIT_MAX_MS } from "./limits.ts";
import { ownProblem, ProblemError } from "./problem.ts";

/** A token and how long it lives; without `expires_in_s` the `exp` of the JWT is taken. */
export interface Token {
  readonly token: string;
  readonly expires_in_s?: number | undefined;
}

/**
 * Asked for a token whenever one is needed: at first, before the last one expires (`expiring`), and when the server
 * refused it (`refused`). Undefined means: go on without one, as `anon`. It may throw; a ProblemError whose `retry`
 * is `no` stops the connection, anything else is tried again later.
 */
export type TokenProvider = (reason: "first" | "expiring" | "refused") => Promise<Token | undefined> | Token | undefined;

/** A token at hand, with its times by our own clock. */
export interface HeldToken {
  readonly text: string;
  /** When to ask for the next one; undefined: it does not say when it ends. */
  readonly renew_at: number | undefined;
}

/**
 * The one place that knows the token: connection, states and calls share it, and a provider is asked once however many
 * wait. Every method rejects with a ProblemError.
 */
export class TokenKeeper {
  readonly #environment: Environment;
  readonly #provider: TokenProvider | undefined;
  #held: HeldToken | undefined;
  #asked: Promise<HeldToken | undefined> | undefined;
  #reason: "first" | "expiring" | "refused" = "first";

  constructor(environment: Environment, provider: TokenProvider | undefined) {
    this.#environment = environment;
    this.#provider = provider;
  }

  /** The token at hand, or a new one where there is none or it is about to expire. */
  async get(): Promise<HeldToken | undefined> {
    const held = this.#held;
    if (held !== undefined) {
      if (held.renew_at === undefined || this.#environment.now() < held.renew_at) return held;
      this.#reason = "expiring";
    }
    return this.#ask();
  }

  /** The server refused this token: never use it again. Harmless when a newer one is at hand already. */
  refused(token: string | undefined): void {
    if (this.#held?.text !== token) return;
    this.#held = undefined;
    this.#reason = "refused";
  }

  #ask(): Promise<HeldToken | undefined> {
    this.#asked ??= this.#fetch().finally(() => {
      this.#asked = undefined;
    });
    return this.#asked;
  }

  async #fetch(): Promise<HeldToken | undefined> {
    const provider = this.#provider;
    if (provider === undefined) return undefined;
    let cancel = (): void => {};
    const late = new Promise<never>((_resolve, reject) => {
      const problem = ownProblem("timeout", "no token came");
      cancel = this.#environment.after(TOKEN_WAIT_MAX_MS, () => reject(new ProblemError(problem)));
    });
    try {
      const token = await Promise.race([(async () => provider(this.#reason))(), late]);
      this.#held = token === undefined ? undefined : heldFrom(token, this.#environment.now());
      return this.#held;
    } catch (error) {
      if (error instanceof ProblemError) throw error;
      throw new ProblemError(ownProblem("unreachable", `no token: ${String(error)}`));
    } finally {
      cancel();
    }
  }
}

function heldFrom(token: Token, now: number): HeldToken {
  const life_ms = token.expires_in_s === undefined ? lifeOfJwt(token.token, now) : token.expires_in_s * 1000;
  if (life_ms === undefined) return { text: token.token, renew_at: undefined };
  return { text: token.token, renew_at: now + Math.max(life_ms - TOKEN_MARGIN_MS, life_ms * 0.8) };
}

/** What the `exp` of a JWT leaves of its life (RFC 7519, 4.1.4), by a clock that may differ from the server's. */
function lifeOfJwt(text: string, now: number): number | undefined {
  const payload = text.split(".")[1];
  if (payload === undefined) return undefined;
  try {
    const claims = parseJson(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
    return isObject(claims) && typeof claims["exp"] === "number" ? claims["exp"] * 1000 - now : undefined;
  } catch {
    return undefined; // Not a JWT: it works until the server refuses it.
  }
}
