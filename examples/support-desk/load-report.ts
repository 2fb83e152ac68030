/** The load test's figures as Markdown, and as one HTML page: no script, no other file. */
import { curves, escape, type Series } from "../../src/evaluate/plot.js";

/** What is timed, in the order of the report. */
export const TIMED = ["topic", "sentiment", "similar", "translation", "first token", "reply", "message"] as const;
export type Timed = (typeof TIMED)[number];

/** One number of clients. Times in milliseconds. */
export interface Level {
  clients: number;
  messagesPerSecond: number;
  requestsPerSecond: number;
  tokensPerSecond: number;
  times: Record<Timed, { p50: number; p99: number }>;
  /** How late the server's event loop was, and that of a process that did nothing meanwhile. */
  lag: Lag;
  bystander: Lag;
}

export interface Lag {
  p50: number;
  p99: number;
  max: number;
}

export interface LoadReport {
  machine: string;
  node: string;
  date: string;
  /** Processes that wanted the machine when it began. */
  load: number;
  seconds: number;
  models: Record<string, string>;
  levels: Level[];
}

const COLOURS = ["#d9480f", "#3b6ea5", "#5b8c5a", "#8a6fb0", "#c2527a", "#b8860b", "#444"];

const LATE = ["p50", "p99", "max"] as const;

const number = (value: number): string =>
  (value >= 100 ? Math.round(value) : Number(value.toPrecision(value < 1 ? 2 : 3))).toLocaleString("en-US");

/** A table of each kind: a head, and rows. */
function tables({ levels }: LoadReport): { title: string; note: string; head: string[]; rows: string[][] }[] {
  const clients = levels.map(({ clients }) => `${clients} client${clients === 1 ? "" : "s"}`);
  const row = (name: string, of: (level: Level) => number) => [name, ...levels.map((level) => number(of(level)))];
  const times = (which: "p50" | "p99") => TIMED.map((what) => row(what, ({ times }) => times[what][which]));
  return [
    {
      title: "Throughput",
      note: "A message is two requests: its analysis and its reply.",
      head: ["", ...clients],
      rows: [
        row("messages/s", (level) => level.messagesPerSecond),
        row("requests/s", (level) => level.requestsPerSecond),
        row("tokens of replies/s", (level) => level.tokensPerSecond),
      ],
    },
    { title: "Half of them are there after, ms", note: "From sending to the event, at the client. `message` is all of it.", head: ["p50", ...clients], rows: times("p50") },
    { title: "99 in 100 are there after, ms", note: "", head: ["p99", ...clients], rows: times("p99") },
    {
      title: "How late the event loop is, ms",
      note: "The server’s, by Node’s own histogram with a tick of 5 ms; and that of a process that does nothing on the same machine.",
      head: ["", ...clients],
      rows: [
        ...LATE.map((which) => row(which, ({ lag }) => lag[which])),
        ...LATE.map((which) => row(`${which}, idle process`, ({ bystander }) => bystander[which])),
      ],
    },
  ];
}

const heading = ({ machine, node, date, load, seconds, models }: LoadReport): string => {
  const others = Object.entries(models).filter(([, which]) => which !== "the one that ships");
  const which = others.length === 0 ? "the models that ship" : `other models for ${others.map(([use]) => use).join(", ")}`;
  return `${machine}, Node ${node}, ${date}, load ${load} at the start; ${seconds} seconds for each number of clients; ${which}. Clients and server share the machine.`;
};

export function markdown(report: LoadReport): string {
  const table = (head: string[], rows: string[][]) =>
    [head, ["---", ...head.slice(1).map(() => "---:")], ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  const sections = tables(report).map(({ title, note, head, rows }) => [`## ${title}`, note, table(head, rows)].filter(Boolean).join("\n\n"));
  return `# The support desk under load

${heading(report)} [The same as a page, with curves](support-desk.html); repeated by \`npm run desk:load\`
([load.ts](../../examples/support-desk/load.ts) says what a client does).

${sections.join("\n\n")}
`;
}

const style = `
:root { color-scheme: light } body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #2a2320; background: #f7f2ea }
h1 { font: 600 1.6rem ui-serif, Georgia, serif } h2 { font-size: 1.05rem; margin: 0 0 .3rem } p { color: #75685f; margin: .3rem 0 }
section { background: #fff; border: 1px solid #e6dccf; border-radius: 12px; padding: 1rem 1.2rem; margin: 1rem 0; overflow-x: auto }
table { border-collapse: collapse; width: 100% } th, td { padding: .25rem .6rem; border-bottom: 1px solid #eee3d6; text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } tr:last-child td { border-bottom: 0 } svg { max-width: 100%; height: auto; display: block }
`;

export function html(report: LoadReport): string {
  const { levels } = report;
  const line = (name: string, colour: string, of: (level: Level) => number): Series => ({
    name,
    colour,
    points: levels.map((level) => [level.clients, of(level)] as const),
    marks: true,
  });
  const plots = [
    curves({ title: "Messages a second", x: "clients", series: [line("messages/s", COLOURS[0]!, (level) => level.messagesPerSecond)] }),
    curves({ title: "p50, ms", x: "clients", series: TIMED.map((what, i) => line(what, COLOURS[i]!, ({ times }) => times[what].p50)) }),
    curves({ title: "p99, ms", x: "clients", series: TIMED.map((what, i) => line(what, COLOURS[i]!, ({ times }) => times[what].p99)) }),
    curves({ title: "Event loop: how late, ms", x: "clients", series: [...LATE.map((which, i) => line(which, COLOURS[i]!, ({ lag }) => lag[which])), line("p99, idle process", COLOURS[6]!, ({ bystander }) => bystander.p99)] }),
  ];
  const cells = (tag: string, row: string[]) => `<tr>${row.map((cell) => `<${tag}>${escape(cell)}</${tag}>`).join("")}</tr>`;
  const sections = tables(report).map(({ title, note, head, rows }, i) => {
    const body = rows.map((row) => cells("td", row)).join("\n");
    return `<section><h2>${escape(title)}</h2><p>${escape(note.replaceAll("`", ""))}</p><table><thead>${cells("th", head)}</thead><tbody>\n${body}\n</tbody></table>${plots[i]}</section>`;
  });
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>The support desk under load</title><style>${style}</style></head>
<body>
<h1>The support desk under load</h1>
<p>${escape(heading(report))}</p>
${sections.join("\n")}
</body>
</html>
`;
}
