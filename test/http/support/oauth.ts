import type { TestAnswer, TestApp } from "../../support/app.ts";

/** What a service client authenticates with, as creating one answers it. */
export interface Credentials {
  readonly id: string;
  readonly client_secret: string;
}

type Requests = Pick<TestApp, "request">;

export const FORM = "application/x-www-form-urlencoded";
export const form = (fields: Readonly<Record<string, string>>): string => new URLSearchParams(fields).toString();

/** RFC 6749, section 2.3.1: the two parts form-encoded. */
export const basicOf = ({ id, client_secret }: Credentials): string =>
  `Basic ${btoa(`${encodeURIComponent(id)}:${encodeURIComponent(client_secret)}`)}`;

const post = (app: Requests, path: string, client: Credentials, fields: Readonly<Record<string, string>>) =>
  app.request("POST", path, {
    body: form(fields),
    headers: { "content-type": FORM, authorization: basicOf(client) },
  });

export const introspect = (
  app: Requests,
  client: Credentials,
  token: string,
  more: Readonly<Record<string, string>> = {},
): Promise<TestAnswer> => post(app, "/oauth2/introspect", client, { token, ...more });

export const revoke = (
  app: Requests,
  client: Credentials,
  token: string,
  more: Readonly<Record<string, string>> = {},
): Promise<TestAnswer> => post(app, "/oauth2/revoke", client, { token, ...more });
