/** Any JSON value, as read from the wire. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

/** A JSON object; every member may be absent. */
export interface JsonObject {
  readonly [member: string]: Json | undefined;
}

/** Whether a value is a JSON object (not an array, not null). */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value as an array of strings, or undefined when it is anything else. */
export function asStrings(value: unknown): readonly string[] | undefined {
  return Array.isArray(value) && value.every((item) => typeof item === "string") ? value : undefined;
}

/** The text as JSON, or undefined when it is not JSON (JSON itself has no undefined). */
export function parseJson(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return undefined;
  }
}
