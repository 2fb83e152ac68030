// The tab of classification: texts, and how likely each label is.
import { post } from "./api.js";
import { announce, byId, element, fillModels, linesOf, percent, Problem, scoreRow } from "./dom.js";
import { onLanguage, say, word } from "./words.js";

const problem = new Problem(byId("classify-problem"), () => void classify());
let models = [];
let asking;

const model = () => models.find(({ id }) => id === byId("classifier").value);

export function takeModels(all) {
  models = all.filter(({ head, status }) => head === "sequence-classification" || status === "loading");
  byId("classify-none").hidden = models.length > 0;
  byId("classify-parts").hidden = models.length === 0;
  fillModels(byId("classifier"), models);
  showFacts();
}

function showFacts() {
  const chosen = model();
  byId("classifier-facts").textContent = chosen?.kind ? `${word("facts", chosen)} · ${chosen.labels.join(", ")}` : "";
}

async function classify() {
  const texts = linesOf(byId("subjects"));
  problem.hide();
  if (texts.length === 0) {
    byId("subjects").setAttribute("aria-invalid", "true");
    byId("subjects").focus();
    return problem.show({ key: "noTexts", code: "field" });
  }
  asking?.abort();
  const own = (asking = new AbortController());
  const started = performance.now();
  say(byId("classify-time"), "working");
  try {
    const { data, usage } = await post("v1/classify", { model: byId("classifier").value, input: texts }, own.signal);
    if (asking !== own) return;
    byId("labelled").replaceChildren(...data.map((one) => labelled(texts[one.index], one)));
    say(byId("classify-time"), "tookTokens", { milliseconds: performance.now() - started, count: usage.total_tokens });
    const said = data.map(({ index, label, labels, probs }) => `${texts[index]}: ${label}, ${percent(probs[labels.indexOf(label)])}`);
    announce(said.join(". ").slice(0, 1_000));
  } catch (error) {
    if (own.signal.aborted) return;
    say(byId("classify-time"), "nothing");
    problem.show(error);
  }
}

function labelled(text, { label, labels, probs }) {
  const likeliest = labels.map((name, index) => ({ name, share: probs[index] })).sort((a, b) => b.share - a.share);
  return element(
    "article",
    { className: "labelled" },
    element("h3", { text }),
    element("p", { className: "big", text: label }),
    element("ul", { className: "scores" }, ...likeliest.map(({ name, share }) => scoreRow(name, share))),
  );
}

export function start() {
  byId("subjects").value = word("sampleSubjects");
  byId("label").addEventListener("submit", (event) => {
    event.preventDefault();
    void classify();
  });
  byId("label").addEventListener("input", ({ target }) => target.removeAttribute("aria-invalid"));
  byId("label").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("label").requestSubmit();
  });
  byId("classifier").addEventListener("change", showFacts);
  onLanguage(showFacts);
}
