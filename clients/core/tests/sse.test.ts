import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SseOverflow, SseParser, type SseBlock } from "../src/sse.ts";
import { vectors, type VectorFrame } from "./vectors.ts";

const { blocks, streams } = vectors("sse");
const encoder = new TextEncoder();

function read(stream: string): { blocks: SseBlock[]; retry_ms: number | undefined } {
  const parser = new SseParser();
  return { blocks: parser.push(encoder.encode(stream)), retry_ms: parser.retry_ms };
}

function shown(block: SseBlock): VectorFrame {
  return {
    ...(block.id === undefined ? {} : { id: block.id }),
    event: block.event,
    ...(block.channel === undefined ? {} : { channels: block.channel.split(",") }),
    data: block.data ?? "",
  };
}

describe("the vectors of spec/vectors/sse.json", () => {
  test.each(blocks)("block: $name", ({ block, frame }) => {
    const { retry, data, ...rest } = frame;
    const parsed = read(block);
    const [first] = parsed.blocks.map(shown);
    expect(first).toEqual({ ...rest, data: first?.data });
    expect(JSON.parse(first?.data ?? "")).toEqual(JSON.parse(data));
    expect(parsed.retry_ms).toBe(retry);
  });

  test.each(streams)("stream: $name", ({ stream, frames, last_event_id, retry }) => {
    const parsed = read(stream);
    expect(parsed.blocks.filter((block) => block.data !== undefined).map(shown)).toEqual(frames);
    if (last_event_id !== undefined) {
      expect(parsed.blocks.findLast((block) => block.id !== undefined)?.id ?? "").toBe(last_event_id);
    }
    if (retry !== undefined) expect(parsed.retry_ms).toBe(retry);
  });
});

describe("bytes that arrive in pieces", () => {
  const text = fc.string({ unit: fc.constantFrom("a", ":", " ", "\n", "\r", "\r\n", "é", "☕", "🍺", "data", "id") });

  test("any stream, cut anywhere, gives the same blocks", () => {
    fc.assert(
      fc.property(text, fc.array(fc.nat(400), { maxLength: 8 }), (stream, cuts) => {
        const bytes = encoder.encode(stream);
        const parser = new SseParser();
        const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b);
        const pieces = places.slice(1).flatMap((place, index) => parser.push(bytes.subarray(places[index], place)));
        expect(pieces).toEqual(read(stream).blocks);
      }),
      { numRuns: 2_000 },
    );
  });

  test.each(blocks)("$name, byte by byte, with CRLF and after a byte order mark", ({ block }) => {
    const parser = new SseParser();
    const bytes = encoder.encode("\uFEFF" + block.replaceAll("\n", "\r\n"));
    const pieces = Array.from(bytes).flatMap((byte) => parser.push(Uint8Array.of(byte)));
    expect(pieces).toEqual(read(block).blocks);
  });

  test("text that the platform has decoded gives the same as its bytes", () => {
    const stream = "\uFEFFid: 1\ndata: ☕\n\n";
    expect(new SseParser().pushText(stream)).toEqual(read(stream).blocks);
  });
});

describe("bounds", () => {
  test("a line that never ends is refused", () => {
    const parser = new SseParser(100);
    expect(() => parser.pushText("data: " + "x".repeat(100))).toThrow(SseOverflow);
  });

  test("a block of many lines that never ends is refused", () => {
    const parser = new SseParser(100);
    expect(() => {
      for (let line = 0; line < 20; line += 1) parser.pushText("data: 0123456789\n");
    }).toThrow(SseOverflow);
  });

  test("blocks within the bound go on for ever", () => {
    const parser = new SseParser(100);
    let seen = 0;
    for (let block = 0; block < 1_000; block += 1) seen += parser.pushText(`data: ${block}\n\n`).length;
    expect(seen).toBe(1_000);
  });
});
