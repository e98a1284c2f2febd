import { isObject, type JsonObject } from "./json.ts";
import { RETRY_AFTER_MAX_MS } from "./limits.ts";

/** What a client should do about a refusal (`spec/codes.toml`). */
export type Retry = "no" | "now" | "later" | "fresh";

/**
 * An RFC 9457 problem document of the server, or one that the client made itself because no answer could be read. The
 * client's own have a `code` in small letters: `unreachable`, `timeout`, `malformed`, `overflow`, `too_many_waiting`.
 */
export interface Problem {
  readonly type: string;
  readonly title: string;
  /** HTTP status; 0 where there was no answer. */
  readonly status: number;
  readonly code: string;
  readonly name: string;
  readonly retry: Retry;
  readonly detail: string | undefined;
  readonly facts: JsonObject;
  readonly retry_after_s: number | undefined;
  readonly incident: string | undefined;
}

/** A call, a state or a connection was refused; `problem` says why and whether to try again. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(`${problem.code} ${problem.name}: ${problem.detail ?? problem.title}`);
    this.problem = problem;
  }
}

/** What the client says itself when there is no answer that it can read. */
export type OwnCode = "unreachable" | "timeout" | "malformed" | "overflow" | "too_many_waiting";

const OWN: Readonly<Record<OwnCode, { readonly title: string; readonly retry: Retry }>> = {
  unreachable: { title: "The server cannot be reached.", retry: "later" },
  timeout: { title: "The server did not answer in time.", retry: "later" },
  malformed: { title: "The answer is not one of the protocol's.", retry: "later" },
  overflow: { title: "The answer is larger than this client accepts.", retry: "later" },
  too_many_waiting: { title: "Too many calls are waiting already.", retry: "later" },
};

/** A problem of the client's own. */
export function ownProblem(code: OwnCode, detail?: string): Problem {
  const { title, retry } = OWN[code];
  const none = { facts: {}, retry_after_s: undefined, incident: undefined };
  return { type: `urn:lastcall:client:${code}`, title, status: 0, code, name: code, retry, detail, ...none };
}

/** What the server says by the number alone: in a close code or the last frame of a stream. */
export function closedProblem(code: string, name: string, retry: Retry): Problem {
  return { ...ownProblem("unreachable"), type: `urn:lastcall:error:${code}`, title: name, code, name, retry };
}

/**
 * Read a problem document. What is not one (a proxy's page, an empty body) becomes one by its HTTP status: 401 `fresh`;
 * 408, 425, 429 and 5xx `later`; everything else `no`.
 */
export function readProblem(body: unknown, status: number, retry_after: string | null = null): Problem {
  const members: JsonObject = isObject(body) ? body : {};
  const number = finite(members["retry_after_s"]) ?? finite(retry_after === null ? undefined : Number(retry_after));
  const code = text(members["code"]) ?? `HTTP${status}`;
  return {
    type: text(members["type"]) ?? "about:blank",
    title: text(members["title"]) ?? `HTTP ${status}`,
    status: finite(members["status"]) ?? status,
    code,
    name: text(members["name"]) ?? code.toLowerCase(),
    retry: asRetry(members["retry"]) ?? retryOfStatus(status),
    detail: text(members["detail"]),
    facts: isObject(members["facts"]) ? members["facts"] : {},
    retry_after_s: number === undefined ? undefined : Math.min(Math.max(number, 0), RETRY_AFTER_MAX_MS / 1000),
    incident: text(members["incident"]),
  };
}

/** The value as a Retry, or undefined. */
export function asRetry(value: unknown): Retry | undefined {
  return value === "no" || value === "now" || value === "later" || value === "fresh" ? value : undefined;
}

function retryOfStatus(status: number): Retry {
  if (status === 401) return "fresh";
  return status >= 500 || status === 408 || status === 425 || status === 429 ? "later" : "no";
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function finite(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}
