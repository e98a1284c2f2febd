import { readdirSync, readFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { expect, test } from "vitest";

const ROOT = resolve(import.meta.dirname, "../../..");

/** Where a file stands. `of`: which of several equals it is; equals do not import each other. */
interface Place {
  readonly layer: number;
  readonly name: string;
  readonly of: string;
}

/** From the bottom up. A file imports its own layer and those below it, and of another package only the door. */
const LAYERS: readonly (readonly [string, RegExp])[] = [
  ["core", /^clients\/core\/src\//],
  ["react", /^clients\/react\/src\//],
  ["lib", /^apps\/(\w+)\/web\/src\/lib\//],
  ["features", /^apps\/(\w+\/web\/src\/features\/\w+)\//],
  ["app", /^apps\/(\w+)\/web\/src\//],
];

const PACKAGES: Readonly<Record<string, string>> = {
  "@lastcall/core": "clients/core/src/index.ts",
  "@lastcall/react": "clients/react/src/index.ts",
};

const CLIENTS: Readonly<Record<string, string>> = { core: "clients/core/src", react: "clients/react/src" };

function placeOf(path: string): Place {
  const layer = LAYERS.findIndex(([, pattern]) => pattern.test(path));
  const [name = "nowhere", pattern] = LAYERS[layer] ?? [];
  return { layer, name, of: pattern?.exec(path)?.[1] ?? "" };
}

function sources(folder: string): string[] {
  return readdirSync(resolve(ROOT, folder), { recursive: true, encoding: "utf-8" })
    .filter((name) => /\.tsx?$/.test(name))
    .map((name) => `${folder}/${name}`);
}

function imports(path: string): { readonly said: string; readonly path: string }[] {
  const text = readFileSync(resolve(ROOT, path), "utf-8");
  const said = [...text.matchAll(/^(?:import|export)\b[^"';]*from "([^"]+)"|import\("([^"]+)"\)/gm)];
  return said.flatMap(([, static_import, dynamic]) => {
    const name = static_import ?? dynamic ?? "";
    const found = name.startsWith(".") ? relative(ROOT, resolve(ROOT, dirname(path), name)) : PACKAGES[name];
    if (found !== undefined) return [{ said: name, path: found }];
    return name.startsWith("@lastcall/") ? [{ said: name, path: "nowhere" }] : [];
  });
}

function wrong(path: string): string[] {
  const here = placeOf(path);
  const bad = imports(path).filter((target) => {
    const there = placeOf(target.path);
    const below = there.layer >= 0 && there.layer < here.layer;
    const beside = there.layer === here.layer && there.of === here.of;
    const around_the_door = there.name in CLIENTS && there.name !== here.name && target.said.startsWith(".");
    return !(below || beside) || around_the_door;
  });
  return bad.map((target) => `${path} imports ${target.said}`);
}

const PAGES = readdirSync(resolve(ROOT, "apps"))
  .map((app) => `apps/${app}/web/src`)
  .filter((folder) => {
    try {
      return readdirSync(resolve(ROOT, folder)).length > 0;
    } catch {
      return false;
    }
  });

test("imports point down: app → features → lib → clients; features never import features", () => {
  const all = [...Object.values(CLIENTS), ...PAGES].flatMap(sources);
  expect(all.length).toBeGreaterThan(40);
  expect(all.flatMap(wrong)).toEqual([]);
});

test("the core stands alone: it imports no package, no framework and nothing of Node", () => {
  const outside = sources("clients/core/src").flatMap((path) => {
    const text = readFileSync(resolve(ROOT, path), "utf-8");
    return [...text.matchAll(/from "([^."][^"]*)"/g)].map((found) => `${path} imports ${found[1] ?? ""}`);
  });
  expect(outside).toEqual([]);
});
