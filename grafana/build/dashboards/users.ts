import { chosen, dashboard } from "../dashboard.ts";
import { lines, tile } from "../panels.ts";

const { of, counts } = chosen;
const perHour = (selector: string, by = "") => `sum ${by}(increase(${selector}[1h]))`;
const calls = (method: string, route: string) =>
  perHour(counts("http_server_request_duration_seconds", { method, route, status: "=~2.." }));
const accounts = (status: string) => `max(${of("primer_users", { status })})`;

export const users = () =>
  dashboard({
    uid: "primer-users",
    title: "User activity",
    description: "How many people there are, how many of them are here, and what they do.",
    panels: [
      tile({ title: "Sessions", about: "primer_sessions", unit: "short", query: `max(${of("primer_sessions")})` }),
      tile({
        title: "Active within an hour",
        about: "primer_active_users",
        unit: "short",
        query: `max(${of("primer_active_users", { window: "1h" })})`,
      }),
      tile({
        title: "Active within a day",
        about: "primer_active_users",
        unit: "short",
        query: `max(${of("primer_active_users", { window: "24h" })})`,
      }),
      tile({ title: "Active accounts", about: "primer_users", unit: "short", query: accounts("active") }),
      tile({ title: "Waiting for proof", about: "primer_users", unit: "short", query: accounts("pending") }),
      tile({
        title: "Disabled or given up",
        about: "primer_users",
        unit: "short",
        query: accounts("=~disabled|deactivated"),
      }),
      lines({
        title: "Active users",
        about: "primer_active_users",
        unit: "short",
        queries: { "within {{window}}": `max by (window) (${of("primer_active_users")})` },
      }),
      lines({
        title: "Sessions",
        about: "primer_sessions",
        unit: "short",
        queries: { sessions: `max(${of("primer_sessions")})` },
      }),
      lines({
        title: "Accounts",
        about: "primer_users",
        unit: "short",
        stacked: true,
        queries: { "{{status}}": `max by (status) (${of("primer_users")})` },
      }),
      lines({
        title: "Sign-ins and refreshes per hour",
        about: "primer_tokens_issued_total",
        unit: "short",
        queries: { "{{grant}}": perHour(of("primer_tokens_issued_total"), "by (grant) ") },
      }),
      lines({
        title: "What people do, per hour",
        about: "http_server_request_duration_seconds",
        unit: "short",
        queries: {
          registrations: calls("POST", "/api/v1/auth/register"),
          "passwords forgotten": calls("POST", "/api/v1/auth/forgot-password"),
          "passwords changed": calls("PATCH", "/api/v1/users/me/password"),
          logouts: calls("POST", "/api/v1/auth/logout"),
        },
      }),
      lines({
        title: "Mails per hour",
        about: "primer_mails_total",
        alerts: ["MailsNotSent"],
        unit: "short",
        queries: { "{{outcome}}": perHour(of("primer_mails_total"), "by (outcome) ") },
      }),
    ],
  });
