import type { Frame } from "./frames.ts";
import { SEEN_IDS_MAX } from "./limits.ts";

/** `pass`: it is the next · `seen`: it was passed on before · `gap`: it is new, but something before it is missing. */
export type Verdict = "pass" | "seen" | "gap";

/** Frames whose id is the position of one change; other ids are heads, which may come more than once. */
const CHANGES: ReadonlySet<Frame["kind"]> = new Set(["event", "gone", "reset", "revoked"]);

/**
 * Where a tab stands in a stream that changing leaders pass on. Each frame comes with the position before it; so a tab
 * that has seen that position (now or earlier, where a new leader began further back) knows that nothing is missing,
 * and a change that it has seen already is known by its id. Positions are never compared, only recognised.
 */
export class Place {
  #at: string | undefined;
  readonly #seen = new Set<string>();

  constructor(at: string | undefined) {
    this.#at = at;
    this.#remember(at);
  }

  /** The last position passed on. */
  get at(): string | undefined {
    return this.#at;
  }

  /** Judge a frame, and stand behind it. */
  take(previous: string | undefined, frame: Frame): Verdict {
    if (frame.id !== undefined && CHANGES.has(frame.kind) && this.#seen.has(frame.id)) return "seen";
    const verdict = this.follows(previous) ? "pass" : "gap";
    if (frame.id !== undefined) this.stand(frame.id);
    else if (verdict === "gap" || this.#at === undefined) this.stand(previous);
    return verdict;
  }

  /** Whether nothing is missing between here and what comes after this position. */
  follows(position: string | undefined): boolean {
    return this.#at === undefined || (position !== undefined && this.#seen.has(position));
  }

  /** Stand here, whatever was before. */
  stand(position: string | undefined): void {
    this.#at = position;
    this.#remember(position);
  }

  #remember(position: string | undefined): void {
    if (position === undefined) return;
    this.#seen.delete(position);
    this.#seen.add(position);
    if (this.#seen.size <= SEEN_IDS_MAX) return;
    for (const oldest of this.#seen) {
      this.#seen.delete(oldest);
      break;
    }
  }
}
