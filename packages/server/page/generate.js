// The tab of generation: a prompt that is continued, or a conversation.
import { post, stream } from "./api.js";
import { announce, byId, element, fillModels, Problem, showFigures } from "./dom.js";
import { makeOptions, pointAt, readOptions, resetOptions, showOptions, wantsProbabilities } from "./options.js";
import { AnswerView, forgetViews, makeLegend, showDetail, tokenTable } from "./tokens.js";
import { number, onLanguage, say, time, word } from "./words.js";

const PATHS = { continue: "v1/completions", chat: "v1/chat/completions" };
const problem = new Problem(byId("generate-problem"), () => void begin());

let models = [];
/** Characters of an answer that are read out at its end. */
const MOST_TOLD = 2_000;
/** What is at work. */
let running;
/** The conversation so far, as the API takes it. */
let messages = [];
/** The views of the last answer. */
let shown = [];
/** What the last answer came to. */
let ended;

const model = () => models.find(({ id }) => id === byId("generator").value);
const mode = () => document.querySelector('input[name="mode"]:checked').value;

export function takeModels(all) {
  models = all.filter(({ kind, status }) => kind === "generator" || status === "loading");
  byId("generate-none").hidden = models.length > 0;
  byId("generate-parts").hidden = models.length === 0;
  fillModels(byId("generator"), models);
  takeModel();
}

function takeModel() {
  const chosen = model();
  const chats = chosen !== undefined && chosen.chat !== null && chosen.chat !== undefined;
  byId("mode").hidden = !chats;
  if (!chats) document.querySelector('input[value="continue"]').checked = true;
  byId("generator-facts").textContent = chosen?.kind ? word("facts", chosen) : "";
  takeMode();
}

function takeMode() {
  const chat = mode() === "chat";
  byId("continue-fields").hidden = chat;
  byId("chat-fields").hidden = !chat;
  byId("forget").hidden = !chat;
  byId("answers").hidden = chat;
  byId("conversation").hidden = !chat;
  // Only a template has a place for it.
  byId("system-field").hidden = model()?.chat !== "template";
  say(byId("go"), chat ? "send" : "generate");
  say(byId("output-title"), chat ? "conversation" : "output");
  // What is said stands above what is written next: moved, not only drawn there, as the keyboard's order is the eye's.
  const [first, second] = chat ? ["output", "ask"] : ["ask", "output"];
  // What is moved loses the focus.
  if (byId(first).nextElementSibling !== byId(second)) byId("generate-column").insertBefore(byId(first), byId(second));
  showOptions(mode());
  void showRequest();
}

function buttons() {
  byId("stop").disabled = !running;
  byId("go").disabled = Boolean(running);
  byId("forget").disabled = Boolean(running) || messages.length === 0;
  byId("output").setAttribute("aria-busy", String(Boolean(running)));
}

function conversationWith(text) {
  const system = byId("system").value.trim();
  const first = model()?.chat === "template" && system ? [{ role: "system", content: system }] : [];
  return [...first, ...messages, { role: "user", content: text }];
}

/** The request as the controls have it. */
async function requestOf(signal) {
  const { id } = model();
  const options = await readOptions(mode(), id, signal);
  // The best of several are known when all have ended.
  const whole = (options.best_of ?? 0) > (options.n ?? 1);
  const text = mode() === "chat" ? { messages: conversationWith(byId("message").value) } : { prompt: byId("prompt").value };
  return { model: id, ...text, ...options, ...(whole ? {} : { stream: true, stream_options: { include_usage: true } }) };
}

let showing = 0;
/** Shown where it is looked at, once the typing pauses: biases by a token's text ask the server for its id. */
async function showRequest() {
  const own = ++showing;
  if (!byId("request-details").open || !model()) return;
  await new Promise((resolve) => setTimeout(resolve, 150));
  if (own !== showing) return;
  const text = await requestOf().then(
    (body) => `POST /${PATHS[mode()]}\n\n${JSON.stringify(body, null, 2)}`,
    (error) => (error.key ? word(error.key, error.values) : error.message),
  );
  if (own === showing) byId("request").textContent = text;
}

async function begin() {
  if (running || !model()) return;
  problem.hide();
  const own = (running = new AbortController());
  buttons();
  const chat = mode() === "chat";
  const box = chat ? byId("message") : byId("prompt");
  box.removeAttribute("aria-invalid");
  let body;
  try {
    body = await requestOf(own.signal);
  } catch (error) {
    running = undefined;
    buttons();
    if (!own.signal.aborted) complain(error, box);
    return;
  }
  const answer = new Answer(body, chat);
  if (chat) box.value = "";
  try {
    await answer.run(own.signal);
  } catch (error) {
    if (!own.signal.aborted) complain(error, box);
  }
  // What came to nothing is no part of the conversation, and need not be typed again.
  if (chat && answer.empty && !answer.done) {
    answer.withdraw();
    box.value = body.messages.at(-1).content;
  }
  running = undefined;
  buttons();
  answer.end(own.signal.aborted);
}

function complain(error, box) {
  problem.show(error);
  if (pointAt(error.param)) return;
  if (["prompt", "messages"].includes(error.param?.split(/[.[]/)[0])) {
    box.setAttribute("aria-invalid", "true");
    box.focus();
  }
}

/** One request and what comes of it. */
class Answer {
  #body;
  #chat;
  #views = [];
  #entries = [];
  #place;
  #started = performance.now();
  #first;
  #last;
  #usage;
  #reasons = [];
  #frame = 0;
  #tokens = 0;

  constructor(body, chat) {
    this.#body = body;
    this.#chat = chat;
    // Of a conversation, what was said before stays.
    if (!chat) forgetViews();
    showDetail();
    ended = undefined;
    showEnd();
    say(byId("progress"), "generating");
    announce(word("generating"));
    if (chat) {
      const said = body.messages.at(-1).content;
      this.#entries.push(entry("user", element("div", { className: "text", text: said })));
      this.#place = element("div", {});
      this.#entries.push(entry("assistant", this.#place));
      byId("conversation").append(...this.#entries);
    } else {
      this.#place = byId("answers");
      this.#place.replaceChildren();
    }
    const probabilities = wantsProbabilities();
    byId("probabilities").hidden = !probabilities;
    const { n = 1 } = body;
    for (let index = 0; index < n; index++) {
      const label = n > 1 ? word("sample", { index: index + 1 }) : "";
      if (n > 1) this.#place.append(element("h3", { say: "sample", values: { index: index + 1 } }));
      this.#views.push(new AnswerView(this.#place, probabilities, label));
    }
    shown = this.#views;
  }

  get empty() {
    return this.#views.every(({ text, units }) => text === "" && units.length === 0);
  }

  get done() {
    return this.#reasons.length > 0;
  }

  /** Takes it off the page. */
  withdraw() {
    for (const one of this.#entries) one.remove();
  }

  async run(signal) {
    const path = PATHS[this.#chat ? "chat" : "continue"];
    if (this.#body.stream) for await (const chunk of stream(path, this.#body, signal)) this.#take(chunk);
    else this.#take(await post(path, this.#body, signal));
  }

  #take({ choices, usage }) {
    if (usage) this.#usage = usage;
    for (const { index, text = "", delta, message, logprobs, finish_reason: reason } of choices) {
      const content = (delta ?? message)?.content ?? text;
      const tokens = tokensOf(logprobs);
      if (content !== "" || tokens.length > 0) {
        this.#last = performance.now();
        this.#first ??= this.#last;
        this.#views[index].add(content, tokens);
        this.#tokens++;
      }
      if (reason) this.#reasons[index] = reason;
    }
    // Once for each frame: tokens may come faster than that.
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    for (const view of this.#views) view.draw();
    if (this.#chat) byId("conversation").scrollTop = byId("conversation").scrollHeight;
    if (running && this.#tokens > 0) say(byId("progress"), "piecesSoFar", { count: this.#tokens });
  }

  /** Tokens a second after the first, which is the prompt's work; of a short answer, which comes at once, of all. */
  #speed(made) {
    if (!made || this.#last === undefined) return undefined;
    const rest = this.#last - this.#first;
    if (this.#body.stream && rest > 50 && made > this.#views.length) return (1_000 * (made - this.#views.length)) / rest;
    return (1_000 * made) / (this.#last - this.#started);
  }

  end(stopped) {
    cancelAnimationFrame(this.#frame);
    this.#draw();
    if (this.#chat && (this.done || !this.empty)) {
      messages = this.#body.messages.filter(({ role }) => role !== "system");
      messages.push({ role: "assistant", content: this.#views[0].text });
    }
    const made = this.#usage?.completion_tokens;
    ended = {
      stopped,
      done: this.done,
      reasons: Array.from(new Set(this.#reasons.filter(Boolean))),
      seconds: performance.now() - this.#started,
      first: this.#body.stream && this.#first !== undefined ? this.#first - this.#started : undefined,
      speed: this.#speed(made),
      usage: this.#usage,
    };
    buttons();
    showEnd();
    void showRequest();
    if (!stopped && !ended.done) return announce("");
    announce(word(stopped ? "announceStopped" : "announceDone", { count: made, seconds: ended.seconds, text: this.#views.map(({ text }) => text).join("\n").slice(0, MOST_TOLD) }));
  }
}

/** Tokens of either form of log-probabilities, the likeliest first. */
function tokensOf(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map(({ token, logprob, top_logprobs: top }) => ({ token, logprob, top: withChosen(top.map(({ token, logprob }) => ({ token, logprob })), token, logprob) }));
  }
  return logprobs.tokens.map((token, index) => {
    const top = Object.entries(logprobs.top_logprobs[index] ?? {}).map(([token, logprob]) => ({ token, logprob }));
    const logprob = logprobs.token_logprobs[index];
    return { token, logprob, top: withChosen(top, token, logprob) };
  });
}

function withChosen(top, token, logprob) {
  if (logprob !== null && !top.some((one) => one.token === token)) top.push({ token, logprob });
  return top.sort((a, b) => b.logprob - a.logprob);
}

function entry(role, body) {
  return element("li", { className: role }, element("p", { className: "who", say: role }), body);
}

function showEnd() {
  byId("figures").hidden = !ended;
  byId("token-table").hidden = !ended || !shown.some(({ units }) => units.length > 0);
  byId("token-table").open = false;
  if (!ended) return say(byId("progress"), "nothing");
  const { stopped, done, seconds, first, speed, usage, reasons } = ended;
  say(byId("progress"), stopped ? "stopped" : done ? "doneIn" : "brokenOff", { seconds });
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
  const rows = [
    ["speed", speed === undefined ? "—" : word("perSecond", { speed })],
    ["firstTokenAfter", first === undefined ? "—" : time(first)],
    ["promptTokens", usage ? word(cached > 0 ? "tokensCached" : "tokensPlain", { count: usage.prompt_tokens, cached }) : "—"],
    ["completionTokens", usage ? number(usage.completion_tokens) : "—"],
    ["endedBy", reasons.length > 0 ? reasons.map((reason) => word(`reason_${reason}`) ?? reason).join(", ") : stopped ? word("byYou") : "—"],
  ];
  showFigures(byId("figures"), rows);
}

function forget() {
  messages = [];
  ended = undefined;
  byId("conversation").replaceChildren();
  forgetViews();
  byId("probabilities").hidden = true;
  showEnd();
  buttons();
  void showRequest();
  byId("message").focus();
}

export function halt() {
  running?.abort();
}

export function start() {
  makeOptions(byId("options"), () => void showRequest());
  makeLegend(document.querySelector("#probabilities .legend"));
  forgetViews();
  byId("prompt").value = word("samplePrompt");
  byId("generator").addEventListener("change", takeModel);
  byId("mode").addEventListener("change", () => {
    ended = undefined;
    shown = [];
    byId("probabilities").hidden = true;
    showEnd();
    takeMode();
    buttons();
  });
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    void begin();
  });
  byId("ask").addEventListener("input", () => void showRequest());
  byId("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
  });
  byId("stop").addEventListener("click", halt);
  byId("forget").addEventListener("click", forget);
  byId("reset").addEventListener("click", () => {
    resetOptions();
    void showRequest();
  });
  document.querySelector("#continue-fields .examples").addEventListener("click", ({ target }) => {
    if (target.type !== "button") return;
    byId("prompt").value = target.textContent;
    byId("ask").requestSubmit();
  });
  byId("request-details").addEventListener("toggle", () => void showRequest());
  byId("token-table").addEventListener("toggle", () => {
    byId("token-table").querySelector(".scroll").replaceChildren(...(byId("token-table").open ? [tokenTable(shown)] : []));
  });
  onLanguage(() => {
    showEnd();
    const chosen = model();
    byId("generator-facts").textContent = chosen?.kind ? word("facts", chosen) : "";
  });
  buttons();
}
