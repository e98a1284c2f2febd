import { useConnection } from "@lastcall/react";
import type { ReactNode } from "react";
import { useVoice, type MessageId } from "../../lib/i18n/index.ts";
import { useNow } from "../../lib/ui/use-now.ts";
import { lookOf, type Look } from "./look.ts";

const DOTS: Readonly<Record<Look, string>> = {
  live: "bg-mine",
  connecting: "bg-held animate-breathe",
  reconnecting: "bg-held animate-breathe",
  offline: "bg-bad",
  stopped: "bg-bad",
};

/** Transport, age of the last word, and a press to reconnect. */
export function ConnectionChip(): ReactNode {
  const { status, lastFrameAt, reconnect } = useConnection();
  const { say } = useVoice();
  const now = useNow();
  const heard_at = lastFrameAt();
  const look = lookOf(status, heard_at, now);
  const state = say(`connection.${look}`);
  const transport = status.transport === undefined ? "" : say(`connection.${status.transport}` as MessageId);
  const seconds = heard_at === undefined ? 0 : Math.max(0, Math.round((now - heard_at) / 1000));
  const follows = status.role === "follower";
  return (
    <button
      type="button"
      onClick={reconnect}
      data-phase={status.phase}
      data-role={status.role}
      data-transport={status.transport}
      aria-label={say("connection.label", { state, transport, seconds })}
      title={follows ? say("connection.follower.title") : say("connection.title")}
      className="flex min-h-9 items-center gap-2 rounded-lg border border-line bg-raised px-3 hover:border-line-strong"
    >
      <span aria-hidden="true" className={`size-2 rounded-full ${DOTS[look]}`} />
      <span className="font-medium">{state}</span>
      <span className="text-soft">
        {transport}
        {follows && <span className="max-sm:hidden"> · {say("connection.follower")}</span>}
      </span>
      <span className="min-w-8 text-right font-mono text-xs text-soft">{say("connection.age", { seconds })}</span>
    </button>
  );
}
