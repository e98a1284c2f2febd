import type { Client } from "@lastcall/core";
import { createContext, useContext, type ReactNode } from "react";

const ClientContext = createContext<Client | undefined>(undefined);

/** What `LastcallProvider` takes. */
export interface LastcallProviderProps {
  readonly client: Client;
  readonly children: ReactNode;
}

/** Gives the hooks below it their client. It does not close the client: whoever made it does. */
export function LastcallProvider({ client, children }: LastcallProviderProps): ReactNode {
  return <ClientContext value={client}>{children}</ClientContext>;
}

/** The client of the nearest provider. Throws where there is none. */
export function useClient(): Client {
  const client = useContext(ClientContext);
  if (client === undefined) throw new Error("useClient needs a LastcallProvider above it");
  return client;
}
