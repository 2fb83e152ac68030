/** What napi calls this machine, such as "linux-x64-gnu": the folder in npm/, and the middle of the addon's name. */
export function thisPlatform() {
  const glibc = process.platform === "linux" && process.report.getReport().header.glibcVersionRuntime;
  const suffix = { linux: glibc ? "-gnu" : "-musl", win32: "-msvc" }[process.platform] ?? "";
  return `${process.platform}-${process.arch}${suffix}`;
}
