import type { ChannelEvent, ChannelGone, Json, Problem, ResetReason } from "@lastcall/core";
import { useEffect, useState } from "react";
import { useClient } from "./context.tsx";

/**
 * How a channel's state and events become a value. Each is called once, at the moment of its arrival and in the order of
 * the stream. Give one object that stays the same between renders.
 */
export interface ChannelFold<Value> {
  /** `last` is what was known before, if anything was. */
  state(state: Json, last: Value | undefined): Value;
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
    let known: ChannelView<Value> = NOTHING;
    const show = (next: ChannelView<Value>): void => {
      known = next;
      setView(next);
    };
    const change = (step: (value: Value) => Value): void => {
      if (known.value !== undefined) show({ ...known, value: step(known.value) });
    };
    show(NOTHING);
    return client.subscribe(channel, {
      state: (state) => show({ ...NOTHING, value: fold.state(state, known.value) }),
      event: (event) => change((value) => fold.event(value, event)),
      gone: (gone) => change((value) => fold.gone?.(value, gone) ?? value),
      reset: (reason) => show({ ...known, stale: reason }),
      refused: (problem) => show({ ...known, refused: { problem } }),
    });
  }, [client, channel, fold]);
  return view;
}
