/** Thin React hooks over `@lastcall/core`: a component renders, a hook connects, the client knows. */
export { LastcallProvider, useClient, type LastcallProviderProps } from "./context.tsx";
export { useConnection, type ConnectionView } from "./use-connection.ts";
export { useChannel, type ChannelFold, type ChannelView } from "./use-channel.ts";
export { useCall, type CallView } from "./use-call.ts";
