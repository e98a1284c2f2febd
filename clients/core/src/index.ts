/** The client of lastcall: hear channels, call functions. Free of frameworks; `@lastcall/react` stands on it. */
export { Client, type Bookmark, type ClientOptions } from "./client.ts";
export type { Beginning, ChannelEvent, ChannelGone, ChannelListener } from "./subscription.ts";
export type { Phase, Status } from "./source.ts";
export type { Answer, CallOptions } from "./batch.ts";
export { invalidateBy } from "./freshness.ts";
export { Cache, type CacheOptions, type CacheRead } from "./cache.ts";
export {
  browserEnvironment,
  type Broadcast,
  type Cancel,
  type Environment,
  type KeyValueStore,
  type Locks,
  type Socket,
  type SocketHandlers,
} from "./environment.ts";
export { ownProblem, ProblemError, readProblem, type OwnCode, type Problem, type Retry } from "./problem.ts";
export type { Token, TokenProvider } from "./token.ts";
export type { ResetReason } from "./frames.ts";
export type { TransportName } from "./transports/transport.ts";
export { isObject, type Json, type JsonObject } from "./json.ts";
