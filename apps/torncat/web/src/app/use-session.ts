import { browserEnvironment, Client, ownProblem, ProblemError, type Problem } from "@lastcall/core";
import { useEffect, useState } from "react";
import { spokenLanguage } from "../lib/i18n/index.ts";
import { takeSeat, wantedMember, wantedTransports, type Session } from "../lib/session.ts";
import type { Traffic } from "../lib/traffic.ts";

/** A seat and the client that sits in it. */
export interface Seated {
  readonly session: Session;
  readonly client: Client;
}

/** A seat, or why there is none; both undefined while it is being taken. */
export interface Seating {
  readonly seated: Seated | undefined;
  readonly problem: Problem | undefined;
}

/** Take the seat that the address asks for, and open a client for it. */
export function useSession(traffic: Traffic): Seating {
  const [seated, setSeated] = useState<Seated>();
  const [problem, setProblem] = useState<Problem>();
  useEffect(() => {
    let over = false;
    let client: Client | undefined;
    takeSeat(traffic.fetch, wantedMember(location.search)).then(
      (session) => {
        if (over) return;
        client = openClient(session, traffic);
        setSeated({ session, client });
      },
      (error: unknown) => {
        if (!over) setProblem(error instanceof ProblemError ? error.problem : ownProblem("malformed", String(error)));
      },
    );
    return () => {
      over = true;
      client?.close();
    };
  }, [traffic]);
  return { seated, problem };
}

function openClient(session: Session, traffic: Traffic): Client {
  const { member } = session;
  return new Client({
    base: location.origin,
    transports: wantedTransports(location.search),
    // Tabs of one member share a connection; tabs of different members must not hear each other.
    share: `torncat:${member.id}`,
    token: async (reason) => (reason === "first" ? session.token : (await takeSeat(traffic.fetch, member.id)).token),
    language: spokenLanguage,
    environment: browserEnvironment({ fetch: traffic.fetch }),
  });
}
