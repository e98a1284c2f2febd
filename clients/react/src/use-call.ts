import { ownProblem, ProblemError, type Answer, type JsonObject, type Problem } from "@lastcall/core";
import { useCallback, useState } from "react";
import { useClient } from "./context.tsx";

/** A function of the server as a component sees it. */
export interface CallView {
  /** Call it; the answer, or undefined where it was refused (`problem` then says why). Never rejects. */
  readonly call: (args: JsonObject) => Promise<Answer | undefined>;
  /** How many calls are under way. */
  readonly pending: number;
  /** Why the last finished call was refused; undefined: it was not. */
  readonly problem: Problem | undefined;
}

/** Call `app.function`; each call carries an operation id of its own and applies once. */
export function useCall(name: string): CallView {
  const client = useClient();
  const [pending, setPending] = useState(0);
  const [problem, setProblem] = useState<Problem>();
  const call = useCallback(
    async (args: JsonObject) => {
      setPending((count) => count + 1);
      try {
        const answer = await client.call(name, args);
        setProblem(undefined);
        return answer;
      } catch (error) {
        setProblem(error instanceof ProblemError ? error.problem : ownProblem("malformed", String(error)));
        return undefined;
      } finally {
        setPending((count) => count - 1);
      }
    },
    [client, name],
  );
  return { call, pending, problem };
}
