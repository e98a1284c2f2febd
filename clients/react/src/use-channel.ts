import type { ChannelEvent, ChannelGone, Json, Problem, ResetReason } from "@lastcall/core";
import { useEffect, useState } from "react";
import { useClient } from "./context.tsx";

/** How a channel's state and events become a value. Pure; give one that stays the same between renders. */
export interface ChannelFold<Value> {
  state(state: Json): Value;
  event(value: Value, event: ChannelEvent): Value;
  gone?(value: Value, gone: ChannelGone): Value;
}

/**
 * What is known of a channel. `stale`: the value is void and a new state is on its way, or the channel is not to be had
 * any more (`refused`).
 */
export interface ChannelView<Value> {
  readonly value: Value | undefined;
  readonly stale: ResetReason | undefined;
  readonly refused: { readonly problem: Problem | undefined } | undefined;
}

const NOTHING = { value: undefined, stale: undefined, refused: undefined };

/** Follow a channel: its state first, then every event. Undefined as channel: follow none. */
export function useChannel<Value>(channel: string | undefined, fold: ChannelFold<Value>): ChannelView<Value> {
  const client = useClient();
  const [view, setView] = useState<ChannelView<Value>>(NOTHING);
  useEffect(() => {
    if (channel === undefined) return undefined;
    const change = (step: (value: Value) => Value): void => {
      setView((last) => (last.value === undefined ? last : { ...last, value: step(last.value) }));
    };
    setView(NOTHING);
    return client.subscribe(channel, {
      state: (state) => setView({ ...NOTHING, value: fold.state(state) }),
      event: (event) => change((value) => fold.event(value, event)),
      gone: (gone) => change((value) => fold.gone?.(value, gone) ?? value),
      reset: (reason) => setView((last) => ({ ...last, stale: reason })),
      refused: (problem) => setView((last) => ({ ...last, refused: { problem } })),
    });
  }, [client, channel, fold]);
  return view;
}
