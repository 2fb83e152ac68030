/** GNU gettext's compiled catalogues: the pairs of a text and its translation. */

/**
 * Little- or big-endian; entries with plural forms and the header are left out, and a context before its text.
 * The format: https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html
 */
export function readCatalogue(file: Buffer): [source: string, target: string][] {
  const little = file.readUInt32LE(0) === 0x950412de;
  if (!little && file.readUInt32BE(0) !== 0x950412de) throw new Error("not a catalogue");
  const number = (at: number) => (little ? file.readUInt32LE(at) : file.readUInt32BE(at));
  const [count, sources, targets] = [number(8), number(12), number(16)];
  const text = (table: number, index: number) => {
    const [length, at] = [number(table + 8 * index), number(table + 8 * index + 4)];
    return file.toString("utf8", at, at + length);
  };
  const pairs = Array.from({ length: count }, (_, index): [string, string] => {
    const source = text(sources, index);
    return [source.slice(source.indexOf("\u0004") + 1), text(targets, index)];
  });
  return pairs.filter(([source, target]) => source !== "" && target !== "" && !source.includes("\0"));
}
