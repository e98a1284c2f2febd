/**
 * Every bound and interval of the client, once. Those that the protocol fixes are named after its section
 * (`spec/protocol.md`).
 */

/** A connection that says nothing for this long is dead (3.5). */
export const SILENCE_MAX_MS = 35_000;

/** Heartbeat interval until `joined` names another (3.2). */
export const HEARTBEAT_DEFAULT_S = 15;

/** A transport that has not said `joined` after this long has failed to start. */
export const START_MAX_MS = 12_000;

/** Failed starts of one transport before the next one is tried. */
export const START_TRIES_MAX = 3;

/** After this long on a transport other than the preferred one, a reconnect tries the preferred one again. */
export const FALLBACK_KEPT_MS = 600_000;

/** Waits between reconnects double from here … (3.5) */
export const BACKOFF_MIN_MS = 1_000;

/** … up to here (3.5). */
export const BACKOFF_MAX_MS = 30_000;

/** A `joined` followed by this much life resets the backoff (3.5). */
export const STABLE_AFTER_MS = 5_000;

/** Longest `Retry-After` that is obeyed. */
export const RETRY_AFTER_MAX_MS = 300_000;

/** Waiting time of one long-poll (6). */
export const POLL_WAIT_S = 25;

/** A long-poll that has not answered this long after its waiting time is called off. */
export const POLL_GRACE_MS = 8_000;

/** Longest block of an SSE stream, in characters; a longer one ends the connection. */
export const SSE_BLOCK_MAX_CHARS = 16 * 1024 * 1024;

/** A token is refreshed this long before it expires, or at four fifths of a shorter life. */
export const TOKEN_MARGIN_MS = 60_000;

/** The token provider gets this long. */
export const TOKEN_WAIT_MAX_MS = 15_000;

/** Changes of the wanted channels are collected this long before the connection follows. */
export const WANT_WINDOW_MS = 10;

/** Events that a listener holds back while it waits for its state; beyond them it starts over. */
export const HELD_EVENTS_MAX = 10_000;

/** After a live reset, states are fetched within this long, at random, so that listeners do not come all at once. */
export const RESET_SPREAD_MS = 1_000;

/** `GET /state` gets this long. */
export const STATE_WAIT_MAX_MS = 15_000;

/** Event ids that a tab remembers, to pass each event on once when the leading tab changes. */
export const SEEN_IDS_MAX = 4_096;

/** Calls made within this window leave as one request. */
export const BATCH_WINDOW_MS = 8;

/** Calls in one batch (`batch_calls_max` of the server). */
export const BATCH_CALLS_MAX = 20;

/** Calls that wait to be sent; beyond them a call is refused. */
export const CALLS_WAITING_MAX = 1_000;

/** Times a call is repeated where the server says `now`, or the outcome is unknown and the call has a key. */
export const CALL_REPEATS_MAX = 2;

/** A call gets this long. */
export const CALL_WAIT_MAX_MS = 20_000;

/** Entries of the cache. */
export const CACHE_ENTRIES_MAX = 500;

/** Characters that the cache keeps in localStorage. */
export const CACHE_STORED_MAX_CHARS = 1_000_000;

/** A server that answers a long-poll with nothing before its time is not asked again sooner than this. */
export const POLL_PAUSE_MS = 1_000;

/** A channel that nobody wants any more is kept this long where leaving it means opening a new stream. */
export const DROP_AFTER_MS = 10_000;

/** The leading tab says at least this often that it is there. */
export const LEADER_WORD_MS = 10_000;

/** A leading tab that has said nothing for this long is asked … */
export const LEADER_SILENCE_MAX_MS = 35_000;

/** … and replaced when it does not answer within this time (a frozen tab still holds its lock). */
export const LEADER_ANSWER_MAX_MS = 5_000;
