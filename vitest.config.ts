import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["clients/*/tests/**/*.test.ts", "apps/*/web/tests/**/*.test.ts"],
    testTimeout: 20_000,
  },
});
