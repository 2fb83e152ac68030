// The tab of similarity: texts with each other, and documents for a query.
import { post } from "./api.js";
import { announce, byId, element, fillModels, linesOf, percent, Problem, scoreRow } from "./dom.js";
import { onLanguage, say, word } from "./words.js";

const problems = { matrix: new Problem(byId("matrix-problem"), () => void compare()), rerank: new Problem(byId("rerank-problem"), () => void rank()) };
let models = [];
/** What is under way in each half: an answer that was asked for before the last one is not shown. */
const asking = {};

const model = () => models.find(({ id }) => id === byId("embedder").value);

export function takeModels(all) {
  models = all.filter(({ kind, status }) => kind === "encoder" || status === "loading");
  // A classifier has vectors too; one that was made for them comes first.
  models.sort((a, b) => Number(Boolean(a.head)) - Number(Boolean(b.head)));
  byId("similarity-none").hidden = models.length > 0;
  byId("similarity-parts").hidden = models.length === 0;
  fillModels(byId("embedder"), models);
  showFacts();
}

function showFacts() {
  const chosen = model();
  byId("embedder-facts").textContent = chosen?.kind ? `${word("facts", chosen)} · ${word("dimensions", { count: chosen.dimensions })}` : "";
}

/** Asks in one half; `show` gets the answer if it is still wanted. */
async function ask(half, path, body, show) {
  asking[half]?.abort();
  const own = (asking[half] = new AbortController());
  problems[half].hide();
  const started = performance.now();
  const note = byId(`${half}-time`);
  say(note, "working");
  try {
    const answer = await post(path, body, own.signal);
    if (asking[half] !== own) return;
    show(answer);
    say(note, "tookTokens", { milliseconds: performance.now() - started, count: answer.usage.total_tokens });
  } catch (error) {
    if (own.signal.aborted) return;
    say(note, "nothing");
    problems[half].show(error);
  }
}

const cosine = (a, b) => {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return dot / Math.sqrt(aa * bb);
};

/** Never `-0.00`. */
const shown = (value) => (Math.round(100 * value) / 100 || 0).toFixed(2);

async function compare() {
  const texts = linesOf(byId("texts"));
  if (texts.length === 0) return missing("matrix", byId("texts"), "noTexts");
  await ask("matrix", "v1/embeddings", { model: byId("embedder").value, input: texts }, ({ data }) => {
    byId("matrix").replaceChildren(matrix(texts, data.map(({ embedding }) => embedding)));
    announce(word("announceMatrix", { count: texts.length }));
  });
}

function missing(half, field, key) {
  field.setAttribute("aria-invalid", "true");
  field.focus();
  problems[half].show({ key, code: "field" });
}

function matrix(texts, vectors) {
  const head = element("tr", {}, element("td", {}), ...texts.map((text, index) => element("th", { text: String(index + 1), title: text, attributes: { scope: "col", "aria-label": text } })));
  const rows = texts.map((text, row) =>
    element(
      "tr",
      {},
      element("th", { attributes: { scope: "row" } }, element("span", { className: "place", text: String(row + 1) }), element("span", { className: "cut", text, title: text })),
      ...vectors.map((vector, column) => {
        const value = cosine(vectors[row], vector);
        return element("td", { className: row === column ? "same" : "", text: shown(value), title: `${text} ↔ ${texts[column]}: ${value.toFixed(4)}`, style: { "--share": Math.max(0, value).toFixed(3) } });
      }),
    ),
  );
  const caption = element("caption", { className: "unseen", say: "matrixCaption" });
  const table = element("table", { className: "matrix" }, caption, element("thead", {}, head), element("tbody", {}, ...rows));
  const place = element("div", { className: "scroll", tabIndex: 0, attributes: { role: "region" } }, table);
  say(place, "matrixCaption", {}, "aria-label");
  return place;
}

async function rank() {
  const query = byId("query").value.trim();
  const documents = linesOf(byId("documents"));
  if (query === "") return missing("rerank", byId("query"), "noQuery");
  if (documents.length === 0) return missing("rerank", byId("documents"), "noTexts");
  await ask("rerank", "v1/rerank", { model: byId("embedder").value, query, documents }, ({ results }) => {
    const rows = results.map(({ index, relevance_score: score }) => scoreRow(documents[index], score, { figure: score.toFixed(3) }));
    byId("ranked").replaceChildren(element("ol", { className: "scores ranked" }, ...rows));
    announce(word("announceRanked", { text: documents[results[0].index], share: percent(results[0].relevance_score) }));
  });
}

export function start() {
  byId("texts").value = word("sampleTexts");
  byId("query").value = word("sampleQuery");
  byId("documents").value = word("sampleDocuments");
  for (const [form, run] of [["compare", compare], ["rank", rank]]) {
    byId(form).addEventListener("submit", (event) => {
      event.preventDefault();
      void run();
    });
    byId(form).addEventListener("input", ({ target }) => target.removeAttribute("aria-invalid"));
    byId(form).addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId(form).requestSubmit();
    });
  }
  byId("embedder").addEventListener("change", showFacts);
  onLanguage(showFacts);
}
