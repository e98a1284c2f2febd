import type { ReactNode } from "react";
import { useAlignment } from "../../lib/alignment.ts";
import { elapsed } from "../../lib/elapsed.ts";
import { useVoice } from "../../lib/i18n/index.ts";
import { Seal } from "../../lib/ui/seal.tsx";
import { useNow } from "../../lib/ui/use-now.ts";
import { readTime, type Call, type Member } from "../../lib/war.ts";
import type { Line } from "./filter.ts";
import type { Orders } from "./use-orders.ts";

const EDGE = {
  free: "border-l-transparent hover:bg-hover",
  calling: "border-l-mine bg-mine-ground",
  releasing: "border-l-line-strong",
  mine: "border-l-mine bg-mine-ground",
  held: "border-l-held bg-held-ground",
} as const;

/** One target. */
export function Row(props: {
  readonly line: Line;
  readonly members: ReadonlyMap<number, Member>;
  readonly me: Member;
  readonly orders: Orders;
}): ReactNode {
  const { line, members, me, orders } = props;
  const { target, standing } = line;
  const { say } = useVoice();
  const call = "call" in standing ? standing.call : undefined;
  const caller = standing.kind === "calling" ? me : call && callerOf(call, members);
  const shown = caller === undefined ? undefined : <Caller caller={caller} me={me} />;
  return (
    <tr
      data-target={target.id}
      data-standing={standing.kind}
      className={`relative isolate h-12 border-t border-l-3 border-t-line transition-colors max-sm:first:border-t-0 sm:h-10 ${EDGE[standing.kind]}`}
    >
      <td className="w-14 pr-3 pl-2.5 sm:w-18 sm:pr-4 sm:pl-3">
        {standing.kind === "held" && <span key={call?.id} className="absolute inset-0 -z-10 animate-arrive" />}
        <Level level={target.level} />
      </td>
      <th scope="row" className="min-w-0 py-1 text-left font-medium">
        {target.name}
        <span className="block text-xs font-normal sm:hidden">
          {shown ?? <span className="text-soft">{say("board.free")}</span>}
        </span>
      </th>
      <td className="hidden sm:table-cell">{shown ?? <span className="text-soft">{say("board.free")}</span>}</td>
      <td className="w-12 pr-1 text-right font-mono text-[0.8125rem] text-soft">
        {call !== undefined && standing.kind !== "releasing" && <Since call={call} />}
      </td>
      <td className="relative w-28 py-1 pr-3 pl-2 sm:w-34 sm:pl-4">
        <Action line={line} caller={caller?.name ?? ""} orders={orders} />
      </td>
    </tr>
  );
}

function Caller({ caller, me }: { readonly caller: Member; readonly me: Member }): ReactNode {
  const { say } = useVoice();
  const mine = caller.id === me.id;
  return (
    <span className={`flex items-center gap-2 ${mine ? "font-medium text-mine" : "text-held"}`}>
      <Seal name={caller.name} hue={caller.id} />
      <span className="truncate">{mine ? say("board.you") : caller.name}</span>
    </span>
  );
}

function Level({ level }: { readonly level: number }): ReactNode {
  return (
    <span className="ml-auto grid w-8 gap-0.5">
      <span className="text-right font-mono text-[0.8125rem] leading-none">{level}</span>
      <span aria-hidden="true" className="h-0.5 rounded-full bg-line">
        <span className="block h-full rounded-full bg-line-strong" style={{ width: `${Math.min(level, 100)}%` }} />
      </span>
    </span>
  );
}

function Since({ call }: { readonly call: Call }): ReactNode {
  const now = useNow() + (useAlignment()?.offset_ms ?? 0);
  return <time dateTime={call.created_at}>{elapsed(readTime(call.created_at), now)}</time>;
}

const BUTTON = {
  free: "border-line-strong/60 bg-raised hover:border-mine hover:bg-mine hover:text-on-mine",
  mine: "border-mine text-mine hover:bg-mine hover:text-on-mine",
  calling: "animate-breathe border-transparent text-mine",
  releasing: "animate-breathe border-transparent text-soft",
  held: "cursor-default border-transparent text-soft",
} as const;

/** One button, whatever the target's standing: a keyboard's focus survives every change. */
function Action(props: { readonly line: Line; readonly caller: string; readonly orders: Orders }): ReactNode {
  const { line, caller, orders } = props;
  const { target, standing } = line;
  const { say } = useVoice();
  const { kind } = standing;
  const [shown, label] = {
    free: [say("board.call"), say("board.call.label", { target: target.name, level: target.level })],
    mine: [say("board.release"), say("board.release.label", { target: target.name })],
    held: [say("board.held"), say("board.held.label", { target: target.name, caller })],
    calling: [say("board.sending"), undefined],
    releasing: [say("board.sending"), undefined],
  }[kind];
  const act = (): void => {
    if (kind === "free") orders.call(target.id);
    if (kind === "mine") orders.release(standing.call);
  };
  return (
    <button
      type="button"
      aria-label={label}
      aria-disabled={kind !== "free" && kind !== "mine"}
      tabIndex={kind === "held" ? -1 : 0}
      onClick={act}
      className={`min-h-9 w-full rounded-lg border px-2.5 text-[0.8125rem] font-medium sm:min-h-7.5 ${BUTTON[kind]}`}
    >
      {shown}
    </button>
  );
}

function callerOf(call: Call, members: ReadonlyMap<number, Member>): Member {
  return members.get(call.caller_id) ?? { id: call.caller_id, name: `#${call.caller_id}` };
}
