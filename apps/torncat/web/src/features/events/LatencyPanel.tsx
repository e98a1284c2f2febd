import type { ReactNode } from "react";
import { useAlignment } from "../../lib/alignment.ts";
import type { Alignment } from "../../lib/clock.ts";
import { latencyOf, type Entry } from "../../lib/history.ts";
import { useVoice } from "../../lib/i18n/index.ts";
import { figures } from "../../lib/latency.ts";
import { Panel } from "../../lib/ui/panel.tsx";
import { LatencyPlot } from "./LatencyPlot.tsx";

/** How long events take from the database to this page: the last one, the figures, and the shape of it. */
export function LatencyPanel({ entries }: { readonly entries: readonly Entry[] }): ReactNode {
  const { say, span } = useVoice();
  const alignment = useAlignment();
  const latencies = entries
    .map((entry) => alignment && latencyOf(entry, alignment.offset_ms))
    .filter((latency) => latency !== undefined)
    .toReversed();
  const found = figures(latencies);
  return (
    <Panel id="latency" title={say("latency.title")}>
      <div className="px-4 pb-3">
        {found === undefined ? (
          <p className="text-soft">{say("latency.waiting")}</p>
        ) : (
          <>
            <div className="flex items-end justify-between gap-3">
              <p className="font-mono text-2xl leading-tight sm:text-3xl font-semibold tracking-tight text-mine">
                {span(found.last)}
                <span className="sr-only"> {say("latency.last")}</span>
              </p>
              <dl className="flex gap-3 text-right text-xs sm:gap-4">
                <Figure name={say("latency.p50")} value={span(found.p50)} />
                <Figure name={say("latency.p95")} value={span(found.p95)} />
                <Figure name={say("latency.max")} value={span(found.max)} />
              </dl>
            </div>
            <LatencyPlot latencies={latencies} figures={found} />
          </>
        )}
        <How alignment={alignment} />
      </div>
    </Panel>
  );
}

function Figure({ name, value }: { readonly name: string; readonly value: string }): ReactNode {
  return (
    <div>
      <dt className="text-soft">{name}</dt>
      <dd className="font-mono text-xs whitespace-nowrap sm:text-[0.8125rem]">{value}</dd>
    </div>
  );
}

function How({ alignment }: { readonly alignment: Alignment | undefined }): ReactNode {
  const { say, span } = useVoice();
  return (
    <details className="mt-1 text-soft">
      <summary className="w-fit rounded py-1 text-xs hover:text-ink">{say("latency.how")}</summary>
      <p className="pb-1 text-[0.8125rem]">
        {alignment === undefined
          ? say("latency.how.unknown")
          : say("latency.how.text", {
              samples: alignment.samples,
              rtt: span(alignment.rtt_ms),
              error: span(alignment.error_ms),
              offset: span(alignment.offset_ms),
            })}
      </p>
    </details>
  );
}
