import type { Environment } from "./environment.ts";
import { parseJson, type Json } from "./json.ts";
import { ownProblem, ProblemError, readProblem, type Problem } from "./problem.ts";

/** One request with JSON in and out. */
export interface JsonRequest {
  readonly method: "GET" | "POST";
  readonly url: string;
  readonly token: string | undefined;
  readonly body?: Json | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly wait_max_ms: number;
  readonly signal?: AbortSignal | undefined;
}

/** A successful answer. `body` is undefined where there was none, or it is not JSON. */
export interface JsonAnswer {
  readonly body: Json | undefined;
  readonly headers: Headers;
}

/**
 * Send one request. Throws ProblemError: the server's, or `unreachable` and `timeout` where there was no answer.
 * A call-off through `signal` is `unreachable` too.
 */
export async function requestJson(environment: Environment, request: JsonRequest): Promise<JsonAnswer> {
  if (environment.fetch === undefined) throw new ProblemError(ownProblem("unreachable", "this platform has no fetch"));
  const call_off = new AbortController();
  let late = false;
  const cancel = environment.after(request.wait_max_ms, () => {
    late = true;
    call_off.abort();
  });
  const abort = (): void => call_off.abort();
  request.signal?.addEventListener("abort", abort);
  try {
    if (request.signal?.aborted === true) abort();
    const response = await environment.fetch(request.url, { ...initOf(request), signal: call_off.signal });
    const body = parseJson(await response.text());
    if (!response.ok) throw new ProblemError(readProblem(body, response.status, response.headers.get("retry-after")));
    return { body, headers: response.headers };
  } catch (error) {
    if (error instanceof ProblemError) throw error;
    throw new ProblemError(ownProblem(late ? "timeout" : "unreachable", messageOf(error)));
  } finally {
    cancel();
    request.signal?.removeEventListener("abort", abort);
  }
}

/** Headers with the token where there is one; it never travels in an address. */
export function authorized(token: string | undefined, headers: Readonly<Record<string, string>>): HeadersInit {
  return token === undefined ? { ...headers } : { ...headers, Authorization: `Bearer ${token}` };
}

/** The refusal in a response that is not ok. */
export async function problemOf(response: Response): Promise<Problem> {
  const body = parseJson(await response.text());
  return readProblem(body, response.status, response.headers.get("retry-after"));
}

/** What an error says, for the `detail` of a problem of the client's own. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function initOf(request: JsonRequest): RequestInit {
  const headers = authorized(request.token, { Accept: "application/json", ...request.headers });
  if (request.body === undefined) return { method: request.method, headers };
  return {
    method: request.method,
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(request.body),
  };
}
