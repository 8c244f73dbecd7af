import { defineConfig } from "vitest/config";

export default defineConfig({
  // Real servers and browsers: one file at a time.
  test: { include: ["test/**/*.test.ts"], testTimeout: 120_000, hookTimeout: 60_000, fileParallelism: false },
});
