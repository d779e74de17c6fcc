// Which language the page speaks: what the address asks for, else what was chosen here before, else the browser's.

export const LANGUAGES = ["en", "ja"] as const;
export type Language = (typeof LANGUAGES)[number];

export function isLanguage(text: string): text is Language {
  return (LANGUAGES as readonly string[]).includes(text);
}

export interface LanguageSources {
  /** The query of the address, `?lang=ja`. */
  query: string;
  remembered: string;
  /** The browser's languages, the best first (BCP 47). */
  browser: readonly string[];
}

export function chooseLanguage(from: LanguageSources): Language {
  const asked = primary(new URLSearchParams(from.query).get("lang") ?? "");
  for (const tag of [asked, from.remembered, ...from.browser.map(primary)]) if (isLanguage(tag)) return tag;
  return "en";
}

/** "ja-JP" is "ja". */
function primary(tag: string): string {
  return (tag.split("-")[0] ?? "").trim().toLowerCase();
}
