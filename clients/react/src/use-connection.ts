import type { Status } from "@lastcall/core";
import { useCallback, useSyncExternalStore } from "react";
import { useClient } from "./context.tsx";

/** How the connection is, and how to try again. */
export interface ConnectionView {
  readonly status: Status;
  /** When the last word of the server came, by our clock; read it anew, it is no reason to render. */
  readonly lastFrameAt: () => number | undefined;
  readonly reconnect: () => void;
}

/** The connection of the client; renders when its status changes, not with every frame. */
export function useConnection(): ConnectionView {
  const client = useClient();
  const subscribe = useCallback((changed: () => void) => client.onStatus(changed), [client]);
  const status = useSyncExternalStore(subscribe, () => client.status);
  const lastFrameAt = useCallback(() => client.last_frame_at, [client]);
  const reconnect = useCallback(() => client.reconnect(), [client]);
  return { status, lastFrameAt, reconnect };
}
