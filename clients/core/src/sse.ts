import { SSE_BLOCK_MAX_CHARS } from "./limits.ts";

/**
 * One block of an event stream, as it was written. A field that the block did not have is undefined; unlike in an
 * EventSource, `id` is that of this very block, because a frame without one does not move the position.
 */
export interface SseBlock {
  readonly event: string;
  readonly data: string | undefined;
  readonly id: string | undefined;
  /** Our field: comma-separated channel names (spec/protocol.md, 4). */
  readonly channel: string | undefined;
}

/** The stream wrote a block longer than its bound. */
export class SseOverflow extends Error {
  override readonly name = "SseOverflow";
}

const BOM = "\uFEFF";
const DIGITS = /^[0-9]+$/;

/**
 * Incremental reader of `text/event-stream`: bytes in, blocks out, no I/O.
 *
 * Promises: blocks come out the same wherever the bytes were split, inside a character or between CR and LF too; line
 * ends are LF, CR or CRLF; one byte order mark is skipped; malformed UTF-8 becomes U+FFFD; a block that never ends does
 * not grow beyond `block_max_chars` (SseOverflow); a block cut off by the end of the stream never comes out.
 *
 * Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".
 */
export class SseParser {
  /** The last reconnection time that the stream named, in milliseconds. */
  retry_ms: number | undefined;

  readonly #block_max_chars: number;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #started = false;
  #after_cr = false;
  #line = "";
  #block = emptyBlock();

  constructor(block_max_chars: number = SSE_BLOCK_MAX_CHARS) {
    this.#block_max_chars = block_max_chars;
  }

  /** Read the next bytes of the stream. Throws SseOverflow. */
  push(bytes: Uint8Array): SseBlock[] {
    return this.pushText(this.#decoder.decode(bytes, { stream: true }));
  }

  /** Read the next characters of the stream, where the platform has decoded them already. Throws SseOverflow. */
  pushText(text: string): SseBlock[] {
    const blocks: SseBlock[] = [];
    let start = this.#skipped(text);
    while (start < text.length) {
      const end = lineEnd(text, start);
      if (end === -1) {
        this.#line += text.slice(start);
        break;
      }
      this.#endLine(this.#line + text.slice(start, end), blocks);
      this.#line = "";
      start = end + 1;
      if (text[end] === "\r") {
        this.#after_cr = start === text.length;
        if (text[start] === "\n") start += 1;
      }
    }
    if (this.#line.length + this.#block.chars > this.#block_max_chars) {
      throw new SseOverflow(`a block is longer than ${this.#block_max_chars} characters`);
    }
    return blocks;
  }

  /** How many characters to leave out at the start: the mark of the first text, the LF of a CRLF that was split. */
  #skipped(text: string): number {
    if (text === "") return 0;
    let skipped = 0;
    if (!this.#started && text.startsWith(BOM)) skipped = 1;
    if (this.#after_cr && text.startsWith("\n")) skipped = 1;
    this.#started = true;
    this.#after_cr = false;
    return skipped;
  }

  #endLine(line: string, blocks: SseBlock[]): void {
    if (line !== "") {
      this.#field(line);
      return;
    }
    const { event, data, id, channel, empty } = this.#block;
    if (!empty) blocks.push({ event: event === "" ? "message" : event, data: data?.join("\n"), id, channel });
    this.#block = emptyBlock();
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    const block = this.#block;
    block.chars += line.length;
    if (block.chars > this.#block_max_chars) {
      throw new SseOverflow(`a block is longer than ${this.#block_max_chars} characters`);
    }
    if (name === "data") (block.data ??= []).push(value);
    else if (name === "event") block.event = value;
    else if (name === "id" && !value.includes("\0")) block.id = value;
    else if (name === "channel") block.channel = value;
    else if (name === "retry" && DIGITS.test(value)) this.retry_ms = Number(value);
    else return;
    block.empty &&= name === "retry";
  }
}

interface OpenBlock {
  event: string;
  data: string[] | undefined;
  id: string | undefined;
  channel: string | undefined;
  chars: number;
  empty: boolean;
}

function emptyBlock(): OpenBlock {
  return { event: "", data: undefined, id: undefined, channel: undefined, chars: 0, empty: true };
}

function lineEnd(text: string, from: number): number {
  const feed = text.indexOf("\n", from);
  const before = feed === -1 ? text.length : feed;
  for (let index = from; index < before; index += 1) {
    if (text.charCodeAt(index) === 13) return index;
  }
  return feed;
}
