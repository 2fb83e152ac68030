/**
 * CSV and TSV as RFC 4180 has them, a record at a time: fields in quotation marks may hold separators, line ends and
 * doubled quotation marks.
 */

/** Collects lines into records; a record may go on over several lines. */
export class RecordReader {
  readonly #separator: string;
  #fields: string[] = [];
  /** What there is of a quoted field whose end has not come; `undefined` outside of one. */
  #open: string | undefined;

  constructor(separator: "," | "\t") {
    this.#separator = separator;
  }

  /** A quoted field has begun and not ended. */
  get begun(): boolean {
    return this.#open !== undefined;
  }

  /**
   * The record that ends with this line; `undefined` if it goes on.
   *
   * @throws {Error} Text behind a closing quotation mark.
   */
  push(line: string): string[] | undefined {
    let at = 0;
    if (this.#open !== undefined) {
      this.#open += "\n";
      at = this.#quoted(line, 0);
      if (at < 0) return undefined;
    }
    for (let fresh = this.#fields.length === 0 && at === 0; fresh || line[at] === this.#separator; fresh = false) {
      if (!fresh) at++;
      if (line[at] === '"') {
        this.#open = "";
        at = this.#quoted(line, at + 1);
        if (at < 0) return undefined;
      } else {
        const end = line.indexOf(this.#separator, at);
        this.#fields.push(line.slice(at, end < 0 ? undefined : end));
        at = end < 0 ? line.length : end;
      }
    }
    const fields = this.#fields;
    this.#fields = [];
    if (at < line.length) throw new Error(`text behind a closing quotation mark, at column ${at + 1}`);
    return fields;
  }

  /** Reads a quoted field on from `at`; the place behind its closing mark, or -1 if the line ends inside of it. */
  #quoted(line: string, at: number): number {
    for (;;) {
      const end = line.indexOf('"', at);
      if (end < 0) {
        this.#open += line.slice(at);
        return -1;
      }
      this.#open += line.slice(at, end);
      if (line[end + 1] !== '"') {
        this.#fields.push(this.#open!);
        this.#open = undefined;
        return end + 1;
      }
      this.#open += '"';
      at = end + 2;
    }
  }
}
