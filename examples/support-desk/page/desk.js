// The desk's page: sends the message, shows what comes back as it comes.

const byId = (id) => document.getElementById(id);
const [form, message, problem, state] = ["form", "message", "problem", "state"].map(byId);
const [reply, writing, stop, again, copy, send] = ["reply", "writing", "stop", "again", "copy", "send"].map(byId);
const STAGES = ["topic", "sentiment", "translation", "similar"];

/** What is at work: an AbortController each. */
let reading;
let drafting;
/** The message that the reply answers. */
let answered = "";

/** An element; text is never read as HTML. */
function element(name, { text, className, lang, share, label, onClick } = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (lang) made.lang = lang;
  if (share !== undefined) made.style.setProperty("--share", share);
  if (label) made.setAttribute("aria-label", label);
  if (label && name === "div") made.setAttribute("role", "img");
  if (onClick) Object.assign(made, { type: "button" }).addEventListener("click", onClick);
  made.append(...children);
  return made;
}

const percent = (share) => `${Math.round(100 * share)}%`;
const empty = (text) => [element("p", { className: "empty", text })];

/** Of each stage what the page shows of its findings. */
const show = {
  topic({ topics }) {
    if (topics.length === 0) return empty("Topics are known in English only.");
    const rows = topics.map(({ label, score }) =>
      element("li", {}, element("span", { text: label }), element("div", { className: "bar", share: score, label: percent(score) }), element("span", { text: percent(score) })),
    );
    return [element("p", { className: "big", text: topics[0].label }), element("ul", { className: "scores" }, ...rows)];
  },

  sentiment({ label, score }) {
    const positive = label === "positive" ? score : 1 - score;
    const ends = ["negative", "positive"].map((text) => element("span", { text, className: "note" }));
    return [
      element("p", { className: `big ${label}`, text: label }),
      element("div", { className: "scale", share: positive, label: `${percent(positive)} positive` }),
      element("div", { className: "ends" }, ends[0], element("span", { className: "note", text: `${percent(score)} sure` }), ends[1]),
    ];
  },

  translation({ text }) {
    return text === null ? empty("The message is Chinese already.") : [element("p", { className: "translated", text, lang: "zh" })];
  },

  similar({ method, answers }) {
    if (answers.length === 0) return empty("Nothing like it yet. What you send is found from now on.");
    const rows = answers.map(({ question, answer, score }) =>
      element(
        "li",
        { lang: message.lang },
        element("div", { className: "question" }, element("p", { text: question }), element("span", { text: percent(score) })),
        element("p", { text: answer }),
        element("button", { text: "Use this answer", onClick: () => use(answer) }),
      ),
    );
    return [element("ul", { className: "answers", label: `Found by ${method}` }, ...rows)];
  },
};

function put(stage, content, { milliseconds, waiting = false } = {}) {
  const card = byId(stage);
  card.classList.toggle("waiting", waiting);
  card.setAttribute("aria-busy", String(waiting));
  card.querySelector(".body").replaceChildren(...content);
  card.querySelector(".time").textContent = milliseconds === undefined ? "" : milliseconds < 10 ? `${milliseconds.toFixed(1)} ms` : `${Math.round(milliseconds)} ms`;
}

/** What the server says is wrong, or that it can't be heard. */
class Refusal extends Error {
  constructor({ code, message }) {
    super(message);
    this.code = code;
  }
}

async function post(path, body, signal) {
  const response = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: { code: "UNREADABLE", message: `The server answered ${response.status}` } }));
  throw new Refusal(error);
}

/** Server-sent events of a response: `{event, data}` with the data as text. */
async function* eventsOf(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const of = (field) => lines.filter((line) => line.startsWith(`${field}: `)).map((line) => line.slice(field.length + 2));
      yield { event: of("event")[0] ?? "message", data: of("data").join("\n") };
    }
  }
}

function complain(error) {
  const text = error instanceof Refusal ? error.message : "The desk cannot be reached. Is the server running?";
  problem.textContent = text;
  problem.dataset.code = error.code ?? "UNREACHABLE";
  problem.hidden = false;
}

function buttons() {
  reply.readOnly = drafting !== undefined;
  stop.disabled = !reading && !drafting;
  again.disabled = Boolean(drafting) || answered === "";
  copy.disabled = send.disabled = again.disabled || reply.value.trim() === "";
}

async function analyse(text) {
  reading?.abort();
  const own = (reading = new AbortController());
  problem.hidden = true;
  for (const stage of STAGES) put(stage, [], { waiting: true });
  buttons();
  const started = performance.now();
  try {
    for await (const { event, data } of eventsOf(await post("/api/analysis", { message: text }, own.signal))) {
      const found = JSON.parse(data);
      if (event === "language") message.lang = reply.lang = found.language;
      else if (event === "failed") put(found.stage, empty(`This could not be said (${found.error.code}).`));
      else if (event in show) put(event, show[event](found), found);
    }
    state.textContent = `Read in ${Math.round(performance.now() - started)} ms`;
  } catch (error) {
    if (!own.signal.aborted) complain(error);
  }
  // Another message may have taken its place.
  if (reading !== own) return;
  reading = undefined;
  for (const stage of STAGES) if (byId(stage).classList.contains("waiting")) put(stage, empty("Stopped."));
  buttons();
}

async function draft(question) {
  drafting?.abort();
  const own = (drafting = new AbortController());
  problem.hidden = true;
  answered = question;
  writing.textContent = "Writing…";
  const started = performance.now();
  let [first, text, frame] = [0, "", 0];
  // Once for each frame: tokens may come faster than that, and every change lays the whole text out.
  const write = () => {
    frame = 0;
    if (drafting !== own) return;
    reply.value = text;
    reply.scrollTop = reply.scrollHeight;
  };
  write();
  buttons();
  let ending = "";
  try {
    const seed = Math.floor(Math.random() * 2 ** 32);
    for await (const { data } of eventsOf(await post("/api/reply", { message: question, seed }, own.signal))) {
      if (data === "[DONE]") break;
      const { error, choices } = JSON.parse(data);
      if (error) throw new Refusal(error);
      // The last one has counts of tokens, and no choice.
      if (!choices[0]?.text) continue;
      first ||= performance.now() - started;
      text += choices[0].text;
      frame ||= requestAnimationFrame(write);
    }
    text = text.trim();
    const seconds = (performance.now() - started) / 1000;
    ending = text === "" ? "Nothing came to mind" : `First word after ${Math.round(first)} ms, all after ${seconds.toFixed(1)} s`;
  } catch (error) {
    if (own.signal.aborted) ending = "Stopped";
    else complain(error);
  }
  cancelAnimationFrame(frame);
  if (drafting !== own) return;
  write();
  reply.scrollTop = 0;
  drafting = undefined;
  writing.textContent = ending;
  buttons();
}

function halt() {
  reading?.abort();
  drafting?.abort();
}

/** An earlier answer instead of what is being written. */
function use(answer) {
  drafting?.abort();
  drafting = undefined;
  reply.value = answer;
  writing.textContent = "From an earlier answer";
  buttons();
  reply.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = message.value.trim();
  message.setAttribute("aria-invalid", String(text === ""));
  if (text === "") {
    complain(new Refusal({ code: "REQUEST_INVALID", message: "There is no message yet." }));
    return message.focus();
  }
  void analyse(text);
  void draft(text);
});
message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") halt();
});
document.querySelector(".examples").addEventListener("click", ({ target }) => {
  if (target.type !== "button") return;
  message.value = target.textContent;
  form.requestSubmit();
});
reply.addEventListener("input", buttons);
stop.addEventListener("click", halt);
again.addEventListener("click", () => void draft(answered));
copy.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(reply.value);
  } catch {
    // Not on a page that is served without TLS to another machine: what is marked can be copied by hand.
    return reply.select();
  }
  writing.textContent = "Copied";
});
send.addEventListener("click", async () => {
  send.disabled = true;
  problem.hidden = true;
  try {
    await post("/api/answers", { question: answered, answer: reply.value });
    writing.textContent = "Sent, and kept for the next time";
  } catch (error) {
    complain(error);
    send.disabled = false;
  }
});

for (const stage of STAGES) put(stage, empty("—"));
buttons();
fetch("/health")
  .then((response) => response.json())
  .then(({ answers }) => (state.textContent = `${answers} past answers`))
  .catch(() => complain(new Error("unreachable")));
