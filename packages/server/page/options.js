// The options of a generation: a control each, and the request's fields that come of them. What is left empty is not
// sent, so that the model's own default holds.
import { FieldError, post } from "./api.js";
import { byId, element } from "./dom.js";
import { onLanguage, word } from "./words.js";

const BOTH = ["continue", "chat"];
const CONTINUE = ["continue"];

/**
 * `kind`: integer, number (with `least`, `most`, `step`), flag, lines, ids, biases, choice. `first`: what the control
 * has at first. The words are `option_NAME` and `hint_NAME`.
 */
const OPTIONS = [
  { group: "main", name: "max_tokens", kind: "integer", least: 0, first: "64", placeholder: "auto" },
  { group: "main", name: "temperature", kind: "number", least: 0, most: 2, step: 0.1, placeholder: "auto" },
  { group: "main", name: "top_p", kind: "number", least: 0, most: 1, step: 0.05, placeholder: "auto" },
  { group: "main", name: "seed", kind: "integer", placeholder: "random" },
  { group: "main", name: "probabilities", kind: "flag", first: true, own: true },
  { group: "main", name: "alternatives", kind: "integer", least: 0, most: 20, first: "5", own: true },
  { group: "draw", name: "top_k", kind: "integer", least: 0, placeholder: "auto" },
  { group: "draw", name: "min_p", kind: "number", least: 0, most: 1, step: 0.01, placeholder: "auto" },
  { group: "draw", name: "logit_bias", kind: "biases", wide: true },
  { group: "repeat", name: "repetition_penalty", kind: "number", least: 0.01, most: 10, step: 0.05, placeholder: "auto" },
  { group: "repeat", name: "no_repeat_ngram_size", kind: "integer", least: 0, placeholder: "auto" },
  { group: "repeat", name: "presence_penalty", kind: "number", least: -2, most: 2, step: 0.1, placeholder: "auto" },
  { group: "repeat", name: "frequency_penalty", kind: "number", least: -2, most: 2, step: 0.1, placeholder: "auto" },
  { group: "end", name: "stop", kind: "lines", wide: true },
  { group: "end", name: "stop_token_ids", kind: "ids" },
  { group: "end", name: "min_tokens", kind: "integer", least: 0, placeholder: "auto" },
  { group: "end", name: "ignore_eos", kind: "flag" },
  { group: "answers", name: "n", kind: "integer", least: 1, most: 64, placeholder: "one" },
  { group: "answers", name: "best_of", kind: "integer", least: 1, most: 64, modes: CONTINUE, placeholder: "asN" },
  { group: "answers", name: "priority", kind: "choice", choices: ["interactive", "batch"] },
  { group: "answers", name: "echo", kind: "flag", modes: CONTINUE },
];
/** What is open at first. */
const OPEN = ["main"];

const control = (name) => byId(`option-${name}`);

function controlOf({ name, kind, least, most, step = 1, first, choices }) {
  const shared = { id: `option-${name}`, name, attributes: { "aria-describedby": `hint-${name}` } };
  if (kind === "flag") return element("input", { ...shared, type: "checkbox", checked: first === true });
  if (kind === "lines" || kind === "biases") return element("textarea", { ...shared, rows: 2, spellcheck: false });
  if (kind === "ids") return element("input", { ...shared, type: "text", inputMode: "numeric", autocomplete: "off" });
  if (kind === "choice") {
    const standard = element("option", { value: "", say: "standard" });
    return element("select", shared, standard, ...choices.map((value) => element("option", { value, say: `choice_${value}` })));
  }
  const range = { min: least ?? "", max: most ?? "", step: kind === "integer" ? 1 : step };
  return element("input", { ...shared, type: "number", ...range, value: first ?? "", inputMode: kind === "integer" ? "numeric" : "decimal", autocomplete: "off" });
}

function fieldOf(option) {
  const { name, kind, wide } = option;
  const label = element("label", { htmlFor: `option-${name}`, say: `option_${name}` });
  const hint = element("p", { id: `hint-${name}`, className: "note", say: `hint_${name}` });
  const flag = kind === "flag";
  return element("div", { className: `option${flag ? " flag" : ""}${wide || flag ? " wide" : ""}`, id: `field-${name}` }, ...(flag ? [controlOf(option), label, hint] : [label, controlOf(option), hint]));
}

/** Makes the controls. `changed` is called when one has another value. */
export function makeOptions(place, changed) {
  for (const group of new Set(OPTIONS.map(({ group }) => group))) {
    const fields = OPTIONS.filter((option) => option.group === group).map(fieldOf);
    const details = element("details", { className: "group", open: OPEN.includes(group) }, element("summary", { say: `group_${group}` }), element("div", { className: "grid" }, ...fields));
    place.append(details);
  }
  place.addEventListener("input", ({ target }) => {
    target.removeAttribute("aria-invalid");
    changed();
  });
  const placeholders = () => {
    for (const { name, placeholder } of OPTIONS) if (placeholder) control(name).placeholder = word(placeholder);
  };
  onLanguage(placeholders);
  placeholders();
}

export function resetOptions() {
  for (const { name, kind, first } of OPTIONS) {
    const input = control(name);
    if (kind === "flag") input.checked = first === true;
    else input.value = first ?? "";
    input.removeAttribute("aria-invalid");
  }
}

/** Shows those that a mode has. */
export function showOptions(mode) {
  for (const { name, modes = BOTH } of OPTIONS) byId(`field-${name}`).hidden = !modes.includes(mode);
  control("max_tokens").min = mode === "chat" ? 1 : 0;
}

/** The control of a request's field is what is wrong: opens its group. False if it is none of these. */
export function pointAt(param) {
  const names = { logprobs: "alternatives", top_logprobs: "alternatives" };
  const name = param?.split(/[.[]/)[0];
  const input = control(names[name] ?? name);
  if (!input) return false;
  input.setAttribute("aria-invalid", "true");
  input.closest("details").open = true;
  input.focus();
  return true;
}

export const wantsProbabilities = () => control("probabilities").checked;

/**
 * The request's fields.
 *
 * @throws {FieldError} A control that holds no value.
 */
export async function readOptions(mode, model, signal) {
  const body = {};
  for (const option of OPTIONS) {
    const { name, modes = BOTH, own } = option;
    if (own || !modes.includes(mode)) continue;
    const value = await valueOf(option, model, signal);
    if (value !== undefined) body[name] = value;
  }
  if (wantsProbabilities()) {
    const alternatives = numberOf(control("alternatives")) ?? 0;
    Object.assign(body, mode === "chat" ? { logprobs: true, top_logprobs: alternatives } : { logprobs: alternatives });
  }
  return body;
}

function valueOf({ name, kind }, model, signal) {
  const input = control(name);
  if (kind === "flag") return input.checked || undefined;
  if (kind === "choice") return input.value || undefined;
  if (kind === "lines") return orNothing(input.value.split("\n").filter(Boolean).map(unescaped));
  if (kind === "ids") return orNothing(input.value.split(/[\s,]+/).filter(Boolean).map((id) => idOf(id, name)));
  if (kind === "biases") return biasesOf(input, model, signal);
  return numberOf(input);
}

const orNothing = (list) => (list.length > 0 ? list : undefined);

function numberOf(input) {
  if (input.validity.badInput) throw new FieldError(input.name, "noNumber");
  return input.value === "" ? undefined : Number(input.value);
}

function idOf(text, name) {
  if (!/^\d+$/.test(text)) throw new FieldError(name, "noIds", { text });
  return Number(text);
}

/** What a line cannot hold is written as in a program: `\n`. */
const unescaped = (line) => line.replaceAll(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]);

/** Lines of a token's id, or its text in quotation marks, and its bias. */
async function biasesOf(input, model, signal) {
  const biases = {};
  for (const line of input.value.split("\n").filter((line) => line.trim() !== "")) {
    const { id, text, bias } = /^\s*(?:(?<id>\d+)|(?<text>".*"))\s*[:=\s]\s*(?<bias>[-+]?\d+(?:\.\d+)?)\s*$/.exec(line)?.groups ?? {};
    if (bias === undefined) throw new FieldError(input.name, "noBias", { text: line });
    biases[id ?? (await tokenOf(text, input.name, model, signal))] = Number(bias);
  }
  return Object.keys(biases).length > 0 ? biases : undefined;
}

async function tokenOf(quoted, name, model, signal) {
  const text = unescaped(quoted.slice(1, -1));
  if (text === "") throw new FieldError(name, "noBias", { text: quoted });
  const { tokens } = await post("tokenize", { model, prompt: text }, signal);
  if (tokens.length !== 1) throw new FieldError(name, "severalTokens", { text: quoted, count: tokens.length });
  return tokens[0];
}
