import type { Target } from "../../lib/war.ts";
import type { Standing } from "./overlay.ts";

/** Which targets the board shows. */
export type Filter = "all" | "free" | "called" | "mine";

/** One line of the board. */
export interface Line {
  readonly target: Target;
  readonly standing: Standing;
}

/** Whether a line is shown. A line whose click is under way stays, so that nothing jumps away under the finger. */
export function shows(filter: Filter, { standing: { kind } }: Line): boolean {
  if (filter === "all" || kind === "calling" || kind === "releasing") return true;
  if (filter === "free") return kind === "free";
  return kind === "mine" || (filter === "called" && kind === "held");
}

/** How many lines are called, and how many of them by oneself. */
export function counts(lines: readonly Line[]): { readonly all: number; readonly called: number; readonly mine: number } {
  const kinds = lines.map((line) => line.standing.kind);
  const mine = kinds.filter((kind) => kind === "mine" || kind === "calling" || kind === "releasing").length;
  return { all: lines.length, called: mine + kinds.filter((kind) => kind === "held").length, mine };
}
