/** Tests that a machine may be unable to run: they are skipped, and their name says why. */
import { describe, test } from "vitest";

/** `reason`: why these tests cannot run here, or `false`. */
export function describeUnless(reason: string | false, name: string, tests: () => void): void {
  describe.skipIf(reason !== false)(named(name, reason), tests);
}

/** `reason`: why this test cannot run here, or `false`. */
export function testUnless(reason: string | false, name: string, body: () => void | Promise<void>): void {
  test.skipIf(reason !== false)(named(name, reason), body);
}

const named = (name: string, reason: string | false) => (reason === false ? name : `${name} [skipped: ${reason}]`);
