// Every text that a person reads, in the language of the page, and how numbers and times are written in it.

import type { Language } from "./language.ts";
import { en, type ProblemName, type Strings } from "./strings/en.ts";
import { ja } from "./strings/ja.ts";

export const TABLES: Record<Language, Strings> = { en, ja };

/** The table of the page's language. A live binding: whoever writes a text reads it anew each time. */
export let t: Strings = en;
let current: Language = "en";
let clock = clockOf("en");
let numbers = numbersOf("en");

export function language(): Language {
  return current;
}

export function setLanguage(language: Language): void {
  current = language;
  t = TABLES[language];
  clock = clockOf(language);
  numbers = numbersOf(language);
}

/** "group.name" of every entry that is a plain text. */
export type TextKey = {
  [A in keyof Strings]: {
    [B in keyof Strings[A] & string]: Strings[A][B] extends string ? `${A}.${B}` : never;
  }[keyof Strings[A] & string];
}[keyof Strings];

/** The text of that key. A key that nobody knows is its own text, so that a slip is seen and nothing breaks. */
export function text(key: string): string {
  const [group = "", name = ""] = key.split(".");
  const found = (t as unknown as Record<string, Record<string, unknown>>)[group]?.[name];
  return typeof found === "string" ? found : key;
}

/** What a problem means in the page's language: our own words where there are some, else what the relay said. */
export function problemText(name: string, detail: string): string {
  const own = t.problem[name as ProblemName];
  if (own !== undefined && own !== "") return own;
  return t.problem.other === "" ? detail : `${t.problem.other}（${detail}）`;
}

/** "0.4 s", "12 s", "3 min 05 s": as exact as a person needs. */
export function span(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return t.span.short(numbers(seconds, 1));
  if (seconds < 60) return t.span.short(numbers(Math.floor(seconds), 0));
  return t.span.long(numbers(Math.floor(seconds / 60), 0), String(Math.floor(seconds % 60)).padStart(2, "0"));
}

/** "84 ms" below ten seconds, longer ages as a span. */
export function ageText(ms: number): string {
  return ms < 10_000 ? `${ms} ms` : span(ms);
}

export function bitRate(bitsPerSecond: number): string {
  if (bitsPerSecond >= 1e6) return `${numbers(bitsPerSecond / 1e6, 1)} Mbit/s`;
  return `${numbers(Math.round(bitsPerSecond / 1e3), 0)} kbit/s`;
}

/** A number with exactly so many digits after the point. */
export function number(value: number, digits = 0): string {
  return numbers(value, digits);
}

/** Local hh:mm:ss of a moment in milliseconds since the Unix epoch. */
export function timeOfDay(ms: number): string {
  return clock.format(new Date(ms));
}

/** What a language calls itself. */
export const OWN_NAMES: Record<Language, string> = { en: "English", ja: "日本語" };

export function other(language: Language): Language {
  return language === "en" ? "ja" : "en";
}

function clockOf(language: Language): Intl.DateTimeFormat {
  const locale = language === "ja" ? "ja-JP" : "en-GB";
  return new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

function numbersOf(language: Language): (value: number, digits: number) => string {
  const formats = [0, 1, 2].map(
    (digits) => new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }),
  );
  return (value, digits) => formats[digits]?.format(value) ?? String(value);
}
