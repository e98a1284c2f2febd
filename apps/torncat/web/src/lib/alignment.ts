import { createContext, useContext, useEffect, useMemo, useState } from "react";
import { align, preciseNow, type Alignment, type Sample } from "./clock.ts";
import { leastOffset, type Entry } from "./history.ts";

type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

const SAMPLES = 3;
/** The page's own beginning would slow the first answers. */
const FIRST_AFTER_MS = 600;
const NEXT_AFTER_MS = 250;
/** Clocks drift. */
const AGAIN_AFTER_MS = 300_000;

/** Carries the alignment to whoever shows a time. */
export const AlignmentContext = createContext<Alignment | undefined>(undefined);

/** How the server's clock stands to ours; undefined until it is known. */
export function useAlignment(): Alignment | undefined {
  return useContext(AlignmentContext);
}

/** Ask the server's clock a few times, now and every five minutes, and align ours by the answers and by the events. */
export function useClock(fetch: Fetch, entries: readonly Entry[]): Alignment | undefined {
  const [samples, setSamples] = useState<readonly Sample[]>([]);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout>;
    const ask = async (earlier: readonly Sample[]): Promise<void> => {
      const sample = await askClock(fetch).catch(() => undefined);
      const all = sample === undefined ? earlier : [...earlier, sample];
      if (sample !== undefined) setSamples(all);
      const done = all.length >= SAMPLES;
      timer = setTimeout(() => void ask(done ? [] : all), done || sample === undefined ? AGAIN_AFTER_MS : NEXT_AFTER_MS);
    };
    timer = setTimeout(() => void ask([]), FIRST_AFTER_MS);
    return () => clearTimeout(timer);
  }, [fetch]);
  return useMemo(() => align(samples, leastOffset(entries)), [samples, entries]);
}

async function askClock(fetch: Fetch): Promise<Sample | undefined> {
  const asked_at = preciseNow();
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("/rpc/torncat.clock", { method: "POST", headers, body: "{}" });
  const answered_at = preciseNow();
  const server_time: unknown = await response.json();
  return typeof server_time === "number" ? { asked_at, server_time, answered_at } : undefined;
}
