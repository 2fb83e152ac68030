// Generated text on the page, token by token: its colour says how likely each one was.
import { byId, element, percent, scoreRow } from "./dom.js";
import { onLanguage, say, word } from "./words.js";

/** Where the classes of probabilities begin, best first; the last is for what is below all. */
const BOUNDS = [0.8, 0.5, 0.2, 0.05, 0];
const classOf = (logprob) => (logprob === null ? "given" : `p${BOUNDS.findIndex((bound) => Math.exp(logprob) >= bound)}`);

const TORN = /^bytes:((?:\\x[0-9a-f]{2})+)$/;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The bytes of a token that is no whole characters, such as `bytes:\xe6\x88`. */
const tornBytes = (token) => TORN.exec(token)?.[1].split("\\x").slice(1).map((byte) => Number.parseInt(byte, 16));

function decoded(bytes) {
  try {
    return utf8.decode(new Uint8Array(bytes));
  } catch {
    return undefined;
  }
}

/** As it is shown where blanks count. */
const visible = (token) => (TORN.test(token) ? token : token.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥"));

/** Tokens that are characters together: most often one; of a character that several make, all of them. */
class Unit {
  tokens = [];
  #bytes;

  constructor(token, bytes) {
    this.#bytes = bytes;
    this.tokens.push(token);
  }

  /** Whether a token with these bytes goes on with a character that this one began. */
  goesOn(bytes) {
    return this.#bytes !== undefined && decoded(this.#bytes) === undefined && bytes !== undefined && (bytes[0] & 0xc0) === 0x80;
  }

  add(token, bytes) {
    this.tokens.push(token);
    this.#bytes = [...this.#bytes, ...bytes];
  }

  get text() {
    return (this.#bytes && decoded(this.#bytes)) ?? this.tokens.map(({ token }) => token).join("");
  }

  /** Of all its tokens together; `null` where none is known, as of the first token of a prompt. */
  get logprob() {
    return this.tokens.reduce((sum, { logprob }) => (sum === null || logprob === null ? null : sum + logprob), 0);
  }

  get description() {
    return this.tokens
      .map(({ token, logprob, top }) => {
        if (logprob === null) return word("describeGiven", { token: visible(token) });
        const others = top.map((one) => `${visible(one.token)} ${percent(Math.exp(one.logprob))}`).join(", ");
        return word("describeToken", { token: visible(token), share: percent(Math.exp(logprob)), others });
      })
      .join("; ");
  }
}

/** One answer: its text alone, or its tokens. */
export class AnswerView {
  text = "";
  units = [];
  #body;
  #drawn = 0;
  #probabilities;
  #spans = [];

  constructor(place, probabilities, label) {
    this.#probabilities = probabilities;
    if (!probabilities) this.#body = element("div", { className: "text" });
    else {
      // A list to choose from takes the arrow keys; the text by itself is for who reads the page with them.
      this.#body = element("div", { className: "text tokens", attributes: { role: "listbox", "aria-orientation": "horizontal" } });
      say(this.#body, "tokensOf", { label }, "aria-label");
      this.#listen();
    }
    place.append(this.#body);
    views.add(this);
  }

  /** `tokens`: `{token, logprob, top}`, the text's. */
  add(text, tokens) {
    this.text += text;
    if (!this.#probabilities) return;
    // Text is shown even if nothing is said of its tokens.
    const known = tokens.length > 0 || text === "" ? tokens : [{ token: text, logprob: null, top: [] }];
    for (const token of known) {
      const bytes = tornBytes(token.token);
      const last = this.units.at(-1);
      if (last?.goesOn(bytes)) {
        last.add(token, bytes);
        this.#drawn = Math.min(this.#drawn, this.units.length - 1);
      } else this.units.push(new Unit(token, bytes));
    }
  }

  /** Brings the page up to date. */
  draw() {
    if (!this.#probabilities) {
      if (this.#drawn < this.text.length) this.#body.append(this.text.slice(this.#drawn));
      this.#drawn = this.text.length;
      return;
    }
    for (; this.#drawn < this.units.length; this.#drawn++) this.#drawUnit(this.#drawn);
    this.#clip();
  }

  /** A stop string may end in the middle of a token: what comes after it is no part of the text. */
  #clip() {
    const last = this.units.at(-1);
    const before = this.units.slice(0, -1).map(({ text }) => text).join("");
    if (last && last.tokens.length === 1 && this.text.startsWith(before) && (before + last.text).startsWith(this.text) && this.text.length > before.length) {
      this.#spans.at(-1).textContent = this.text.slice(before.length);
    }
  }

  #drawUnit(index) {
    const unit = this.units[index];
    let span = this.#spans[index];
    if (!span) {
      span = element("span", { tabIndex: index === 0 ? 0 : -1, attributes: { role: "option", "aria-selected": "false" } });
      span.dataset.unit = String(index);
      this.#spans.push(span);
      this.#body.append(span);
    }
    span.textContent = unit.text;
    span.className = `token ${classOf(unit.logprob)}${unit.text.includes("\n") ? " newline" : ""}${TORN.test(unit.text) ? " torn" : ""}`;
    this.#describe(index);
  }

  #describe(index) {
    const span = this.#spans[index];
    span.title = this.units[index].description;
    span.setAttribute("aria-label", span.title);
  }

  /** In another language. */
  describeAll() {
    for (const index of this.#spans.keys()) this.#describe(index);
  }

  #listen() {
    const indexOf = (target) => (target.closest("[data-unit]") ? Number(target.closest("[data-unit]").dataset.unit) : undefined);
    const shown = ({ target }) => {
      const index = indexOf(target);
      if (index !== undefined) showDetail(this.units[index]);
    };
    this.#body.addEventListener("pointerover", shown);
    this.#body.addEventListener("focusin", (event) => {
      shown(event);
      this.#choose(indexOf(event.target));
    });
    this.#body.addEventListener("click", ({ target }) => this.#spans[indexOf(target)]?.focus());
    this.#body.addEventListener("keydown", (event) => {
      const last = this.#spans.length - 1;
      const index = indexOf(event.target);
      const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: last }[event.key];
      if (index === undefined || to === undefined) return;
      event.preventDefault();
      this.#spans[Math.max(0, Math.min(last, to))].focus();
    });
  }

  #choose(index) {
    for (const span of this.#body.querySelectorAll('[aria-selected="true"]')) span.setAttribute("aria-selected", "false");
    for (const span of this.#body.querySelectorAll('[tabindex="0"]')) span.tabIndex = -1;
    this.#spans[index].tabIndex = 0;
    this.#spans[index].setAttribute("aria-selected", "true");
  }
}

const views = new Set();

/** The views that are still on the page are all that a switch of the language has to change. */
export function forgetViews() {
  views.clear();
  showDetail();
}

let shownUnit;
/** A token's probability and its alternatives; without one, how they are come by. */
export function showDetail(unit) {
  if (unit && unit === shownUnit) return;
  shownUnit = unit;
  const place = byId("detail");
  if (!unit) return place.replaceChildren(element("p", { className: "note", say: "detailHint" }));
  place.replaceChildren(...unit.tokens.map(detailOf));
}

function detailOf({ token, logprob, top }) {
  const name = element("code", { className: "shown", text: visible(token) });
  if (logprob === null) return element("div", {}, element("p", {}, name, " ", element("span", { className: "note", say: "noProbability" })));
  const head = element("p", { className: "big" }, name, " ", element("span", { text: percent(Math.exp(logprob)) }));
  const rows = top.map((one) => scoreRow(visible(one.token), Math.exp(one.logprob), { chosen: one.token === token }));
  return element("div", {}, head, ...(rows.length > 0 ? [element("ol", { className: "scores" }, ...rows)] : []));
}

/** All tokens of answers, for who would rather read a table. */
export function tokenTable(views) {
  const head = element("tr", {}, ...["number", "token", "probability", "alternatives"].map((key) => element("th", { say: key, attributes: { scope: "col" } })));
  const tokens = views.flatMap(({ units }) => units.flatMap((unit) => unit.tokens));
  const rows = tokens.map(({ token, logprob, top }, index) =>
    element(
      "tr",
      {},
      element("td", { text: String(index + 1) }),
      element("th", { attributes: { scope: "row" } }, element("code", { text: visible(token) })),
      element("td", { text: logprob === null ? "—" : percent(Math.exp(logprob)) }),
      element("td", { text: top.map((one) => `${visible(one.token)} ${percent(Math.exp(one.logprob))}`).join("  ·  ") }),
    ),
  );
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

export function makeLegend(place) {
  const spans = BOUNDS.map((bound, index) => {
    const key = bound === 0 ? "legendLast" : "legendFrom";
    return element("span", { className: `token p${index}`, say: key, values: { bound: Math.round(100 * (bound || BOUNDS.at(-2))) } });
  });
  place.replaceChildren(...spans);
}

onLanguage(() => {
  for (const view of views) view.describeAll();
  const unit = shownUnit;
  shownUnit = undefined;
  showDetail(unit);
});
