import { ProblemError, ownProblem, type Problem } from "@lastcall/core";
import { useClient } from "@lastcall/react";
import { useCallback, useState } from "react";
import type { Call, War } from "../../lib/war.ts";
import { stillNeeded, type Overlay } from "./overlay.ts";

/** An answered call whose event has not come after this long no longer holds its overlay. */
const OVERLAY_KEPT_MS = 5_000;

/** What was ordered, and why it was refused. */
export interface Refusal {
  readonly overlay: Overlay;
  readonly problem: Problem;
}

/** An order that was carried out. */
export interface Done {
  readonly kind: Overlay["kind"];
  readonly target: string;
  [value: string]: string;
}

/** Call and release targets; a click shows at once and is taken back when it is refused. */
export interface Orders {
  readonly overlays: readonly Overlay[];
  /** The last one that was carried out. */
  readonly last: Done | undefined;
  readonly call: (target_id: number) => void;
  readonly release: (call: Call) => void;
}

/** The orders of this page. */
export function useOrders(war: War, onRefused: (refusal: Refusal) => void): Orders {
  const client = useClient();
  const [overlays, setOverlays] = useState<readonly Overlay[]>([]);
  const [last, setLast] = useState<Done>();
  const needed = stillNeeded(overlays, war);
  if (needed !== overlays) setOverlays(needed);
  const names = war.targets;
  const order = useCallback(
    async (overlay: Overlay, name: string, args: Record<string, number>) => {
      const drop = (): void => setOverlays((shown) => shown.filter((one) => one !== overlay));
      setOverlays((shown) => [...shown, overlay]);
      try {
        await client.call(name, args);
        setLast({ kind: overlay.kind, target: names.get(overlay.target_id)?.name ?? "" });
        setTimeout(drop, OVERLAY_KEPT_MS);
      } catch (error) {
        drop();
        const problem = error instanceof ProblemError ? error.problem : ownProblem("malformed", String(error));
        onRefused({ overlay, problem });
      }
    },
    [client, names, onRefused],
  );
  const war_id = war.running?.id;
  const call = useCallback(
    (target_id: number) => {
      if (war_id !== undefined) void order({ kind: "call", target_id }, "torncat.call_target", { war_id, target_id });
    },
    [order, war_id],
  );
  const release = useCallback(
    ({ id, target_id }: Call) => {
      void order({ kind: "release", target_id, call_id: id }, "torncat.release_call", { call_id: id });
    },
    [order],
  );
  return { overlays: needed, last, call, release };
}
