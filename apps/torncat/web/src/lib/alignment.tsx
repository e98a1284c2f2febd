import { createContext, useContext, useEffect, useState, type ReactNode } from "react";
import { align, preciseNow, type Alignment, type Sample } from "./clock.ts";

type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

const SAMPLES = 5;
const AGAIN_AFTER_MS = 300_000;

const AlignmentContext = createContext<Alignment | undefined>(undefined);

/** How the server's clock stands to ours; undefined until it is known. */
export function useAlignment(): Alignment | undefined {
  return useContext(AlignmentContext);
}

/** Asks the server's clock a few times, and again every five minutes, because clocks drift. */
export function AlignmentProvider(props: { readonly fetch: Fetch; readonly children: ReactNode }): ReactNode {
  const { fetch, children } = props;
  const [alignment, setAlignment] = useState<Alignment>();
  useEffect(() => {
    let over = false;
    const ask = async (): Promise<void> => {
      const samples: Sample[] = [];
      for (let count = 0; count < SAMPLES && !over; count += 1) {
        const sample = await askClock(fetch).catch(() => undefined);
        if (sample !== undefined) samples.push(sample);
      }
      const found = align(samples);
      if (!over && found !== undefined) setAlignment(found);
    };
    void ask();
    const timer = setInterval(() => void ask(), AGAIN_AFTER_MS);
    return () => {
      over = true;
      clearInterval(timer);
    };
  }, [fetch]);
  return <AlignmentContext value={alignment}>{children}</AlignmentContext>;
}

async function askClock(fetch: Fetch): Promise<Sample | undefined> {
  const asked_at = preciseNow();
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("/rpc/torncat.clock", { method: "POST", headers, body: "{}" });
  const answered_at = preciseNow();
  const server_time: unknown = await response.json();
  return typeof server_time === "number" ? { asked_at, server_time, answered_at } : undefined;
}
