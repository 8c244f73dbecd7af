/** The web till: served at /till/ from files that the server embeds, and from the browser's cache when there is no server. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** Writes the service worker with the names of all files of this build, and a version that changes with them. */
function serviceWorker(): Plugin {
  return {
    name: "service-worker",
    apply: "build",
    generateBundle(_options, bundle) {
      const files = ["./", "icon.svg", "till.webmanifest", ...Object.keys(bundle).filter((name) => name !== "index.html")].sort();
      const template = readFileSync(here("./service-worker.js"), "utf8");
      const html = readFileSync(here("./index.html"));
      const version = createHash("sha256").update(files.join("\n")).update(html).update(template).digest("hex").slice(0, 16);
      const source = template.replace("[/* files */]", JSON.stringify(files)).replace("/* version */", version);
      this.emitFile({ type: "asset", fileName: "sw.js", source });
    },
  };
}

export default defineConfig({
  base: "/till/",
  plugins: [svelte(), serviceWorker()],
  resolve: { alias: { "@mstore/client": here("../../clients/typescript/src/index.ts") } },
  build: {
    outDir: here("../../crates/server/web/till"),
    emptyOutDir: true,
    target: "es2023",
    // A strict page runs no inline script and shows no inline image.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1_000,
  },
});
