/** Uses Swagger UI as a person does: opens an operation, fills in a body, presses Execute, reads what is shown. */
import type { Locator, Page } from "playwright-core";

/** What the page shows of the server's answer. */
export interface ShownAnswer {
  readonly status: string;
  readonly text: string;
  readonly headers: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever was answered
  readonly body: any;
}

/** Loads the page and waits until its operations are there. */
export async function loadDocs(page: Page, url: string): Promise<void> {
  await page.goto(`${url}/docs`);
  await page.locator(".opblock").first().waitFor();
}

/** Every operation that is listed, such as "POST /api/v1/auth/login". */
export const listedOperations = (page: Page): Promise<string[]> =>
  page.locator(".opblock-summary").evaluateAll((rows) =>
    rows.map((row) => {
      const path = row.querySelector(".opblock-summary-path")?.getAttribute("data-path");
      return `${row.querySelector(".opblock-summary-method")?.textContent} ${path}`;
    }),
  );

/** Opens an operation. It is found by what a reader sees, its method and its path. */
export async function openOperation(page: Page, method: string, path: string): Promise<Locator> {
  const block = page
    .locator(`.opblock-${method.toLowerCase()}`)
    .filter({ has: page.locator(`.opblock-summary-path[data-path="${path}"]`) });
  await block.locator(".opblock-summary-control").click();
  await block.locator(".execute").waitFor();
  return block;
}

const bodyField = (operation: Locator) => operation.locator("textarea.body-param__text");

/** The body that the page suggests. */
export const suggestedBody = (operation: Locator): Promise<string> => bodyField(operation).inputValue();

/**
 * Presses Execute and waits until the answer to that very request is shown: its id stands among the shown headers.
 *
 * @param body goes into the body field; what the page suggests stays where it is left out
 */
export async function execute(operation: Locator, body?: unknown): Promise<ShownAnswer> {
  if (body !== undefined) await bodyField(operation).fill(JSON.stringify(body, null, 2));
  const answered = operation.page().waitForResponse((response) => response.url().includes("/api/"));
  await operation.locator(".execute").click();
  const requestId = (await answered).headers()["x-request-id"] ?? "no request id";
  const row = operation.locator(".live-responses-table tr.response").filter({ hasText: requestId });
  await row.waitFor();
  const text = await textUnder(row, "Response body");
  return {
    status: (await row.locator(".response-col_status").textContent()) ?? "",
    text,
    headers: await textUnder(row, "Response headers"),
    body: text.trimStart().startsWith("{") ? JSON.parse(text) : undefined,
  };
}

/** The text of the block under a heading; empty where the answer has none. */
async function textUnder(row: Locator, heading: string): Promise<string> {
  const block = row.locator(`div:has(> h5:text-is("${heading}")) pre`);
  return (await block.count()) === 0 ? "" : ((await block.first().textContent()) ?? "");
}

/** Gives the page a token by its Authorize dialog. */
export async function authorize(page: Page, token: string): Promise<void> {
  await page.locator(".btn.authorize").click();
  const dialog = page.locator(".dialog-ux");
  const bearer = dialog.locator("form").filter({ has: page.locator("#auth-bearer-value") });
  await bearer.locator("input").fill(token);
  await bearer.locator("button[type=submit]").click();
  await dialog.locator(".btn-done").first().click();
  await dialog.waitFor({ state: "detached" });
}

/**
 * Opens operations and closes them again: all of them open at once are more than a page of tests can bear. Presses in the
 * page itself, which a pointer takes long for.
 *
 * @param every which of them: 1 for all, 5 for each fifth
 * @returns how many were opened
 */
export const openOperations = (page: Page, every: number): Promise<number> =>
  page.evaluate(async (step) => {
    const until = async (isSo: () => boolean) => {
      while (!isSo()) await new Promise((later) => setTimeout(later, 1));
    };
    const operations = [...document.querySelectorAll(".opblock")].filter((_, index) => index % step === 0);
    for (const operation of operations) {
      const press = () => operation.querySelector<HTMLElement>(".opblock-summary-control")?.click();
      press();
      await until(() => operation.querySelector(".responses-wrapper") !== null);
      press();
      await until(() => operation.querySelector(".responses-wrapper") === null);
    }
    return operations.length;
  }, every);
