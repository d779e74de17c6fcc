import { launch } from "./chromium.mjs";
import { readFileSync } from "node:fs";
import { execSync } from "node:child_process";
const dir = process.argv[2], out = process.argv[3];
const env = Object.fromEntries(readFileSync(`${dir}/up.env`, "utf8").trim().split("\n").map((l) => [l.split("=")[0], l.slice(l.indexOf("=") + 2, -1)]));
const b = await launch();
const c = await b.newContext({ viewport: { width: 1280, height: 720 } });
const p = await c.newPage(); // physician
await p.goto(`${env.TROCAR_INVITE_EXPERT}&name=Dr.%20Maria%20Keller&join=1&lang=en`);
await p.waitForSelector(".tile[data-state=live]", { timeout: 30000 });
const g = await (await b.newContext({ viewport: { width: 1280, height: 720 } })).newPage();
g.on("console", (m) => console.log("gate page:", m.text()));
p.on("pageerror", (e) => console.log("page:", e));
await g.goto(env.TROCAR_CONSOLE);
await g.waitForFunction(() => document.querySelector("#life").textContent.startsWith("live"));
const state = () => g.evaluate(() => document.querySelector("#state").textContent + " | " + document.querySelector("#headline").textContent + " | " + document.querySelector("#motion").textContent + " | " + document.querySelector("#answer").textContent + "|" + document.querySelector("#hint").textContent);
const shot = async (n) => { await g.screenshot({ path: `${out}/${n}-gate.png` }); await p.screenshot({ path: `${out}/${n}-page.png` }); console.log(n, await state()); };
await shot("0-start");
await g.click("#take");
await g.waitForFunction(() => document.querySelector("#state").textContent === "LOCAL");
await g.waitForTimeout(1000);
await shot("1-local");
for (let n = 0; n < 5; n++) {
  await g.waitForSelector("#act-offer:not([disabled])", { timeout: 20000 });
  await g.waitForTimeout(500);
  await g.click("#act-offer");
  await g.waitForSelector("#experts input");
  await g.waitForTimeout(200);
  if (n == 0) await shot("2-form");
  console.log(await g.evaluate(() => [...document.querySelectorAll("#sets label, #experts label")].map((e) => e.textContent).join(" / ")));
  await g.click('#experts label:has-text("expert") input');
  await g.click("#sets input[value='2']");
  await g.fill("#step-input", "clip the cystic duct");
  await g.click("#offer-send");
  try {
    await g.waitForFunction(() => !document.querySelector("#act-confirm")?.disabled, null, { timeout: 35000 });
    await g.waitForTimeout(600);
    await shot("3-ready");
    await g.click("#act-confirm");
    await g.waitForFunction(() => document.querySelector("#state").textContent === "REMOTE", null, { timeout: 4000 });
    break;
  } catch (e) { console.log(n, String(e).split("\n")[0], await state()); }
}
await g.waitForTimeout(4000);
await shot("4-remote");
for (let i = 0; i < 10; i++) { await g.waitForTimeout(1000); console.log(await state()); }
execSync(`kill -9 $(cat ${dir}/expert.pid)`);
await g.waitForTimeout(300); console.log(await state());
await g.waitForTimeout(1500);
await shot("5-killed");
await g.click("#take");
await g.waitForTimeout(1500);
await shot("6-taken");
await b.close();
