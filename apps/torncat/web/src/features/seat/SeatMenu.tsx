import { useRef, type ReactNode } from "react";
import { useVoice } from "../../lib/i18n/index.ts";
import { Seal } from "../../lib/ui/seal.tsx";
import type { Member } from "../../lib/war.ts";

/** Who this page is, and links that open the page beside it as somebody else. */
export function SeatMenu({ me, members }: { readonly me: Member; readonly members: readonly Member[] }): ReactNode {
  const { say } = useVoice();
  const panel = useRef<HTMLDivElement>(null);
  const others = members.filter((member) => member.id !== me.id);
  return (
    <div className="relative">
      <button
        type="button"
        popoverTarget="seats"
        aria-label={say("seat.menu", { name: me.name })}
        className="flex min-h-9 items-center gap-2 rounded-lg border border-line bg-raised px-2.5 hover:border-line-strong"
      >
        <Seal name={me.name} hue={me.id} />
        <span className="hidden text-soft sm:inline">{say("seat.you")}</span>
        <span className="font-medium">{me.name}</span>
        <svg viewBox="0 0 10 6" className="size-2.5 text-soft" aria-hidden="true">
          <path d="m1 1 4 4 4-4" fill="none" stroke="currentColor" strokeWidth="1.6" strokeLinecap="round" />
        </svg>
      </button>
      <div
        ref={panel}
        id="seats"
        popover="auto"
        className="seats m-0 w-72 rounded-xl border border-line-strong bg-raised p-2 text-ink shadow-xl"
      >
        <h2 className="px-2 pt-1 font-semibold">{say("seat.heading")}</h2>
        <p className="px-2 pt-0.5 pb-2 text-[0.8125rem] text-soft">{say("seat.hint")}</p>
        <ul>
          {[me, ...others].map((member) => (
            <li key={member.id}>
              <a
                href={`?member=${member.id}`}
                target="_blank"
                rel="noreferrer"
                onClick={() => panel.current?.hidePopover()}
                className="flex min-h-9 items-center gap-2.5 rounded-lg px-2 hover:bg-hover"
              >
                <Seal name={member.name} hue={member.id} />
                <span className="flex-1">
                  {member.id === me.id ? say("seat.same", { name: member.name }) : member.name}
                </span>
                <span className="sr-only">{say("seat.opens")}</span>
                <svg viewBox="0 0 12 12" className="size-3 text-soft" aria-hidden="true">
                  <path d="M4 2H2v8h8V8M7 2h3v3M10 2 6 6" fill="none" stroke="currentColor" strokeWidth="1.3" />
                </svg>
              </a>
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}
