import type { ReactNode } from "react";

/** A titled part of the page. `aside` stands at the right end of the title. */
export function Panel(props: {
  readonly id: string;
  readonly title: string;
  readonly aside?: ReactNode;
  readonly className?: string;
  readonly children: ReactNode;
}): ReactNode {
  const { id, title, aside, className = "", children } = props;
  return (
    <section aria-labelledby={id} className={`rounded-xl border border-line bg-surface ${className}`}>
      <header className="flex min-h-11 items-center justify-between gap-3 px-4 pt-2.5">
        <h2 id={id} className="text-[0.8125rem] font-semibold text-ink">
          {title}
        </h2>
        {aside}
      </header>
      {children}
    </section>
  );
}
