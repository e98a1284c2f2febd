import type { ReactNode } from "react";
import { useVoice } from "../../lib/i18n/index.ts";
import { height, type Figures } from "../../lib/latency.ts";

const BARS = 60;
const WIDTH = 300;
const HEIGHT = 56;
const STEP = WIDTH / BARS;
const RULES_MS = [1, 10, 100];

/** One bar per event, oldest left, on a logarithmic scale: a calm stream is a low, even hedge. */
export function LatencyPlot(props: { readonly latencies: readonly number[]; readonly figures: Figures }): ReactNode {
  const { latencies, figures } = props;
  const { say, span } = useVoice();
  const shown = latencies.slice(-BARS);
  const { count, p50, p95, max } = figures;
  const label = say("latency.plot", { count, p50: span(p50), p95: span(p95), max: span(max) });
  return (
    <div className="mt-2 flex gap-2">
      <svg
        role="img"
        aria-label={label}
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        className="h-14 min-w-0 flex-1"
      >
        {RULES_MS.map((rule) => (
          <line
            key={rule}
            x1={0}
            x2={WIDTH}
            y1={HEIGHT * (1 - height(rule))}
            y2={HEIGHT * (1 - height(rule))}
            className="stroke-line"
            vectorEffect="non-scaling-stroke"
          />
        ))}
        {shown.map((latency, index) => {
          const tall = HEIGHT * height(latency);
          const x = (BARS - shown.length + index) * STEP;
          const last = index === shown.length - 1;
          return (
            <rect
              key={x}
              x={x + 0.75}
              width={STEP - 1.5}
              y={HEIGHT - tall}
              height={tall}
              rx={1}
              className={last ? "fill-mine" : "fill-mine/45"}
            />
          );
        })}
      </svg>
      <div aria-hidden="true" className="relative h-14 w-11 text-[0.6875rem] leading-none text-soft">
        {RULES_MS.map((rule) => (
          <span
            key={rule}
            className="absolute left-0 -translate-y-1/2"
            style={{ top: `${100 * (1 - height(rule))}%` }}
          >
            {`${rule}\u202fms`}
          </span>
        ))}
      </div>
    </div>
  );
}
