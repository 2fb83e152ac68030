/** The report as one HTML page: no script, no other file. */
import { curves, escape, short, type Series } from "./plot.js";
import { confusion, figures, perClass, samplesOf, shown, type Report } from "./report.js";
import type { LogRow } from "./training-log.js";

const style = `
:root { color-scheme: light dark; --text: #222; --paper: #fff; --faint: #666; --line: #ddd }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --paper: #17191c; --faint: #a3a8ae; --line: #3a3f45 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--text); background: var(--paper); overflow-wrap: anywhere }
th, td { overflow-wrap: break-word } th:first-child, td:first-child { overflow-wrap: anywhere; min-width: 7rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 0.5rem 0 }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; overflow-wrap: normal }
table.matrix th { font-weight: normal } table.matrix thead th { text-align: center } table.matrix td { text-align: center; border: 1px solid var(--paper); min-width: 2.5rem; overflow-wrap: normal }
svg { max-width: 100%; height: auto; display: block; margin: 1rem 0; color: var(--text) } .note { color: var(--faint) }
@media (max-width: 30rem) { th, td { padding: 0.25rem 0.3rem } th:first-child, td:first-child { min-width: 5rem } table { font-size: 14px } }
`;

export function page(report: Report): string {
  const { task, model, data, created, metrics, training } = report;
  const title = `${task}: ${model}`;
  const sections = [
    `<h1>${escape(title)}</h1>`,
    `<p class="note">Data: ${escape(data)}. <time datetime="${created}">${created}</time>.</p>`,
    rows(["metric", "value"], figures(metrics)),
    classes(report),
    matrix(report),
    trained(training),
    samples(report),
  ];
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${escape(title)}</title><style>${style}</style></head>
<body>
${sections.filter(Boolean).join("\n")}
</body>
</html>
`;
}

/** `numbers`: how many of the last columns hold numbers; their heads stand over them, on the right. */
function rows(head: readonly string[], body: readonly (readonly (string | number)[])[], numbers = 0): string {
  const kind = (i: number) => (i >= head.length - numbers ? ' class="number"' : "");
  const cells = (row: readonly (string | number)[]) =>
    row.map((value, i) => `<td${kind(i)}>${typeof value === "number" ? short(value) : escape(value)}</td>`).join("");
  const header = head.map((name, i) => `<th${kind(i)}>${escape(name)}</th>`).join("");
  return `<div class="wide"><table><thead><tr>${header}</tr></thead><tbody>${body.map((row) => `<tr>${cells(row)}</tr>`).join("\n")}</tbody></table></div>`;
}

function classes({ metrics }: Report): string {
  const scores = perClass(metrics);
  if (scores.length === 0) return "";
  const body = scores.map(({ label, precision, recall, f1, support }) => [label, precision, recall, f1, support]);
  return `<h2>Classes</h2>${rows(["class", "precision", "recall", "F1", "support"], body, 4)}`;
}

/** Cells with more of their row are darker. Without room for numbers, they are in the tooltips. */
function matrix({ metrics }: Report): string {
  const found = confusion(metrics);
  if (!found) return "";
  const { labels, matrix } = found;
  const roomy = labels.length <= 25;
  const cell = (count: number, row: number, column: number) => {
    const share = count / Math.max(1, matrix[row]!.reduce((sum, count) => sum + count, 0));
    const colour = `rgba(${row === column ? "43,138,62" : "201,42,42"},${(0.9 * share).toFixed(3)})`;
    const tip = `${labels[row]} → ${labels[column]}: ${count} (${(100 * share).toFixed(1)}%)`;
    return `<td style="background:${colour}${share > 0.6 ? ";color:#fff" : ""}" title="${escape(tip)}">${roomy ? count : ""}</td>`;
  };
  const head = roomy ? `<thead><tr><th></th>${labels.map((label) => `<th>${escape(label)}</th>`).join("")}</tr></thead>` : "";
  const body = matrix.map((row, i) => `<tr><th>${escape(labels[i]!)}</th>${row.map((count, j) => cell(count, i, j)).join("")}</tr>`);
  return `<h2>Confusion matrix</h2><p class="note">Row: the class. Column: what was said. The colour is the share of the row.</p><div class="wide"><table class="matrix">${head}<tbody>${body.join("\n")}</tbody></table></div>`;
}

function trained(log: readonly LogRow[]): string {
  const of = (type: LogRow["type"]) => log.filter((row) => row.type === type);
  const points = (rows: readonly LogRow[], value: (row: LogRow) => number | undefined) =>
    rows.flatMap((row) => (value(row) === undefined ? [] : [[row.step, value(row)!] as const]));
  const losses: Series[] = [
    { name: "training", colour: "#74a9cf", points: points(of("step"), (row) => row.loss) },
    { name: "validation", colour: "#d9480f", points: points(of("evaluation"), (row) => row.loss), marks: true },
  ];
  const rates: Series[] = [{ name: "learning rate", colour: "#5b8c5a", points: points(of("step"), (row) => row.learningRate) }];
  const plots = [
    { title: "Loss", series: losses },
    { title: "Learning rate", series: rates },
  ].filter(({ series }) => series.some(({ points }) => points.length > 0));
  if (plots.length === 0) return "";
  return `<h2>Training</h2>${plots.map(({ title, series }) => curves({ title, x: "step", series })).join("\n")}`;
}

function samples({ metrics }: Report): string {
  const found = samplesOf(metrics);
  if (found.length === 0) return "";
  const scored = found.some(({ score }) => score !== undefined);
  const body = found.map(({ input, expected, predicted, score }) => [
    ...[input, expected, predicted].map(shown),
    ...(scored ? [score?.toFixed(2) ?? ""] : []),
  ]);
  const head = ["input", "expected", "predicted"];
  return `<h2>Samples</h2>${scored ? rows([...head, "score"], body, 1) : rows(head, body)}`;
}
