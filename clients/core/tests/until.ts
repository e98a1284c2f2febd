/** Wait until a condition holds, looking whenever the event loop comes by; fails after a bounded time. */
export async function until(condition: () => boolean, what: string, limit_ms = 5_000): Promise<void> {
  const deadline = performance.now() + limit_ms;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`it did not happen in ${limit_ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Let everything that is due now (promises, and messages of this turn) happen. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}
