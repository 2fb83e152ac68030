// The page's frame: language, tabs, the list of models.
import { get } from "./api.js";
import { byId, Problem } from "./dom.js";
import * as classify from "./classify.js";
import * as generate from "./generate.js";
import * as server from "./server.js";
import * as similarity from "./similarity.js";
import { currentLanguage, sayAll, speak } from "./words.js";

const tabs = Array.from(document.querySelectorAll('[role="tab"]'));
const problem = new Problem(byId("problem"), () => void loadModels());

function open(tab, focus = false) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  server.setVisible(tab.id === "tab-server");
}

/** An address with a tab's name opens it. No element has the name with a slash, so that the browser scrolls to none. */
const addressed = () => byId(`tab-${location.hash.slice(2)}`) ?? tabs[0];
const address = (tab) => history.replaceState(null, "", `#/${tab.getAttribute("aria-controls")}`);

for (const tab of tabs) {
  tab.addEventListener("click", () => {
    open(tab);
    address(tab);
  });
}
document.querySelector('[role="tablist"]').addEventListener("keydown", (event) => {
  const at = tabs.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (at === -1 || to === undefined) return;
  event.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  open(tab, true);
  address(tab);
});
addEventListener("hashchange", () => {
  if (location.hash !== "#main") open(addressed());
});
document.addEventListener("keydown", (event) => {
  // Of an input method, Escape ends what is being composed.
  if (event.key === "Escape" && !event.isComposing) generate.halt();
});

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => choose(button.dataset.language, true));
}
function choose(language, keep = false) {
  speak(language, keep);
  for (const button of document.querySelectorAll("[data-language]")) button.setAttribute("aria-pressed", String(button.dataset.language === language));
}

/** Models may still be on their way: asked for again until all are there. */
async function loadModels() {
  problem.hide();
  try {
    const { data } = await get("v1/models");
    for (const part of [generate, similarity, classify, server]) part.takeModels(data);
    if (data.some(({ status }) => status === "loading")) setTimeout(() => void loadModels(), 2_000);
  } catch (error) {
    problem.show(error);
  }
}

sayAll(document);
for (const part of [generate, similarity, classify, server]) part.start();
choose(currentLanguage());
open(addressed());
void loadModels();
