/**
 * The TypeScript tests. Each file runs in a process of its own (`forks`): the addon, its threads and what a test does to
 * `process` are then that file's alone. Time limits are for what hangs; no test measures time.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["__test__/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    testTimeout: 900_000,
    hookTimeout: 900_000,
    teardownTimeout: 60_000,
  },
});
