import type { ReactNode } from "react";
import { useAlignment } from "../../lib/alignment.ts";
import { latencyOf, type Entry } from "../../lib/history.ts";
import { useVoice, type MessageId } from "../../lib/i18n/index.ts";
import { Panel } from "../../lib/ui/panel.tsx";
import type { War } from "../../lib/war.ts";

const SHOWN_MAX = 40;

const SENTENCES: Readonly<Record<string, MessageId>> = {
  called: "events.called",
  hit: "events.hit",
  uncalled: "events.uncalled",
  expired: "events.expired",
  war_ended: "events.war_ended",
};

const MARKS: Readonly<Record<string, string>> = {
  called: "bg-held",
  hit: "bg-bad",
  uncalled: "bg-soft",
};

/** The last events, newest first, each with the time it took to come here. */
export function EventList({ entries, war }: { readonly entries: readonly Entry[]; readonly war: War }): ReactNode {
  const { say } = useVoice();
  return (
    <Panel id="events" title={say("events.title")} className="flex min-h-0 flex-col">
      {entries.length === 0 ? (
        <p className="px-4 pt-1 pb-4 text-soft">{say("events.none")}</p>
      ) : (
        // A keyboard has to be able to scroll it.
        // oxlint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        <ol tabIndex={0} aria-labelledby="events" className="max-h-96 overflow-y-auto px-4 pb-3 lg:max-h-104">
          {entries.slice(0, SHOWN_MAX).map((entry) => (
            <Line key={entry.key} entry={entry} war={war} />
          ))}
        </ol>
      )}
    </Panel>
  );
}

function Line({ entry, war }: { readonly entry: Entry; readonly war: War }): ReactNode {
  const { say, language } = useVoice();
  const caller = war.members.get(entry.caller_id)?.name ?? `#${entry.caller_id}`;
  const target = war.targets.get(entry.target_id)?.name ?? `#${entry.target_id}`;
  const time = new Date(entry.stamped_at);
  return (
    <li className="flex h-7.5 animate-enter items-center gap-2.5 border-t border-line first:border-t-0">
      <time
        dateTime={Number.isNaN(entry.stamped_at) ? undefined : time.toISOString()}
        className="font-mono text-xs text-soft max-sm:hidden"
      >
        {Number.isNaN(entry.stamped_at) ? "–" : time.toLocaleTimeString(language, { hour12: false })}
      </time>
      <span aria-hidden="true" className={`size-1.5 shrink-0 rounded-full ${MARKS[entry.what] ?? "bg-line-strong"}`} />
      <span className="min-w-0 flex-1 truncate">{say(SENTENCES[entry.what] ?? "events.hit", { caller, target })}</span>
      <Age entry={entry} />
    </li>
  );
}

function Age({ entry }: { readonly entry: Entry }): ReactNode {
  const { say, span } = useVoice();
  const alignment = useAlignment();
  if (entry.late) {
    return (
      <span className="text-xs text-soft" title={say("events.caughtup.title")}>
        {say("events.caughtup")}
      </span>
    );
  }
  const latency = alignment && latencyOf(entry, alignment.offset_ms);
  return (
    <span data-latency={latency} className="font-mono text-xs text-soft">
      {latency === undefined ? "–" : span(latency)}
    </span>
  );
}
