import type { ReactNode } from "react";

/** The initials of a person in a disc whose colour is always the same for that person. */
export function Seal({ name, hue }: { readonly name: string; readonly hue: number }): ReactNode {
  const turn = (hue * 47) % 360;
  return (
    <span
      aria-hidden="true"
      className="grid size-5 shrink-0 place-items-center rounded-full text-[0.625rem] font-bold text-ink"
      style={{ backgroundColor: `light-dark(oklch(0.87 0.07 ${turn}), oklch(0.38 0.07 ${turn}))` }}
    >
      {name.slice(0, 1)}
    </span>
  );
}
