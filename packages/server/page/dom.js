// Elements, and what several parts of the page are made of.
import { number, say, word } from "./words.js";

export const byId = (id) => document.getElementById(id);

/** An element with properties, attributes and children. Text is never read as HTML. */
export function element(name, { text, say: key, values, className, attributes = {}, style = {}, ...properties } = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (key !== undefined) say(made, key, values);
  if (className) made.className = className;
  for (const [attribute, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(attribute, value);
  // The page's policy forbids style attributes; properties of the object model are no such thing.
  for (const [property, value] of Object.entries(style)) made.style.setProperty(property, value);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

/** A share of 1 in per cent: of small ones more digits. */
export function percent(share) {
  const hundred = 100 * share;
  if (hundred > 0 && hundred < 0.01) return `< ${number(0.01, 2)}%`;
  return `${number(hundred, hundred < 1 ? 2 : hundred < 99.95 ? 1 : 0)}%`;
}

/** A name, a bar and a figure. */
export function scoreRow(name, share, { chosen = false, figure = percent(share) } = {}) {
  const bar = element("span", { className: "bar", attributes: { "aria-hidden": "true" }, style: { "--share": Math.max(0, Math.min(1, share)) } });
  const row = element("li", { className: chosen ? "chosen" : "" }, element("span", { text: name }), bar, element("span", { text: figure }));
  if (chosen) row.firstChild.append(element("span", { className: "unseen", say: "chosenToken" }));
  return row;
}

/** Names with figures, as `[key of the name, text of the figure]`. */
export function showFigures(list, rows) {
  list.replaceChildren(...rows.map(([key, text]) => element("div", {}, element("dt", { say: key }), element("dd", { text }))));
}

/** Lines that are not empty. */
export const linesOf = (textarea) => textarea.value.split("\n").map((line) => line.trim()).filter(Boolean);

let announced = 0;
/** Told to who listens, once, and not while text still comes. */
export function announce(text) {
  const announcer = byId("announcer");
  announcer.textContent = "";
  cancelAnimationFrame(announced);
  // A region whose text is set to what it was already is not read again.
  announced = requestAnimationFrame(() => (announcer.textContent = text));
}

/** What went wrong, in a place of its own; for a server that is busy, with the time that is left. */
export class Problem {
  #place;
  #timer;
  #retry;

  /** `retry`: asks once more. */
  constructor(place, retry) {
    this.#place = place;
    this.#retry = retry;
    this.hide();
  }

  hide() {
    clearInterval(this.#timer);
    // The alert must be there before its words are: else they are not read.
    this.#place.replaceChildren(element("div", { attributes: { role: "alert" } }));
  }

  show(error) {
    this.hide();
    const message = element("p", { className: "problem" });
    message.dataset.code = error.code ?? "unreachable";
    if (error.key) message.append(element("span", { say: error.key, values: error.values }));
    else {
      message.append(element("span", { say: "refused", values: error }), " ", element("span", { text: error.message, attributes: { lang: "en" } }), " ");
      message.append(element("code", { text: error.code }));
    }
    this.#place.firstChild.append(message);
    if (this.#retry && error.retryAfterMs !== undefined) this.#countDown(error.retryAfterMs);
  }

  #countDown(milliseconds) {
    const until = performance.now() + milliseconds;
    const left = element("span", { className: "note", attributes: { role: "timer" } });
    const again = element("button", { type: "button", className: "small", say: "tryAgain", disabled: true });
    again.addEventListener("click", () => {
      this.hide();
      this.#retry();
    });
    const tick = () => {
      const seconds = Math.ceil((until - performance.now()) / 1_000);
      again.disabled = seconds > 0;
      say(left, seconds > 0 ? "againIn" : "againNow", { seconds });
      if (seconds <= 0) clearInterval(this.#timer);
    };
    this.#timer = setInterval(tick, 250);
    tick();
    this.#place.append(element("div", { className: "again" }, left, again));
  }
}

/** Models in a select; the one that was chosen stays so. */
export function fillModels(select, models) {
  const before = select.value;
  const options = models.map(({ id, status, parent }) =>
    element("option", { value: id, text: status === "loading" ? word("loadingModel", { id }) : parent ? `${id} (${parent})` : id, disabled: status === "loading" }),
  );
  select.replaceChildren(...options);
  const keep = models.some(({ id, status }) => id === before && status !== "loading");
  select.value = keep ? before : (models.find(({ status }) => status !== "loading")?.id ?? "");
}
