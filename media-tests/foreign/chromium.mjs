// Chromium as WHIP publisher or WHEP viewer: chromium.mjs publish|view --url … --token … [--video CODEC] [--audio]
// [--hz N] [--seconds N]. The page comes from an origin of its own, so that the server's CORS answers are used as well.
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

// playwright-core is installed for the page's own tests already.
const { chromium } = createRequire(new URL("../browser/package.json", import.meta.url))("playwright-core");
const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: "string" }, token: { type: "string", default: "" }, video: { type: "string", default: "" },
    audio: { type: "boolean", default: false }, hz: { type: "string", default: "440" },
    seconds: { type: "string", default: "6" }, sdp: { type: "string", default: "" },
    "page-port": { type: "string", default: "0" },
  },
});
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const html = `<!doctype html><title>foreign client</title><script>${readFileSync(new URL("page.js", import.meta.url))}</script>`;
const server = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end(html));
await new Promise((resolve) => server.listen(Number(values["page-port"]), "127.0.0.1", resolve));
const browser = await chromium.launch({
  executablePath: process.env.TROCAR_CHROMIUM ?? "/usr/bin/chromium",
  timeout: 120_000,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
  ],
});
let code = 1;
try {
  say({ event: "client", name: "Chromium", version: browser.version() });
  const page = await browser.newPage();
  page.on("console", (m) => m.type() === "error" && console.error(m.text()));
  await page.exposeFunction("tell", say);
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const { url, token, video, audio } = values;
  const wanted = { url, token, video, audio, hz: Number(values.hz), seconds: Number(values.seconds) };
  const run = positionals[0] === "publish" ? (w) => publish(w) : (w) => view(w);
  const { sdp, error, ...result } = await page.evaluate(run, wanted);
  if (values.sdp && sdp) for (const [name, text] of Object.entries(sdp)) writeFileSync(`${values.sdp}/${name}.sdp`, text);
  say(result);
  code = error ? 1 : 0;
} catch (e) {
  say({ event: "error", reason: String(e.message ?? e).split("\n")[0] });
} finally {
  await browser.close();
  server.close();
}
process.exit(code);
