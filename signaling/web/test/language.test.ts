import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { chooseLanguage, LANGUAGES } from "../src/language.ts";
import { problemText, setLanguage, span, TABLES, text, timeOfDay } from "../src/strings.ts";

/** Every text of a table; functions are called with arguments that can be told apart. */
function leaves(table: object): Map<string, string> {
  const found = new Map<string, string>();
  for (const [group, entries] of Object.entries(table)) {
    for (const [key, value] of Object.entries(entries as object)) {
      const said = typeof value === "function" ? (value as (...a: string[]) => string)("⟦a⟧", "⟦b⟧") : String(value);
      found.set(`${group}.${key}`, said);
    }
  }
  return found;
}

test("the address wins over memory, memory over the browser, and the browser's first known language counts", () => {
  const choose = (query: string, remembered: string, ...browser: string[]) => chooseLanguage({ query, remembered, browser });
  assert.equal(choose("?lang=ja", "en", "en-US"), "ja");
  assert.equal(choose("?lang=ja-JP", "en"), "ja");
  assert.equal(choose("", "ja", "en-US"), "ja");
  assert.equal(choose("", "", "fr", "ja-JP", "en"), "ja");
  assert.equal(choose("?lang=tlh", "", "fr"), "en");
});

test("every table says everything, with every argument in it", () => {
  const english = leaves(TABLES.en);
  const mayBeEmpty = (key: string) => key.startsWith("problem.");
  for (const language of LANGUAGES) {
    const said = leaves(TABLES[language]);
    assert.deepEqual([...said.keys()], [...english.keys()], language);
    for (const [key, value] of said) {
      assert.ok(value !== "" || (language === "en" && mayBeEmpty(key)), `${language} ${key} is empty`);
      for (const mark of ["⟦a⟧", "⟦b⟧"]) {
        assert.equal(value.includes(mark), (english.get(key) ?? "").includes(mark), `${language} ${key}: ${mark}`);
      }
    }
  }
});

test("no Japanese text was left in English", () => {
  const sameOnPurpose = new Set(["app.product", "tile.none", "tile.frameRate", "help.escape", "publish.refused", "control.word"]);
  const japanese = leaves(TABLES.ja);
  for (const [key, value] of leaves(TABLES.en)) {
    if (!sameOnPurpose.has(key)) assert.ok(japanese.get(key) !== value, `${key} is ${value} in both`);
  }
});

test("every cause and alarm that the gate has words for has Japanese ones", () => {
  // From dist/test: the table of the gate itself.
  const source = readFileSync(new URL("../../../../proto/src/handover/words.rs", import.meta.url), "utf8");
  const words = [...source.matchAll(/\(Self::\w+, "([^"]+)"\)/g)].map(([, word]) => word ?? "");
  assert.ok(words.length >= 19, `${words.length} words were found`);
  for (const word of words) assert.ok(TABLES.ja.control.word(word) !== word, word);
  // The control: what the gate does not say has none.
  assert.equal(TABLES.ja.control.word("brand new"), "brand new");
  assert.equal(TABLES.en.control.word("expert lost"), "expert lost");
});

test("a key is looked up in the language of the page, and times are written its way", () => {
  setLanguage("ja");
  assert.equal(text("bar.leave"), "退出");
  assert.deepEqual([400, 12_900, 185_000].map(span), ["0.4秒", "12秒", "3分05秒"]);
  assert.equal(problemText("feed-missing", "no such feed"), "この映像は送信されていません。");
  assert.ok(problemText("brand-new", "words of the relay").includes("words of the relay"));
  setLanguage("en");
  assert.equal(text("bar.leave"), "Leave");
  assert.equal(text("no.such"), "no.such");
  assert.equal(problemText("feed-missing", "no such feed"), "no such feed");
  assert.ok(/^\d\d:\d\d:\d\d$/.test(timeOfDay(0)));
});
