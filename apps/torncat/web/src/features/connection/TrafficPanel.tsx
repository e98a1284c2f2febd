import { useConnection } from "@lastcall/react";
import { useSyncExternalStore, type ReactNode } from "react";
import { useVoice } from "../../lib/i18n/index.ts";
import type { Traffic } from "../../lib/traffic.ts";
import { Panel } from "../../lib/ui/panel.tsx";
import { useNow } from "../../lib/ui/use-now.ts";

/** What this page has cost in requests, beside what it would have cost by polling. */
export function TrafficPanel({ traffic, me }: { readonly traffic: Traffic; readonly me: string }): ReactNode {
  const { say, number } = useVoice();
  const { status } = useConnection();
  const made = useSyncExternalStore(traffic.subscribe, () => traffic.made);
  const polled = traffic.polled(useNow());
  const times = polled / Math.max(made, 1);
  return (
    <Panel
      id="traffic"
      title={say("traffic.title")}
      aside={
        times >= 2 && <span className="text-mine">{say("traffic.saved", { times: number(times, times < 10 ? 1 : 0) })}</span>
      }
    >
      <div className="px-4 pb-3.5">
        <Bar name={say("traffic.made")} count={made} share={made / Math.max(polled, made)} tone="bg-mine" />
        <Bar name={say("traffic.polling")} count={polled} share={polled / Math.max(polled, made)} tone="bg-line-strong" />
        {status.role !== "alone" && (
          <p className="mt-1.5 text-xs text-soft">
            {status.role === "leader" ? say("traffic.leads", { name: me }) : say("traffic.shared")}
          </p>
        )}
      </div>
    </Panel>
  );
}

function Bar(props: {
  readonly name: string;
  readonly count: number;
  readonly share: number;
  readonly tone: string;
}): ReactNode {
  const { number } = useVoice();
  return (
    <div className="grid grid-cols-[1fr_auto] gap-x-3 gap-y-1 py-1">
      <span className="text-soft">{props.name}</span>
      <span className="font-mono">{number(props.count)}</span>
      <span aria-hidden="true" className="col-span-2 h-1 rounded-full bg-sunken">
        <span
          className={`block h-full rounded-full transition-[width] duration-500 ${props.tone}`}
          style={{ width: `${Math.max(props.share * 100, 1)}%` }}
        />
      </span>
    </div>
  );
}
