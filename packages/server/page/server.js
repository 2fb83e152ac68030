// The tab of the server: what it does, over the last five minutes, from its own /metrics.
import uPlot from "./uplot.js";
import { getText } from "./api.js";
import { byId, element, percent, showFigures } from "./dom.js";
import { parseMetrics, quantile, rate, sumOf } from "./metrics.js";
import { clock, number, onLanguage, say, time, word } from "./words.js";

const KEPT_SECONDS = 300;
const EVERY_MS = 1_000;
/** A rate is over so many seconds, a quantile too: of fewer, single requests make both jump. */
const RATE_SECONDS = 5;
const QUANTILE_SECONDS = 30;
/** Pixels; also in page.css. */
const HEIGHT = 150;
/** Rows of a chart's table. */
const ROWS_EVERY_SECONDS = 30;

const gauge = (name) => (now, _, labels) => sumOf(now.families, `candlewick_${name}`, labels);
const counted = (name, more = {}) => (now, earlier, labels) => rate(earlier(RATE_SECONDS), now, `candlewick_${name}`, { ...labels, ...more });
const timed = (name, share) => (now, earlier, labels) => {
  const seconds = quantile(earlier(QUANTILE_SECONDS), now, `candlewick_${name}_seconds`, share, labels);
  return seconds === null ? null : 1_000 * seconds;
};
const whole = (value) => number(value);

/** KV memory of all models: by their blocks. */
function usage(now, _, labels) {
  const all = (now.families.get("candlewick_kv_cache_usage_ratio") ?? []).filter(({ labels: { model } }) => labels.model === undefined || model === labels.model);
  const of = ({ labels: { model } }) => sumOf(now.families, "candlewick_kv_blocks", { model }) ?? 0;
  const blocks = all.reduce((sum, one) => sum + of(one), 0);
  return blocks === 0 ? null : all.reduce((sum, one) => sum + of(one) * one.value, 0) / blocks;
}

/** `least`: what the axis reaches at least, so that noise near nought does not fill the chart. */
const CHARTS = [
  { name: "chartRequests", format: whole, least: 4, series: [["seriesRunning", gauge("requests_running")], ["seriesWaiting", gauge("requests_waiting")]] },
  { name: "chartQueued", format: whole, least: 100, series: [["seriesQueued", gauge("queued_tokens")]] },
  { name: "chartSpeed", format: whole, least: 10, series: [["seriesGenerated", counted("tokens_total", { kind: "completion" })], ["seriesRead", counted("tokens_total", { kind: "prompt" })]] },
  { name: "chartCache", format: percent, least: 0.05, series: [["seriesCache", usage]] },
  { name: "chartFirst", format: time, least: 10, series: [["seriesMedian", timed("time_to_first_token", 0.5)], ["series95", timed("time_to_first_token", 0.95)]] },
  { name: "chartInterval", format: time, least: 2, series: [["seriesMedian", timed("inter_token", 0.5)], ["series95", timed("inter_token", 0.95)]] },
];

/** Readings, oldest first: `{at, families}`. */
const readings = [];
const boards = [];
let model = "";
let visible = false;

const labels = () => (model === "" ? {} : { model });

/** Of each reading a chart's values, computed when it came; anew for another model. */
function valuesOf(chart, index) {
  const now = readings[index];
  const earlier = (seconds) => {
    for (let at = index - 1; at >= 0; at--) if (now.at - readings[at].at >= seconds * 1_000 - EVERY_MS / 2) return readings[at];
    return readings[0] === now ? undefined : readings[0];
  };
  return chart.series.map(([, read]) => read(now, earlier, labels()));
}

class Board {
  #chart;
  #plot;
  #place = element("div", { className: "plot", attributes: { role: "img" } });
  #legend = element("ul", { className: "series" });
  #table = element("details", { className: "readings" }, element("summary", { say: "readings" }));
  #values = [];
  #figures = [];

  constructor(chart, place) {
    this.#chart = chart;
    const id = `title-${chart.name}`;
    const title = element("h2", { id, say: chart.name });
    const hint = element("p", { className: "note", say: `${chart.name}Hint` });
    place.append(element("section", { className: "card", attributes: { "aria-labelledby": id } }, title, hint, this.#place, this.#legend, this.#table));
    for (const [index, [name]] of chart.series.entries()) {
      const figure = element("b", { text: "—" });
      this.#figures.push(figure);
      this.#legend.append(element("li", { className: `series${index}` }, element("i", { attributes: { "aria-hidden": "true" } }), element("span", { say: name }), " ", figure));
    }
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(this.#place);
    this.#table.addEventListener("toggle", () => this.#showTable());
  }

  #size() {
    return { width: Math.max(120, this.#place.clientWidth), height: HEIGHT };
  }

  /** Colours and words are the page's as they are now. */
  make() {
    this.#plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const [line, soft] = ["--line", "--soft"].map((name) => style.getPropertyValue(name));
    const { format, least, series } = this.#chart;
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
    this.#plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        padding: [8, 14, 0, 0],
        scales: { x: { time: true }, y: { range: (_, __, most) => [0, Math.max(least, (most ?? 0) * 1.1)] } },
        axes: [
          {
            ...axis,
            size: 26,
            splits: (_, __, ___, now) => Array.from({ length: KEPT_SECONDS / 60 + 1 }, (_, minutes) => now - KEPT_SECONDS + 60 * minutes),
            values: (_, all) => all.map((seconds) => word("minutesAgo", { count: Math.round((all.at(-1) - seconds) / 60) })),
          },
          { ...axis, size: 60, values: (_, all) => all.map((value) => format(value)) },
        ],
        series: [
          {},
          ...series.map((_, index) => ({
            stroke: style.getPropertyValue(`--series${index}`).trim(),
            width: 2,
            // Told apart by more than its colour.
            dash: index === 0 ? undefined : [6, 4],
            fill: index === 0 ? style.getPropertyValue("--series0-fill").trim() : undefined,
            points: { show: false },
          })),
        ],
        hooks: { setCursor: [({ cursor: { idx } }) => this.#showFigures(idx ?? undefined)] },
      },
      this.#data(),
      this.#place,
    );
    this.#tell();
  }

  #data() {
    const columns = [[], ...this.#chart.series.map(() => [])];
    for (const [index, { at }] of readings.entries()) {
      // Where the page did not look there is no line.
      if (index > 0 && at - readings[index - 1].at > 4 * EVERY_MS) columns.forEach((column, i) => column.push(i === 0 ? (at - 1) / 1_000 : null));
      columns[0].push(at / 1_000);
      this.#values[index].forEach((value, i) => columns[i + 1].push(value));
    }
    return columns;
  }

  read(index) {
    this.#values[index] = valuesOf(this.#chart, index);
  }

  readAll() {
    this.#values = readings.map((_, index) => valuesOf(this.#chart, index));
  }

  dropFirst() {
    this.#values.shift();
  }

  update() {
    if (!this.#plot) this.make();
    const now = readings.at(-1).at / 1_000;
    this.#plot.batch(() => {
      this.#plot.setData(this.#data(), false);
      this.#plot.setScale("x", { min: now - KEPT_SECONDS, max: now });
    });
    if (this.#plot.cursor.idx === null || this.#plot.cursor.left < 0) this.#showFigures();
    this.#tell();
  }

  #showFigures(index) {
    const data = this.#plot?.data;
    this.#figures.forEach((figure, i) => {
      const value = index === undefined ? this.#values.at(-1)?.[i] : data[i + 1][index];
      figure.textContent = value === null || value === undefined ? "—" : this.#chart.format(value);
    });
  }

  /** In words what the picture shows, for who does not see it. */
  #tell() {
    const said = this.#chart.series.map(([name], i) => {
      const values = this.#values.map((row) => row[i]).filter((value) => value !== null);
      if (values.length === 0) return word("describeNothing", { name: word(name) });
      const { format } = this.#chart;
      return word("describeSeries", { name: word(name), last: format(values.at(-1)), least: format(Math.min(...values)), most: format(Math.max(...values)) });
    });
    this.#place.setAttribute("aria-label", `${word(this.#chart.name)}. ${said.join(" ")}`);
  }

  #showTable() {
    this.#table.querySelector(".scroll")?.remove();
    if (!this.#table.open) return;
    const { series, format } = this.#chart;
    const head = element("tr", {}, element("th", { say: "clock", attributes: { scope: "col" } }), ...series.map(([name]) => element("th", { say: name, attributes: { scope: "col" } })));
    const rows = [];
    for (let index = readings.length - 1, next = Infinity; index >= 0; index--) {
      if (readings[index].at > next) continue;
      next = readings[index].at - ROWS_EVERY_SECONDS * 1_000;
      const cells = this.#values[index].map((value) => element("td", { text: value === null ? "—" : format(value) }));
      rows.push(element("tr", {}, element("th", { text: clock(readings[index].at), attributes: { scope: "row" } }), ...cells));
    }
    const place = element("div", { className: "scroll", tabIndex: 0, attributes: { role: "region" } }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
    say(place, "readingsOf", { name: this.#chart.name }, "aria-label");
    this.#table.append(place);
  }
}

export function takeModels(all) {
  const names = all.filter(({ parent }) => parent === null).map(({ id }) => id);
  byId("watched").replaceChildren(element("option", { value: "", say: "allModels" }), ...names.map((id) => element("option", { value: id, text: id })));
  byId("watched").value = names.includes(model) ? model : "";
}

/** The server's own figures, beside the charts. */
function showTotals() {
  const { families } = readings.at(-1);
  const of = (name, labels) => sumOf(families, `candlewick_${name}`, labels);
  const asked = of("prefix_tokens_asked_total", labels());
  showFigures(byId("totals"), [
    ["totalCompleted", number(of("requests_total", { ...labels(), outcome: "completed" }) ?? 0)],
    ["totalRefused", number(of("rejections_total") ?? 0)],
    ["totalTokens", number(of("tokens_total", { ...labels(), kind: "completion" }) ?? 0)],
    ["totalShared", asked ? percent((of("prefix_tokens_hit_total", labels()) ?? 0) / asked) : "—"],
    ["totalMemory", `${number((of("process_resident_bytes") ?? 0) / 2 ** 20)} MiB`],
  ]);
}

function showState() {
  const { families } = readings.at(-1);
  const [running, waiting] = ["running", "waiting"].map((name) => sumOf(families, `candlewick_requests_${name}`) ?? 0);
  say(byId("state"), "state", { running, waiting });
  byId("state").classList.toggle("busy", running > 0);
}

async function poll() {
  let families;
  try {
    families = parseMetrics(await getText("metrics", AbortSignal.timeout(5_000)));
  } catch {
    say(byId("state"), "stateLost");
    byId("state").classList.remove("busy");
    return;
  }
  readings.push({ at: Date.now(), families });
  for (const board of boards) board.read(readings.length - 1);
  while (readings[0].at < Date.now() - (KEPT_SECONDS + QUANTILE_SECONDS) * 1_000) {
    readings.shift();
    for (const board of boards) board.dropFirst();
  }
  showState();
  if (visible) show();
}

function show() {
  if (readings.length === 0) return;
  showTotals();
  for (const board of boards) board.update();
}

/** Whether the tab is the one that is open. */
export function setVisible(now) {
  visible = now;
  if (visible) show();
}

export function start() {
  for (const chart of CHARTS) boards.push(new Board(chart, byId("charts")));
  byId("watched").addEventListener("change", () => {
    model = byId("watched").value;
    for (const board of boards) board.readAll();
    show();
  });
  const again = () => {
    if (readings.length === 0) return;
    for (const board of boards) board.make();
    if (visible) show();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  onLanguage(again);
  // A page that nobody sees asks nothing.
  let timer;
  const watch = async () => {
    clearTimeout(timer);
    if (document.visibilityState !== "visible") return;
    await poll();
    timer = setTimeout(() => void watch(), EVERY_MS);
  };
  document.addEventListener("visibilitychange", () => void watch());
  void watch();
}
