/**
 * Vitest's global set-up: one folder for all temporary files of a run, which is removed at its end, whatever tests
 * leave behind.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const NAME = "CANDLEWICK_TEST_FOLDER";

/** Vitest calls it for the run, and once more for each project. */
export default function setUp(): (() => void) | undefined {
  if (process.env[NAME]) return undefined;
  // A short name: Chromium puts a socket in there, whose path has at most 108 characters.
  const folder = mkdtempSync(join(tmpdir(), "cw-"));
  const before = process.env["TMPDIR"];
  // The processes of the tests, and their children, inherit both.
  Object.assign(process.env, { [NAME]: folder, TMPDIR: folder });
  return () => {
    delete process.env[NAME];
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
    rmSync(folder, { recursive: true, force: true });
  };
}
