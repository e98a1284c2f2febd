import { readFileSync } from "node:fs";
import type { Json } from "../src/json.ts";

/** A file of `spec/`, as text. */
export function readSpec(name: string): string {
  return readFileSync(new URL(`../../../spec/${name}`, import.meta.url), "utf-8");
}

/** A frame as the vectors write it; `data` is JSON text. */
export interface VectorFrame {
  readonly id?: string;
  readonly event: string;
  readonly channels?: readonly string[];
  readonly data: string;
  readonly retry?: number;
}

interface Vectors {
  readonly sse: {
    readonly blocks: readonly { readonly name: string; readonly frame: VectorFrame; readonly block: string }[];
    readonly streams: readonly {
      readonly name: string;
      readonly stream: string;
      readonly frames: readonly VectorFrame[];
      readonly last_event_id?: string;
      readonly retry?: number;
    }[];
  };
  readonly websocket: {
    readonly frames: readonly { readonly name: string; readonly frame: VectorFrame; readonly text: string }[];
    readonly replies: readonly {
      readonly name: string;
      readonly reply: {
        readonly event: string;
        readonly ref?: number;
        readonly channels?: readonly string[];
        readonly problem?: { readonly code: string };
      };
      readonly text: string;
      readonly facts?: Json;
    }[];
    readonly operations: readonly { readonly name: string; readonly text: string; readonly operation: Json }[];
  };
  readonly long_poll: {
    readonly answers: readonly {
      readonly name: string;
      readonly answer: {
        readonly position: string;
        readonly events: readonly VectorFrame[];
        readonly more?: boolean;
        readonly reset?: readonly { readonly channels: readonly string[]; readonly reason: string }[];
        readonly states?: readonly { readonly channel: string; readonly state: string }[];
      };
      readonly text: string;
    }[];
  };
  readonly problems: {
    readonly problems: readonly { readonly name: string; readonly code: string; readonly document: string }[];
  };
}

/** The vectors that the Python tests read, too. */
export function vectors<Name extends keyof Vectors>(name: Name): Vectors[Name] {
  return JSON.parse(readSpec(`vectors/${name}.json`)) as Vectors[Name];
}
