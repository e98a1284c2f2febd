import type { Cache } from "./cache.ts";
import type { Client } from "./client.ts";
import type { Cancel } from "./environment.ts";
import type { ChannelEvent, ChannelGone } from "./subscription.ts";

/**
 * Have the events of a channel forget what they make old: for each, the tags that `tagsOf` names, or all entries that
 * carry the channel's name as a tag where it is not given. When something may have been missed, that latter is done.
 */
export function invalidateBy(
  client: Client,
  channel: string,
  cache: Cache,
  tagsOf?: (change: ChannelEvent | ChannelGone) => readonly string[],
): Cancel {
  const forget = (change: ChannelEvent | ChannelGone): void => {
    for (const tag of tagsOf?.(change) ?? [channel]) cache.invalidate(tag);
  };
  const forgetAll = (): void => cache.invalidate(channel);
  return client.subscribe(channel, { event: forget, gone: forget, reset: forgetAll, refused: forgetAll }, "events");
}
