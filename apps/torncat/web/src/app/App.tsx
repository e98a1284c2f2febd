import { LastcallProvider } from "@lastcall/react";
import { useEffect, useMemo, useState, type ReactNode } from "react";
import { Board } from "../features/board/Board.tsx";
import { ConnectionChip } from "../features/connection/ConnectionChip.tsx";
import { TrafficPanel } from "../features/connection/TrafficPanel.tsx";
import { EventList } from "../features/events/EventList.tsx";
import { LatencyPanel } from "../features/events/LatencyPanel.tsx";
import { Preferences } from "../features/preferences/Preferences.tsx";
import { SeatMenu } from "../features/seat/SeatMenu.tsx";
import { AlignmentContext, useClock } from "../lib/alignment.ts";
import type { Entry } from "../lib/history.ts";
import { useVoice } from "../lib/i18n/index.ts";
import { Traffic } from "../lib/traffic.ts";
import { Toasts, ToastStack } from "../lib/ui/toasts.tsx";
import type { Member, War } from "../lib/war.ts";
import { Failure } from "./failure.tsx";
import { Headline } from "./headline.tsx";
import { useSession, type Seated } from "./use-session.ts";
import { useWar } from "./use-war.ts";

/** The page: a seat is taken, then the war is followed. */
export function App(): ReactNode {
  const { say } = useVoice();
  const [traffic] = useState(() => new Traffic());
  const { seated, problem } = useSession(traffic);
  if (problem !== undefined) return <Failure problem={problem} />;
  if (seated === undefined) {
    return <p className="grid min-h-svh place-content-center text-soft">{say("app.opening")}</p>;
  }
  return (
    <LastcallProvider client={seated.client}>
      <Room seated={seated} traffic={traffic} />
    </LastcallProvider>
  );
}

const NONE: readonly Entry[] = [];

function Room({ seated, traffic }: { readonly seated: Seated; readonly traffic: Traffic }): ReactNode {
  const { say } = useVoice();
  const { member, faction_id } = seated.session;
  const { value, stale, refused } = useWar(faction_id);
  const alignment = useClock(traffic.fetch, value?.entries ?? NONE);
  const [toasts] = useState(() => new Toasts());
  const war = value?.war;
  useTitle(war);
  const members = useMemo(() => [...(war?.members.values() ?? [])], [war?.members]);
  return (
    <AlignmentContext value={alignment}>
      <a
        href="#board"
        className="sr-only rounded-lg bg-raised px-4 py-2 focus:not-sr-only focus:fixed focus:top-2 focus:left-2 focus:z-40"
      >
        {say("app.skip")}
      </a>
      <div className="mx-auto max-w-[82rem] px-3 pb-10 sm:px-5">
        <header className="grid grid-cols-[minmax(0,1fr)_auto] items-center gap-x-1.5 gap-y-2.5 py-3.5 sm:flex">
          <Headline war={war} />
          <div className="flex gap-1.5 max-sm:order-last max-sm:col-span-2">
            <ConnectionChip />
            <SeatMenu me={member} members={members} />
          </div>
          <Preferences />
        </header>
        <main className="grid grid-cols-[minmax(0,1fr)] items-start gap-4 lg:grid-cols-[minmax(0,1fr)_23rem]">
          <BoardPlace war={war} me={member} stale={stale !== undefined} refused={refused !== undefined} toasts={toasts} />
          <div className="grid grid-cols-[minmax(0,1fr)] gap-4">
            <LatencyPanel entries={value?.entries ?? NONE} />
            <TrafficPanel traffic={traffic} me={member.name} />
            {war !== undefined && <EventList entries={value?.entries ?? NONE} war={war} />}
          </div>
        </main>
      </div>
      <ToastStack toasts={toasts} />
    </AlignmentContext>
  );
}

function BoardPlace(props: {
  readonly war: War | undefined;
  readonly me: Member;
  readonly stale: boolean;
  readonly refused: boolean;
  readonly toasts: Toasts;
}): ReactNode {
  const { war, me, stale, refused, toasts } = props;
  const { say } = useVoice();
  if (war !== undefined && !refused) return <Board war={war} me={me} stale={stale} toasts={toasts} />;
  return (
    <section className="grid min-h-96 place-content-center rounded-xl border border-line bg-surface px-6 text-center">
      <p role="status" className={refused ? "text-bad" : "animate-breathe text-soft"}>
        {say(refused ? "board.refused" : "board.loading")}
      </p>
    </section>
  );
}

function useTitle(war: War | undefined): void {
  const { say } = useVoice();
  const title = war === undefined || war.running === undefined ? "" : say("war.versus", { us: war.faction, them: war.enemy });
  useEffect(() => {
    document.title = [title, say("app.name")].filter((part) => part !== "").join(" · ");
  }, [title, say]);
}
