import { expect, test } from "bun:test";
import { createLog } from "../../../config/log.ts";
import { boundConnections } from "../../../server/http/connection-bound.ts";
import { when } from "../../cli/support/home.ts";

const onLinux = when(process.platform === "linux", "only Linux tells how many connections there are");

// A listener that cannot be opened again is tried again and again, and does not fill the disk with what it has to say.
test.if(onLinux)("a fault that lasts is logged when it begins and when it is over", async () => {
  const events: string[] = [];
  const log = createLog(
    () => "info",
    { write: (line) => events.push(JSON.parse(line).event) },
    () => new Date(),
  );
  const { promise: failedOften, resolve: enough } = Promise.withResolvers<void>();
  const { promise: resumed, resolve: accept } = Promise.withResolvers<void>();
  let [allowed, tries, isMended] = [-1, 0, false];
  const listener = {
    pause() {
      allowed = 1000;
    },
    resume() {
      if (isMended) return accept();
      if (++tries === 3) enough();
      throw new Error("The port is taken");
    },
  };
  const bound = boundConnections(listener, () => allowed, log);
  try {
    await failedOften;
    isMended = true;
    await resumed;
    for (const deadline = performance.now() + 2000; performance.now() < deadline; await Bun.sleep(5))
      if (events.includes("connections.bounded_again")) break;
    expect(events).toEqual([
      "connections.full",
      "connections.not_bounded",
      "connections.accepted_again",
      "connections.bounded_again",
    ]);
  } finally {
    bound.stop();
  }
});
