import type { Problem } from "@lastcall/core";
import type { ReactNode } from "react";
import { useVoice } from "../lib/i18n/index.ts";

/** The page could not begin: what happened, and what to do. */
export function Failure({ problem }: { readonly problem: Problem }): ReactNode {
  const { say } = useVoice();
  const hint =
    problem.status === 0
      ? say("failure.unreachable")
      : problem.status === 404 || problem.status === 405
        ? say("failure.demo")
        : problem.title;
  return (
    <main role="alert" className="grid min-h-svh place-content-center gap-2 px-6 text-center">
      <h1 className="text-lg font-semibold">{say("failure.title")}</h1>
      <p className="max-w-md text-soft">{hint}</p>
      <button
        type="button"
        onClick={() => location.reload()}
        className="mx-auto mt-3 min-h-10 rounded-lg border border-mine px-4 font-medium text-mine hover:bg-mine hover:text-on-mine"
      >
        {say("failure.again")}
      </button>
    </main>
  );
}
