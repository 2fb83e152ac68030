/**
 * Bars as SVG: a group for each case, a bar for each contender, the spread p10–p90 as a line, and the machine's limit
 * as a mark. Written by hand: what plotting libraries bring along, a DOM on the server, is many times this file.
 */
import type { ContenderName, Row } from "./types.js";
import { number } from "./table.js";

export interface Plot {
  file: string;
  title: string;
  subtitle: string;
  rows: Row[];
}

const colours: Record<ContenderName, string> = {
  candlewick: "#d9480f",
  before: "#9aa5b1",
  candle: "#f2a65a",
  "node-llama-cpp": "#3b6ea5",
  "onnxruntime-node": "#5b8c5a",
  "transformers.js": "#8a6fb0",
  fastembed: "#c2527a",
  openvino: "#2f9e8f",
  ctranslate2: "#b08900",
  pytorch: "#7a7a7a",
  faiss: "#4a6fa5",
};

const WIDTH = 760;
const LEFT = 250;
const RIGHT = 120;
const BAR = 16;
const GAP = 14;
const TOP = 88;

const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

interface TextOptions {
  anchor?: "start" | "end";
  size?: number;
  weight?: "bold";
  fill?: string;
}
const text = (x: number, y: number, content: string, { anchor = "start", size = 12, weight, fill = "#222" }: TextOptions = {}) =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}" font-size="${size}"${weight ? ` font-weight="${weight}"` : ""} fill="${fill}">${escape(content)}</text>`;

/** Lengths are to scale within a group: what a case is measured in differs too much between cases. */
export function svg({ title, subtitle, rows }: Plot): string {
  const names = [...new Set(rows.map(nameOf))];
  const groups = names.map((name) => rows.filter((row) => nameOf(row) === name));
  const parts: string[] = [];
  let y = TOP;
  for (const group of groups) {
    const limitOf = (row: Row) => (row.shareOfLimit ? limit(row) : undefined);
    const scale = (WIDTH - LEFT - RIGHT) / Math.max(...group.map((row) => Math.max(row.p90, row.median, limitOf(row) ?? 0)), 1e-9);
    const first = group[0]!;
    const middle = y + (group.length * BAR) / 2 + 4;
    parts.push(text(LEFT - 12, middle, nameOf(first).replace(/^\w+,? /, ""), { anchor: "end" }));
    const top = y;
    for (const row of group) {
      const [x1, x2] = [LEFT + row.p10 * scale, LEFT + row.p90 * scale].map((x) => x.toFixed(1));
      const length = Math.max(1, row.median * scale);
      const [line, end] = [y + (BAR - 2) / 2, Math.max(length, row.p90 * scale)];
      parts.push(
        `<rect x="${LEFT}" y="${y}" width="${length.toFixed(1)}" height="${BAR - 2}" fill="${colours[row.contender]}"/>`,
        `<line x1="${x1}" x2="${x2}" y1="${line}" y2="${line}" stroke="#222" stroke-opacity="0.55"/>`,
        text(Math.round(LEFT + end + 6), y + 11, `${number(row.median)} ${row.unit}`, { size: 11 }),
      );
      y += BAR;
    }
    const mark = limitOf(first);
    if (mark !== undefined) {
      const x = (LEFT + mark * scale).toFixed(1);
      parts.push(`<line x1="${x}" x2="${x}" y1="${top - 4}" y2="${y + 2}" stroke="#b00020" stroke-dasharray="3 2"/>`);
    }
    y += GAP;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 8}" font-family="system-ui, sans-serif" role="img">`,
    `<title>${escape(title)}</title>`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    text(16, 26, title, { size: 16, weight: "bold" }),
    text(16, 46, subtitle, { fill: "#555" }),
    legend(rows),
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

const nameOf = (row: Row) => `${row.case}, ${row.dtype}`;

/** What the machine allows, in the row's unit. */
function limit({ median, shareOfLimit, unit }: Row): number {
  return unit === "ms" ? median * shareOfLimit! : median / shareOfLimit!;
}

function legend(rows: readonly Row[]): string {
  const entries: [string, string][] = [...new Set(rows.map((row) => row.contender))].map((name) => [name, colours[name]]);
  let x = 16;
  return entries
    .map(([name, colour]) => {
      const part = `<rect x="${x}" y="58" width="11" height="11" fill="${colour}"/>${text(x + 16, 68, name)}`;
      x += 30 + 7 * name.length;
      return part;
    })
    .join("");
}
