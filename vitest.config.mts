/**
 * The TypeScript tests. Each file runs in a process of its own (`forks`): the addon, its threads and what a test does
 * to `process` are then that file's alone. Time limits are for what hangs; no test measures speed.
 */
import { defineConfig } from "vitest/config";

/**
 * Tests that count turns of the event loop, or the memory of a process, or that fill all cores for half a minute with
 * processes of their own: nothing else runs beside them.
 */
const alone = ["__test__/cuda-kit.test.ts", "__test__/event-loop.test.ts", "__test__/leaks.test.ts"];

export default defineConfig({
  test: {
    pool: "forks",
    globalSetup: "__test__/support/temporary.ts",
    testTimeout: 900_000,
    hookTimeout: 900_000,
    teardownTimeout: 60_000,
    projects: [
      { extends: true, test: { name: "side by side", include: ["__test__/**/*.test.ts", "packages/*/__test__/**/*.test.ts"], exclude: alone, maxWorkers: 2, sequence: { groupOrder: 0 } } },
      { extends: true, test: { name: "types", include: [], typecheck: { enabled: true, only: true, include: ["__test__/types/*.test-d.ts", "packages/*/__test__/types/*.test-d.ts"] } } },
      { extends: true, test: { name: "alone", include: alone, maxWorkers: 1, sequence: { groupOrder: 1 } } },
    ],
    coverage: {
      provider: "v8",
      // What runs in processes of its own is not counted: most of src/cli.
      include: ["src/**/*.ts"],
      reporter: ["text-summary", "html"],
      reportsDirectory: "target/coverage",
      reportOnFailure: true,
      // A floor, two points below what there is: raise it when coverage has grown.
      thresholds: { statements: 72, branches: 70, functions: 72, lines: 72 },
    },
  },
});
