import { useChannel, useClient, type ChannelFold, type ChannelView } from "@lastcall/react";
import { useMemo } from "react";
import { preciseNow } from "../lib/clock.ts";
import { withEvent, type Entry } from "../lib/history.ts";
import { afterEvent, readWar, type War } from "../lib/war.ts";

/** The war, and what was heard of it since the page was opened. */
export interface Heard {
  readonly war: War;
  readonly entries: readonly Entry[];
}

/** Follow the war of a faction. */
export function useWar(faction_id: number): ChannelView<Heard> {
  const client = useClient();
  const fold = useMemo(
    (): ChannelFold<Heard> => ({
      state: (state, last) => ({ war: readWar(state), entries: last?.entries ?? [] }),
      event: ({ war, entries }, event) => {
        const late = client.status.phase !== "live";
        return { war: afterEvent(war, event), entries: withEvent(entries, event, preciseNow(), late) };
      },
    }),
    [client],
  );
  return useChannel(`faction:${faction_id}`, fold);
}
