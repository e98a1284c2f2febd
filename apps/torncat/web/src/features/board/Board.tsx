import { useCallback, useState, type ReactNode } from "react";
import { useVoice, type MessageId } from "../../lib/i18n/index.ts";
import type { Toasts } from "../../lib/ui/toasts.tsx";
import type { Member, War } from "../../lib/war.ts";
import { counts, shows, type Filter, type Line } from "./filter.ts";
import { standing } from "./overlay.ts";
import { Row } from "./Row.tsx";
import { useOrders, type Refusal } from "./use-orders.ts";

const FILTERS: readonly (readonly [Filter, MessageId])[] = [
  ["all", "board.filter.all"],
  ["free", "board.filter.free"],
  ["called", "board.filter.called"],
  ["mine", "board.filter.mine"],
];

/** The live board: every target, who holds it and since when, and the one button that matters. */
export function Board(props: {
  readonly war: War;
  readonly me: Member;
  readonly stale: boolean;
  readonly toasts: Toasts;
}): ReactNode {
  const { war, me, stale, toasts } = props;
  const { say } = useVoice();
  const [filter, setFilter] = useState<Filter>("all");
  const onRefused = useRefusals(war, toasts);
  const orders = useOrders(war, onRefused);
  const lines = [...war.targets.values()].map(
    (target): Line => ({ target, standing: standing(war, target.id, me.id, orders.overlays) }),
  );
  const shown = lines.filter((line) => shows(filter, line));
  return (
    <section aria-labelledby="board" className="overflow-hidden rounded-xl border border-line bg-surface">
      <header className="flex flex-wrap items-center justify-between gap-x-6 gap-y-2 border-b border-line px-4 py-3">
        <div className="min-w-0">
          <h2 id="board" className="text-[0.8125rem] font-semibold">
            {say("board.title")}
          </h2>
          <p className="text-soft">{say("board.count", counts(lines))}</p>
        </div>
        <FilterBar filter={filter} onFilter={setFilter} />
      </header>
      {stale && <p className="border-b border-line bg-held-ground px-4 py-2 text-held">{say("board.stale")}</p>}
      {shown.length === 0 ? (
        <Nothing war={war} />
      ) : (
        <table className="w-full border-collapse">
          <Head />
          <tbody>
            {shown.map((line) => (
              <Row key={line.target.id} line={line} members={war.members} me={me} orders={orders} />
            ))}
          </tbody>
        </table>
      )}
      <p role="status" className="sr-only">
        {orders.last === undefined ? "" : say(orders.last.kind === "call" ? "board.took" : "board.gave", orders.last)}
      </p>
    </section>
  );
}

function Head(): ReactNode {
  const { say } = useVoice();
  const cell = "py-1.5 text-left text-xs font-normal text-soft";
  return (
    <thead className="sr-only sm:not-sr-only sm:table-header-group">
      <tr>
        <th scope="col" className={`${cell} w-18 pr-4 pl-3 text-right`}>
          {say("board.level")}
        </th>
        <th scope="col" className={cell}>
          {say("board.target")}
        </th>
        <th scope="col" className={`${cell} hidden w-[34%] sm:table-cell`}>
          {say("board.caller")}
        </th>
        <th scope="col" className={`${cell} w-16 text-right`}>
          {say("board.since")}
        </th>
        <th scope="col" className={`${cell} w-34`}>
          <span className="sr-only">{say("board.action")}</span>
        </th>
      </tr>
    </thead>
  );
}

function FilterBar(props: { readonly filter: Filter; readonly onFilter: (filter: Filter) => void }): ReactNode {
  const { say } = useVoice();
  return (
    <div role="group" aria-label={say("board.filter")} className="flex w-full rounded-lg bg-sunken p-0.5 sm:w-auto">
      {FILTERS.map(([filter, label]) => (
        <button
          key={filter}
          type="button"
          aria-pressed={filter === props.filter}
          onClick={() => props.onFilter(filter)}
          className="min-h-9 flex-1 rounded-md px-2.5 text-soft sm:min-h-8 hover:text-ink aria-pressed:bg-raised aria-pressed:font-medium aria-pressed:text-ink aria-pressed:shadow-sm"
        >
          {say(label)}
        </button>
      ))}
    </div>
  );
}

function Nothing({ war }: { readonly war: War }): ReactNode {
  const { say } = useVoice();
  const [title, hint]: readonly [MessageId, MessageId | undefined] =
    war.running === undefined
      ? ["board.none.war", "board.none.war.hint"]
      : war.targets.size === 0
        ? ["board.none.targets", undefined]
        : ["board.none.filter", "board.none.filter.hint"];
  return (
    <div className="grid min-h-56 place-content-center gap-1 px-6 py-10 text-center">
      <p className="font-medium">{say(title)}</p>
      {hint !== undefined && <p className="max-w-sm text-soft">{say(hint)}</p>}
    </div>
  );
}

/** Say what happened to a refused order, what was kept, and what to do. */
function useRefusals(war: War, toasts: Toasts): (refusal: Refusal) => void {
  const { say } = useVoice();
  return useCallback(
    ({ overlay, problem }: Refusal) => {
      const target = war.targets.get(overlay.target_id)?.name ?? String(overlay.target_id);
      const holder = war.members.get(Number(problem.facts["caller_id"]))?.name;
      if (problem.code === "TC001" && holder !== undefined) {
        const title = say("toast.held", { target, caller: holder });
        toasts.show({ tone: "bad", title, hint: say("toast.held.hint") });
        return;
      }
      if (problem.status === 0 || problem.name === "outcome_unknown") {
        const title = say(`toast.${overlay.kind}.unknown`, { target });
        toasts.show({ tone: "bad", title, hint: say("toast.unknown.hint") });
        return;
      }
      const title = say(`toast.${overlay.kind}.failed`, { target });
      const again = problem.retry === "no" ? "" : ` ${say("toast.retry")}`;
      toasts.show({ tone: "bad", title, hint: `${problem.title}${again}` });
    },
    [war, toasts, say],
  );
}
