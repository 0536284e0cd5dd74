import { chosen, dashboard, WINDOW } from "../dashboard.ts";
import { lines, tile } from "../panels.ts";
import { overALimit, perMinute } from "../shared-panels.ts";

const { of, buckets } = chosen;
const signIns = of("primer_sign_ins_total");
const failures = of("primer_sign_ins_total", { outcome: "failure" });
const refused = of("primer_tokens_verified_total", { outcome: "refused" });

export const authentication = () =>
  dashboard({
    uid: "primer-authentication",
    title: "Authentication",
    description: "Who signs in, who is refused and why, and what tokens are worth.",
    panels: [
      tile({
        title: "Sign-ins",
        about: "primer_sign_ins_total",
        unit: "short",
        decimals: 0,
        query: `sum(increase(${of("primer_sign_ins_total", { outcome: "success" })}[$__range]))`,
      }),
      tile({
        title: "Refused",
        about: "primer_sign_ins_total",
        unit: "short",
        decimals: 0,
        query: `sum(increase(${failures}[$__range]))`,
      }),
      tile({
        title: "Share refused (15 min)",
        about: "primer_sign_ins_total",
        alerts: ["SignInFailures"],
        unit: "percentunit",
        worry: [0.05, 0.1],
        query: `sum(increase(${failures}[15m])) / sum(increase(${signIns}[15m]))`,
      }),
      tile({
        title: "Tokens issued",
        about: "primer_tokens_issued_total",
        unit: "short",
        decimals: 0,
        query: `sum(increase(${of("primer_tokens_issued_total")}[$__range]))`,
      }),
      tile({
        title: "Tokens refused (10 min)",
        about: "primer_tokens_verified_total",
        alerts: ["TokenFailures"],
        unit: "percentunit",
        worry: [0.05, 0.1],
        query: `sum(increase(${refused}[10m])) / sum(increase(${of("primer_tokens_verified_total")}[10m]))`,
      }),
      tile({
        title: "Refresh tokens reused",
        about: "primer_refreshes_total",
        alerts: ["RefreshTokensReused"],
        unit: "short",
        decimals: 0,
        worry: [1, 6],
        query: `sum(increase(${of("primer_refreshes_total", { outcome: "reused" })}[$__range]))`,
      }),
      lines({
        title: "Sign-ins",
        about: "primer_sign_ins_total",
        unit: "opm",
        queries: { "{{outcome}}": perMinute(signIns, "outcome") },
      }),
      lines({
        title: "Refused sign-ins by reason",
        about: "primer_sign_ins_total",
        alerts: ["SignInFailures"],
        unit: "opm",
        stacked: true,
        queries: { "{{reason}}": perMinute(failures, "reason") },
      }),
      lines({
        title: "Tokens issued",
        about: "primer_tokens_issued_total",
        unit: "opm",
        stacked: true,
        queries: { "{{grant}}": perMinute(of("primer_tokens_issued_total"), "grant") },
      }),
      lines({
        title: "Refreshes",
        about: "primer_refreshes_total",
        alerts: ["RefreshTokensReused"],
        unit: "opm",
        queries: { "{{outcome}}": perMinute(of("primer_refreshes_total"), "outcome") },
      }),
      lines({
        title: "Tokens shown",
        about: "primer_tokens_verified_total",
        alerts: ["TokenFailures"],
        unit: "opm",
        queries: { "{{issuer}}, {{outcome}}": perMinute(of("primer_tokens_verified_total"), "issuer, outcome") },
      }),
      lines({
        title: "Time to verify a token",
        about: "primer_token_verification_duration_seconds",
        unit: "s",
        queries: Object.fromEntries(
          [0.5, 0.95, 0.99].map((quantile) => [
            `p${quantile * 100}`,
            `histogram_quantile(${quantile}, sum by (le) (rate(${buckets("primer_token_verification_duration_seconds")}[${WINDOW}])))`,
          ]),
        ),
      }),
      lines({
        title: "Password hashes",
        about: "primer_hash_queue",
        alerts: ["LoginsTurnedAway"],
        unit: "short",
        queries: {
          "{{state}}": `sum by (state) (${of("primer_hash_queue", { state: "=~running|waiting|slots" })})`,
        },
      }),
      lines({
        title: "Wait for a password hash (p95)",
        about: "primer_hash_wait_seconds",
        unit: "s",
        queries: {
          "{{line}}": `histogram_quantile(0.95, sum by (line, le) (rate(${buckets("primer_hash_wait_seconds")}[${WINDOW}])))`,
        },
      }),
      overALimit(),
      lines({
        title: "Unusual sign-ins",
        about: "primer_unusual_sign_ins_total",
        unit: "opm",
        stacked: true,
        queries: {
          "{{signal}}": perMinute(of("primer_unusual_sign_ins_total"), "signal"),
          "hour of one {{of}}: {{signal}}": perMinute(of("primer_unusual_hours_total"), "of, signal"),
        },
      }),
      lines({
        title: "Refused, from bad networks",
        about: "primer_threats_refused_total",
        unit: "opm",
        stacked: true,
        queries: { "{{action}}": perMinute(of("primer_threats_refused_total"), "action") },
      }),
      lines({
        title: "Passwords that were not looked at",
        about: "primer_hashes_refused_total",
        alerts: ["LoginsTurnedAway"],
        unit: "opm",
        queries: { refused: `60 * sum(rate(${of("primer_hashes_refused_total")}[${WINDOW}]))` },
      }),
    ],
  });
