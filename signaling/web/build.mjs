// Bundles the page, or its tests. `node build.mjs OUTDIR` leaves index.html, app.js and app.css there;
// `node build.mjs --tests OUTDIR` leaves one bundle for each test. Called by package.json and by signaling/build.rs.
import { copyFile, mkdir, readdir, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const common = { bundle: true, format: "esm", target: "es2022", charset: "utf8", logLevel: "warning", absWorkingDir: here };

async function page(out) {
  await mkdir(out, { recursive: true });
  await build({ ...common, entryPoints: ["src/app.ts"], outfile: join(out, "app.js"), platform: "browser" });
  await build({ ...common, entryPoints: ["app.css"], outfile: join(out, "app.css") });
  await copyFile(join(here, "index.html"), join(out, "index.html"));
}

async function tests(out) {
  await rm(out, { recursive: true, force: true });
  const files = (await readdir(join(here, "test"))).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: files.map((name) => join("test", name)),
    outdir: out,
    outExtension: { ".js": ".mjs" },
    platform: "node",
  });
}

const args = process.argv.slice(2);
const isTests = args[0] === "--tests";
const out = args[isTests ? 1 : 0];
if (out === undefined) {
  console.error("usage: node build.mjs [--tests] OUTDIR");
  process.exit(2);
}
try {
  await (isTests ? tests : page)(resolve(here, out));
} catch (error) {
  // esbuild has printed its own messages; anything else is told here.
  if (!(error instanceof Error && "errors" in error)) console.error(String(error));
  process.exit(1);
}
