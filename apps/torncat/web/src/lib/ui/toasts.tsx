import { useSyncExternalStore, type ReactNode } from "react";
import { useVoice } from "../i18n/index.ts";

/** What happened, and what to do about it. */
export interface Toast {
  readonly tone: "good" | "bad";
  readonly title: string;
  readonly hint?: string | undefined;
}

interface Shown extends Toast {
  readonly key: number;
}

const SHOWN_MAX = 3;
const GOOD_STAYS_MS = 3_500;
const BAD_STAYS_MS = 10_000;

/** The toasts on the screen, newest last. */
export class Toasts {
  #shown: readonly Shown[] = [];
  #next = 1;
  readonly #listeners = new Set<() => void>();

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly shown = (): readonly Shown[] => this.#shown;

  show(toast: Toast): void {
    const key = this.#next;
    this.#next += 1;
    this.#set([...this.#shown, { ...toast, key }].slice(-SHOWN_MAX));
    setTimeout(() => this.dismiss(key), toast.tone === "good" ? GOOD_STAYS_MS : BAD_STAYS_MS);
  }

  dismiss(key: number): void {
    if (this.#shown.some((toast) => toast.key === key)) this.#set(this.#shown.filter((toast) => toast.key !== key));
  }

  #set(shown: readonly Shown[]): void {
    this.#shown = shown;
    for (const listener of this.#listeners) listener();
  }
}

/** Where toasts appear; a screen reader hears bad ones at once and good ones when it is free. */
export function ToastStack({ toasts }: { readonly toasts: Toasts }): ReactNode {
  const shown = useSyncExternalStore(toasts.subscribe, toasts.shown);
  return (
    <div className="pointer-events-none fixed inset-x-3 bottom-3 z-30 flex flex-col items-center gap-2 sm:bottom-6">
      {(["good", "bad"] as const).map((tone) => (
        <div key={tone} role={tone === "bad" ? "alert" : "status"} className="flex w-full max-w-md flex-col gap-2">
          {shown
            .filter((toast) => toast.tone === tone)
            .map((toast) => (
              <ToastCard key={toast.key} toast={toast} onDismiss={() => toasts.dismiss(toast.key)} />
            ))}
        </div>
      ))}
    </div>
  );
}

function ToastCard({ toast, onDismiss }: { readonly toast: Toast; readonly onDismiss: () => void }): ReactNode {
  const { say } = useVoice();
  const edge = toast.tone === "bad" ? "border-l-bad" : "border-l-mine";
  return (
    <div
      className={`pointer-events-auto flex animate-enter items-start gap-3 rounded-lg border border-l-4 border-line-strong bg-raised px-4 py-3 shadow-lg ${edge}`}
    >
      <div className="min-w-0 flex-1">
        <p className="font-semibold">{toast.title}</p>
        {toast.hint !== undefined && <p className="mt-0.5 text-soft">{toast.hint}</p>}
      </div>
      <button
        type="button"
        onClick={onDismiss}
        aria-label={say("toast.dismiss")}
        className="-m-2 grid size-9 place-items-center rounded-md text-soft hover:text-ink"
      >
        <svg viewBox="0 0 16 16" className="size-3.5" aria-hidden="true">
          <path d="m3 3 10 10M13 3 3 13" stroke="currentColor" strokeWidth="1.8" strokeLinecap="round" />
        </svg>
      </button>
    </div>
  );
}
