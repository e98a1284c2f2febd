import type { ReactNode } from "react";
import { useAlignment } from "../lib/alignment.ts";
import { elapsed } from "../lib/elapsed.ts";
import { useVoice } from "../lib/i18n/index.ts";
import { useNow } from "../lib/ui/use-now.ts";
import { readTime, type War } from "../lib/war.ts";

/** Who fights whom, for how long, and to what end. */
export function Headline({ war }: { readonly war: War | undefined }): ReactNode {
  const { say, number } = useVoice();
  const now = useNow() + (useAlignment()?.offset_ms ?? 0);
  const running = war?.running;
  return (
    <div className="flex min-w-0 flex-1 items-center gap-3">
      <img src="./icon.svg" alt="" className="size-9" />
      <div className="min-w-0">
        <h1 className="text-[0.9375rem] leading-tight font-semibold tracking-tight sm:text-base">
          {war === undefined || running === undefined ? (
            say("app.name")
          ) : (
            <>
              <span className="text-mine">{war.faction}</span> <span className="font-normal text-soft">×</span> {war.enemy}
            </>
          )}
        </h1>
        <p className="truncate text-[0.8125rem] text-soft">
          {running === undefined
            ? say("app.tagline")
            : say("war.since", { duration: elapsed(readTime(running.started_at), now) })}
          {running !== undefined && (
            <span className="max-sm:hidden"> · {say("war.goal", { score: number(running.target_score) })}</span>
          )}
        </p>
      </div>
    </div>
  );
}
