// `npm run pack:all`: the tarballs that get published, for this machine: the package itself (TypeScript compiled, the
// model inside) and the platform package with the addon. Both are laid out in target/npm/ first, so that package.json
// can say there what holds for users alone: no scripts, no tools, and the platform packages as optional dependencies.
// (In the checkout those would make `npm ci` look for versions that are not published yet.)
//   node scripts/pack.mjs [--out DIR] [--profile release|dist]      "dist" is smaller and compiles everything again
//   node scripts/pack.mjs --platforms linux-x64-gnu,darwin-arm64    all that are published together; default: this one
//   node scripts/pack.mjs --models      also the packages of weights in models/
//   node scripts/pack.mjs --packages    also the packages in packages/
//   node scripts/pack.mjs --cuda        also the package of the CUDA addon, which `npm run build:cuda` puts into npm/
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { build, orExplain } from "./build.mjs";
import { workspaces } from "./lib/packages.mjs";
import { at } from "./lib/paths.mjs";
import { thisPlatform } from "./lib/platform.mjs";
import { thirdPartyLicences } from "./lib/third-party.mjs";

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));
const writeJson = (path, value) => writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
const licences = ["LICENSE-MIT", "LICENSE-APACHE"];

/** A platform with CUDA: no optional dependency, for npm cannot know who has a GPU; it is asked for by name. */
const withCuda = (platform) => platform.endsWith("-cuda");

/** The manifests in npm/, in the order of their names; all must have the version of the package itself. */
export function platformManifests() {
  const { name, version } = readJson(at("package.json"));
  return readdirSync(at("npm")).toSorted().map((platform) => {
    const manifest = readJson(at("npm", platform, "package.json"));
    if (manifest.name !== `${name}-${platform}` || manifest.version !== version) {
      throw new Error(`npm/${platform}/package.json must be ${name}-${platform} ${version}`);
    }
    if (withCuda(platform) && manifest.peerDependencies[name] !== version) {
      throw new Error(`npm/${platform}/package.json must have ${name} ${version} as its peer`);
    }
    return manifest;
  });
}

/**
 * The package.json that users get. `platforms` are those whose packages are published with it, and no others: Yarn
 * refuses to install a package with an optional dependency that does not exist.
 */
export function publishedManifest(platforms) {
  const { scripts: _scripts, devDependencies: _tools, napi: _napi, workspaces: _packages, ...manifest } = readJson(at("package.json"));
  const known = platformManifests().filter(({ name }) => !withCuda(name)).map(({ name }) => name);
  const optional = platforms.map((platform) => `${manifest.name}-${platform}`);
  const strange = optional.find((name) => !known.includes(name));
  if (strange) throw new Error(`${strange} is no platform package: npm/ has ${known.join(", ")}`);
  return { ...manifest, optionalDependencies: Object.fromEntries(optional.map((name) => [name, manifest.version])) };
}

function stageMain(folder, platforms) {
  const manifest = publishedManifest(platforms);
  copyFiles(at(), folder, manifest.files);
  writeJson(join(folder, "package.json"), manifest);
}

/** What a package's manifest says that is published, and its README. */
function copyFiles(source, folder, files) {
  for (const path of [...files, "README.md"]) {
    if (!existsSync(join(source, path))) throw new Error(`${path} is missing, and the package.json in ${source} says that it is published`);
    cpSync(join(source, path), join(folder, path), { recursive: true, filter: (file) => !file.endsWith(".stamp") });
  }
}

/** The packages in packages/; each has the version of the package itself, and that very version as its peer. */
function publishedWorkspaces() {
  const { name, version } = readJson(at("package.json"));
  return workspaces().map((one) => {
    const { scripts: _scripts, devDependencies: _tools, ...manifest } = one.manifest;
    if (manifest.version !== version || manifest.peerDependencies?.[name] !== version) {
      throw new Error(`${one.folder}/package.json must be of version ${version}, with ${name} ${version} as its peer`);
    }
    return { ...one, manifest };
  });
}

function stageWorkspace(staged, { folder, manifest }) {
  copyFiles(at(folder), staged, manifest.files);
  for (const file of licences) copyFileSync(at(file), join(staged, file));
  writeJson(join(staged, "package.json"), { ...manifest, files: [...manifest.files, ...licences] });
}

/**
 * Makes the tarballs of the packages in packages/, by name.
 *
 * @param {string} out
 * @returns {Record<string, { path: string, size: number, unpackedSize: number }>}
 */
export function packWorkspaces(out) {
  return Object.fromEntries(
    publishedWorkspaces().map((one) => {
      const staged = join(out, "stage", one.name);
      rmSync(staged, { recursive: true, force: true });
      mkdirSync(staged, { recursive: true });
      stageWorkspace(staged, one);
      return [one.name, npmPack(staged, out)];
    }),
  );
}

function stagePlatform(folder, platform) {
  const manifest = readJson(at("npm", platform, "package.json"));
  mkdirSync(folder, { recursive: true });
  copyFileSync(at("npm", platform, "README.md"), join(folder, "README.md"));
  for (const name of licences) copyFileSync(at(name), join(folder, name));
  const addon = join(folder, manifest.main);
  copyFileSync(withCuda(platform) ? at("npm", platform, manifest.main) : at("native", manifest.main), addon);
  // Line tables are for people who build; they are more than half of the file.
  if (process.platform !== "win32") {
    try {
      execFileSync("strip", process.platform === "darwin" ? ["-x", "-S", addon] : ["--strip-unneeded", addon]);
    } catch {
      console.error("`strip` is missing: the addon keeps its debug information.");
    }
  }
  writeFileSync(join(folder, "THIRD-PARTY-LICENSES"), thirdPartyLicences(withCuda(platform) ? ["cuda"] : []));
  writeJson(join(folder, "package.json"), { ...manifest, files: [...manifest.files, "THIRD-PARTY-LICENSES"] });
}

/**
 * The packages of weights beside the model inside the package itself, by their folders' names; each has the package's
 * own version.
 */
export function modelPackages() {
  const { name, version } = readJson(at("package.json"));
  return readdirSync(at("models")).toSorted().filter((model) => existsSync(at("models", model, "package.json"))).map((model) => {
    const manifest = readJson(at("models", model, "package.json"));
    if (manifest.name !== `${name}-model-${model}` || manifest.version !== version) {
      throw new Error(`models/${model}/package.json must be ${name}-model-${model} ${version}`);
    }
    return model;
  });
}

function stageModel(folder, model) {
  const manifest = readJson(at("models", model, "package.json"));
  for (const path of [...manifest.files, "README.md"]) cpSync(at("models", model, path), join(folder, path), { recursive: true });
  const own = licences.filter((file) => file !== "LICENSE-MIT" || manifest.license.includes("MIT"));
  for (const file of own) copyFileSync(at(file), join(folder, file));
  writeJson(join(folder, "package.json"), { ...manifest, files: [...manifest.files, ...own] });
}

/** Runs the npm that runs this script (npm sets npm_execpath), or the one on PATH. */
function npmPack(folder, out) {
  const args = ["pack", folder, "--pack-destination", out, "--json", "--ignore-scripts"];
  const npm = process.env.npm_execpath;
  const text = npm?.endsWith("npm-cli.js")
    ? execFileSync(process.execPath, [npm, ...args], { encoding: "utf8" })
    : execFileSync("npm", args, { encoding: "utf8", shell: process.platform === "win32" });
  const packed = JSON.parse(text);
  const [{ filename, unpackedSize }] = Array.isArray(packed) ? packed : Object.values(packed);
  const path = join(out, filename);
  return { path, size: statSync(path).size, unpackedSize };
}

/**
 * Makes the tarballs in `out`; the build must be up to date. Returns `{ main, platform }`, and where they are asked for
 * `cuda`, the models and the packages by name, each `{ path, size, unpackedSize }`.
 */
export function packAll(out = at("target", "npm"), { cuda = false, models = false, packages = false, platforms } = {}) {
  const platform = thisPlatform();
  if (!existsSync(at("npm", platform))) throw new Error(`There is no platform package for ${platform} in npm/`);
  const stage = join(out, "stage");
  rmSync(stage, { recursive: true, force: true });
  stageMain(join(stage, "candlewick"), platforms?.split(",") ?? [platform]);
  stagePlatform(join(stage, platform), platform);
  const tarballs = { main: npmPack(join(stage, "candlewick"), out), platform: npmPack(join(stage, platform), out) };
  if (models) {
    for (const model of modelPackages()) {
      stageModel(join(stage, `model-${model}`), model);
      tarballs[model] = npmPack(join(stage, `model-${model}`), out);
    }
  }
  if (packages) Object.assign(tarballs, packWorkspaces(out));
  if (cuda) {
    stagePlatform(join(stage, `${platform}-cuda`), `${platform}-cuda`);
    tarballs.cuda = npmPack(join(stage, `${platform}-cuda`), out);
  }
  return tarballs;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { out: { type: "string" }, profile: { type: "string" }, cuda: { type: "boolean" }, models: { type: "boolean" }, packages: { type: "boolean" }, platforms: { type: "string" } } });
  await orExplain(() => build({ profile: values.profile }));
  const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const tarballs = Object.values(packAll(values.out && resolve(values.out), values));
  for (const { path, size, unpackedSize } of tarballs) console.log(`${path}  ${mib(size)}, ${mib(unpackedSize)} unpacked`);
  console.log(`Together ${mib(tarballs.reduce((sum, { size }) => sum + size, 0))}.`);
}
