import { isObject, ownProblem, ProblemError, readProblem, type Json, type Token, type TransportName } from "@lastcall/core";
import type { Member } from "./war.ts";

/** Who this page is: a member of the demonstration's faction. */
export interface Session {
  readonly member: Member;
  readonly faction_id: number;
  readonly token: Token;
}

type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

/** The member that the page's address asks for, if any. */
export function wantedMember(search: string): number | undefined {
  const wanted = Number(new URLSearchParams(search).get("member") ?? Number.NaN);
  return Number.isSafeInteger(wanted) && wanted > 0 ? wanted : undefined;
}

/** The transports that the page's address asks for (`?transport=websocket`), to see that all three serve alike. */
export function wantedTransports(search: string): readonly TransportName[] | undefined {
  const wanted = new URLSearchParams(search).get("transport");
  return wanted === "sse" || wanted === "websocket" || wanted === "long-poll" ? [wanted] : undefined;
}

/** Take a seat in the demonstration. Throws ProblemError. */
export async function takeSeat(fetch: Fetch, member_id: number | undefined): Promise<Session> {
  let response: Response;
  let body: Json;
  try {
    response = await fetch("/torncat/demo/session", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(member_id === undefined ? {} : { member_id }),
    });
    body = (await response.json().catch(() => null)) as Json;
  } catch (error) {
    throw new ProblemError(ownProblem("unreachable", String(error)));
  }
  if (!response.ok) throw new ProblemError(readProblem(body, response.status));
  if (!isObject(body) || !isObject(body["member"])) throw new ProblemError(ownProblem("malformed"));
  const { token, expires_in_s, faction_id, member } = body;
  const { id, name } = member;
  if (typeof token !== "string" || typeof faction_id !== "number" || typeof id !== "number") {
    throw new ProblemError(ownProblem("malformed"));
  }
  const life = typeof expires_in_s === "number" ? expires_in_s : undefined;
  return { member: { id, name: String(name) }, faction_id, token: { token, expires_in_s: life } };
}
