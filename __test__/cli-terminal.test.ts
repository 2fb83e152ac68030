/** What `candlewick chat` draws on a narrow terminal, in a terminal emulator. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Terminal } from "@xterm/headless";
import { test } from "vitest";
import { program } from "./support/cli.js";
import { newFolder, recitingModel } from "./support/models.js";
import { describeUnless } from "./support/skip.js";

const noTerminal = spawnSync("python3", ["-c", "import pty, fcntl"]).status !== 0 && "python3 with a pty module is absent";

/** A terminal of `columns`, with the program on it: Python gives it one, since Node has none. */
const ON_A_TERMINAL = `
import fcntl, os, pty, select, struct, sys, termios
pid, fd = pty.fork()
if pid == 0: os.execvp(sys.argv[2], sys.argv[2:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 12, int(sys.argv[1]), 0, 0))
while True:
    ready, _, _ = select.select([fd, 0], [], [])
    if fd in ready:
        try: data = os.read(fd, 65536)
        except OSError: break
        if not data: break
        os.write(1, data)
    if 0 in ready:
        data = os.read(0, 65536)
        if not data: break
        os.write(fd, data)
`;

async function screenAfter(columns: number, keys: readonly string[]): Promise<string[]> {
  const model = recitingModel("no matter");
  const env = { ...process.env, XDG_STATE_HOME: newFolder("state"), TERM: "xterm-256color" };
  const args = ["-c", ON_A_TERMINAL, String(columns), process.execPath, program, "chat", "-m", model, "--temperature", "0"];
  const child = spawn("python3", args, { env, stdio: ["pipe", "pipe", "ignore"] });
  const terminal = new Terminal({ cols: columns, rows: 12, allowProposedApi: true });
  let last = Date.now();
  child.stdout.on("data", (data) => {
    last = Date.now();
    terminal.write(data);
  });
  const lines = () => {
    const rows = Array.from({ length: 12 }, (_, row) => terminal.buffer.active.getLine(row)!.translateToString(true));
    return rows.slice(rows.findIndex((row) => row.startsWith("> "))).filter((row) => row !== "");
  };
  /** Until nothing has come for a moment. */
  const settled = async () => {
    while (Date.now() - last < 200) await sleep(20);
    await new Promise<void>((resolve) => terminal.write("", resolve));
  };
  for (let waited = 0; !lines().some((row) => row.startsWith("> ")); waited += 20) {
    assert.ok(waited < 20_000, "no prompt");
    await sleep(20);
    await settled();
  }
  for (const key of keys) {
    child.stdin.write(key);
    last = Date.now();
    await settled();
  }
  const found = lines();
  child.stdin.write("\x03\x04");
  child.stdin.end();
  await once(child, "close");
  return found;
}

describeUnless(noTerminal, "chat on 40 columns", () => {
  const chinese = "我们很高兴能够与您合作这是一个很长的句子需要换行显示才可以看到全部的内容";
  const english = "The quick brown fox jumps over the lazy dog, and goes on to the next line";
  const [left, home, back] = ["\x1b[D", "\x1b[H", "\x7f"];

  test("a pasted line of wide characters is edited where it stands", async () => {
    const rows = await screenAfter(40, [chinese, left, left, "X", back, "Y"]);
    assert.deepEqual(rows, [`> ${chinese.slice(0, 19)}`, `${chinese.slice(19, -2)}Y${chinese.slice(-2)}`]);
  });

  test("a long line is drawn once, from its beginning on", async () => {
    const rows = await screenAfter(40, [english, home, "Z", back]);
    assert.deepEqual(rows, [`> ${english.slice(0, 38)}`, english.slice(38)]);
  });
});
