// Opens pages that are one file (reports of a line, of a load) as somebody does who got them by mail: `node report.mjs OUTDIR
// FILE…`. Looks at each in both colour schemes, at the width of a laptop and of a phone, with axe-core, and prints it on A4.
// Screenshots and PDFs go to OUTDIR. Prints one JSON object per file; ends with 1 where anything is amiss.
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { launch } from "./chromium.mjs";

const axeSource = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const [outDir, ...files] = process.argv.slice(2);
await mkdir(outDir, { recursive: true });
const browser = await launch();
let bad = 0;
for (const file of files) {
  const report = await look(file);
  const same = report.backgrounds.light === report.backgrounds.dark;
  const amiss = [...report.errors, ...report.fetched, ...report.axe, ...(same ? ["one background for light and dark"] : []),
    ...(Math.max(...Object.values(report.overflow)) > 0 ? ["wider than the window"] : [])];
  if (amiss.length > 0) bad += 1;
  console.log(JSON.stringify({ ...report, amiss }));
}
await browser.close();
process.exitCode = bad > 0 ? 1 : 0;

async function look(file) {
  const name = basename(file, ".html");
  const report = { name, errors: [], fetched: [], axe: [], backgrounds: {}, overflow: {}, plots: 0, text: "" };
  for (const colorScheme of ["light", "dark"]) {
    const context = await browser.newContext({ colorScheme, viewport: { width: 1280, height: 800 } });
    const page = await context.newPage();
    const url = pathToFileURL(resolve(file)).href;
    page.on("pageerror", (e) => report.errors.push(String(e)));
    page.on("console", (m) => m.type() === "error" && report.errors.push(m.text()));
    page.on("request", (r) => r.url() !== url && report.fetched.push(r.url()));
    await page.goto(url);
    await page.screenshot({ path: join(outDir, `${name}-${colorScheme}.png`), fullPage: true });
    await page.screenshot({ path: join(outDir, `${name}-${colorScheme}-first.png`) });
    report.backgrounds[colorScheme] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    report.overflow[colorScheme] = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    report.plots = await page.evaluate(() => document.querySelectorAll("svg").length);
    report.text = await page.evaluate(() => document.body.innerText.slice(0, 600));
    await page.evaluate(axeSource);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    report.axe.push(...violations.map((v) => `${colorScheme} ${v.id}: ${v.nodes.map((n) => n.target.join(" ")).slice(0, 4).join("; ")}`));
    await page.setViewportSize({ width: 390, height: 800 });
    report.overflow[`${colorScheme}-phone`] = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (colorScheme === "dark") {
      // Ink on paper, whatever the screen likes.
      await page.emulateMedia({ media: "print" });
      report.backgrounds.print = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      await page.pdf({ path: join(outDir, `${name}.pdf`), format: "A4", printBackground: true, preferCSSPageSize: true });
    }
    await context.close();
  }
  return report;
}
