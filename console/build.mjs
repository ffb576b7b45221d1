// Bundles src/ into gateway/console, which is committed. The first line of the script tells the sources it was made of.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const sources = [...readdirSync(here("src")).sort().map((name) => `src/${name}`), "package-lock.json"];
const digest = createHash("sha256");
for (const path of sources) digest.update(`${path}\0`).update(readFileSync(here(path)));
const tag = `sources sha256:${digest.digest("hex")}`;

await build({
  entryPoints: { console: here("src/console.tsx") },
  outdir: here("../gateway/console"),
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  banner: { js: `/* ${tag}; has Preact, (c) 2015-present Jason Miller, MIT License, see LICENSE.preact */` },
});
await build({ entryPoints: [here("src/console.css")], outfile: here("../gateway/console/console.css"), minify: true });
