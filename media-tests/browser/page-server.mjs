// Builds the page and serves it as signaling does, without a relay: that is signaling/web/test/fake-relay.js, inside the page.
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const web = join(dirname(fileURLToPath(import.meta.url)), "../../signaling/web");
const POLICY = "default-src 'self'; connect-src 'self' wss: ws:; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8" };

/** `origin`: where the page is. `fakeRelay`: the script that is to run before the page's own. */
export async function servePage() {
  // Into a directory of its own: several of these may run at a time.
  const dist = await mkdtemp(join(tmpdir(), "trocar-page-"));
  const options = { cwd: web, stdio: ["ignore", "ignore", "inherit"] };
  execFileSync("npm", ["run", "typecheck", "--silent"], options);
  execFileSync("node", ["build.mjs", dist], options);
  const server = createServer(async (request, response) => {
    const name = new URL(request.url, "http://x").pathname.slice(1) || "index.html";
    if (!["index.html", "app.js", "app.css"].includes(name)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[name.split(".").pop()], "content-security-policy": POLICY });
    response.end(await readFile(join(dist, name)));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const origin = `http://127.0.0.1:${server.address().port}`;
  const close = async () => {
    server.close();
    await rm(dist, { recursive: true, force: true });
  };
  return { origin, fakeRelay: join(web, "test/fake-relay.js"), close };
}
