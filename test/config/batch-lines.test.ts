import { expect, test } from "bun:test";
import { batchLines } from "../../config/batch-lines.ts";

const collecting = () => {
  const written: string[] = [];
  return { written, sink: batchLines({ write: (text) => written.push(text) }) };
};

test("what one turn logs is written in one piece, in its order, when the turn ends", async () => {
  const { written, sink } = collecting();
  for (const line of ["a\n", "b\n", "c\n"]) sink.write(line);
  expect(written).toEqual([]);
  await new Promise(setImmediate);
  sink.write("d\n");
  await new Promise(setImmediate);
  expect(written).toEqual(["a\nb\nc\n", "d\n"]);
});

test("a flush writes at once what is there, and nothing twice", async () => {
  const { written, sink } = collecting();
  sink.write("last\n");
  sink.flush();
  sink.flush();
  await new Promise(setImmediate);
  expect(written).toEqual(["last\n"]);
});

// Several processes write to one pipe; what is longer than it takes at once could be torn apart by another one's lines.
test("no piece is longer than a pipe takes at once, but for a line that is by itself", async () => {
  const { written, sink } = collecting();
  const lines = [...Array.from({ length: 100 }, (_, index) => `${index} ${"x".repeat(90)}\n`), `${"y".repeat(5000)}\n`];
  for (const line of lines) sink.write(line);
  await new Promise(setImmediate);
  expect(written.join("")).toBe(lines.join(""));
  expect(written.filter((piece) => piece.length > 4096)).toEqual([lines.at(-1) ?? ""]);
  expect(written.length).toBeLessThan(6);
});

test("what waits counts as backlog, with what waits further down", () => {
  const sink = batchLines({ write: () => {}, writableLength: 100 });
  sink.write("12345\n");
  expect(sink.writableLength).toBe(106);
});

// A process that ends at once, as after an error that nobody caught, has still said why.
test("a line that was logged just before process.exit is not lost", async () => {
  const file = new URL("../../config/batch-lines.ts", import.meta.url).pathname;
  const script = `import { batchLines } from ${JSON.stringify(file)};
    batchLines(process.stdout).write("last words\\n"); process.exit(3);`;
  const child = Bun.spawn(["bun", "-e", script], { stdout: "pipe" });
  expect(await new Response(child.stdout).text()).toBe("last words\n");
  expect(await child.exited).toBe(3);
});
