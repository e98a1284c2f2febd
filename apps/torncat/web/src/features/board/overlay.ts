import type { Call, War } from "../../lib/war.ts";

/** A click that the server has not confirmed yet, shown as if it had. */
export type Overlay =
  | { readonly kind: "call"; readonly target_id: number }
  | { readonly kind: "release"; readonly target_id: number; readonly call_id: number };

/** How a target stands, the clicks under way included. */
export type Standing =
  | { readonly kind: "free" }
  | { readonly kind: "calling" }
  | { readonly kind: "releasing"; readonly call: Call }
  | { readonly kind: "mine"; readonly call: Call }
  | { readonly kind: "held"; readonly call: Call };

/** How one target stands for one member. */
export function standing(war: War, target_id: number, me: number, overlays: readonly Overlay[]): Standing {
  const call = war.calls.get(target_id);
  const overlay = overlays.find((one) => one.target_id === target_id);
  if (call === undefined) return { kind: overlay?.kind === "call" ? "calling" : "free" };
  if (overlay?.kind === "release" && overlay.call_id === call.id) return { kind: "releasing", call };
  return { kind: call.caller_id === me ? "mine" : "held", call };
}

/**
 * The overlays that are still needed: one is dropped as soon as the stream has told of its target, because what the
 * stream tells is the truth, whether it is the click's own event or somebody else's.
 */
export function stillNeeded(overlays: readonly Overlay[], war: War): readonly Overlay[] {
  const kept = overlays.filter((overlay) => {
    const call = war.calls.get(overlay.target_id);
    return overlay.kind === "call" ? call === undefined : call?.id === overlay.call_id;
  });
  return kept.length === overlays.length ? overlays : kept;
}
