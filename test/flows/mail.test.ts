import { afterAll, describe, expect, test } from "bun:test";
import { PRIMER, plainEnvironment, runPrimer, type ServedHome, serveHome, untilReady } from "../support/server.ts";
import { startSmtp } from "../worker/support/smtp.ts";

const FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const served: ServedHome[] = [];
const children: Bun.Subprocess[] = [];
afterAll(async () => {
  for (const child of children) {
    child.kill("SIGTERM");
    await child.exited;
  }
  for (const home of served) await home.remove();
});

async function serve(environment: Record<string, string>): Promise<ServedHome> {
  const home = await serveHome(environment);
  served.push(home);
  return home;
}

/** Stops the server and starts it anew with these variables. */
async function serveAgain({ home, url, pid }: ServedHome, environment: Record<string, string>): Promise<void> {
  process.kill(pid, "SIGTERM");
  await until(() =>
    fetch(`${url}/livez`)
      .then(() => undefined)
      .catch(() => true),
  );
  const child = Bun.spawn([...PRIMER, "serve"], {
    env: plainEnvironment({ PRIMER_HOME: home, PRIMER_SERVER__PORT: new URL(url).port, ...environment }),
    stdio: ["ignore", "ignore", "ignore"],
  });
  children.push(child);
  await untilReady(url);
}

const logIn = ({ url, password }: ServedHome, agent: string) =>
  fetch(`${url}/api/v1/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json", "user-agent": agent },
    body: JSON.stringify({ username: "admin", password }),
  });

async function until<T>(look: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + 20_000;
  while (performance.now() < deadline) {
    const found = await look();
    if (found !== undefined) return found;
    await Bun.sleep(50);
  }
  throw new Error("It did not happen within 20 seconds");
}

describe("a sign-in on a new device, from request to mail", () => {
  // The link is in the mail and nowhere else: not in the queue, and not in the answer.
  test("with a mail server the owner has the mail; in the queue it is done and its link erased", async () => {
    const smtp = await startSmtp();
    try {
      const home = await serve({ SMTP_URL: `smtp://localhost:${smtp.port}` });
      await logIn(home, "curl/8.5.0");
      await logIn(home, FIREFOX);
      const received = await until(() => smtp.received[0]);
      expect(received.mail).toMatchObject({ subject: "New sign-in to primer" });
      expect(received.mail.text).toMatch(/#token=[\w-]{43}\n/);
      const jobs = await until(async () => {
        const { stdout } = await runPrimer(["jobs", "list", "--json"], { environment: { PRIMER_HOME: home.home } });
        const [job] = JSON.parse(stdout).data;
        return job.state === "done" ? stdout : undefined;
      });
      const token = /#token=([\w-]{43})/.exec(received.mail.text ?? "")?.[1] ?? "none";
      expect(jobs).not.toContain(token);
      const shown = await runPrimer(["mail", "show", JSON.parse(jobs).data[0].id], {
        environment: { PRIMER_HOME: home.home },
      });
      expect(shown.stdout).not.toContain(token);
    } finally {
      await smtp.close();
    }
  });

  test("without one it waits, is printed on the machine, and is sent once there is one", async () => {
    const home = await serve({});
    await logIn(home, "curl/8.5.0");
    await logIn(home, FIREFOX);
    const environment = { PRIMER_HOME: home.home };
    const [job] = JSON.parse((await runPrimer(["jobs", "list", "--json"], { environment })).stdout).data;
    expect(job).toMatchObject({ queue: "send-mail", template: "new_sign_in", state: "waiting", attempts: 0 });
    const shown = await runPrimer(["mail", "show", job.id], { environment });
    expect(shown.stdout).toMatch(/#token=[\w-]{43}\n/);
    const smtp = await startSmtp();
    try {
      await serveAgain(home, { SMTP_URL: `smtp://localhost:${smtp.port}` });
      const received = await until(() => smtp.received[0]);
      const link = /#token=[\w-]{43}/.exec(shown.stdout)?.[0] ?? "none";
      expect(received.mail.text).toContain(link);
      expect(received.mail.messageId).toStartWith(`<${job.id}@`);
    } finally {
      await smtp.close();
    }
  });
});
