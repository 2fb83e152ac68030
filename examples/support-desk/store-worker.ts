/**
 * The past answers in SQLite, on a thread of its own: a write waits for the disk (8 ms at the median here, 30 at the
 * worst), and the thread that serves must not.
 */
import { Database } from "node-sqlite3-wasm";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { grams } from "./language.js";
import type { Answer, Draft, Hit, Language, Store } from "./store.js";

const IN_MEMORY = ":memory:";

/**
 * One process has one database: SQLite compiled to WebAssembly marks its locks with a folder, which a crash leaves
 * behind.
 */
function claim(file: string): () => void {
  if (file === IN_MEMORY) return () => {};
  const owner = `${file}.owner`;
  try {
    writeFileSync(owner, String(process.pid), { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    const pid = Number(readFileSync(owner, "utf8"));
    if (pid !== process.pid && isRunning(pid)) throw new Error(`${file} is in use by process ${pid}`, { cause: error });
    // It ended without a word; SQLite's journal brings the file back to its last whole state.
    rmSync(`${file}.lock`, { recursive: true, force: true });
    writeFileSync(owner, String(process.pid));
  }
  return () => rmSync(owner, { force: true });
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

const file = workerData as string;
const release = claim(file);
const database = new Database(file);
database.exec(`
  CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    language TEXT NOT NULL,
    question TEXT NOT NULL,
    answer TEXT NOT NULL,
    created TEXT NOT NULL,
    vector BLOB,
    UNIQUE (language, question, answer)
  );
  CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (grams, content = '');
`);

const floats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
const bytes = (vector: Float32Array): Uint8Array => new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
const answerOf = ({ id, question, answer, created }: Record<string, unknown>) => ({ id, question, answer, created }) as Answer;
/** Rows by their columns' names; the package's type has tables between. */
const rowsOf = (sql: string, values: (string | number)[]) => database.all(sql, values) as Record<string, unknown>[];

/** What `Store` says, at once. */
const store: { [Name in keyof Store]: (...given: Parameters<Store[Name]>) => Awaited<ReturnType<Store[Name]>> } = {
  add(drafts) {
    const created = new Date().toISOString();
    database.exec("BEGIN");
    try {
      const ids = drafts.map((draft) => insert(draft, created));
      database.exec("COMMIT");
      return ids;
    } catch (error) {
      if (database.inTransaction) database.exec("ROLLBACK");
      throw error;
    }
  },

  get(ids) {
    const rows = rowsOf(`SELECT * FROM answers WHERE id IN (${ids.map(() => "?").join(", ")})`, [...ids]);
    const found = new Map(rows.map((row) => [row["id"], answerOf(row)]));
    return ids.flatMap((id) => found.get(id) ?? []);
  },

  count: () => database.get("SELECT count(*) AS count FROM answers")!["count"] as number,

  of: (language) =>
    rowsOf("SELECT id, question, vector FROM answers WHERE language = ? ORDER BY id", [language]).map(({ id, question, vector }) => ({
      id: id as number,
      question: question as string,
      vector: vector === null ? undefined : floats(vector as Uint8Array),
    })),

  setVectors(vectors) {
    database.exec("BEGIN");
    for (const { id, vector } of vectors) database.run("UPDATE answers SET vector = ? WHERE id = ?", [bytes(vector), id]);
    database.exec("COMMIT");
  },

  /**
   * Candidates by BM25, then the cosine between the two texts' sets of characters and pairs, which is a score that
   * people can read.
   */
  findWords(language, text, limit) {
    const wanted = grams(text);
    if (wanted.size === 0) return [];
    const query = [...wanted].map((gram) => `"${gram}"`).join(" OR ");
    const rows = rowsOf(
      "SELECT answers.* FROM words JOIN answers ON answers.id = words.rowid WHERE words MATCH ? AND language = ? ORDER BY bm25(words) LIMIT 50",
      [query, language],
    );
    return rows
      .map((row): Hit => {
        const there = grams(row["question"] as string);
        const shared = [...wanted].filter((gram) => there.has(gram)).length;
        return { ...answerOf(row), score: shared / Math.sqrt(wanted.size * there.size) };
      })
      .sort((a, b) => b.score - a.score)
      .slice(0, limit);
  },

  close() {
    database.close();
    release();
  },
};

/** The id; of an answer that is there already, its own. */
function insert({ language, question, answer, vector }: Draft, created: string): number {
  const { changes, lastInsertRowid } = database.run(
    "INSERT OR IGNORE INTO answers (language, question, answer, created, vector) VALUES (?, ?, ?, ?, ?)",
    [language, question, answer, created, vector ? bytes(vector) : null],
  );
  if (changes === 0) {
    const same = "SELECT id FROM answers WHERE language = ? AND question = ? AND answer = ?";
    return database.get(same, [language, question, answer])!["id"] as number;
  }
  const id = Number(lastInsertRowid);
  if (byWords(language)) database.run("INSERT INTO words (rowid, grams) VALUES (?, ?)", [id, [...grams(question)].join(" ")]);
  return id;
}

const byWords = (language: Language): boolean => language === "zh";

parentPort!.on("message", ({ call, name, given }: { call: number; name: keyof Store; given: never[] }) => {
  try {
    parentPort!.postMessage({ call, value: (store[name] as (...given: never[]) => unknown)(...given) });
  } catch (error) {
    parentPort!.postMessage({ call, error: (error as Error).message });
  }
  // Nothing comes after it; the thread ends.
  if (name === "close") parentPort!.close();
});
