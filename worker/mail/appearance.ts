import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { basename, resolve } from "node:path";
import { textOf } from "../../config/errors.ts";
import type { Mailbox } from "../../config/kinds.ts";
import { bareHost } from "../../config/load.ts";
import type { Settings } from "../../config/schema.ts";
import type { LinkPurpose } from "../../server/features/tokens/service.ts";
import type { Style } from "./render.ts";
import type { TemplateProblem } from "./templates.ts";
import type { Attachment } from "./transport.ts";

/** The domain of the installation's own addresses and message ids. */
const domainOf = ({ server }: Settings): string => {
  const host = bareHost(server.public_url);
  return isIP(host) === 0 ? host : "localhost";
};

/** Where mails come from. */
export function senderOf(settings: Settings): Mailbox {
  const { from, product_name } = settings.mail;
  const address = from?.address ?? `primer@${domainOf(settings)}`;
  return { name: from?.name || product_name, address };
}

/** The same for every attempt to send one mail, so that who gets it twice can see that it is one (RFC 5322, 3.6.4). */
export const messageIdOf = (settings: Settings, jobId: string): string => `<${jobId}@${domainOf(settings)}>`;

/** Pages of the product, under its public URL: where links lead unless the settings say otherwise. */
const PAGES: Readonly<Record<LinkPurpose, string>> = {
  verify_email: "/account/verify-email",
  reset_password: "/account/reset-password",
  end_session: "/account/end-session",
};

/**
 * A link with its token, made of the settings alone. The token is in the fragment, which browsers send to no server: it
 * gets into no log and no Referer header.
 */
export const linkTo = ({ links, server }: Settings, purpose: LinkPurpose, token: string): string =>
  `${links[purpose] || `${server.public_url}${PAGES[purpose]}`}#token=${token}`;

/** Where somebody registers by an invitation; empty where the installation has not said. */
export const invitationLink = ({ links }: Settings, token: string): string =>
  links.invitation === "" ? "" : `${links.invitation}#token=${token}`;

const LARGEST_LOGO = 200 * 1024;
/** What mail readers show, by how such a file begins. SVG they do not. */
const PICTURES: readonly (readonly [type: string, start: string])[] = [
  ["png", "\u0089PNG"],
  ["jpg", "\u00ff\u00d8\u00ff"],
  ["gif", "GIF8"],
];

export interface Appearance {
  readonly style: Style;
  readonly attachments: readonly Attachment[];
}

/** How mails look by the settings. @param tell is told of a picture that is of no use; mails go without it then */
export function appearanceOf({ mail }: Settings, home: string, tell: (problem: TemplateProblem) => void): Appearance {
  const style = { product: mail.product_name, color: mail.color, logo: undefined, locale: mail.locale };
  if (mail.logo === "") return { style, attachments: [] };
  if (mail.logo.startsWith("https://")) return { style: { ...style, logo: mail.logo }, attachments: [] };
  const path = resolve(home, mail.logo);
  try {
    const content = readFileSync(path);
    const type = PICTURES.find(([, start]) => content.toString("latin1", 0, start.length) === start)?.[0];
    if (type === undefined) throw new Error("it is no PNG, JPEG or GIF");
    if (content.length > LARGEST_LOGO) throw new Error("it is larger than 200 KB");
    const logo = { cid: "logo@primer", filename: basename(path), content };
    return { style: { ...style, logo: `cid:${logo.cid}` }, attachments: [logo] };
  } catch (error) {
    tell({ path, reason: textOf(error) });
    return { style, attachments: [] };
  }
}
