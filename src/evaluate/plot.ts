/** Curves as SVG. Written by hand: plotting libraries want a DOM on the server, or are many times this file. */

export interface Series {
  readonly name: string;
  readonly colour: string;
  /** By x. */
  readonly points: readonly (readonly [x: number, y: number])[];
  /** Marks at the points instead of a line alone. */
  readonly marks?: boolean;
}

export interface Curves {
  readonly title: string;
  readonly x: string;
  readonly series: readonly Series[];
}

const [WIDTH, HEIGHT] = [720, 300];
const [LEFT, RIGHT, TOP, BOTTOM] = [64, 16, 44, 44];
/** Maximum points of a curve: more than the pixels would not be visible. */
const MOST_POINTS = 1000;

export const escape = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

export function curves({ title, x, series }: Curves): string {
  const drawn = series.map((one) => ({ ...one, points: thinned(one.points.filter(([, y]) => Number.isFinite(y))) })).filter((one) => one.points.length > 0);
  const all = drawn.flatMap((one) => one.points);
  const [across, up] = [axis(all.map(([x]) => x), 8), axis(all.map(([, y]) => y), 5)];
  const px = (value: number) => (LEFT + ((value - across.low) / (across.high - across.low)) * (WIDTH - LEFT - RIGHT)).toFixed(1);
  const py = (value: number) => (HEIGHT - BOTTOM - ((value - up.low) / (up.high - up.low)) * (HEIGHT - TOP - BOTTOM)).toFixed(1);
  const text = (at: [x: number | string, y: number | string], content: string, anchor = "middle", extra = "") =>
    `<text x="${at[0]}" y="${at[1]}" text-anchor="${anchor}"${extra}>${escape(content)}</text>`;
  const parts = [
    text([LEFT, 18], title, "start", ' font-weight="bold"'),
    ...up.ticks.map((tick) => `<path d="M${LEFT} ${py(tick)}H${WIDTH - RIGHT}" stroke="var(--line, #ddd)"/>${text([LEFT - 8, Number(py(tick)) + 4], short(tick), "end")}`),
    ...across.ticks.map((tick) => text([px(tick), HEIGHT - BOTTOM + 18], short(tick))),
    text([(LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6], x),
  ];
  let legend = LEFT;
  for (const { name, colour, points, marks } of drawn) {
    const path = points.map(([x, y], i) => `${i === 0 ? "M" : "L"}${px(x)} ${py(y)}`).join("");
    parts.push(`<path d="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>`);
    if (marks || points.length === 1) parts.push(...points.map(([x, y]) => `<circle cx="${px(x)}" cy="${py(y)}" r="3" fill="${colour}"/>`));
    parts.push(`<rect x="${legend}" y="26" width="10" height="10" fill="${colour}"/>`, text([legend + 15, 35], name, "start"));
    legend += 30 + 7 * name.length;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" role="img" aria-label="${escape(title)}" font-family="sans-serif" font-size="12" fill="currentColor">${parts.join("")}</svg>`;
}

/** Means of neighbours. */
function thinned(points: Series["points"]): Series["points"] {
  const size = Math.ceil(points.length / MOST_POINTS);
  if (size < 2) return points;
  const mean = (group: Series["points"], of: 0 | 1) => group.reduce((sum, point) => sum + point[of], 0) / group.length;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const group = points.slice(i * size, (i + 1) * size);
    return [mean(group, 0), mean(group, 1)] as const;
  });
}

/** Round ticks that enclose the values. */
function axis(values: readonly number[], count: number): { low: number; high: number; ticks: number[] } {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!(least < most)) return axis(Number.isFinite(least) ? [least - 0.5, least + 0.5] : [0, 1], count);
  const rough = (most - least) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough)!;
  const [first, last] = [Math.floor(least / step + 1e-9), Math.ceil(most / step - 1e-9)];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  return { low: ticks[0]!, high: ticks.at(-1)!, ticks };
}

export const short = (value: number): string => {
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
};
