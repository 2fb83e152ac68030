// Every word of the page, in the language that was chosen. Elements remember what they say, so that a switch changes
// those that are on the page without making them anew.
import { en } from "./en.js";
import { zh } from "./zh.js";

const TABLES = { en, zh };
const KEPT = "candlewick.language";
const listeners = new Set();

let language = kept() ?? (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag in TABLES) ?? "en";

function kept() {
  try {
    const value = localStorage.getItem(KEPT);
    return value in TABLES ? value : undefined;
  } catch {
    // A browser may forbid that a page keeps anything.
    return undefined;
  }
}

export const currentLanguage = () => language;

export const number = (value, digits = 0) => new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
/** `12:34:56`. */
export const clock = (milliseconds) => new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }).format(milliseconds);
/** Milliseconds as people read them. */
export const time = (milliseconds) =>
  milliseconds < 10 ? `${number(milliseconds, 1)} ms` : milliseconds < 1_000 ? `${number(milliseconds)} ms` : `${number(milliseconds / 1_000, 1)} s`;

const format = { number, time };

export function word(key, values = {}) {
  const entry = TABLES[language][key];
  return typeof entry === "function" ? entry(values, format) : entry;
}

/** What each element says: by attribute (`""`: its text) a key and values. */
const said = new WeakMap();

export function say(element, key, values, attribute = "") {
  if (!said.has(element)) {
    said.set(element, new Map());
    element.toggleAttribute("data-said", true);
  }
  said.get(element).set(attribute, [key, values]);
  tell(element, attribute, key, values);
}

function tell(element, attribute, key, values) {
  if (attribute === "") element.textContent = word(key, values);
  else element.setAttribute(attribute, word(key, values));
}

/** What the markup says by `data-word` and `data-word-ATTRIBUTE`. */
export function sayAll(root) {
  for (const element of root.querySelectorAll("*")) {
    for (const { name, value } of Array.from(element.attributes)) {
      if (name.startsWith("data-word")) say(element, value, undefined, name.slice("data-word-".length));
    }
  }
}

/** `listener` is called after each switch, for what is made of words and is no element's text. */
export function onLanguage(listener) {
  listeners.add(listener);
}

/** `keep`: for the next visit too. */
export function speak(chosen, keep) {
  language = chosen;
  try {
    if (keep) localStorage.setItem(KEPT, chosen);
  } catch {
    // Then it holds for this visit.
  }
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : chosen;
  document.title = word("title");
  for (const element of document.querySelectorAll("[data-said]")) {
    for (const [attribute, [key, values]] of said.get(element)) tell(element, attribute, key, values);
  }
  for (const listener of listeners) listener();
}
